"""Reputations as arithmetic: intervals, fading sums, evidence; the same digits for everybody."""

from __future__ import annotations

import random
from decimal import getcontext
from fractions import Fraction
from math import comb
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rahba.beta import MAX_EVIDENCE, interval
from rahba.dealings import (
    DAY_MS,
    HALF_LIFE_DAYS,
    BadDealingsError,
    Dealings,
    Ending,
    Outcome,
    growth,
    weight_of,
)
from rahba.standing import ReputationBook
from tests.fixtures.deals import (
    FEE,
    NOW_MS,
    TODAY,
    book_of,
    deal,
    dealings_of,
    failure,
    town,
)


def _below(thousandths: int, a: int, b: int) -> Fraction:
    """Return the exact distribution function of Beta(a, b), whole parameters: a binomial tail."""
    x, n = Fraction(thousandths, 1_000), a + b - 1
    return sum((comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1)), start=Fraction(0))


@pytest.mark.parametrize("kept", [0, 1, 2, 7, 40, 90])
@pytest.mark.parametrize("failed", [0, 1, 3, 25])
def test_the_bounds_are_the_exact_quantiles_rounded_outwards(kept: int, failed: int) -> None:
    rate, five = interval(kept * 1_000, failed * 1_000), Fraction(5, 100)
    a, b = kept + 1, failed + 1
    assert _below(rate.low, a, b) <= five < _below(rate.low + 1, a, b)
    assert 1 - _below(rate.high, a, b) <= five < 1 - _below(rate.high - 1, a, b)
    assert abs(rate.mean - Fraction(1_000 * a, a + b)) <= Fraction(1, 2)


def test_nobody_known_stands_in_the_middle_of_everything() -> None:
    assert interval(0, 0) == (500, 50, 950)


def test_evidence_without_end_is_answered_and_no_surer_than_a_thousand_deals() -> None:
    assert interval(10**30, 10**27) == interval(MAX_EVIDENCE * 1_000 // 1_001, 999)
    with pytest.raises(ValueError, match="never negative"):
        interval(-1, 0)


def test_bounds_do_not_depend_on_the_decimal_context_of_who_asks() -> None:
    interval.cache_clear()
    expected = interval(12_345, 678)
    interval.cache_clear()
    getcontext().prec, before = 6, getcontext().prec
    try:
        assert interval(12_345, 678) == expected
    finally:
        getcontext().prec = before


@settings(deadline=None)
@given(st.integers(0, 60_000), st.integers(0, 60_000), st.integers(1, 5_000))
def test_more_kept_never_lowers_the_bound_and_more_failed_never_raises_it(
    kept: int, failed: int, more: int
) -> None:
    before = interval(kept, failed)
    assert interval(kept + more, failed).low >= before.low
    assert interval(kept, failed + more).low <= before.low
    assert before.low <= before.mean <= before.high


def test_a_deal_counts_half_after_ninety_days() -> None:
    pair = dealings_of([deal("buyer", "seller", days_ago=HALF_LIFE_DAYS)]).paid_to("seller")
    assert pair["buyer"].on(TODAY).kept == 500
    assert growth(TODAY) == 2 * growth(TODAY - HALF_LIFE_DAYS)


def test_fading_follows_the_exponential_to_nine_digits() -> None:
    for age in (1, 30, 45, 89):
        exact = 2 ** (-age / HALF_LIFE_DAYS)
        assert growth(TODAY - age) / growth(TODAY) == pytest.approx(exact, rel=1e-9)


def test_the_order_in_which_outcomes_are_added_changes_no_digit() -> None:
    outcomes = [
        *town(12, "seller"),
        *(deal("fat", "seller", days_ago=age) for age in range(0, 400, 7)),
        *(failure(f"customer-{n}", "seller", "given_back", waited=n * 90) for n in range(10)),
    ]
    first = dealings_of(outcomes)
    shuffler = random.Random(7)
    for _ in range(5):
        shuffler.shuffle(outcomes)
        again = dealings_of(outcomes)
        assert again.digest() == first.digest()
        assert ReputationBook(again, NOW_MS).standing("seller", "customer-3") == ReputationBook(
            first, NOW_MS
        ).standing("seller", "customer-3")


def test_kept_sums_are_read_back_as_they_were() -> None:
    failures = [failure("customer-1", "seller"), failure("stranger", "seller", "missed")]
    first = dealings_of(town(5, "seller"), failures)
    again = Dealings.load(first.dump())
    assert again.digest() == first.digest()
    assert again.tally("seller") == first.tally("seller") == (5, 5)
    again.add(deal("new", "seller"))
    assert again.digest() != first.digest()
    for broken in (b"", b"{}", b'["x"]', first.dump()[:-9], first.dump() + b"\n[]"):
        with pytest.raises(BadDealingsError):
            Dealings.load(broken)


def test_a_deal_weighs_what_was_paid_in_fees_and_nothing_by_its_amount() -> None:
    assert weight_of(deal("b", "s"), FEE) == weight_of(deal("b", "s", fals=10**15), FEE) == 1_000
    assert weight_of(deal("b", "s", fees=0), FEE) == 0
    assert weight_of(deal("b", "s"), 0) == 0, "a ledger without fees gives nothing"


def test_paying_more_fees_for_one_deal_buys_less_than_another_deal_and_never_more_than_two() -> (
    None
):
    assert weight_of(deal("b", "s", fees=4), FEE) == 1_414
    assert weight_of(deal("b", "s", fees=8), FEE) == 2_000
    assert weight_of(deal("b", "s", fees=10**9), FEE) == 2_000
    dear_failure = failure("b", "s")._replace(fee_fals=10**9)
    assert weight_of(dear_failure, FEE) == 1_000


def test_a_hold_given_back_at_once_weighs_a_quarter_of_one_that_lapsed() -> None:
    weights = [
        weight_of(failure("b", "s", "given_back", waited=waited), FEE) for waited in (0, 500, 1_000)
    ]
    assert weights == [250, 625, 1_000]
    assert weight_of(failure("b", "s", "forfeited", waited=500), FEE) == 625
    assert weight_of(failure("b", "s", "missed"), FEE) == 1_000
    assert weight_of(failure("b", "s", "lapsed"), FEE) == 1_000
    assert weight_of(failure("b", "s", "unclear"), FEE) == 0


def test_a_standing_tells_its_figures_in_words() -> None:
    unclear = failure("customer-3", "seller", "unclear")
    book = book_of(town(9, "seller"), [failure("customer-2", "seller"), unclear])
    one = book.standing("seller", "customer-0")
    assert (one.deals, one.failures, one.counterparties, one.effective) == (9, 1, 9, 9_000)
    assert (one.fees_fals, one.amount_fals, one.last_ms) == (20 * FEE, 45, NOW_MS)
    words = " ".join(one.reasons)
    assert "9 settled deals with 9 counterparties, as good as 9.0 equal ones" in words
    assert "1 failed: they count as far as they are proven or their payers known" in words
    assert "1 holds say nothing about it" in words
    assert "for you" in words
    assert "your own deals with it: 1 settled, 0 failed" in words
    assert "what anybody new is given" in book.standing("nobody").reasons[0]


def test_the_effective_number_of_counterparties_sees_through_one_that_is_most_of_them() -> None:
    fat = [deal("fat", "seller") for _ in range(99)]
    assert book_of(fat, [deal("thin", "seller")]).standing("seller").effective == 1_020
    assert book_of(town(10, "seller")).standing("seller").effective == 10_000


def test_figures_change_with_what_is_recorded_and_when_a_day_is_over() -> None:
    book = book_of(town(10, "seller"))
    before = book.standing("seller", "customer-1")
    book.record(deal("customer-1", "seller"))
    more = book.standing("seller", "customer-1")
    assert more.evidence.kept > before.evidence.kept
    assert more.personal is not None
    assert before.personal is not None
    assert more.personal.rate.low > before.personal.rate.low
    book.advance(NOW_MS + HALF_LIFE_DAYS * DAY_MS)
    later = book.standing("seller", "customer-1")
    assert later.evidence.kept < more.evidence.kept
    assert later.at_ms == book.at_ms == NOW_MS + HALF_LIFE_DAYS * DAY_MS
    fresh = ReputationBook(book.dealings, later.at_ms)
    assert fresh.standing("seller", "customer-1") == later, "nothing stale is told"


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_book_that_grows_tells_what_one_made_at_once_tells(data: st.DataObject) -> None:
    names = st.sampled_from([f"agent-{n}" for n in range(6)])
    outcome = st.builds(
        Outcome,
        payer=names,
        payee=names,
        amount_fals=st.integers(0, 10**12),
        fee_fals=st.integers(0, 9 * FEE),
        ended_ms=st.integers(NOW_MS - 300 * DAY_MS, NOW_MS),
        ending=st.sampled_from(get_args(Ending)),
        waited=st.integers(0, 1_000),
    ).filter(lambda item: item.payer != item.payee)
    outcomes = data.draw(st.lists(outcome, max_size=30))
    growing = book_of()
    for item in outcomes:
        growing.record(item)
        growing.lower_bound(item.payee)
        growing.lower_bound(item.payee, "agent-0")
    at_once = book_of(outcomes)
    for number in range(6):
        for caller in (None, "agent-0", "agent-1"):
            one = at_once.standing(f"agent-{number}", caller)
            assert growing.standing(f"agent-{number}", caller) == one
            assert 0 <= one.rate.low <= one.rate.mean <= one.rate.high <= 1_000
            assert one.evidence.kept >= 0
            assert one.evidence.failed >= 0
