"""A sealed tender: nobody gains by being first, and nobody is waited for in vain."""

from __future__ import annotations

import time

import pytest

from tests.fixtures.trading import (
    Bazaar,
    Twisted,
    seller_key,
)

# A sealed tender.


@pytest.mark.parametrize("first", ["a", "b", "c"])
async def test_arrival_order_does_not_matter(bazaar: Bazaar, first: str) -> None:
    """Whoever answers first, the best score wins, every time."""
    for name, price in (("a", 1_800_000), ("b", 1_500_000), ("c", 2_000_000)):
        seller = await bazaar.open_stall(name, price=price, kind=Twisted)
        assert isinstance(seller, Twisted)
        seller.delay_s = 0.0 if name == first else 0.08
    winners = {(await bazaar.buy()).seller for _ in range(4)}
    assert winners == {seller_key("b").did}


async def test_no_quote_is_looked_at_before_everybody_answered_or_the_window_closed(
    bazaar: Bazaar,
) -> None:
    await bazaar.open_stall("quick", price=1_000_000)
    silent = await bazaar.open_stall("silent", price=900_000, kind=Twisted)
    assert isinstance(silent, Twisted)
    silent.delay_s = 30
    began = time.monotonic()
    bought = await bazaar.buy(window_ms=600)
    assert bought.seller == seller_key("quick").did
    assert time.monotonic() - began >= 0.6


async def test_a_tender_ends_early_when_everybody_has_answered(bazaar: Bazaar) -> None:
    for name in ("a", "b"):
        await bazaar.open_stall(name)
    began = time.monotonic()
    await bazaar.buy(window_ms=5_000)
    assert time.monotonic() - began < 3


async def test_a_quote_that_comes_after_the_window_is_late_however_low(bazaar: Bazaar) -> None:
    await bazaar.open_stall("punctual", price=2_000_000)
    late = await bazaar.open_stall("late", price=100_000, kind=Twisted)
    assert isinstance(late, Twisted)
    late.delay_s = 0.5
    bought = await bazaar.buy(window_ms=250)
    assert bought.seller == seller_key("punctual").did
