"""The market's benchmarks: the optimum is one, welfare never exceeds it, rows are honest."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from itertools import permutations

import pytest

from agents.purchase import Purchase, Want
from benchmarks import market_deals, market_mailbox, market_welfare
from benchmarks.market_deals import SKILL
from benchmarks.running import BenchmarkFailedError


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


@dataclass
class Shop:
    """Where each purchase takes some turns of the loop, and one of them may fail."""

    fails_at: int | None = None
    bought: int = 0

    async def buy(self, want: Want) -> Purchase:
        assert want.mode == "tender"
        self.bought += 1
        number = self.bought
        for _ in range(1 + number % 3):
            await asyncio.sleep(0)
        paid = 1 if number == self.fails_at else 5
        return Purchase(
            output="", skill=SKILL, buyer="b", seller="s", mode="tender", group="g", thread="t",
            agreement="a", rounds=1, asked_fals=5, agreed_fals=5, paid_fals=paid, hold="h",
            capture_tx="tx", receipt=b"", receipt_verified=True, deal=b"",
        )  # fmt: skip


@pytest.mark.parametrize("warm_up", [0, 70])
async def test_deals_are_counted_in_blocks_without_a_pause_between(warm_up: int) -> None:
    size, shop = market_deals.Size(warm_up=warm_up, blocks=3, deals=40), Shop()
    spent = iter(range(100))
    blocks = await market_deals._blocks(shop, size, lambda: float(next(spent)))
    assert [len(block.times_ms) for block in blocks] == [40, 40, 40]
    assert [block.cpu_s for block in blocks] == [1.0, 1.0, 1.0]
    assert all(block.wall_s > 0 for block in blocks)
    assert shop.bought == warm_up + 120 + market_deals.AT_ONCE


async def test_one_deal_that_was_not_paid_spoils_the_measure() -> None:
    size = market_deals.Size(warm_up=10, blocks=1, deals=40)
    with pytest.raises(BenchmarkFailedError):
        await market_deals._blocks(Shop(fails_at=30), size, lambda: 0.0)


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
