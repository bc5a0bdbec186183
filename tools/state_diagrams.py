"""Writes docs/ledger-states.md: the diagrams and the table of transactions, from the code's tables.

python tools/state_diagrams.py > docs/ledger-states.md
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from wallet.effects import COMPILERS, NEEDS_NO_FEE
from wallet.moves import ENDS, HOLD, STAKE
from wallet.state import Status
from wallet.transactions import AnyTx, Tx

HEAD = """# What the ledger does, drawn from its tables

Written by `tools/state_diagrams.py` from `wallet/moves.py` and `wallet/transactions.py`; a test
keeps it true.
"""


def tag(kind: type[Tx]) -> str:
    """Return the name of a type in the log."""
    return str(kind.__struct_config__.tag)


def hold_diagram() -> str:
    """Return the life of a hold as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> open: hold"]
    for status in get_args(Status):
        reached: dict[str, list[str]] = {}
        for kind, there in HOLD[status].items():
            for to in there if isinstance(there, tuple) else ():
                reached.setdefault(to, []).append(tag(kind))
        lines += [f"    {status} --> {to}: {', '.join(kinds)}" for to, kinds in reached.items()]
    lines += [f"    {end} --> [*]" for end in ENDS]
    return "\n".join(lines)


def stake_diagram() -> str:
    """Return the way of money into a bond and out of it."""
    lines = ["stateDiagram-v2", "    [*] --> available"]
    for state, moves in STAKE.items():
        lines += [f"    {state} --> {to}: {tag(kind)}" for kind, to in moves.items()]
    return "\n".join([*lines, "    seized --> [*]"])


def refusals() -> str:
    """Return what each type is told at each status of a hold."""
    kinds = list(HOLD["open"])
    lines = [
        "| the hold is | " + " | ".join(f"`{tag(kind)}`" for kind in kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for status, moves in HOLD.items():
        told = [
            " or ".join(there) if isinstance(there, tuple) else f"`{there.code}`"
            for there in moves.values()
        ]
        lines.append(f"| {status} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def transactions() -> str:
    """Return every type with its fields and what its class says of it."""
    shared = set(Tx.__struct_fields__)
    lines = ["| type | fields | what it does | fee |", "|---|---|---|---|"]
    for kind in get_args(AnyTx):
        assert kind in COMPILERS
        fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__ if name not in shared)
        said = " ".join((inspect.getdoc(kind) or "").split())
        fee = "none needed" if kind in NEEDS_NO_FEE else "flat"
        lines.append(f"| `{tag(kind)}` | {fields} | {said} | {fee} |")
    return "\n".join(lines)


def document() -> str:
    """Return the whole page."""
    parts = [
        HEAD,
        "## Transactions\n\n" + transactions(),
        "## The life of a hold\n\n```mermaid\n" + hold_diagram() + "\n```",
        refusals(),
        "## The way into a bond and out of it\n\n```mermaid\n" + stake_diagram() + "\n```",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
