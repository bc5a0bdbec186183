"""The client of the SDK against a real gateway."""

from __future__ import annotations

import asyncio

import pytest

from rahba.client.market import (
    Market,
    MarketProblemError,
    MarketUnreachableError,
    _Request,
    verify_deal,
)
from rahba.errors import BadInputError, BadSignatureError
from tests.fixtures.gateway import Site


async def test_a_deal_bought_through_the_client_verifies_offline(stall: Site) -> None:
    async with Market(stall.url, stall.token) as market:
        call = await market.call(
            {"text": "salam"}, skill="text.echo", budget_fals=5_000_000, mode="posted"
        )
        assert (call["state"], call["output"]) == ("settled", "salam")
        deal = await market.deal(call["agreement"])
        receipt = verify_deal(deal)
        assert receipt.price == call["paid_fals"]
        deal["signatures"]["seller"]["signature"] = deal["signatures"]["buyer"]["signature"]
        with pytest.raises(BadSignatureError):
            verify_deal(deal)
        with pytest.raises(BadInputError):
            verify_deal(deal | {"receipt": None})
        talk = await market.negotiation(call["group"], raw=True)
        assert talk["threads"][0]["transcript"]
        kinds = [event["kind"] async for event in market.call_events(call["id"])]
        assert kinds[0] == "accepted"
        assert kinds[-1] == "settled"


async def test_the_market_can_be_listed_page_by_page(stall: Site) -> None:
    async with Market(stall.url) as market:
        names = {agent["name"]: agent["id"] async for agent in market.agents()}
        assert set(names) == {"parrot", "thrush", "cuckoo", "owl"}
        assert (await market.agent(names["owl"]))["card"]
        assert [item async for item in market.negotiations()] == []
        assert (await market.supply())["equal"]


async def test_a_failed_call_raises_its_problem_at_once(stall: Site) -> None:
    async with Market(stall.url, stall.token) as market, asyncio.timeout(5):
        with pytest.raises(MarketProblemError) as caught:
            await market.call({"text": "x"}, skill="fail.raise", budget_fals=5_000_000)
        assert (caught.value.status, caught.value.code) == (502, "seller_failed")
        with pytest.raises(MarketProblemError) as missing:
            await market.call({}, skill="no.such", budget_fals=1)
        assert missing.value.code == "unknown_skill"


async def test_the_same_key_buys_once(stall: Site) -> None:
    async with Market(stall.url, stall.token) as market:

        async def buy() -> str:
            call = await market.call(
                {"text": "x"}, skill="text.echo", budget_fals=5_000_000, mode="posted", key="k"
            )
            return str(call["id"])

        assert len({await task for task in [asyncio.create_task(buy()) for _ in range(4)]}) == 1
        assert len([item async for item in market.negotiations()]) == 1


async def test_the_feed_goes_on_after_the_last_event_it_saw(site: Site) -> None:
    feed = site.parts.broker.feed
    ids = [await feed.publish("tick", {"n": n}) for n in range(5)]
    async with Market(site.url) as market, asyncio.timeout(5):
        told = market.feed(after=ids[1])
        assert [(await anext(told))["data"]["n"] for _ in range(3)] == [2, 3, 4]


async def test_a_gateway_that_is_not_there_is_told_as_such() -> None:
    async with Market("http://127.0.0.1:9") as market:
        with pytest.raises(MarketUnreachableError):
            await market._answer(_Request("GET", "/healthz"), 0.3)
