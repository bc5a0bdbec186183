"""What the feed teaches: outcomes, odd prices, rings, flags; bounded, resumable, seldom wrong."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest

from benchmarks import market_anomalies
from benchmarks.market_anomalies import Teller, fold, honest_market
from broker.errors import BadCursorError
from broker.knowledge.flags import FLAG_MS, MAX_FLAGS, TELL_EVERY_MS, Board
from broker.knowledge.fold import (
    MAX_HOLDS,
    MAX_JOBS,
    MAX_SKILLS,
    MAX_WAITING,
    Knowledge,
    Notice,
)
from broker.knowledge.outcomes import (
    DISCOUNT,
    MAX_SELLERS,
    MAX_STREAK,
    Evidence,
    Outcomes,
)
from broker.knowledge.outcomes import (
    MAX_SKILLS as MAX_COUNTED,
)
from broker.knowledge.outliers import COMMON, MIN_DEALS, MIN_SPREAD, THRESHOLD, Window
from broker.knowledge.rings import BRANCHES, MIN_ROUNDS, WINDOW, Flows
from rahba.messages import Event

# Named by the market's promises.


@pytest.mark.parametrize("seed", range(4))
def test_an_honest_market_raises_at_most_one_false_flag_in_a_hundred_deals(seed: int) -> None:
    teller, knowledge = Teller(), Knowledge()
    deals, raised = 3_000, 0
    for job in honest_market(teller, deals=deals, seed=seed):
        raised += len(fold(knowledge, job))
    assert raised <= deals // 100
    assert sum(flag.times for flag in knowledge.board.flags.values()) <= deals // 100


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_wash_trading_ring_is_flagged(size: int) -> None:
    teller, knowledge = Teller(), Knowledge()
    ring = [f"washer {number}" for number in range(size)]
    notices: list[Notice] = []
    rng = random.Random(size)
    honest = honest_market(teller, deals=400, seed=9)
    for number, job in enumerate(honest):
        fold(knowledge, job)
        if number % 4 == 0:
            place = number // 4 % size
            price = rng.randint(900_000, 1_100_000)
            washed = teller.job(ring[place], ring[(place + 1) % size], price, skill="skill.a")
            notices += fold(knowledge, washed)
    rings = [notice for notice in notices if notice.kind == "anomaly.ring"]
    assert 1 <= len(rings) <= 4, "told now and then, not at every turn"
    assert {notice.kind for notice in notices} == {"anomaly.ring"}
    agents = rings[0].data["agents"]
    assert isinstance(agents, list)
    assert sorted(map(str, agents)) == ring
    (flag,) = knowledge.board.of(ring[0], now_ms=teller.now_ms)
    assert flag.kind == "ring"
    assert flag.times > 1
    assert f"among {size} keys" in flag.reason


def test_one_expensive_honest_deal_on_a_thin_history_is_not_flagged() -> None:
    teller, knowledge = Teller(), Knowledge()
    for _ in range(MIN_DEALS - 1):
        fold(knowledge, teller.job("b", "s", 1_000_000))
    assert fold(knowledge, teller.job("b", "t", 50_000_000)) == []


def test_a_price_far_out_of_its_skills_range_is_flagged_with_the_reason() -> None:
    teller, knowledge = Teller(), Knowledge()
    for number in range(60):
        fold(knowledge, teller.job(f"b{number % 7}", "s", 1_000_000 + 10_000 * (number % 9)))
    (notice,) = fold(knowledge, teller.job("b", "t", 50_000_000))
    assert notice.kind == "anomaly.price"
    assert notice.data["paid"] == "50000000"
    assert "times above the median" in str(notice.data["reason"])
    (flag,) = knowledge.board.of("t", now_ms=teller.now_ms)
    assert flag.score > 5
    assert knowledge.board.of("s", now_ms=teller.now_ms) == []
    assert knowledge.board.of("t", now_ms=teller.now_ms + FLAG_MS) == []


# Odd prices.


def test_a_second_tier_of_prices_is_no_outlier() -> None:
    window = Window()
    flagged = [window.note(5_000_000 if number % 10 == 0 else 1_000_000) for number in range(200)]
    assert sum(1 for each in flagged[MIN_DEALS:] if each) == 0


def test_what_is_free_is_not_judged() -> None:
    window = Window()
    assert [window.note(0) for _ in range(100)] == [None] * 100
    assert window.prices == []


def test_a_price_far_below_is_odd_too() -> None:
    window = Window()
    for _ in range(MIN_DEALS):
        window.note(1_000_000)
    odd = window.note(1_000)
    assert odd is not None
    assert odd.z < 0


@pytest.mark.parametrize("seed", range(8))
def test_what_is_judged_at_a_glance_is_judged_as_in_full(seed: int) -> None:
    rng = random.Random(seed)
    window, spread, found = Window(), rng.choice((0.001, 0.05, 0.3)), 0
    for _ in range(400):
        wild = rng.random() < 0.03
        price = round(1_000_000 * math.exp(rng.gauss(0, 2.0 if wild else spread)))
        before = list(window.prices)
        odd = window.note(price)
        assert (None if odd is None else odd.z) == _robust_z(before, price)
        found += odd is not None
    assert found


def _robust_z(before: list[int], price: int) -> float | None:
    """Return how odd a price is, by the definition; ``None`` if that is no outlier."""
    if len(before) < MIN_DEALS:
        return None
    logs = [math.log(each) for each in before]
    middle = median(logs)
    off = math.log(price) - middle
    z = off / max(1.4826 * median([abs(each - middle) for each in logs]), MIN_SPREAD)
    alike = [each for each in logs if (each - middle) * off > 0 and abs(each - middle) >= abs(off)]
    return None if abs(z) < THRESHOLD or len(alike) >= COMMON * len(logs) else z


# Rings.


def test_trade_in_both_directions_that_is_a_small_part_is_no_ring() -> None:
    flows = Flows()
    for _ in range(20):
        assert flows.note("a", "b", 100) is None
        assert flows.note("b", "a", 100) is None
        assert [flows.note("a", f"c{n}", 100) for n in range(3)] == [None] * 3


def test_money_that_does_not_come_back_is_no_ring() -> None:
    flows = Flows()
    for _ in range(20):
        assert flows.note("a", "b", 1_000) is None
        assert flows.note("b", "a", 100) is None


def test_a_few_exchanges_are_no_ring() -> None:
    flows = Flows()
    found = [flows.note(*pair, 100) for _ in range(MIN_ROUNDS - 1) for pair in ("ab", "ba")]
    assert found == [None] * len(found)


def test_deals_leave_the_window_and_take_nothing_with_them() -> None:
    flows = Flows()
    for number in range(3 * WINDOW):
        flows.note(f"b{number % 97}", f"s{number % 89}", number + 1)
    assert len(flows.window) == WINDOW
    assert sum(flows.paid.values()) == sum(deal.amount for deal in flows.window)
    assert sum(flows.earned.values()) == sum(flows.paid.values())
    edges = [edge for payees in flows.edges.values() for edge in payees.values()]
    assert sum(edge.deals for edge in edges) == WINDOW
    assert min(edge.deals for edge in edges) > 0


def test_a_web_of_payments_costs_few_looks_a_deal() -> None:
    flows, looked = Flows(), 0
    names = [f"k{number}" for number in range(24)]
    for _ in range(MIN_ROUNDS):
        for one in names:
            for other in names:
                flows.note(one, other, 100)
    count = Flows._steady

    def counted(self: Flows, buyer: str, seller: str) -> bool:
        nonlocal looked
        looked += 1
        return count(self, buyer, seller)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flows, "_steady", counted)
        flows.note("k0", "k1", 100)
    assert looked <= 2 + BRANCHES + BRANCHES**2


# Outcomes.


def test_the_newest_outcomes_count_most() -> None:
    outcomes = Outcomes()
    for _ in range(300):
        outcomes.note("s", "a", "b", delivered=True)
    before = outcomes.evidence("s", "a")
    for number in range(50):
        outcomes.note("s", "a", f"b{number}", delivered=False)
    after = outcomes.evidence("s", "a")
    assert before.failures == 0
    assert after.failures > 35
    assert after.successes == pytest.approx(before.successes * DISCOUNT**50)


def test_what_others_do_makes_old_evidence_fade() -> None:
    outcomes = Outcomes()
    outcomes.note("s", "a", "b", delivered=False)
    for _ in range(500):
        outcomes.note("s", "other", "b", delivered=True)
    assert outcomes.evidence("s", "a").failures < 0.01
    assert outcomes.evidence("s", "nobody") == Evidence()


def test_a_buyer_whose_jobs_always_fail_does_little_harm() -> None:
    outcomes = Outcomes()
    for _ in range(1_000):
        outcomes.note("s", "victim", "hostile", delivered=False)
    assert outcomes.evidence("s", "victim").failures <= MAX_STREAK
    outcomes.note("s", "victim", "hostile", delivered=True)
    outcomes.note("s", "victim", "hostile", delivered=False)
    assert outcomes.evidence("s", "victim").failures > MAX_STREAK - 1


def test_a_job_counts_once_it_was_ordered_and_only_then() -> None:
    teller, knowledge = Teller(), Knowledge()
    about = {"skill": "s", "buyer": "b", "seller": "a"}
    fold(knowledge, [teller.event("accepted", thread="1" * 32, **about)])
    fold(knowledge, [teller.event("closed", thread="1" * 32, code="decommitted")])
    assert knowledge.outcomes.evidence("s", "a") == Evidence()
    left = teller.job("b", "a", 5, skill="s", end="closed")
    left[-1][1].data["from"] = "b"
    fold(knowledge, left)
    assert knowledge.outcomes.evidence("s", "a") == Evidence(), "the buyer left"
    for end in ("failed", "closed"):
        fold(knowledge, teller.job("b", "a", 5, skill="s", end=end))
    assert knowledge.outcomes.evidence("s", "a").failures > 1.9
    fold(knowledge, teller.job("b", "a", 5, skill="s"))
    assert knowledge.outcomes.evidence("s", "a").successes == 1


# Flags.


def _raise(board: Board, agent: str, at_ms: int) -> bool:
    return (
        board.raise_flag(
            "price", (agent,), skill="s", agreement="d", reason="odd", score=9, at_ms=at_ms
        )
        is not None
    )


def test_a_flag_is_told_when_new_and_then_seldom() -> None:
    board = Board()
    told = [_raise(board, "a", at_ms) for at_ms in (0, 1, TELL_EVERY_MS - 1, TELL_EVERY_MS)]
    assert told == [True, False, False, True]
    (flag,) = board.of("a", now_ms=TELL_EVERY_MS)
    assert (flag.times, flag.since_ms, flag.until_ms) == (4, 0, TELL_EVERY_MS + FLAG_MS)


def test_flags_expire_and_are_bounded() -> None:
    board = Board()
    for number in range(3 * MAX_FLAGS):
        _raise(board, f"a{number}", number)
    assert len(board.flags) == MAX_FLAGS
    assert board.of("a0", now_ms=1) == []
    _raise(board, "late", 2 * FLAG_MS)
    assert len(board.flags) == 1
    assert _raise(board, "a5", 2 * FLAG_MS)
    assert board.of("a5", now_ms=2 * FLAG_MS)[0].times == 1


# The fold.


def test_an_event_that_comes_again_changes_nothing() -> None:
    teller, once, twice = Teller(), Knowledge(), Knowledge()
    events = [event for job in honest_market(teller, deals=60, seed=1) for event in job]
    fold(once, events)
    fold(twice, events[:100])
    fold(twice, events[50:])
    fold(twice, events)
    assert twice.dump() == once.dump()


def test_the_fold_goes_on_from_its_bytes_as_if_it_had_never_stopped() -> None:
    teller, whole, first = Teller(), Knowledge(), Knowledge()
    events = [event for job in honest_market(teller, deals=200, seed=2) for event in job]
    fold(whole, events)
    fold(first, events[:301])
    second = Knowledge.restore(first.dump())
    assert second.last_id == events[300][0]
    fold(second, events[301:])
    assert second.dump() == whole.dump()


def test_bytes_of_another_version_begin_anew() -> None:
    assert Knowledge.restore(b"\x91\x01") == Knowledge()
    assert Knowledge.restore(b"") == Knowledge()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"thread": 7},
        {"thread": "t", "paid": "-1", "skill": "s", "buyer": "b", "seller": "a", "agreement": "d"},
        {"thread": "t", "paid": "5", "skill": "s", "buyer": "b", "seller": "a", "agreement": "d"},
        {"thread": "t", "paid": 5, "skill": "s", "buyer": "b", "seller": "a", "agreement": "d"},
        {"thread": "t", "paid": "5", "skill": None, "buyer": "b", "seller": "a", "agreement": "d"},
    ],
)
def test_what_is_malformed_teaches_nothing(data: dict[str, object]) -> None:
    knowledge = Knowledge()
    for number, kind in enumerate(("accepted", "held", "settled", "failed", "unheard")):
        knowledge.note(f"{number + 1}-0", Event(kind=kind, ts=1, data=data))
    assert knowledge.waiting == []
    assert knowledge.skills == {}
    with pytest.raises(BadCursorError):
        knowledge.note("not an id", Event(kind="held", ts=1, data={}))


def test_nothing_counts_before_the_ledger_bears_it_out() -> None:
    teller, knowledge = Teller(), Knowledge()
    for event in [*teller.job("b", "s", 1_000), *teller.job("b", "s", 9_000_000)]:
        knowledge.note(*event)
    for event in teller.job("b", "s", 1_000, end="failed"):
        knowledge.note(*event)
    assert [ending.paid_fals for ending in knowledge.waiting] == [1_000, 9_000_000, None]
    assert knowledge.skills == {}
    assert knowledge.outcomes.evidence("text.upper", "s") == Evidence()
    assert knowledge.count([True, False, False]) == []
    assert knowledge.skills["text.upper"].history.deals == 1
    assert knowledge.skills["text.upper"].window.prices == [1_000]
    assert knowledge.flows.paid == {"b": 1_000}
    assert knowledge.outcomes.evidence("text.upper", "s") == Evidence(1.0, 0.0)
    assert knowledge.count([]) == []


def test_a_payment_that_is_told_again_counts_once() -> None:
    teller, knowledge = Teller(), Knowledge()
    job = teller.job("b", "s", 1_000)
    fold(knowledge, job)
    about = job[-1][1].data
    for _ in range(20):
        fold(knowledge, [teller.event("settled", **about)])
    assert knowledge.skills["text.upper"].history.deals == 1
    assert knowledge.outcomes.evidence("text.upper", "s") == Evidence(1.0, 0.0)


def test_who_says_that_a_paid_job_failed_does_not_keep_it_from_counting() -> None:
    teller, knowledge = Teller(), Knowledge()
    job = teller.job("b", "s", 1_000)
    fold(knowledge, [*job[:2], teller.event("failed", thread=job[0][1].data["thread"], code="")])
    fold(knowledge, job[2:])
    fold(knowledge, [teller.event("settled", **job[2][1].data)])
    assert knowledge.skills["text.upper"].history.deals == 1


def test_what_leaves_nothing_in_the_ledger_teaches_nothing() -> None:
    teller, knowledge = Teller(), Knowledge()
    fold(knowledge, teller.job("b", "s", 0))
    unheld = teller.job("b", "s", 5, end="failed")
    unheld[1][1].data["hold"] = ""
    fold(knowledge, unheld)
    assert knowledge.skills == {}
    assert knowledge.outcomes.evidence("text.upper", "s") == Evidence()


def test_while_the_ledger_is_away_the_oldest_endings_wait_and_no_more_than_so_many() -> None:
    teller, knowledge = Teller(), Knowledge()
    for number in range(MAX_WAITING + 10):
        for event in teller.job("b", f"s{number}", 5):
            knowledge.note(*event)
    assert len(knowledge.waiting) == MAX_WAITING
    assert knowledge.waiting[0].seller == "s0"
    kept = Knowledge.restore(knowledge.dump())
    kept.count([True] * MAX_WAITING)
    assert kept.skills["text.upper"].history.deals == MAX_WAITING
    for number in range(5 * MAX_WAITING):
        fold(kept, teller.job("b", "s", number + 1))
    assert len(kept.counted) == MAX_HOLDS


def test_the_fold_is_bounded_whatever_is_told() -> None:
    teller, knowledge = Teller(), Knowledge()
    for number in range(MAX_SKILLS + 40):
        fold(knowledge, teller.job("b", "a", 5, skill=f"skill.{number}"))
    assert len(knowledge.skills) == MAX_SKILLS
    assert "skill.0" not in knowledge.skills
    for _ in range(3):
        fold(knowledge, teller.job("b", "a", 5, skill="skill.traded"))
    for number in range(2 * MAX_SKILLS):
        fold(knowledge, teller.job("b", "a", 5, skill=f"made.up.{number}"))
    assert knowledge.skills["skill.traded"].history.deals == 3
    about = {"skill": "s", "buyer": "b", "seller": "a"}
    for number in range(MAX_JOBS + 40):
        fold(knowledge, [teller.event("accepted", thread=f"{number:032x}", **about)])
    assert len(knowledge.jobs) == MAX_JOBS


def test_the_benchmark_of_flags_meets_its_targets() -> None:
    rows = market_anomalies.run(markets=2, deals=1_000)
    assert [row.name for row in rows if row.met is False] == []
    assert {row.met for row in rows} == {True, None}


def test_records_of_sellers_and_skills_are_bounded() -> None:
    outcomes = Outcomes()
    for number in range(MAX_SELLERS + 50):
        outcomes.note(
            f"s{number % (MAX_COUNTED + 9)}", f"a{number}", "b", delivered=number % 2 == 0
        )
    assert len(outcomes.tallies) == MAX_SELLERS
    assert len(outcomes.counts) == MAX_COUNTED
    assert outcomes.evidence("s0", "a0") == Evidence()


def test_a_skill_that_was_forgotten_and_comes_back_makes_no_record_greater() -> None:
    outcomes = Outcomes()
    for _ in range(200):
        outcomes.note("s", "a", "b", delivered=True)
    before = outcomes.evidence("s", "a").successes
    for number in range(MAX_COUNTED):
        outcomes.note(f"other{number}", "c", "b", delivered=True)
    assert "s" not in outcomes.counts
    outcomes.note("s", "a", "b", delivered=True)
    assert before < outcomes.evidence("s", "a").successes <= before + 1


def test_a_payer_whose_deals_have_left_the_window_is_forgotten() -> None:
    flows = Flows()
    assert flows.note("a", "a", 5) is None
    for number in range(WINDOW + 10):
        flows.note(f"b{number}", "s", 1)
    assert "b0" not in flows.edges
    assert "b0" not in flows.paid
    assert len(flows.edges) == WINDOW


def test_a_flag_whose_time_is_over_begins_anew() -> None:
    board = Board()
    assert _raise(board, "a", 0)
    assert _raise(board, "b", 1)
    assert _raise(board, "b", FLAG_MS + 5)
    (flag,) = board.of("b", now_ms=FLAG_MS + 5)
    assert (flag.times, flag.since_ms) == (1, FLAG_MS + 5)
