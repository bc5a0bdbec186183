"""Prices, routes and flags over HTTP: told of deals that were really made, and of forged ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from api.http.documents import AgentDocument, CallDocument
from api.http.price_documents import PricesDocument
from api.http.routes import prices as route
from benchmarks.market_anomalies import Teller
from rahba.envelope import Signer
from tests.fixtures.gateway import CLOCK, IDS, Site
from tests.fixtures.paid_jobs import tell_paid
from wallet.account import Wallet
from wallet.keys import agent_signer


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    for _ in range(500):
        if found := await look():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it never came")


async def test_prices_are_those_of_settled_deals_with_a_forecast_and_naive_beside_it(
    stall: Site,
) -> None:
    paid = {(await stall.call()).json["paid_fals"] for _ in range(3)}

    async def told() -> PricesDocument | None:
        answer = await stall.ask("GET", "/v1/prices/text.echo", token="")
        found = PricesDocument.model_validate(answer.json)
        return found if found.deals == 3 else None

    found: PricesDocument = await until(told)
    assert paid == {found.last_fals} == {"2000000"}
    assert sum(bucket.deals for bucket in found.minutes) == 3
    assert found.hours[-1].median_fals == "2000000"
    assert found.forecast is not None
    assert {step.naive_fals for step in found.forecast.steps} == {"2000000"}
    assert found.forecast.method == "naive"
    brief = PricesDocument.model_validate(
        (await stall.ask("GET", "/v1/prices/text.echo?buckets=0")).json
    )
    assert (brief.minutes, brief.hours, brief.deals) == ([], [], 3)
    assert (await stall.ask("GET", "/v1/prices/text.echo?buckets=-1")).status == 422
    assert found.forecast.steps[0].start % found.forecast.width_ms == 0


async def test_a_skill_that_nobody_bought_has_no_prices(site: Site) -> None:
    found = PricesDocument.model_validate((await site.ask("GET", "/v1/prices/never.sold")).json)
    assert (found.deals, found.forecast, found.minutes) == (0, None, [])
    nonsense = await site.ask("GET", "/v1/prices/NOT%20A%20SKILL")
    assert (nonsense.status, nonsense.json["code"]) == (422, "bad_id")
    assert route.router.routes


@pytest.mark.parametrize("how", ["cheapest", "thompson"])
async def test_a_routed_call_shows_the_order_the_reasons_and_the_cheapest(
    stall: Site, how: str
) -> None:
    answer = await stall.call(mode=None, route=how)
    call = CallDocument.model_validate(answer.json)
    assert (answer.status, call.state, call.mode) == (200, "settled", "posted"), answer.json
    assert call.routing is not None
    assert call.routing.how == how
    assert call.seller == call.routing.order[0].seller
    by_price = sorted(call.routing.order, key=lambda each: int(each.price_fals))
    assert call.routing.cheapest == by_price[0].seller
    assert [each.price_fals for each in by_price] == ["2000000", "3000000"]
    assert all("posted at" in each.reason for each in by_price)
    if how == "cheapest":
        assert call.seller == call.routing.cheapest


async def test_an_unknown_route_is_refused(stall: Site) -> None:
    answer = await stall.call(route="dearest")
    assert (answer.status, answer.json["code"]) == (422, "unknown_field")


async def test_a_call_without_a_route_has_none(stall: Site) -> None:
    assert "routing" not in (await stall.call()).json


def key_of(folder: Path, name: str) -> Signer:
    """Return the key of an agent on the host."""
    return agent_signer(folder / "agents" / name / "key")


async def test_who_fails_is_routed_round_after_a_while(stall: Site, tmp_path: Path) -> None:
    """Three sellers' worth of failures on the feed move calls to the one that delivers."""
    names = {"failed": "parrot", "settled": "thrush"}
    keys = {end: key_of(tmp_path, name) for end, name in names.items()}
    cheap, dear = keys["failed"].did, keys["settled"].did
    teller, feed = Teller(), stall.parts.broker.feed
    for number in range(60):
        for end, seller in keys.items():
            about = {"buyer": f"b{number}", "price": 2_000_000, "skill": "text.echo", "end": end}
            await tell_paid(feed, stall.owner, teller, seller, **about)

    async def learnt() -> bool:
        return (await stall.ask("GET", "/v1/prices/text.echo")).json["deals"] == 60

    await until(learnt)
    sellers = [(await stall.call(mode=None, route="thompson")).json["seller"] for _ in range(5)]
    assert sellers == [dear] * 5
    assert (await stall.call(mode=None, route="cheapest")).json["seller"] == cheap


async def test_a_flag_shows_on_the_card_with_its_reason_and_punishes_nobody(
    stall: Site, tmp_path: Path
) -> None:
    agents = (await stall.ask("GET", "/v1/agents?skill=text.echo")).json["agents"]
    assert all(agent["flags"] == [] for agent in agents)
    parrot = next(agent["id"] for agent in agents if agent["name"] == "parrot")
    teller, feed = Teller(), stall.parts.broker.feed
    ring = key_of(tmp_path, "parrot"), Signer(b"washer".ljust(32))
    await Wallet(stall.ledger, ring[1], clock=CLOCK, ids=IDS).faucet(1_000_000)
    for _ in range(6):
        for buyer, seller in (ring, ring[::-1]):
            about = {"buyer": buyer.did, "price": 1_000_000, "skill": "text.wash"}
            await tell_paid(feed, stall.owner, teller, seller, **about)

    async def flagged() -> Any:
        answer = await stall.ask("GET", f"/v1/agents/{parrot}")
        return AgentDocument.model_validate(answer.json).flags

    (flag,) = await until(flagged)
    assert flag.kind == "ring"
    assert sorted(flag.agents) == sorted(each.did for each in ring)
    assert "went round among 2 keys" in flag.reason
    told = [event.kind for _, event in await feed.tail(1_000)]
    assert told.count("anomaly.ring") == 1
    assert (await stall.call(agent=parrot, skill="text.echo")).status == 200
