"""The ledger's views as JSON: one shape for the ledger's own HTTP, the gateway and their clients.

* Amounts are strings of integers in fals, bytes are base64, lanes are keyed by their number.
* ``encode`` writes any view; ``read`` gives back the same view, or refuses.

    >>> from wallet.ports import AccountView
    >>> read(encode(AccountView("fees", 5, 0)), AccountView)
    AccountView(id='fees', posted=5, held=0, lanes={}, position=0, staked=0, keys=(), threshold=1)
"""

from __future__ import annotations

from typing import Final, TypeVar, cast

import msgspec
import orjson

from rahba.balance import AccountProof
from rahba.encoding import Json
from rahba.errors import BadEncodingError, RemoteError, TooLargeError
from rahba.ids import check_digest
from rahba.proof import InclusionProof
from wallet.ports import AccountView, Answer, HoldView, SupplyView, TxView
from wallet.transactions import Recourse, payload_bytes

View = AccountView | AccountProof | HoldView | SupplyView | TxView | InclusionProof | Answer
T = TypeVar("T")

MAX_HOLDS: Final = 50

_AMOUNTS: Final[dict[type, tuple[str, ...]]] = {
    AccountView: ("posted", "held", "staked"),
    HoldView: ("amount", "captured", "bail"),
    AccountProof: ("balance",),
    SupplyView: ("issued", "total", "held"),
}


class _Entry(msgspec.Struct, gc=False):
    """A ``TxView`` as it is written."""

    id: str
    seq: int
    raw: bytes
    log_time: int
    payload: msgspec.Raw


class _Hold(msgspec.Struct, gc=False):
    """A ``HoldView`` as it is written."""

    id: str
    payer: str
    payee: str
    amount: str
    captured: str
    expires_ms: int
    agreement: str
    status: str
    arbiter: str | None
    deadline_ms: int | None
    bail: str
    recourse: Recourse | None
    delivered: int


class LedgerAnswerError(RemoteError):
    """The ledger, or whatever stands before it, answered with something it must not."""

    code = "bad_ledger_answer"


def plain(view: View) -> dict[str, Json]:
    """Return a view as JSON builtins.

    Raises:
        LedgerAnswerError: a transaction that is none.
    """
    fields: dict[str, Json] = msgspec.to_builtins(view, str_keys=True)
    for name in _AMOUNTS.get(type(view), ()):
        fields[name] = str(fields[name])
    if isinstance(view, TxView):
        try:
            fields["payload"] = cast("Json", view.payload)
        except BadEncodingError as error:
            raise LedgerAnswerError("what was shown is no transaction", id=view.id) from error
    elif isinstance(view, AccountView):
        fields["available"] = str(view.available)
    elif isinstance(view, SupplyView):
        fields["equal"] = view.equal
    return fields


def encode(view: View) -> bytes:
    """Write one view as JSON."""
    return orjson.dumps(plain(view))


def encode_theirs(views: list[TxView]) -> bytes:
    """Write entries that another process showed as a JSON array; errors as of :func:`plain`."""
    return orjson.dumps([plain(view) for view in views])


def encode_all(views: list[TxView]) -> bytes:
    """Write one's own entries as a JSON array: what their bytes say is put in as it stands."""
    return msgspec.json.encode(
        [
            _Entry(view.id, view.seq, view.raw, view.log_time, msgspec.Raw(payload_bytes(view.raw)))
            for view in views
        ]
    )


def encode_holds(views: list[HoldView | None]) -> bytes:
    """Write holds as a JSON array, with ``null`` for each that there is not."""
    return msgspec.json.encode([view and _hold_line(view) for view in views])


def _hold_line(view: HoldView) -> _Hold:
    return _Hold(
        view.id,
        view.payer,
        view.payee,
        str(view.amount),
        str(view.captured),
        view.expires_ms,
        view.agreement,
        view.status,
        view.arbiter,
        view.deadline_ms,
        str(view.bail),
        view.recourse,
        view.delivered,
    )


def read_ids(text: str) -> list[str]:
    """Take ids of holds apart that are asked for together, separated by commas.

    Raises:
        TooLargeError: more than ``MAX_HOLDS``.
        BadIdError: one is none.
    """
    ids = text.split(",")
    if len(ids) > MAX_HOLDS:
        raise TooLargeError("too many holds in one request", limit=MAX_HOLDS)
    return [check_digest(one) for one in ids]


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
