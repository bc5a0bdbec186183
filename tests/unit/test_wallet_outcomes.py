"""Outcomes out of the log alone: which endings count, and that everybody finds the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from rahba.dealings import Dealings, Outcome
from tests.fixtures.deal_log import DealLog
from tests.fixtures.wallet import FEE, did
from wallet.errors import LedgerCorruptError
from wallet.merkle import MerkleLog
from wallet.outcomes import Frontier, OutcomeLog
from wallet.transactions import Arbitration, Recourse, Stake, Unstake

ARBITRATION = Arbitration(arbiter=did("judge"), window_ms=5_000, payee_share=7_500)
RECOURSE = Recourse(window_ms=10_000, answer_ms=20_000)


@pytest.fixture
def log() -> DealLog:
    return DealLog()


class Noted(Dealings):
    """Dealings that note what was the last word on each hold."""

    def __init__(self) -> None:
        super().__init__(0)
        self.noted: list[Outcome] = []

    @override
    def add(self, outcome: Outcome) -> None:
        super().add(outcome)
        self.noted.append(outcome)

    @override
    def take_back(self, outcome: Outcome) -> None:
        super().take_back(outcome)
        self.noted.remove(outcome)


def read_log(log: DealLog) -> tuple[OutcomeLog, list[Outcome]]:
    found, dealings = OutcomeLog(), Noted()
    found.dealings = dealings
    for entry in log.entries_:
        found.feed(entry.raw)
    return found, dealings.noted


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


def taken(log: DealLog, bail: int = 0, **words: Any) -> str:
    """Let the seller take the price of a hold that may be challenged; returns the hold."""
    hold = log.hold("buyer", "seller", 5_000, bail=bail, recourse=RECOURSE, **words)
    assert log.capture(hold, "seller", 5_000)
    log.close_interval()
    return hold


def test_a_capture_is_a_kept_deal_at_once_and_stays_one_if_nobody_challenges_it(
    log: DealLog,
) -> None:
    taken(log)
    found, told = read_log(log)
    assert [(each.ending, each.amount_fals, each.fee_fals) for each in told] == [
        ("kept", 5_000, 2 * FEE)
    ]
    assert found.open_holds == 0
    before = found.dealings.digest()
    log.now += RECOURSE.window_ms
    assert log.hold("other", "seller")
    log.close_interval()
    found, told = read_log(log)
    assert found.dealings.digest() == before
    assert found.open_holds == len(found._holds.holds) == 1


def test_a_challenge_that_is_answered_changes_nothing(log: DealLog) -> None:
    hold = taken(log)
    before = read_log(log)[0].dealings.digest()
    assert log.challenge(hold, "buyer")
    log.close_interval()
    found, _ = read_log(log)
    assert (found.dealings.digest(), found.open_holds) == (before, 1)
    for part in (1, 2):
        assert log.deliver(hold, "seller", part, 2)
        log.close_interval()
    found, _ = read_log(log)
    assert (found.dealings.digest(), found.open_holds) == (before, 0)


@pytest.mark.parametrize(("bail", "lasts_ms"), [(0, 60_000), (500, 60_000), (0, 4_999)])
def test_what_was_taken_and_not_delivered_was_missed_and_never_kept(
    log: DealLog, bail: int, lasts_ms: int
) -> None:
    """Also if the hold was short: who took what was in it had time enough to work."""
    hold = taken(log, bail, lasts_ms=lasts_ms)
    assert log.challenge(hold, "buyer")
    log.close_interval(after_ms=RECOURSE.answer_ms)
    assert log.expire(hold)
    outcome = only(log)
    assert (outcome.ending, outcome.amount_fals) == ("missed", 0)
    found, _ = read_log(log)
    assert found.dealings.tally(did("seller")) == (0, 0)
    pair = found.dealings.paid_to(did("seller"))[did("buyer")]
    assert (pair.kept, pair.deals, pair.failures) == (0, 0, 1)
    assert pair.proven > 0


@pytest.mark.parametrize("price", [5_000, 3_000, 2_001])
def test_who_takes_exactly_the_bail_says_that_its_buyer_left_whatever_the_price(
    log: DealLog, price: int
) -> None:
    """Also if the bail is half the price or more; nobody can tell it from a delivery."""
    hold = log.hold("buyer", "seller", price, bail=2_000, recourse=RECOURSE)
    assert log.capture(hold, "seller", 2_000)
    assert only(log).ending == "unclear"
    before = read_log(log)[0].dealings.digest()
    assert log.challenge(hold, "buyer")
    assert log.left(hold, "seller", "buyer")
    log.close_interval()
    found, _ = read_log(log)
    assert (found.dealings.digest(), found.open_holds) == (before, 0)


def test_a_bail_as_high_as_the_price_is_taken_as_the_price(log: DealLog) -> None:
    hold = log.hold("buyer", "seller", 2_000, bail=2_000, recourse=RECOURSE)
    assert log.capture(hold, "seller", 2_000)
    assert only(log).ending == "kept"


@pytest.mark.parametrize(("taken", "first"), [(2_000, "unclear"), (1_500, "given_back")])
def test_also_the_bail_that_nothing_answers_for_was_missed(
    log: DealLog, taken: int, first: str
) -> None:
    hold = log.hold("buyer", "seller", 5_000, bail=2_000, recourse=RECOURSE)
    assert log.capture(hold, "seller", taken)
    assert only(log).ending == first
    assert log.challenge(hold, "buyer")
    log.close_interval(after_ms=RECOURSE.answer_ms)
    assert log.expire(hold)
    outcome = only(log)
    assert (outcome.ending, outcome.amount_fals) == ("missed", 0)


@pytest.mark.parametrize("lasts_ms", [4_999, 5_000])
def test_what_is_taken_back_is_what_was_told(log: DealLog, lasts_ms: int) -> None:
    """A price too small to be half of it tells nothing in a short hold, and lapses in another."""
    hold = log.hold("buyer", "seller", 5_000, lasts_ms=lasts_ms, recourse=RECOURSE)
    assert log.capture(hold, "seller", 2_000)
    log.close_interval()
    (told,) = read_log(log)[1]
    assert told.ending == ("unclear" if lasts_ms < 5_000 else "given_back")
    assert log.challenge(hold, "buyer")
    log.close_interval(after_ms=RECOURSE.answer_ms)
    assert log.expire(hold)
    assert only(log).ending == "missed"


@pytest.mark.parametrize("challenged", [True, False])
def test_sums_that_are_kept_in_the_middle_of_a_challenge_go_on_to_its_end(
    log: DealLog, challenged: bool
) -> None:
    hold = taken(log)
    if challenged:
        assert log.challenge(hold, "buyer")
    log.hold("other", "seller")
    log.close_interval(after_ms=RECOURSE.answer_ms)
    kept = read_log(log)[0].dump()
    if challenged:
        assert log.expire(hold)
    log.hold("other", "seller")
    log.close_interval()
    again, (whole, _) = OutcomeLog.load(kept), read_log(log)
    for entry in log.entries_[again.size :]:
        again.feed(entry.raw)
    assert again.digest() == whole.digest()
    assert again.dealings.tally(did("seller")).deals == (not challenged)


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


KINDS: dict[str, dict[str, Any]] = {
    "hold": {},
    "arbitrated": {"arbitration": ARBITRATION},
    "pledged": {"bail": 50},
    "contestable": {"recourse": RECOURSE},
    "pledged contestable": {"bail": 2_000, "recourse": RECOURSE},
}
TAKES = ("capture", "take", "part", "bail", "bail")
ARGUES = ("release", "dispute", "resolve", "challenge", "challenge", "deliver", "deliver", "left")
STEPS = st.tuples(
    st.sampled_from([*KINDS, *4 * ["contestable", "pledged contestable", "wait"], *TAKES, *ARGUES]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 5_000),
)
WAITS = (0, 1_000, 9_000, 21_000)
Made = tuple[str, str, str]
"""The id of a hold, its payer and its payee."""


def step(log: DealLog, holds: list[Made], move: tuple[str, int, int, int]) -> None:
    kind, one, other, amount = move
    if kind in KINDS:
        payer, payee = f"agent-{one}", f"agent-{(one + 1 + other % 2) % 3}"
        price = amount + (FEE + 1 if "contestable" in kind else 1)
        words = KINDS[kind] | {"lasts_ms": 60_000 if amount % 2 or "bail" in KINDS[kind] else 4_999}
        deal = f"{len(holds):064x}"
        made = log.hold(payer, payee, price, **words, agreement=deal)
        holds += [(made, payer, payee)] if made else []
        if made and other:
            contest(log, holds[-1], move)
    elif kind == "wait" and log.book.interval is not None:
        log.close_interval(after_ms=WAITS[amount % len(WAITS)])
        for name, _, _ in holds:
            log.expire(name)
    elif holds:
        argue(log, holds[one % len(holds) - 1], move)


def contest(log: DealLog, made: Made, move: tuple[str, int, int, int]) -> None:
    """Take some of a hold, and leave it perhaps to a challenge, and that perhaps unanswered."""
    kind, one, other, amount = move
    hold, payer, payee = made
    log.capture(hold, payee, (amount + FEE) // (1 + one) if other == 1 else 2_000)
    if "contestable" in kind and log.challenge(hold, payer) and amount % 3:
        log.close_interval(after_ms=RECOURSE.answer_ms)
        log.expire(hold)


def argue(log: DealLog, made: Made, move: tuple[str, int, int, int]) -> None:
    kind, one, _, amount = move
    hold, payer, payee = made
    escrow = log.book.state.holds[hold]
    rest = escrow.rest
    match kind:
        case "take":
            log.capture(hold, payee, rest)
        case "bail":
            log.capture(hold, payee, escrow.bail)
        case "capture" | "part":
            log.capture(hold, payee, amount, final=kind == "capture")
        case "release":
            log.release(hold, payee, forfeit=20 if one else 0)
        case "dispute":
            log.dispute(hold, payee)
        case "challenge":
            log.challenge(hold, payer)
        case "deliver":
            log.deliver(hold, payee, escrow.part + 1, 2, agreement=escrow.agreement)
        case "left":
            log.left(hold, payee, payer, agreement=escrow.agreement)
        case _:
            log.resolve(hold, "judge", rest // 2, rest - rest // 2)


def wrote(log: DealLog, holds: list[Made]) -> list[tuple[str, str, int]]:
    """Return what the machine says of all that ended, or was captured and is challenged."""
    escrows = [log.book.state.holds[name] for name, _, _ in holds]
    return sorted(
        (escrow.payer, escrow.payee, escrow.captured)
        for escrow in escrows
        if escrow.resolved or escrow.status == "challenged"
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, min_size=10, max_size=60))
def test_what_outcomes_tell_is_what_the_machine_did(steps: list[tuple[str, int, int, int]]) -> None:
    """Compare each outcome with the escrow of the state machine that wrote the log.

    What is taken back is, to the last digit, what was told: :class:`Noted` looks for it.
    """
    log, holds = DealLog(), list[Made]()
    for move in steps:
        step(log, holds, move)
    if log.book.interval is not None:
        log.close_interval()
    found, told = read_log(log)
    live = [log.book.state.holds[name].resolved for name, _, _ in holds]
    assert found.open_holds == live.count(False)
    assert sorted((o.payer, o.payee, o.amount_fals) for o in told) == wrote(log, holds)
    anew = Dealings(FEE)
    for outcome in told:
        anew.add(outcome)
        assert 0 <= outcome.waited <= 1_000
        assert (outcome.ending == "kept") <= (outcome.amount_fals > 0)
    assert found.dealings.digest() == anew.digest()
