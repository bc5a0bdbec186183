"""The ledger's views as JSON: one shape for the ledger's own HTTP, the gateway and their clients.

* Amounts are strings of integers in fals, bytes are base64, lanes are keyed by their number.
* ``encode`` writes any view; ``read`` gives back the same view, or refuses.

    >>> from wallet.ports import AccountView
    >>> read(encode(AccountView("fees", 5, 0)), AccountView)
    AccountView(id='fees', posted=5, held=0, lanes={}, position=0, staked=0, keys=(), threshold=1)
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
import orjson

from rahba.balance import AccountProof
from rahba.encoding import Json
from rahba.errors import RemoteError
from rahba.proof import InclusionProof
from wallet.ports import AccountView, Answer, HoldView, SupplyView, TxView

View = AccountView | AccountProof | HoldView | SupplyView | TxView | InclusionProof | Answer
T = TypeVar("T")

_AMOUNTS: Final[dict[type, tuple[str, ...]]] = {
    AccountView: ("posted", "held", "staked"),
    HoldView: ("amount", "captured", "bail"),
    AccountProof: ("balance",),
    SupplyView: ("issued", "total", "held"),
}


class LedgerAnswerError(RemoteError):
    """The ledger, or whatever stands before it, answered with something it must not."""

    code = "bad_ledger_answer"


def plain(view: View) -> dict[str, Json]:
    """Return a view as JSON builtins."""
    fields: dict[str, Json] = msgspec.to_builtins(view, str_keys=True)
    for name in _AMOUNTS.get(type(view), ()):
        fields[name] = str(fields[name])
    if isinstance(view, AccountView):
        fields["available"] = str(view.available)
    elif isinstance(view, SupplyView):
        fields["equal"] = view.equal
    return fields


def encode(view: View) -> bytes:
    """Write one view as JSON."""
    return orjson.dumps(plain(view))


def encode_all(views: list[Answer] | list[TxView] | list[HoldView | None]) -> bytes:
    """Write several views as a JSON array, null for what is not there."""
    return orjson.dumps([None if view is None else plain(view) for view in views])


def encode_answers(answers: list[Answer]) -> bytes:
    """Write answers as a JSON array: the hot path, their fields are plain already."""
    return msgspec.json.encode(answers)


def read(raw: bytes, form: type[T]) -> T:
    """Read a view, or a list of views, from JSON.

    Raises:
        LedgerAnswerError: not of that form.
    """
    try:
        return msgspec.json.decode(raw, type=form, strict=False)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LedgerAnswerError(f"not the answer of a ledger: {error}") from error
