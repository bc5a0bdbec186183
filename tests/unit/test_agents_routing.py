"""Routing: by what sellers delivered, the same under the same seed, with the cheapest beside it."""

from __future__ import annotations

from statistics import fmean, pvariance

import pytest

from agents.negotiation import Weights
from agents.routing import Arm, draw, promise, put_in_order, route, worth_of
from benchmarks import market_routing
from broker.knowledge.outcomes import Evidence

SURE = Arm("sure", price_fals=100, gain=0.5, evidence=Evidence(90, 2))
LURE = Arm("lure", price_fals=10, gain=0.9, evidence=Evidence(2, 60))
NEW = Arm("new", price_fals=90, gain=0.55)


def test_a_cheap_seller_that_fails_is_not_asked_first() -> None:
    firsts = [route([LURE, SURE], how="thompson", seed=seed).order[0] for seed in range(200)]
    assert firsts.count(1) == 200


def test_cheapest_takes_the_lowest_price_whatever_became_of_it() -> None:
    routed = route([SURE, LURE], how="cheapest", seed=3)
    assert routed.order == (1, 0)
    assert routed.cheapest == 1


def test_a_new_seller_is_tried_now_and_then() -> None:
    firsts = [route([SURE, NEW], how="thompson", seed=seed).order[0] for seed in range(400)]
    assert 10 < firsts.count(1) < 200


def test_the_same_seed_gives_the_same_order_and_the_arms_order_does_not_matter() -> None:
    arms = [SURE, LURE, NEW]
    for seed in range(50):
        one = route(arms, how="thompson", seed=seed)
        other = route(arms[::-1], how="thompson", seed=seed)
        assert one == route(arms, how="thompson", seed=seed)
        assert [arms[place] for place in one.order] == [arms[::-1][i] for i in other.order]


def test_the_baseline_and_a_reason_a_seller_are_shown() -> None:
    routed = route([SURE, LURE], how="thompson", seed=1)
    assert routed.cheapest == 1
    assert "record of 90.0 : 2.0" in routed.reasons[0]
    assert "0.00000001 RHB" in routed.reasons[1]


def test_draws_have_the_mean_and_the_variance_of_their_beta() -> None:
    for hits, misses in ((0, 0), (3, 1), (40, 10)):
        draws = [draw(Evidence(hits, misses), seed=f"s{number}") for number in range(4_000)]
        a, b = 1 + hits, 1 + misses
        assert fmean(draws) == pytest.approx(a / (a + b), abs=0.015)
        assert pvariance(draws) == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), rel=0.12)
        assert all(0 < each < 1 for each in draws)


def test_a_lure_does_not_move_what_a_job_is_worth() -> None:
    assert worth_of(10_000, usual_fals=100) == 200
    assert worth_of(150, usual_fals=100) == 150
    assert worth_of(0, usual_fals=0) == 1
    assert promise(0.5, 1.0) > promise(0.9, 0.4)


def test_nobody_to_choose_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no seller"):
        route([], how="cheapest", seed=0)


def test_routing_by_outcomes_regrets_less_than_the_cheapest_and_than_any_seller() -> None:
    cheapest, anyone, _ = market_routing.run(markets=6)
    assert cheapest.met
    assert anyone.met


def test_without_a_posted_price_there_is_nothing_to_route_by() -> None:
    ordered, routing = put_in_order(
        [], "s", how="thompson", limit_fals=1, weights=Weights(), observations=None, seed=1, shown=8
    )
    assert (ordered, routing) == ([], None)
