"""Sellers who take money without working, and buyers who try to get work without paying."""

from __future__ import annotations

import asyncio

import pytest
from typing_extensions import override

from agents.attendance import Letter
from agents.errors import DeadlineError, SellerFailedError
from agents.seller import Seller
from tests.fixtures.trading import BUYER, Bazaar


class Thief(Seller):
    """Says nothing to an order, and takes the hold when the buyer has gone elsewhere."""

    @override
    async def handle(self, letter: Letter) -> None:
        view = await self._broker.threads.get(letter.message.thread)
        if view is None or view.state != "held":
            await super().handle(letter)
            return
        hold = await self._hold_of(view)
        assert hold is not None
        await asyncio.sleep(3)
        await self._till.capture(hold.id, hold.amount, "0" * 64, until_ms=hold.expires_ms)


@pytest.mark.long
async def test_thieving_sellers_together_get_no_more_than_the_budget(bazaar: Bazaar) -> None:
    await bazaar.open_stall("first", price=1_900_000, kind=Thief)
    await bazaar.open_stall("second", price=1_950_000, kind=Thief)
    await bazaar.open_stall("honest", price=2_000_000)
    before = await bazaar.posted(BUYER.did)
    with pytest.raises(DeadlineError) as failed:
        await bazaar.buy(budget_fals=2_000_000, within_ms=4_000)
    await asyncio.sleep(3.5)
    lost = before - await bazaar.posted(BUYER.did)
    assert lost <= 2_000_000 + 2_000  # and the fees of the holds
    assert int(str(failed.value.facts["at_risk_fals"])) <= 2_000_000


async def test_a_purchase_says_what_failed_sellers_may_still_take(bazaar: Bazaar) -> None:
    await bazaar.open_stall("thief", price=1_000_000, kind=Thief)
    await bazaar.open_stall("honest", price=1_100_000)
    bought = await bazaar.buy(mode="tender", budget_fals=4_000_000, within_ms=6_000)
    assert bought.output == "honest: HELLO"
    assert 0 < bought.at_risk_fals <= 1_000_000


async def test_a_hold_that_no_capture_can_outlast_is_refused_before_the_work(
    bazaar: Bazaar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.parley.HOLD_GRACE_MS", 2 * 3_600_000)
    await bazaar.open_stall("one", price=1_000_000)
    with pytest.raises(SellerFailedError) as refused:
        await bazaar.buy(within_ms=6_000)
    assert refused.value.facts["seller_code"] == "bad_hold"
    assert refused.value.facts["hold_status"] == "released"
