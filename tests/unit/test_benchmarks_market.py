"""The market's benchmarks: the optimum is one, welfare never exceeds it, rows are honest."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from benchmarks import market_deals, market_mailbox, market_welfare


@pytest.mark.parametrize("seed", range(30))
def test_the_assignment_is_the_best_of_all(seed: int) -> None:
    rng = random.Random(seed)
    rows = rng.randint(1, 5)
    columns = rng.randint(rows, 6)
    gains = [[rng.choice([0.0, rng.uniform(0, 9)]) for _ in range(columns)] for _ in range(rows)]
    best = max(
        sum(gains[who][place] for who, place in enumerate(places))
        for places in permutations(range(columns), rows)
    )
    assert market_welfare.assign(gains) == pytest.approx(best)


def test_no_way_to_choose_beats_the_optimum_and_the_market_beats_its_baselines() -> None:
    markets = list(market_welfare.generate(40, seed=7))
    assert len({len(market.customers) for market in markets}) > 1
    for market in markets:
        best = market_welfare.optimum(market)
        for choose in market_welfare.CHOICES.values():
            assert market_welfare.welfare(market, choose, random.Random(0)) <= best + len(
                market.customers
            )  # scores are whole
    ours, first, cheapest = market_welfare.run(markets=60)
    assert 0.5 < ours.value <= 1.0
    assert first.met
    assert cheapest.met


def test_deals_are_reported_as_medians_of_their_blocks() -> None:
    size = market_deals.Size(deals=2, blocks=3)
    blocks = [market_deals.Block(wall, wall / 4, [wall * 500, wall * 500]) for wall in (1, 2, 8)]
    rate, cost, p50, p99 = market_deals.rows_of(blocks, size)
    assert (rate.value, rate.met) == (1.0, False)
    assert (cost.value, cost.met) == (250.0, False)
    assert (p50.value, p99.value) == (1_000, 4_000)


def test_round_trips_over_mailboxes_are_compared_with_raw_streams_of_the_same_run() -> None:
    raw, ours = market_mailbox.rows_of("always", [30.0, 90.0, 60.0], [100.0, 80.0, 300.0])
    assert (raw.value, raw.target) == (100.0, None)
    assert (ours.value, ours.reference, ours.ratio, ours.met) == (60.0, 100.0, 0.6, True)
    assert market_mailbox.rows_of("no", [49.0], [100.0])[1].met is False


@pytest.mark.redis
def test_every_round_trip_is_made_both_ways() -> None:
    size = market_mailbox.Size(warm_up=10, blocks=1, round_trips=50)
    rows = market_mailbox.run(size)
    assert [row.unit for row in rows] == ["1/s"] * 4
    assert all(row.value > 0 for row in rows)
