"""Outcomes out of the log alone: which endings count, and that everybody finds the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rahba.dealings import Outcome
from tests.fixtures.deal_log import DealLog
from tests.fixtures.wallet import FEE, did
from wallet.errors import LedgerCorruptError
from wallet.merkle import MerkleLog
from wallet.outcomes import Frontier, OutcomeLog
from wallet.state import Escrow
from wallet.transactions import Arbitration, Recourse, Stake, Unstake

ARBITRATION = Arbitration(arbiter=did("judge"), window_ms=5_000, payee_share=7_500)
RECOURSE = Recourse(window_ms=12_000, answer_ms=9_000)


@pytest.fixture
def log() -> DealLog:
    return DealLog()


def read_log(log: DealLog) -> tuple[OutcomeLog, list[Outcome]]:
    told: list[Outcome] = []
    found = OutcomeLog(told=told.append)
    for entry in log.entries_:
        found.feed(entry.raw)
    return found, told


def only(log: DealLog) -> Outcome:
    log.close_interval()
    (outcome,) = read_log(log)[1]
    return outcome


def test_a_captured_hold_is_a_kept_deal_with_all_the_fees_paid_on_it(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 900, fee=3 * FEE)
    log.close_interval()
    assert log.capture(hold, "seller", 300, final=False)
    assert log.capture(hold, "seller", 600)
    outcome = only(log)
    assert outcome[:5] == (did("buyer"), did("seller"), 900, 5 * FEE, log.now - 1_000)
    assert outcome.ending == "kept"


def test_a_hold_that_its_payee_lets_run_out_has_lapsed(log: DealLog) -> None:
    hold = log.hold("buyer", "seller")
    log.close_interval(after_ms=60_000)
    assert log.expire(hold)
    outcome = only(log)
    assert (outcome.ending, outcome.amount_fals, outcome.fee_fals) == ("lapsed", 0, FEE)


@pytest.mark.parametrize(("after_ms", "waited"), [(0, 0), (15_000, 250), (59_999, 999)])
def test_a_hold_given_back_tells_how_long_its_payer_waited(
    log: DealLog, after_ms: int, waited: int
) -> None:
    hold = log.hold("buyer", "seller")
    log.close_interval(after_ms)
    assert log.release(hold, "seller")
    outcome = only(log)
    assert (outcome.ending, outcome.waited) == ("given_back", waited)


def test_taking_a_little_of_a_hold_is_giving_it_back(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 1_000)
    log.close_interval()
    assert log.capture(hold, "seller", 499)
    assert only(log).ending == "given_back"


def test_what_was_taken_before_the_hold_ran_out_counts(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 1_000)
    log.close_interval()
    assert log.capture(hold, "seller", 500, final=False)
    log.close_interval(after_ms=60_000)
    assert log.expire(hold)
    outcome = only(log)
    assert (outcome.ending, outcome.amount_fals) == ("kept", 500)


def test_a_hold_over_before_anybody_could_work_says_nothing(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", lasts_ms=4_999)
    log.close_interval(after_ms=5_000)
    assert log.expire(hold)
    assert only(log).ending == "unclear"


def test_an_arbiter_the_payee_never_agreed_to_cannot_make_a_failure_of_it(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 1_000, arbitration=ARBITRATION)
    log.close_interval()
    assert log.dispute(hold, "buyer")
    assert log.resolve(hold, "judge", 0, 1_000)
    outcome = only(log)
    assert (outcome.ending, outcome.fee_fals) == ("unclear", 3 * FEE)


def test_an_arbiter_for_the_payee_makes_a_kept_deal(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 1_000, arbitration=ARBITRATION)
    log.close_interval()
    assert log.dispute(hold, "buyer")
    assert log.resolve(hold, "judge", 600, 400)
    assert only(log)[2:6:3] == (600, "kept")


def test_a_silent_arbiter_leaves_the_share_of_the_hold(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 1_000, arbitration=ARBITRATION)
    log.close_interval()
    assert log.dispute(hold, "seller")
    log.close_interval(after_ms=5_000)
    assert log.expire(hold)
    assert only(log)[2:6:3] == (750, "kept")


def test_a_pledged_hold_that_nobody_spoke_of_again_was_missed(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 1_000, bail=100)
    log.close_interval(after_ms=60_000)
    assert log.expire(hold)
    assert only(log).ending == "missed"


@pytest.mark.parametrize(
    ("forfeit", "ending"), [(100, "forfeited"), (1, "forfeited"), (0, "given_back")]
)
def test_who_forfeits_a_pledge_admits_the_failure(log: DealLog, forfeit: int, ending: str) -> None:
    hold = log.hold("buyer", "seller", 1_000, bail=100)
    log.close_interval(after_ms=30_000)
    assert log.release(hold, "seller", forfeit)
    assert only(log)[5:] == (ending, 500)


@pytest.mark.parametrize(
    ("taken", "ending"), [(100, "unclear"), (99, "given_back"), (101, "given_back"), (600, "kept")]
)
def test_a_buyer_that_leaves_a_deal_and_pays_for_it_makes_no_failure_of_its_seller(
    log: DealLog, taken: int, ending: str
) -> None:
    hold = log.hold("buyer", "seller", 1_000, bail=100)
    log.close_interval()
    assert log.capture(hold, "seller", taken)
    assert only(log).ending == ending


def taken_with_recourse(log: DealLog, taken: int = 5_000, **words: Any) -> str:
    """Return a hold of 5,000 that was captured, as far as its payee says."""
    words = {"recourse": RECOURSE} | words
    hold = log.hold("buyer", "seller", 5_000, **words)
    log.close_interval()
    assert log.capture(hold, "seller", taken)
    return hold


def test_a_retained_capture_is_a_kept_deal_when_nobody_can_challenge_it_any_more(
    log: DealLog,
) -> None:
    taken_with_recourse(log)
    ended = log.now + RECOURSE.window_ms
    log.close_interval(after_ms=RECOURSE.window_ms - 1)
    log.hold("other", "seller")
    log.close_interval(after_ms=2)
    found, told = read_log(log)
    assert (told, found.open_holds) == ([], 2)
    log.hold("other", "seller")
    outcome = only(log)
    assert log.book.state.log_time == ended + 1
    assert outcome[:5] == (did("buyer"), did("seller"), 5_000, 2 * FEE, ended)
    assert (outcome.ending, outcome.waited) == ("kept", 13 * 1_000 // 60)


def test_a_delivery_in_the_log_is_a_kept_deal_at_once(log: DealLog) -> None:
    hold = taken_with_recourse(log)
    log.close_interval()
    assert log.challenge(hold, "buyer")
    assert log.deliver(hold, "seller", 1, 2)
    log.close_interval()
    assert read_log(log)[1] == []
    assert log.deliver(hold, "seller", 2, 2)
    outcome = only(log)
    assert outcome[2:6] == (5_000, 3 * FEE, log.now - 1_000, "kept")
    log.now += 3_600_000
    log.hold("other", "seller")
    log.close_interval()
    assert read_log(log)[1] == [outcome]


@pytest.mark.parametrize("bail", [0, 100])
@pytest.mark.parametrize("lasts_ms", [60_000, 4_999])
def test_a_challenge_that_was_not_answered_is_a_deal_that_was_missed(
    log: DealLog, bail: int, lasts_ms: int
) -> None:
    """Also if the hold was short: who took what was in it had time enough to work."""
    words = {"bail": bail, "lasts_ms": 60_000 if bail else lasts_ms}
    hold = taken_with_recourse(log, **words)
    assert log.challenge(hold, "buyer")
    log.close_interval(after_ms=RECOURSE.answer_ms)
    assert log.expire(hold)
    outcome = only(log)
    assert outcome[2:6] == (0, 3 * FEE, log.now - 1_000, "missed")


@pytest.mark.parametrize(
    ("bail", "forfeit", "ending"),
    [(0, 0, "given_back"), (100, 0, "given_back"), (100, 100, "forfeited"), (100, 1, "forfeited")],
)
def test_who_gives_in_to_a_challenge_got_nothing(
    log: DealLog, bail: int, forfeit: int, ending: str
) -> None:
    hold = taken_with_recourse(log, bail=bail)
    assert log.challenge(hold, "buyer")
    assert log.release(hold, "seller", forfeit)
    assert only(log)[2:6:3] == (0, ending)


@pytest.mark.parametrize(
    ("taken", "bail", "fee", "final"),
    [
        (2_000, 2_000, FEE, True),
        (2_001, 2_000, FEE, False),
        (FEE, 0, FEE, True),
        (FEE + 1, 0, FEE, False),
        (FEE + 1, 0, 5 * FEE, False),  # what is paid above the usual fee hides nothing
    ],
)
def test_what_cannot_be_challenged_has_ended_at_once(
    log: DealLog, taken: int, bail: int, fee: int, final: bool
) -> None:
    hold = log.hold("buyer", "seller", 5_000, bail=bail, recourse=RECOURSE)
    log.close_interval()
    assert log.capture(hold, "seller", taken, fee=fee)
    log.close_interval()
    assert len(read_log(log)[1]) == final
    assert bool(log.challenge(hold, "buyer")) == (not final)


@pytest.mark.parametrize("challenged", [True, False])
def test_sums_that_are_kept_in_the_middle_of_a_challenge_go_on_to_its_end(
    log: DealLog, challenged: bool
) -> None:
    hold = taken_with_recourse(log)
    if challenged:
        assert log.challenge(hold, "buyer")
    log.close_interval(after_ms=RECOURSE.window_ms)
    kept = read_log(log)[0].dump()
    if challenged:
        assert log.expire(hold)
    else:
        log.hold("other", "seller")
    log.close_interval()
    again = OutcomeLog.load(kept)
    for entry in log.entries_[again.size :]:
        again.feed(entry.raw)
    whole, (outcome,) = read_log(log)
    assert again.digest() == whole.digest()
    assert outcome.ending == ("missed" if challenged else "kept")


def test_a_delivery_of_what_was_taken_by_less_than_half_is_giving_it_back(log: DealLog) -> None:
    hold = taken_with_recourse(log, 2_000)
    assert log.challenge(hold, "buyer")
    assert log.deliver(hold, "seller")
    assert only(log)[2:6:3] == (2_000, "given_back")


def test_sums_that_are_kept_know_the_usual_fee(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 5_000, recourse=RECOURSE)
    log.close_interval()
    again = OutcomeLog.load(read_log(log)[0].dump())
    assert log.capture(hold, "seller", FEE)
    log.close_interval()
    for entry in log.entries_[again.size :]:
        again.feed(entry.raw)
    assert again.open_holds == 0


def test_stakes_that_end_are_nobodys_deals(log: DealLog) -> None:
    log.hold("buyer", "seller")
    log.do(Stake, "buyer", amount="50000")
    part = log.do(Unstake, "buyer", amount="50000")
    assert part
    log.close_interval(after_ms=25 * 3_600_000)
    assert log.expire(part)
    log.close_interval()
    found, told = read_log(log)
    assert told == []
    assert found.open_holds == 1


def test_an_interval_that_is_open_is_not_told_yet(log: DealLog) -> None:
    hold = log.hold("buyer", "seller")
    log.close_interval()
    log.capture(hold, "seller")
    log.close_interval()
    found = OutcomeLog()
    for entry in log.entries_[:-1]:
        found.feed(entry.raw)
    assert found.read_size == len(log.entries_) - 1
    assert found.size < found.read_size
    assert not found.dealings.paid_to(did("seller"))
    found.feed(log.entries_[-1].raw)
    assert found.size == found.read_size == len(log.entries_)
    assert found.frontier.root() == log.book.log.root()
    assert found.log_time == log.book.state.log_time


@pytest.mark.parametrize("where", ["nothing", "no genesis", "two"])
def test_what_is_no_log_is_refused_by_its_number(log: DealLog, where: str) -> None:
    log.deal("buyer", "seller")
    raws = [entry.raw for entry in log.entries_]
    wrong = {"nothing": [b"{}"], "no genesis": raws[1:2], "two": [raws[0], raws[0]]}[where]
    found = OutcomeLog()
    for raw in wrong[:-1]:
        found.feed(raw)
    with pytest.raises(LedgerCorruptError) as caught:
        found.feed(wrong[-1])
    assert caught.value.facts["seq"] == len(wrong) - 1


def test_a_log_read_in_pieces_leads_to_what_one_read_whole_leads_to(log: DealLog) -> None:
    for number in range(6):
        log.deal(f"buyer-{number % 3}", "seller")
        log.hold("buyer-1", f"slow-{number}")
        log.close_interval()
    whole, _ = read_log(log)
    for stop in range(1, len(log.entries_), 5):
        first = OutcomeLog()
        for entry in log.entries_[:stop]:
            first.feed(entry.raw)
        again = OutcomeLog.load(first.dump())
        assert again.read_size == first.size
        assert again.vkey == log.vkey
        for entry in log.entries_[again.read_size :]:
            again.feed(entry.raw)
        assert again.digest() == whole.digest()
        assert again.frontier.root() == whole.frontier.root()


def test_kept_sums_that_were_damaged_or_changed_are_refused(log: DealLog) -> None:
    log.deal("buyer", "seller")
    raw = read_log(log)[0].dump()
    assert OutcomeLog.load(raw).size == len(log.entries_)
    for broken in (
        b"",
        raw[:-20],
        raw.replace(b'"format":2', b'"format":1'),
        raw.replace(b'"format":2', b'"format":3'),
        raw.replace(b'"log_time":1', b'"log_time":2'),
        raw.replace(b'"peaks":["', b'"peaks":["00'),
        raw.replace(b'"size":', b'"size":1'),
    ):
        with pytest.raises(LedgerCorruptError):
            OutcomeLog.load(broken)


@given(st.integers(0, 70))
def test_the_frontier_has_the_roots_of_the_whole_tree(size: int) -> None:
    tree, frontier = MerkleLog(), Frontier()
    for number in range(size):
        leaf = bytes([number]) * 32
        tree.append(leaf)
        frontier.append(leaf)
    assert frontier.root() == tree.root()
    assert Frontier(size, list(frontier.peaks)).root() == tree.root()


STEPS = st.tuples(
    st.sampled_from(
        [
            *("hold", "arbitrated", "pledged", "capture", "part", "release", "dispute", "resolve"),
            *("recourse", "recourse", "pledged recourse", "take", "take", "challenge", "challenge"),
            *("deliver", "wait"),
        ]
    ),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 1_000),
)


def step(log: DealLog, holds: list[tuple[str, str]], move: tuple[str, int, int, int]) -> None:
    kind, one, other, amount = move
    hold, payee = holds[amount % len(holds)] if holds else ("0" * 64, "agent-0")
    match kind:
        case "hold" | "arbitrated" | "pledged" | "recourse" | "pledged recourse":
            words: dict[str, Any] = {
                "arbitrated": {"arbitration": ARBITRATION},
                "pledged": {"bail": 50},
                "recourse": {"recourse": RECOURSE},
                "pledged recourse": {"recourse": RECOURSE, "bail": 1_500},
            }
            amount = 4 * amount if "recourse" in kind else amount
            payee = f"agent-{(one + 1 + other % 2) % 3}"
            made = log.hold(f"agent-{one}", payee, amount + 1, **words.get(kind, {}))
            holds += [(made, payee)] if made else []
        case "capture" | "part":
            log.capture(hold, payee, amount, final=kind == "capture")
        case "release":
            log.release(hold, payee, forfeit=20 if one else 0)
        case "dispute":
            log.dispute(hold, payee)
        case "take" | "challenge" | "deliver" if hold in log.book.state.holds:
            contest(log, kind, log.book.state.holds[hold], payee, one)
        case "resolve":
            escrow = log.book.state.holds.get(hold)
            rest = escrow.rest if escrow is not None else 0
            log.resolve(hold, "judge", rest // 2, rest - rest // 2)
        case "wait" if log.book.interval is not None:
            log.close_interval(after_ms=9_000)
            for name, _ in holds:
                log.expire(name)


def contest(log: DealLog, kind: str, escrow: Escrow, payee: str, one: int) -> None:
    if kind == "take":
        log.capture(escrow.id, payee, escrow.amount >> one, fee=FEE + one)
    elif kind == "challenge":
        payer = next(
            name for name in ("agent-0", "agent-1", "agent-2") if did(name) == escrow.payer
        )
        log.challenge(escrow.id, payer)
    else:
        log.deliver(escrow.id, payee, escrow.part + 1, escrow.parts or 1 + one)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS | st.just(("wait", 0, 0, 0)), max_size=40))
def test_what_outcomes_tell_is_what_the_machine_did(steps: list[tuple[str, int, int, int]]) -> None:
    """Compare each outcome with the escrow of the state machine that wrote the log."""
    log, holds = DealLog(), list[tuple[str, str]]()
    for move in steps:
        step(log, holds, move)
    if log.book.interval is not None:
        log.close_interval()
    escrows = [log.book.state.holds[name] for name, _ in holds]
    found, told = read_log(log)
    # What was refused since the last state leaf moved the machine's time on, not the log's.
    ended = [e for e in escrows if e.resolved and not e.retained and e.ended <= found.log_time]
    assert found.open_holds == len(escrows) - len(ended)
    assert sorted((o.payer, o.payee, o.amount_fals, o.ended_ms) for o in told) == sorted(
        (escrow.payer, escrow.payee, escrow.captured, escrow.ended) for escrow in ended
    )
    for outcome in told:
        assert 0 <= outcome.waited <= 1_000
        assert (outcome.ending == "kept") <= (outcome.amount_fals > 0)
