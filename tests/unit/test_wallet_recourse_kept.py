"""Where a challenge stands survives a snapshot and a replay, and goes on to the same end."""

from __future__ import annotations

from typing import Any

import pytest

from rahba.encoding import b64, sha256_hex, unb64
from tests.fixtures.faults import receipt
from tests.fixtures.wallet import DEAL, FEE, PureLedger, did
from tests.unit.test_wallet_bail import bail_of
from tests.unit.test_wallet_recourse import ANSWER_MS, MINE, RECOURSE, WINDOW_MS, deliver
from tests.unit.test_wallet_replay import Writer, replayed
from tests.unit.test_wallet_snapshot import copy, looks, rows_of
from wallet.holds import free_due
from wallet.snapshot import archive_key, archived, changes
from wallet.state import REMEMBER_MS
from wallet.transactions import Capture, Challenge, Deliver, Expire, Faucet, Grant, Hold, Release

FIRST = ("retained", "challenged", "partly delivered")
Step = tuple[type[Any], str, dict[str, Any]]


@pytest.fixture(params=FIRST)
def midway(pure: PureLedger, request: pytest.FixtureRequest) -> str:
    """Return a hold with a bail, out of a session, that is as far as that."""
    pure.fund("amina", 50_000)
    pure.fund("brahim", 5_000)
    grant = {
        "key": did("agent"),
        "budget": "40000",
        "per_tx": "20000",
        "payees": None,
        "types": ("hold", "challenge"),
        "expires": pure.now + 3_600_000,
    }
    assert pure.do(Grant, "amina", **grant).outcome == "logged"
    put_up = bail_of(pure, buyer=did("agent"))
    words = {"bail": put_up, "recourse": RECOURSE, "signed_by": "agent"}
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, **words)
    for step in begun(hold)[: FIRST.index(request.param) + 1]:
        assert told(pure, step) == "logged"
        pure.now += 1_000
    return hold


def begun(hold: str) -> list[Step]:
    named = sha256_hex(unb64(MINE))
    taken = {"hold": hold, "amount": "5500", "final": True, "receipt": named}
    part = {"hold": hold, "receipt": MINE, "part": 1, "parts": 2, "output": "AAAA", "fee": "0"}
    return [
        (Capture, "brahim", taken),
        (Challenge, "amina", {"hold": hold}),
        (Deliver, "brahim", part),
    ]


def told(pure: PureLedger, step: Step) -> str:
    form, by, words = step
    outcome = pure.do(form, by, **words)
    return outcome.code or outcome.outcome


def test_a_restored_state_stands_where_it_stood(pure: PureLedger, midway: str) -> None:
    before = looks(pure.state)
    rows = rows_of(pure.state)
    again = copy(pure, rows)
    assert looks(again) == before
    assert looks(copy(pure, rows | rows_of(again))) == before
    assert again.deadlines.next() == pure.state.deadlines.next()
    hold, session = again.holds[midway], again.accounts[did("amina")].sessions[did("agent")]
    assert hold.session is session
    assert hold.retained == 5_500 - FEE


ENDS: dict[str, list[tuple[int, type[Any], dict[str, Any]]]] = {
    "time": [(WINDOW_MS + 5_000, Faucet, {"amount": "5000"})],
    "challenge": [(0, Challenge, {}), (ANSWER_MS, Expire, {})],
    "lie": [(0, Deliver, {"receipt": receipt("brahim", "b")}), (ANSWER_MS, Expire, {})],
    "late": [(ANSWER_MS, Deliver, {"receipt": MINE}), (0, Expire, {})],
    "answer": [(0, Challenge, {}), (5, Deliver, {"part": 1}), (5, Deliver, {"part": 2})],
    "no giving in": [(0, Challenge, {}), (5, Release, {"forfeit": "200"}), (ANSWER_MS, Expire, {})],
    "too early": [(0, Challenge, {}), (5, Expire, {})],
}


@pytest.mark.parametrize("end", ENDS)
def test_both_go_on_to_the_same_end(pure: PureLedger, midway: str, end: str) -> None:
    rows = rows_of(pure.state)
    again = copy(pure, rows)
    for after_ms, form, more in ENDS[end]:
        pure.now += after_ms
        words = {"fee": "0"} if form in {Deliver, Expire, Release} else {}
        words |= {"subject": midway} if form is Expire else {"hold": midway}
        if form is Deliver:
            words |= {"receipt": MINE, "part": 2, "parts": 2, "output": "AAAA"}
        if form is Faucet:
            del words["hold"]
        by = {Challenge: "amina", Expire: "operator", Faucet: "chadia"}.get(form, "brahim")
        raw = pure.sign(form, by, **(words | more))
        first, _ = pure.apply(raw)
        original, pure.state = pure.state, again
        second, _ = pure.apply(raw)
        again, pure.state = pure.state, original
        assert first == second
        assert looks(again) == looks(pure.state)
        for name in ("amina", "brahim"):
            assert again.available(did(name)) == pure.available(name)
        sessions = [state.accounts[did("amina")].sessions for state in (again, pure.state)]
        assert sessions[0][did("agent")].spent == sessions[1][did("agent")].spent
    assert looks(copy(pure, rows | rows_of(pure.state))) == looks(pure.state)


def test_only_the_payees_account_and_the_hold_change_when_time_frees_it(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, recourse=RECOURSE)
    assert told(pure, begun(hold)[0]) == "logged"
    rows = rows_of(pure.state)
    pure.state.touched.clear()
    free_due(pure.state, pure.now + WINDOW_MS)
    assert pure.state.touched == {did("brahim")}
    more = changes(pure.state, pure.state.touched)
    assert sorted(key[:1] for key in more) == [b"a", b"h", b"m"]
    rows |= {key: row for key, row in more.items() if row is not None}
    assert looks(copy(pure, rows)) == looks(pure.state)


@pytest.mark.parametrize("challenged", [True, False])
def test_a_hold_is_remembered_for_an_hour_after_nobody_can_challenge_it(
    pure: PureLedger, challenged: bool
) -> None:
    pure.fund("amina", 20_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, recourse=RECOURSE)
    assert told(pure, begun(hold)[0]) == "logged"
    ended = pure.now + (0 if challenged else WINDOW_MS)
    if challenged:
        assert told(pure, begun(hold)[1]) == "logged"
        assert deliver(pure, hold).outcome == "logged"
    free_due(pure.state, ended + REMEMBER_MS)
    pure.state.advance(ended + REMEMBER_MS)
    assert archive_key(hold) not in changes(pure.state, [])
    pure.state.advance(ended + REMEMBER_MS + 1)
    row = changes(pure.state, [])[archive_key(hold)]
    assert row is not None
    gone = archived(row)
    assert (gone.status, gone.ended, gone.recourse) == ("captured", ended, RECOURSE)
    assert (gone.part, gone.parts) == ((1, 1) if challenged else (0, 0))


@pytest.mark.parametrize("answered", [True, False])
def test_a_log_with_a_challenge_replays_to_its_own_end(pure: PureLedger, answered: bool) -> None:
    """Each step in an interval of its own; a replay frees what is retained by the same times."""
    writer = Writer(pure)
    for name in ("amina", "brahim"):
        writer.add(pure.sign(Faucet, name, amount="50000"))
    fields = {"payee": did("brahim"), "amount": "6000", "agreement": DEAL, "recourse": RECOURSE}
    fields |= {"arbitration": None, "bail": None}
    holds = [
        writer.add(pure.sign(Hold, "amina", expires=pure.now + 60_000, **fields)) for _ in range(2)
    ]
    for hold in holds:
        form, by, words = begun(hold)[0]
        writer.add(pure.sign(form, by, **words))
    writer.close()
    pure.now += WINDOW_MS - 1
    assert replayed(writer.leaves).book.state.available(did("brahim")) == 49_000
    for form, by, words in begun(holds[0])[1:]:
        writer.add(pure.sign(form, by, **words))
        writer.close()
    pure.now += 1
    writer.add(pure.sign(Faucet, "chadia", amount="5000"))
    writer.close()
    pure.now += ANSWER_MS - 2
    if answered:
        last = begun(holds[0])[2][2] | {"part": 2, "output": b64(b"the end")}
        writer.add(pure.sign(Deliver, "brahim", **last))
    else:
        pure.now += 1
        writer.add(pure.sign(Expire, "chadia", subject=holds[0], fee="0"))
    writer.close()
    again, book = replayed(writer.leaves).book, writer.book
    assert (again.tree.root(), again.log.root()) == (book.tree.root(), book.log.root())
    assert looks(again.state) == looks(book.state)
    assert [again.state.holds[hold].status for hold in holds] == [
        "captured" if answered else "released",
        "captured",
    ]
    assert again.state.available(did("brahim")) == 49_000 + (9_000 if answered else 3_500)
    assert again.state.held == 0
