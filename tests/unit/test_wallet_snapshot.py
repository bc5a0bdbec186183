"""A state that comes back from its rows is the state, down to what the next transaction is told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.faults import two_roots
from tests.fixtures.wallet import FEE, PureLedger, did
from wallet.errors import LedgerCorruptError
from wallet.snapshot import archive_key, archived, changes, restore
from wallet.state import REMEMBER_MS, State
from wallet.transactions import (
    Arbitration,
    Capture,
    Dispute,
    Expire,
    Grant,
    Hold,
    PolicySet,
    Release,
    Slash,
    Stake,
    Transfer,
    Unstake,
)

Rows = dict[bytes, bytes]


@pytest.fixture
def busy(pure: PureLedger) -> PureLedger:
    """Return a ledger that has something of everything."""
    for name in ("amina", "brahim", "chadia"):
        pure.fund(name, 100_000)
    grant = {
        "key": did("agent"),
        "budget": "50000",
        "per_tx": "20000",
        "payees": (did("brahim"), did("chadia")),
        "types": ("hold", "transfer"),
        "expires": pure.now + 3_600_000,
    }
    assert pure.do(Grant, "amina", **grant).outcome == "logged"
    court = Arbitration(arbiter=did("chadia"), window_ms=30_000, payee_share=5_000)
    pure.open_hold(Hold, "amina", "brahim", 1_000, signed_by="agent")
    disputed = pure.open_hold(Hold, "amina", "brahim", 2_000, arbitration=court)
    released = pure.open_hold(Hold, "amina", "brahim", 3_000)
    for form, by, words in [
        (Transfer, "amina", {"to": did("brahim"), "amount": "7", "lane": 3, "seq": 1}),
        (Dispute, "amina", {"hold": disputed}),
        (Release, "brahim", {"hold": released, "forfeit": "0", "fee": "0"}),
        (Stake, "brahim", {"amount": "9000"}),
        (Unstake, "brahim", {"amount": "4000"}),
        (Slash, "chadia", {"offender": did("brahim"), "evidence": two_roots("brahim")}),
        (PolicySet, "chadia", {"keys": (did("agent"),), "threshold": 1}),
    ]:
        assert pure.do(form, by, **words).outcome == "logged", form
    return pure


def rows_of(state: State) -> Rows:
    return {key: row for key, row in changes(state, [*state.accounts]).items() if row is not None}


def copy(pure: PureLedger, rows: Rows) -> State:
    return restore(pure.genesis, sorted(rows.items()))


def looks(state: State) -> Any:
    """Return everything that a state is, but the order in which it came to know it."""
    accounts = [
        (account.id, account.position, account.leaf(), account.held, account.staked, account.last)
        for account in state.accounts.values()
    ]
    rights = [
        (account.policy, account.pending, account.salts, sorted(account.unbonding))
        for account in state.accounts.values()
    ]
    holds = {
        hold.id: (hold.rest, hold.status, hold.due, hold.ended, hold.captured, hold.bail)
        for hold in state.holds.values()
    }
    contested = {
        hold.id: (hold.recourse, hold.retained, hold.deadline, hold.receipt, hold.part, hold.parts)
        for hold in state.holds.values()
    }
    sums = (state.total, state.held, state.escrowed, state.bonded, state.open_holds, state.issued)
    return accounts, rights, holds, contested, sums, state.faults, state.epochs, state.log_time


def test_a_restored_state_is_the_state(busy: PureLedger) -> None:
    before = looks(busy.state)
    rows = rows_of(busy.state)
    again = copy(busy, rows)
    assert looks(again) == before
    assert looks(copy(busy, rows | rows_of(again))) == before
    assert again.deadlines.next() == busy.state.deadlines.next()


def test_both_say_the_same_from_then_on(busy: PureLedger) -> None:
    again = copy(busy, rows_of(busy.state))
    hold = next(hold for hold in again.holds.values() if hold.session is not None)
    steps: list[tuple[type[Any], str, dict[str, Any]]] = [
        (Capture, "brahim", {"hold": hold.id, "amount": "400", "final": True, "receipt": None}),
        (Transfer, "amina", {"signed_by": "agent", "to": did("brahim"), "amount": "20000"}),
        (Transfer, "amina", {"signed_by": "agent", "to": did("brahim"), "amount": "19000"}),
        (Transfer, "amina", {"to": did("brahim"), "amount": "1", "lane": 3, "seq": 1}),
        (Transfer, "amina", {"to": did("brahim"), "amount": "1", "lane": 3, "seq": 2}),
        (Slash, "chadia", {"offender": did("brahim"), "evidence": two_roots("brahim")}),
    ]
    told = []
    for form, by, words in steps:
        raw = busy.sign(form, by, **words)
        first, _ = busy.apply(raw)
        original, busy.state = busy.state, again
        second, _ = busy.apply(raw)
        busy.state = original
        assert first == second
        told.append(first.code or first.outcome)
    assert told == [
        "logged",
        "out_of_scope",
        "logged",
        "nonce_conflict",
        "logged",
        "evidence_used",
    ]
    assert looks(again) == looks(busy.state)


def test_only_what_changed_is_written_again(busy: PureLedger) -> None:
    rows = rows_of(busy.state)
    busy.state.touched.clear()
    words = {"to": did("chadia"), "amount": "5"}
    assert busy.do(Transfer, "brahim", **words).outcome == "logged"
    more = changes(busy.state, busy.state.touched)
    kinds = sorted(key[:1] for key in more)
    assert kinds == [b"a", b"a", b"a", b"m"]
    rows.update({key: row for key, row in more.items() if row is not None})
    assert looks(copy(busy, rows)) == looks(busy.state)


def test_what_memory_forgets_is_found_in_the_archive(busy: PureLedger) -> None:
    rows = rows_of(busy.state)
    (gone,) = [hold for hold in busy.state.holds.values() if hold.resolved]
    busy.now += REMEMBER_MS + 1
    busy.state.advance(busy.now)
    more = changes(busy.state, [])
    row = more[archive_key(gone.id)]
    assert row is not None
    assert archived(row).status == "released"
    assert gone.id not in busy.state.holds
    assert [key for key, value in more.items() if value is None] == [b"h" + bytes.fromhex(gone.id)]
    assert rows


def test_a_session_that_was_replaced_gets_nothing_back(busy: PureLedger) -> None:
    """The hold was opened in a session that another grant replaced since."""
    grant = {
        "key": did("agent"),
        "budget": "5000",
        "per_tx": "5000",
        "payees": None,
        "types": ("transfer",),
        "expires": busy.now + 3_600_000,
    }
    hold = next(hold for hold in busy.state.holds.values() if hold.session is not None)
    rows = rows_of(busy.state)
    busy.state.touched.clear()
    assert busy.do(Grant, "amina", **grant).outcome == "logged"
    more = changes(busy.state, busy.state.touched)
    rows.update({key: row for key, row in more.items() if row is not None})
    busy.state = copy(busy, rows)
    busy.now = hold.expires
    assert busy.do(Expire, "brahim", subject=hold.id, fee="0").outcome == "logged"
    assert busy.state.accounts[did("amina")].sessions[did("agent")].spent == 0


@pytest.mark.parametrize("kind", [b"a", b"h", b"f", b"m"])
def test_a_damaged_row_is_noticed(busy: PureLedger, kind: bytes) -> None:
    rows = rows_of(busy.state)
    key = next(key for key in rows if key[:1] == kind)
    for place in range(len(rows[key])):
        row = bytearray(rows[key])
        row[place] ^= 4
        with pytest.raises(LedgerCorruptError):
            copy(busy, rows | {key: bytes(row)})


def test_a_missing_row_is_noticed_by_the_sums_or_the_positions(busy: PureLedger) -> None:
    rows = rows_of(busy.state)
    accounts = [key for key in rows if key[:1] == b"a"]
    live = [b"h" + bytes.fromhex(h.id) for h in busy.state.holds.values() if not h.resolved]
    for key in [*accounts, *live]:
        if key == accounts[-1]:
            continue  # nobody comes after it: the state root tells, see the recovery
        less = {other: row for other, row in rows.items() if other != key}
        with pytest.raises(LedgerCorruptError):
            copy(busy, less)
    with pytest.raises(LedgerCorruptError):
        copy(busy, rows | {b"q": b"?"})
    assert FEE
