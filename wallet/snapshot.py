"""The state as rows, so that a start need not replay the log from its beginning.

* :func:`changes` gives the rows of what changed since it was asked last, :func:`restore` makes the
  state of all rows. One row an account (by position), a live hold, a punished fault; one for the
  rest. What is forgotten in memory goes to the archive, where :func:`archived` finds it.
* A row is MessagePack and the CRC-32 of that. A snapshot is a copy that saves time: the log stays
  the truth. Whoever restores one compares it with the state leaf at its end (balances, nonces,
  histories) and the sums with each other; what does not fit is not used.

    state = restore(genesis, rows)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

from rahba.balance import ISSUANCE
from wallet.errors import LedgerCorruptError
from wallet.holds import forget_holds, put_hold
from wallet.state import FEES, Account, Escrow, Issue, State, Status
from wallet.transactions import Arbitration, Genesis, Recourse

T = TypeVar("T")
_CRC_BYTES: Final = 4
_ACCOUNT, _FAULT, _HOLD, _REST, _ARCHIVED = b"a", b"f", b"h", b"m", b"r"


class _Rest(msgspec.Struct, array_like=True):
    """What is neither an account nor a hold."""

    log_time: int
    epochs: dict[Issue, tuple[int, int]]


class _Hold(msgspec.Struct, array_like=True):
    """A hold; its session is named by account and grant."""

    id: str
    payer: str
    payee: str
    amount: int
    expires: int
    agreement: str
    arbitration: Arbitration | None
    captured: int
    status: Status
    deadline: int
    ended: int
    session: tuple[str, str] | None
    bail: int = 0
    recourse: Recourse | None = None
    retained: int = 0
    receipt: str | None = None
    part: int = 0
    parts: int = 0
    buyer: str = ""


def changes(state: State, accounts: Iterable[str]) -> dict[bytes, bytes | None]:
    """Return the rows of ``accounts`` and of all else that changed, and forget that it did."""
    rows: dict[bytes, bytes | None] = {
        _account_key(account): _pack(account)
        for account in map(state.accounts.__getitem__, accounts)
    }
    for subject in state.dirty:
        if subject in state.faults:
            rows[_FAULT + bytes.fromhex(subject)] = _pack(None)
        elif (hold := state.holds.get(subject)) is not None:
            rows[_HOLD + bytes.fromhex(subject)] = _pack(_of_hold(hold, state))
    state.dirty.clear()
    for hold in forget_holds(state):
        name = bytes.fromhex(hold.id)
        rows[_HOLD + name] = None
        rows[_ARCHIVED + name] = _pack(_of_hold(hold, state))
    rows[_REST] = _pack(_Rest(state.log_time, state.epochs))
    return rows


def archive_key(hold_id: str) -> bytes:
    """Return where a hold is that was forgotten in memory."""
    return _ARCHIVED + bytes.fromhex(hold_id)


def archived(row: bytes) -> Escrow:
    """Read a hold from the archive."""
    return _to_hold(_unpack(row, _Hold), None)


def restore(genesis: Genesis, rows: Iterable[tuple[bytes, bytes]]) -> State:
    """Return the state that all rows of a snapshot describe.

    Raises:
        LedgerCorruptError: a row is damaged or missing, or the sums do not fit each other.
    """
    state = State(genesis)
    for key, row in rows:
        kind = key[:1]
        if kind == _ACCOUNT:
            account = _unpack(row, Account)
            if _account_key(account) != key or account.position != _expected(state, account):
                raise LedgerCorruptError("a snapshot lacks an account")
            state.put_account(account)
        elif kind == _HOLD:
            hold = _unpack(row, _Hold)
            put_hold(state, _to_hold(hold, state))
        elif kind == _FAULT:
            _unpack(row, type(None))
            state.faults.add(key[1:].hex())
        elif key == _REST:
            rest = _unpack(row, _Rest)
            state.log_time, state.epochs = rest.log_time, rest.epochs
        else:
            raise LedgerCorruptError("a snapshot has a row of no known kind")
    if state.issued != state.total or state.held != state.escrowed + state.bonded:
        raise LedgerCorruptError("the sums of a snapshot do not fit each other")
    state.touched.clear()
    return state


def _account_key(account: Account) -> bytes:
    return _ACCOUNT + account.position.to_bytes(4, "big")


def _expected(state: State, account: Account) -> int:
    known = (ISSUANCE, FEES)
    return known.index(account.id) if account.id in known else len(state.accounts)


def _of_hold(hold: Escrow, state: State) -> _Hold:
    """A session that was replaced or ended since is no longer anybody's concern."""
    session = hold.session
    mine = state.accounts[hold.payer].sessions if session is not None else {}
    current = session is not None and mine.get(session.key) is session
    return _Hold(
        hold.id,
        hold.payer,
        hold.payee,
        hold.amount,
        hold.expires,
        hold.agreement,
        hold.arbitration,
        hold.captured,
        hold.status,
        hold.deadline,
        hold.ended,
        (session.key, session.grant) if session is not None and current else None,
        hold.bail,
        hold.recourse,
        hold.retained,
        hold.receipt,
        hold.part,
        hold.parts,
        hold.buyer,
    )


def _to_hold(row: _Hold, state: State | None) -> Escrow:
    session = None
    if row.session is not None and state is not None:
        key, grant = row.session
        found = state.accounts[row.payer].sessions.get(key)
        session = found if found is not None and found.grant == grant else None
    return Escrow(
        row.id,
        row.payer,
        row.payee,
        row.amount,
        row.expires,
        row.agreement,
        session,
        row.arbitration,
        row.captured,
        row.status,
        row.deadline,
        row.ended,
        row.bail,
        row.recourse,
        row.retained,
        row.receipt,
        row.part,
        row.parts,
        row.buyer,
    )


def _pack(value: Any) -> bytes:
    raw = msgspec.msgpack.encode(value)
    return raw + zlib.crc32(raw).to_bytes(_CRC_BYTES, "big")


def _unpack(row: bytes, form: type[T]) -> T:
    raw = row[:-_CRC_BYTES]
    try:
        if zlib.crc32(raw).to_bytes(_CRC_BYTES, "big") != row[-_CRC_BYTES:]:
            raise LedgerCorruptError("a row of a snapshot is damaged")
        return msgspec.msgpack.decode(raw, type=form)
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError) as error:
        raise LedgerCorruptError(f"a row of a snapshot is damaged: {error}") from error
