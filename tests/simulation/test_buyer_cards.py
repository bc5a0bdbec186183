"""Cards change while they are being read; buyers notice."""

from __future__ import annotations

from typing import cast

import pytest

from agents.errors import ThreadRefusedError
from broker.ports import Directory, Page, Query
from tests.fixtures.trading import Bazaar


class Changing:
    """A directory whose only card changes its price right after each of the first looks."""

    def __init__(self, bazaar: Bazaar, prices: list[int]) -> None:
        self.bazaar, self.prices = bazaar, prices

    async def find(self, query: Query) -> Page:
        page = await self.bazaar.broker.directory.find(query)
        if self.prices:
            await self.bazaar.open_stall("one", price=self.prices.pop(0))
        return page


@pytest.mark.parametrize(
    ("prices", "budget", "paid"),
    [
        ([1_500_000], 5_000_000, 1_500_000),
        ([1_500_000], 3_000_000, None),
        ([1, 2], 9_000_000, None),
    ],
)
async def test_a_card_that_changed_is_read_again_once_within_the_budget(
    bazaar: Bazaar, prices: list[int], budget: int, paid: int | None
) -> None:
    await bazaar.open_stall("one", price=2_000_000)
    directory = cast("Directory", Changing(bazaar, prices))
    bazaar.buyer._directory = directory
    if paid is None:
        with pytest.raises(ThreadRefusedError) as refused:
            await bazaar.buy(mode="posted", budget_fals=budget)
        assert refused.value.facts["verdict"] == "OFFER_CHANGED"
        return
    bought = await bazaar.buy(mode="posted", budget_fals=budget)
    assert bought.paid_fals == paid
