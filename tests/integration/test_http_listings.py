"""``/v1/listings``: an agent elsewhere is put on the market by its URL, and taken off again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from agents.deployments import Deployments
from agents.foreign import look
from agents.host import World, open_host
from agents.stores.redis import REPORTS_KEY, RedisRecords
from api.http.listing_documents import ListingDocument, ListingPage
from api.http.visits import Visits
from broker.transports.redis import connect
from broker.transports.redis.wire import Wire
from tests.fixtures.foreign_agents import Ed25519Key, Stranger, card_of, signed, stranger
from tests.fixtures.gateway import CLOCK, IDS, Site, parts_of, serving


@pytest_asyncio.fixture
async def open_site(site: Site) -> AsyncIterator[Site]:
    """Serve a gateway whose owner allows bridges into private networks."""
    parts = parts_of(site.ledger, site.parts.broker, site.parts.wire, allow_private=True)
    async with serving(parts) as url:
        yield Site(url, parts, site.owner, site.token, site.web)


@pytest_asyncio.fixture
async def hosted(open_site: Site, empty_redis: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Serve such a gateway with a host that takes its deployments."""
    broker, wire = await connect(empty_redis, CLOCK), Wire(empty_redis)
    world = World(
        broker=broker,
        ledger=open_site.ledger,
        clock=CLOCK,
        ids=IDS,
        data_dir=tmp_path,
        faucet=True,
        deployments=Deployments(RedisRecords(wire), broker.mailbox, CLOCK, IDS),
        reports=RedisRecords(wire, REPORTS_KEY),
        allow_private=True,
    )
    stop = asyncio.Event()
    with open_host(world, "test") as host:
        running = asyncio.create_task(host.run(stop))
        await host.ready.wait()
        yield open_site
        stop.set()
        await running
    await broker.close()
    await wire.close()


async def listing(site: Site, identity: str, *states: str) -> dict[str, Any]:
    """Return a listing once it is in one of ``states``."""
    for _ in range(300):
        shown = (await site.ask("GET", f"/v1/listings/{identity}")).json
        if shown["state"] in states:
            return dict(shown)
        await asyncio.sleep(0.05)
    raise AssertionError(f"still {shown}")


def codes(answered: Any) -> tuple[int, str]:
    return answered.status, answered.json["code"]


async def test_an_agent_is_listed_by_url_bought_from_over_http_and_taken_off(hosted: Site) -> None:
    async with stranger() as agent:
        body = {"url": agent.url, "price": "2000000", "probe_seconds": 1}
        made = await hosted.ask("POST", "/v1/listings", json=body)
        assert made.status == 202
        identity = made.json["id"]
        assert made.headers["location"] == f"/v1/listings/{identity}"
        shown = await listing(hosted, identity, "listed")
        _ = ListingDocument.model_validate(shown)
        assert shown["url"] == agent.url
        assert (shown["seal"], shown["lister"]) == ("unsigned", hosted.owner.account)
        assert shown["skills"] == [{"skill": "greet", "id": "greet"}]
        found = (await hosted.ask("GET", f"/v1/agents/{shown['agent']}")).json
        assert found["template"] == "a2a"
        assert agent.url in found["description"]
        assert hosted.owner.account in found["description"]
        called = await hosted.call(
            skill="greet", input={"text": "you"}, headers={"prefer": "wait=20"}
        )
        assert called.json["output"]["text"] == "hello, you"
        assert called.json["paid_fals"] == "2000000"
        page = (await hosted.ask("GET", "/v1/listings", token="")).json
        assert [each["id"] for each in ListingPage.model_validate(page).model_dump()["listings"]]
        ended = await hosted.ask("DELETE", f"/v1/listings/{identity}")
        assert ended.status == 202
        shown = await listing(hosted, identity, "stopped")
        assert (await hosted.ask("GET", f"/v1/agents/{shown['agent']}")).status == 404
        again = await hosted.ask("POST", "/v1/listings", json=body)
        assert again.json["id"] == identity
        assert (await listing(hosted, identity, "listed"))["agent"] == shown["agent"]


async def test_how_a_listed_agent_is_doing_is_shown(hosted: Site) -> None:
    async with stranger() as agent:
        body = {"url": agent.url, "probe_seconds": 1}
        identity = (await hosted.ask("POST", "/v1/listings", json=body)).json["id"]
        well = await listing(hosted, identity, "listed")
        for _ in range(100):
            if (well := await listing(hosted, identity, "listed"))["checked"]:
                break
            await asyncio.sleep(0.05)
        assert well["latency_ms"] is not None
        assert (well["failures"], well["error"]) == (0, None)
        agent.card = card_of(agent.url, name="Somebody Else")
        ill = await listing(hosted, identity, "silent")
        assert ill["failures"] >= 1
        assert ill["code"] == "foreign_card_changed"


async def test_asking_for_the_same_again_lists_once_and_other_terms_are_refused(
    open_site: Site,
) -> None:
    async with stranger() as agent:
        body = {"url": agent.url, "price": "5"}
        first = await open_site.ask("POST", "/v1/listings", json=body)
        second = await open_site.ask("POST", "/v1/listings", json=body | {"url": agent.url + "/"})
        assert first.json["id"] == second.json["id"]
        assert agent.shown == 1
        for other in ({"price": "6"}, {"name": "another"}, {"call_seconds": 9}):
            refused = await open_site.ask("POST", "/v1/listings", json=body | other)
            assert codes(refused) == (409, "already_listed")
        assert len((await open_site.ask("GET", "/v1/listings")).json["listings"]) == 1


async def test_only_who_listed_an_agent_takes_it_off(open_site: Site) -> None:
    async with stranger() as agent:
        body = {"url": agent.url}
        identity = (await open_site.ask("POST", "/v1/listings", json=body)).json["id"]
        for method, path in (("POST", ""), ("DELETE", f"/{identity}")):
            refused = await open_site.ask(method, f"/v1/listings{path}", json=body, token="")
            assert codes(refused) == (401, "key_required")
        await open_site.parts.wire.call("HSET", "{p}:owners", identity, "did:key:somebody")
        refused = await open_site.ask("DELETE", f"/v1/listings/{identity}")
        assert codes(refused) == (403, "not_yours")


async def test_without_the_setting_a_private_address_is_refused_and_not_asked(site: Site) -> None:
    async with stranger() as agent:
        refused = await site.ask("POST", "/v1/listings", json={"url": agent.url})
        assert codes(refused) == (422, "unsafe_address")
        assert agent.shown == 0
        assert (await site.ask("GET", "/v1/listings")).json == {"listings": []}


async def test_a_bridge_is_deployed_by_nobodys_hand(site: Site) -> None:
    """Its settings say who stands for it and what was seen: nobody may write them himself."""
    body = {"template": "a2a", "name": "forged", "config": {"lister": "did:key:somebody"}}
    refused = await site.ask("POST", "/v1/deployments", json=body)
    assert codes(refused) == (422, "unknown_template")
    shown = (await site.ask("GET", "/v1/templates")).json["templates"]
    assert "a2a" not in {each["name"] for each in shown}


async def _answer(response: web.Response) -> web.Response:
    return response


def _huge(agent: Stranger) -> None:
    agent.card = card_of(agent.url, description="x" * look.MAX_CARD_BYTES)


def _no_json(agent: Stranger) -> None:
    agent.on_card = lambda _: _answer(web.Response(body=b"{", content_type="application/json"))


def _no_card(agent: Stranger) -> None:
    agent.on_card = lambda _: _answer(web.Response(status=404))


def _deep(agent: Stranger) -> None:
    deep = orjson.loads("[" * 60 + "]" * 60)
    agent.card = card_of(agent.url, capabilities={"x": deep})


def _inwards(agent: Stranger) -> None:
    headers = {"Location": "http://169.254.169.254/latest/meta-data/"}
    agent.on_card = lambda _: _answer(web.Response(status=302, headers=headers))


def _forged(agent: Stranger) -> None:
    key = Ed25519Key()
    agent.keys = {"keys": [key.jwk() | {"kid": "k"}]}
    agent.card = signed(agent.card, key, f"{agent.url}/keys.json") | {"name": "Forged"}


def _grpc(agent: Stranger) -> None:
    agent.card["supportedInterfaces"][0]["protocolBinding"] = "GRPC"


def _failing(agent: Stranger) -> None:
    agent.on_rpc = lambda _: _answer(web.Response(status=500))


def _nonsense(agent: Stranger) -> None:
    agent.on_rpc = lambda _: _answer(web.json_response({"hello": 1}))


@pytest.mark.parametrize(
    ("spoil", "status", "code"),
    [
        (_huge, 413, "too_large"),
        (_no_json, 422, "bad_foreign_card"),
        (_no_card, 404, "no_foreign_card"),
        (_deep, 422, "too_complex"),
        (_inwards, 422, "unsafe_address"),
        (_forged, 422, "bad_card_signature"),
        (_grpc, 422, "unsupported_protocol"),
        (_failing, 502, "foreign_unreachable"),
        (_nonsense, 502, "bad_foreign_answer"),
    ],
)
async def test_a_hostile_agent_is_refused_with_a_code_and_nothing_is_recorded(
    open_site: Site, spoil: Any, status: int, code: str
) -> None:
    async with stranger() as agent:
        spoil(agent)
        refused = await open_site.ask("POST", "/v1/listings", json={"url": agent.url})
        assert codes(refused) == (status, code)
    assert (await open_site.ask("GET", "/v1/listings")).json == {"listings": []}
    assert await open_site.parts.wire.call("HLEN", "{p}:owners") == 0


async def test_a_name_that_no_agent_can_have_leaves_nothing_behind(open_site: Site) -> None:
    async with stranger() as agent:
        body = {"url": agent.url, "name": "!!"}
        refused = await open_site.ask("POST", "/v1/listings", json=body)
        assert codes(refused) == (422, "bad_offer")
    assert await open_site.parts.wire.call("HLEN", "{p}:owners") == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": 1},
        {"url": "ftp://example.org"},
        {"url": "http://user@example.org"},
        {"url": "http://example.org/" + "x" * 300},
        {"url": "http://example.org", "price": "-1"},
        {"url": "http://example.org", "price": "0.1"},
        {"url": "http://example.org", "probe_seconds": 0},
        {"url": "http://example.org", "lister": "did:key:somebody"},
        {"url": "http://example.org", "allow_private": True},
    ],
)
async def test_a_listing_that_is_malformed_is_refused_before_anybody_is_asked(
    site: Site, body: dict[str, Any]
) -> None:
    assert (await site.ask("POST", "/v1/listings", json=body)).status == 422


async def test_visits_are_few_at_once_and_a_key_makes_one_at_a_time(site: Site) -> None:
    parts = parts_of(
        site.ledger, site.parts.broker, site.parts.wire, allow_private=True, max_visits=2
    )
    now, peak = 0, 0

    async def slow(_: web.Request) -> web.Response:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await asyncio.sleep(0.1)
        now -= 1
        return web.Response(status=404)

    async with stranger() as agent, serving(parts) as url:
        agent.on_card = slow
        crowd = Site(url, parts, site.owner, site.token, site.web)
        keys = [await site.key() for _ in range(3)]

        async def ask_all(tokens: list[str]) -> int:
            nonlocal peak
            peak = 0
            answers = await asyncio.gather(
                *(
                    crowd.ask("POST", "/v1/listings", token=token, json={"url": f"{agent.url}?{n}"})
                    for n, token in enumerate(tokens)
                )
            )
            assert {each.status for each in answers} == {404}
            return peak

        assert await ask_all([keys[0]] * 4) == 1
        assert await ask_all(keys * 2) == 2


async def test_who_sends_the_gateway_to_a_server_that_hangs_holds_up_nobody_else(
    open_site: Site,
) -> None:
    stuck = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        stuck.set()
        await asyncio.sleep(30)
        return web.Response()

    async with stranger() as bad, stranger() as good:
        bad.on_card = hang
        visits = [
            asyncio.create_task(
                open_site.ask("POST", "/v1/listings", json={"url": f"{bad.url}?{number}"})
            )
            for number in range(20)
        ]
        await stuck.wait()
        async with asyncio.timeout(5):
            answer = await open_site.ask(
                "POST", "/v1/listings", json={"url": good.url}, token=await open_site.key()
            )
        assert answer.status == 202
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)


async def test_a_line_that_nobody_stands_in_is_forgotten() -> None:
    visits = Visits(2)
    async with visits.turn("a"):
        waiting = asyncio.create_task(_visit(visits, "a"))
        await asyncio.sleep(0)
        async with asyncio.timeout(1), visits.turn("b"):
            assert set(visits._lines) == {"a", "b"}
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert visits._lines == {}


async def _visit(visits: Visits, key: str) -> None:
    async with visits.turn(key):
        pass
