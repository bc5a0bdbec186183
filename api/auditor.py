"""The auditor that a market brings along: its key, and the policy that makes the ledger ask it.

One auditor beside its own ledger convinces nobody else. It shows every client what *witnessed*
means, and its line in the policy is where the witnesses of other people go.
"""

from __future__ import annotations

from typing import Final

from api.settings import Settings
from rahba.cosignature import cosigner_key
from rahba.ids import short
from wallet.keys import agent_signer

OPERATOR_KEY: Final = "operator.key"
_HEAD: Final = "# Written at each start; a file that does not begin with this line is left alone.\n"


def witness_name(kind: str, did: str) -> str:
    """Return the name under which a witness signs, unless it is told another."""
    return f"rahba.{kind}/{short(did)}"


def prepare_auditor(settings: Settings) -> str:
    """Make the keys of ledger and auditor and the policy that names it; returns the operator."""
    operator = agent_signer(settings.data_dir / OPERATOR_KEY)
    auditor = agent_signer(settings.data_dir / "witness" / "auditor.key")
    vkey = cosigner_key(witness_name("auditor", auditor.did), auditor.did)
    line = f"witness auditor {vkey} {settings.witness.url}"
    own = settings.data_dir / "policy"
    if settings.policy == own and (not own.exists() or _is_ours(own.read_text("utf-8"))):
        own.write_text(f"{_HEAD}{line}\nquorum auditor\n", "utf-8")
    return operator.did


def _is_ours(text: str) -> bool:
    return text.startswith(_HEAD)
