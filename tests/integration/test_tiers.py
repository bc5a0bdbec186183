"""Deals over more than the price, from the card to the function that learns what was bought."""

from __future__ import annotations

import pytest

from agents.agent import Tier
from agents.errors import NoDealError
from agents.job import Job
from agents.negotiation.mandate import Weights
from rahba.messages import Issues
from tests.fixtures.trading import Bazaar, bazaar

__all__ = ["bazaar"]
TIERS = [
    Tier(price="0.003", floor="0.0014", quality=950),
    Tier(price="0.0025", floor="0.0015", latency_ms=50),
    Tier(price="0.002", floor="0.0012", privacy="public"),
]


async def stall(bazaar: Bazaar) -> list[Issues]:
    """Open a stall with four tiers; returns what it was hired for, deal by deal."""
    sold: list[Issues] = []

    async def work(text: str, job: Job) -> str:
        assert job.terms.issues is not None
        sold.append(job.terms.issues)
        return text

    await bazaar.open_stall(
        "amber", price=2_000_000, floor=1_300_000, work=work, tiers=TIERS, latency_ms=30_000
    )
    return sold


async def test_what_a_buyer_cares_for_decides_which_tier_it_gets(bazaar: Bazaar) -> None:
    sold = await stall(bazaar)
    only = {"price": 300, "quality": 0, "latency": 0, "energy": 0}
    for wish in ("quality", "latency"):
        weights = Weights(**(only | {wish: 700}))
        await bazaar.buy(mode="bargain", weights=weights, rounds=10)
    assert sold[0].quality == 950
    assert sold[1].latency_ms == 50
    assert all(issues.price_fals < 3_000_000 for issues in sold)


@pytest.mark.parametrize("mode", ["bargain", "tender"])
async def test_what_a_buyer_needs_is_what_it_is_offered(bazaar: Bazaar, mode: str) -> None:
    sold = await stall(bazaar)
    await bazaar.buy(mode=mode, min_quality=900)
    await bazaar.buy(mode=mode, max_latency_ms=100)
    await bazaar.buy(mode=mode, privacy="sealed")
    assert sold[0].quality == 950
    assert sold[1].latency_ms == 50
    assert sold[2].privacy == "sealed"
    with pytest.raises(NoDealError):
        await bazaar.buy(mode=mode, min_quality=951)


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
async def test_a_short_bargain_ends_with_a_deal_though_the_best_is_beyond_the_buyers_limit(
    bazaar: Bazaar, rounds: int
) -> None:
    sold = await stall(bazaar)
    keen = Weights(price=100, quality=900, latency=0, energy=0)
    deal = await bazaar.buy(mode="bargain", weights=keen, rounds=rounds, budget_fals=2_400_000)
    assert sold[0].price_fals == deal.agreed_fals <= 2_400_000
    least = await bazaar.buy(mode="bargain", weights=keen, rounds=rounds, budget_fals=1_250_000)
    assert sold[1].privacy == "public", "the one tier with a floor below that"
    assert 1_200_000 <= least.agreed_fals <= 1_250_000
