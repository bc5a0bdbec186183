"""A foreign agent is sold like any other: paid when it delivers, refunded when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
import pytest
from aiohttp import web

from agents.deployments import Deployment, Deployments
from agents.errors import NoSellerError, SellerFailedError
from agents.foreign.bridge import A2aBridge, snapshot
from agents.foreign.look import see
from agents.host import Host
from agents.perform import try_offer
from agents.pulse import SLOWEST_S, Report, pause_s
from agents.stores.memory import MemoryRecords
from agents.template import BRIDGES, BadConfigError, bridges, registry, template_named
from broker.ports import Listing, Query
from rahba.errors import BadInputError
from rahba.messages import open_card
from tests.fixtures.foreign_agents import Ed25519Key, Stranger, card_of, rpc, signed, stranger
from tests.fixtures.hosting import CLOCK, CUSTOMER, IDS, Souk, until

PRICE = 2_000_000
FEE = 1_000  # of a hold, whatever becomes of it
LISTER = CUSTOMER.did


async def eventually(condition: Callable[[], Awaitable[object]], within_s: float = 15) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110  # what is waited for is elsewhere
            await asyncio.sleep(0.02)


def off_for(code: str) -> Callable[[Listing | None, Report], bool]:
    """Return whether an agent is off the market and its report says why."""
    return lambda listing, report: listing is None and report.code == code


@dataclass
class Bridged:
    """A bridge on a host, and the agent at its other end."""

    souk: Souk
    agent: Stranger
    host: Host
    deployments: Deployments
    reports: MemoryRecords
    record: Deployment

    @property
    def did(self) -> str:
        assert self.record.agent is not None
        return self.record.agent

    async def listing(self) -> Listing | None:
        return await self.souk.broker.directory.get(self.did)

    async def report(self) -> Report:
        raw = await self.reports.get(self.record.id)
        return Report(0) if raw is None else msgspec.json.decode(raw, type=Report)

    async def until(
        self, holds: Callable[[Listing | None, Report], bool], within_s: float = 15
    ) -> None:
        async def condition() -> bool:
            return holds(await self.listing(), await self.report())

        await eventually(condition, within_s)

    async def fails(self, text: str = "you", **wishes: Any) -> SellerFailedError:
        """Buy in vain, and see that nothing was paid."""
        before = await self.souk.account(CUSTOMER.did)
        with pytest.raises(SellerFailedError) as caught:
            await self.souk.buy("greet", {"text": text}, mode="posted", **wishes)
        await eventually(self._nothing_is_held)
        after = await self.souk.account(CUSTOMER.did)
        assert after.available == before.available - FEE
        return caught.value

    async def _nothing_is_held(self) -> bool:
        return (await self.souk.account(CUSTOMER.did)).held == 0


async def settings_of(agent: Stranger, **chosen: Any) -> tuple[str, dict[str, Any]]:
    sight = await see(agent.url, allow_private=True)
    given = {"price": "0.002", "probe_seconds": 1, "call_seconds": 5, "allow_private": True}
    return snapshot(sight, agent.url, LISTER, **(given | chosen))


async def left(deployments: Deployments, deployment: str, state: str) -> Deployment:
    """Return the record once it is no longer in ``state``."""

    async def gone() -> bool:
        return (await deployments.get(deployment)).state != state

    await eventually(gone)
    return await deployments.get(deployment)


@asynccontextmanager
async def bridged(souk: Souk, agent: Stranger, **chosen: Any) -> AsyncIterator[Bridged]:
    deployments = Deployments(MemoryRecords(), souk.broker.mailbox, CLOCK, IDS)
    reports = MemoryRecords()
    async with souk.host(deployments=deployments, reports=reports, allow_private=True) as host:
        name, config = await settings_of(agent, **chosen)
        made = await deployments.deploy("a2a", name, config)
        record = await left(deployments, made.id, "pending")
        assert record.state == "running", record.error
        bridge = Bridged(souk, agent, host, deployments, reports, record)
        await bridge.until(lambda listing, report: listing is not None and report.checked > 0)
        yield bridge


async def test_a_job_is_forwarded_paid_and_receipted(souk: Souk) -> None:
    async with stranger() as agent, bridged(souk, agent) as bridge:
        bought = await souk.buy("greet", {"text": "you"}, mode="posted")
        assert bought.output == {"text": "hello, you", "data": [], "files": []}
        assert bought.agreed_fals == PRICE
        assert await souk.settled(bought.thread) == "settled"
        assert (await souk.account(bridge.did)).available >= PRICE
        sent = agent.asked[-1]
        assert sent["method"] == "SendMessage"
        assert sent["params"]["message"]["metadata"] == {"skillId": "greet"}
        assert sent["params"]["message"]["messageId"] == bought.agreement


async def test_a_bridge_without_a_price_works_for_nothing(souk: Souk) -> None:
    async with stranger() as agent, bridged(souk, agent, price="0"):
        before = await souk.account(CUSTOMER.did)
        bought = await souk.buy("greet", {"text": "you"}, mode="posted")
        assert bought.output["text"] == "hello, you"
        assert await souk.settled(bought.thread) == "settled"
        assert (await souk.account(CUSTOMER.did)).available == before.available


async def test_a_card_says_that_it_is_bridged_by_whom_and_from_where(souk: Souk) -> None:
    key = Ed25519Key()
    async with stranger() as agent:
        agent.keys = {"keys": [key.jwk() | {"kid": "k"}]}
        agent.card = signed(agent.card, key, f"{agent.url}/keys.json")
        async with bridged(souk, agent) as bridge:
            listing = await bridge.listing()
            assert listing is not None
            card = open_card(listing.raw, now_ms=None)  # signed by the bridge's own key
            assert card.agent == bridge.did != LISTER
            assert card.template == "a2a"
            for told in (agent.url, LISTER, "signed by its server", "Bridge to an A2A agent"):
                assert told in card.description
            (offer,) = card.skills
            assert offer.tags[:2] == ["a2a", "bridged"]
            assert card.data_policy == "public"
            assert orjson.loads(offer.input_schema)["properties"].keys() == {"text", "data"}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"error": {"code": -32000, "message": "no"}}, "foreign_failed"),
        ({"error": {"code": -32602, "message": "bad params"}}, "foreign_refused"),
        (
            {"result": {"task": {"id": "t", "status": {"state": "TASK_STATE_FAILED"}}}},
            "foreign_failed",
        ),
        (
            {"result": {"task": {"id": "t", "status": {"state": "TASK_STATE_REJECTED"}}}},
            "foreign_failed",
        ),
        (
            {"result": {"kind": "task", "id": "t", "status": {"state": "input-required"}}},
            "foreign_failed",
        ),
        (
            {"result": {"task": {"id": "t", "status": {"state": "TASK_STATE_AUTH_REQUIRED"}}}},
            "foreign_failed",
        ),
        ({"result": {"task": {"status": {"state": "TASK_STATE_WORKING"}}}}, "foreign_failed"),
        ({"result": {"task": {"id": "t", "status": 7}}}, "foreign_failed"),
        ({"result": {"message": {"parts": [{"text": "x"}] * 257}}}, "foreign_failed"),
        ({"result": {"message": {"parts": [{"text": "x" * 1_100_000}]}}}, "foreign_failed"),
        ({"result": "hello"}, "foreign_failed"),
        ({"result": []}, "foreign_failed"),
        ({}, "foreign_failed"),
    ],
)
async def test_whatever_the_agent_fails_with_the_money_returns(
    souk: Souk, answer: dict[str, Any], code: str
) -> None:
    async with stranger() as agent, bridged(souk, agent) as bridge:
        name = bridge.record.id

        async def reply(request: web.Request) -> web.Response:
            question = await request.json()
            if question["method"] == "GetTask":
                return rpc(question, error={"code": -32001, "message": "Task not found"})
            return rpc(question, **answer)

        agent.on_rpc = reply
        assert (await bridge.fails()).facts["seller_code"] == code
        assert (await bridge.deployments.get(name)).state == "running"


async def test_a_server_that_hangs_or_dies_amid_a_job_costs_a_timeout_and_no_money(
    souk: Souk,
) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async def die(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with stranger() as agent, bridged(souk, agent, call_seconds=1) as bridge:
        for fault in (die, hang):
            agent.on_rpc = fault
            assert (await bridge.fails()).facts["seller_code"] == "foreign_failed"


async def test_a_task_that_takes_its_time_is_asked_for_until_it_is_done(souk: Souk) -> None:
    looks: list[str] = []

    async def work(request: web.Request) -> web.Response:
        question = await request.json()
        looks.append(question["method"])
        task: dict[str, Any] = {"id": "t-1", "status": {"state": "TASK_STATE_WORKING"}}
        if question["method"] == "GetTask" and question["params"] != {"id": "t-1"}:
            return rpc(question, error={"code": -32001, "message": "Task not found"})
        if question["method"] == "GetTask" and looks.count("GetTask") > 1:
            parts = [
                {"text": "one"},
                {"text": "two"},
                {"data": {"n": 1.5}},
                {"raw": "AAAA", "mediaType": "image/png", "filename": "a.png"},
                {
                    "kind": "file",
                    "file": {"uri": "https://files.example/b", "mimeType": "text/csv"},
                },
            ]
            task["status"] = {"state": "TASK_STATE_COMPLETED"}
            task["artifacts"] = [{"artifactId": "a", "parts": parts[:2]}, {"parts": parts[2:]}]
        return rpc(question, result=task if question["method"] == "GetTask" else {"task": task})

    async with stranger() as agent, bridged(souk, agent, probe_seconds=300):
        agent.on_rpc = work
        bought = await souk.buy("greet", {"text": "you"}, mode="posted")
        assert bought.output == {
            "text": "one\ntwo",
            "data": [{"n": 1.5}],
            "files": [
                {"name": "a.png", "media_type": "image/png", "base64": "AAAA"},
                {"media_type": "text/csv", "url": "https://files.example/b"},
            ],
        }
        assert looks[0] == "SendMessage"


async def test_a_task_that_is_never_done_is_cancelled(souk: Souk) -> None:
    cancelled = asyncio.Event()

    async def dawdle(request: web.Request) -> web.Response:
        question = await request.json()
        if question["method"] == "CancelTask":
            assert question["params"] == {"id": "t-1"}
            cancelled.set()
        return rpc(question, result={"id": "t-1", "status": {"state": "TASK_STATE_WORKING"}})

    async with stranger() as agent, bridged(souk, agent, call_seconds=1) as bridge:
        agent.on_rpc = dawdle
        assert (await bridge.fails()).facts["seller_code"] == "foreign_failed"
        assert cancelled.is_set()


async def test_what_does_not_fit_is_refused_before_anybody_is_asked(souk: Souk) -> None:
    async with stranger() as agent, bridged(souk, agent, probe_seconds=300) as bridge:
        asked = len(agent.asked)
        for args in ({}, {"txt": "you"}, {"text": "x" * 200_001}, {"text": 1}):
            with pytest.raises(SellerFailedError):
                await souk.buy("greet", args, mode="posted")
        assert len(agent.asked) == asked
        assert bridge.agent is agent


@pytest.mark.long
async def test_a_lease_ends_when_probes_fail_and_comes_back_with_them(souk: Souk) -> None:
    async with stranger() as agent, bridged(souk, agent) as bridge:
        agent.on_rpc = lambda _: _answer(web.Response(status=500))
        await bridge.until(lambda _, report: report.failures > 0)
        listing = await bridge.listing()
        assert listing is not None  # one failure is none: the lease still runs
        await bridge.until(lambda listing, _: listing is None)
        assert (await souk.broker.directory.find(Query(skill="greet"))).listings == ()
        with pytest.raises(NoSellerError):
            await souk.buy("greet", {"text": "you"}, mode="posted")
        report = await bridge.report()
        assert (report.code, report.latency_ms) == ("foreign_unreachable", None)
        agent.on_rpc = None
        await bridge.until(lambda listing, report: listing is not None and report.failures == 0)
        assert (await souk.buy("greet", {"text": "you"}, mode="posted")).output["text"]


@pytest.mark.long
async def test_no_listing_is_older_than_a_lease_whatever_the_host_does(souk: Souk) -> None:
    """The heartbeat of the host, which renews everybody else, does not renew a bridge."""
    async with stranger() as agent, bridged(souk, agent) as bridge:
        agent.on_card = lambda _: _answer(web.Response(status=503))
        await bridge.until(lambda _, report: report.failures > 0)
        for _ in range(200):
            await bridge.host._beat()
            if await bridge.listing() is None:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("still listed")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Somebody Else"},
        {"skills": [{"id": "pay", "name": "Pay", "description": "", "tags": []}]},
        {"signatures": [{"protected": "e30", "signature": "AAAA"}], "name": "Greeter "},
    ],
)
async def test_a_card_that_changes_its_name_or_skills_is_taken_off_at_once(
    souk: Souk, change: dict[str, Any]
) -> None:
    async with stranger() as agent, bridged(souk, agent) as bridge:
        honest, agent.card = agent.card, agent.card | change
        await bridge.until(off_for("foreign_card_changed"), within_s=2.5)
        agent.card = honest | {"description": "Said in other words.", "version": "1.0.1"}
        await bridge.until(lambda listing, _: listing is not None)


async def test_a_card_whose_signature_breaks_or_goes_is_taken_off_at_once(souk: Souk) -> None:
    key = Ed25519Key()
    async with stranger() as agent:
        plain = agent.card
        agent.keys = {"keys": [key.jwk() | {"kid": "k"}]}
        good = signed(plain, key, f"{agent.url}/keys.json")
        agent.card = good
        async with bridged(souk, agent) as bridge:
            agent.card = good | {"description": "altered"}
            await bridge.until(off_for("bad_card_signature"), within_s=2.5)
            agent.card = good
            await bridge.until(lambda listing, _: listing is not None)
            agent.card = plain
            await bridge.until(off_for("foreign_card_changed"), within_s=2.5)


async def test_a_bridge_survives_a_restart_with_its_key_even_while_the_other_end_is_away(
    souk: Souk,
) -> None:
    deployments = Deployments(MemoryRecords(), souk.broker.mailbox, CLOCK, IDS)
    more: dict[str, Any] = {"deployments": deployments, "allow_private": True}

    async with stranger() as agent:
        async with souk.host(**more):
            made = await deployments.deploy("a2a", *await settings_of(agent))
            did = (await left(deployments, made.id, "pending")).agent
            assert did is not None
            await eventually(lambda: souk.broker.directory.get(did))
        agent.on_card = lambda _: _answer(web.Response(status=500))
        async with souk.host(**more) as host:
            await until(lambda: host.members)
            assert host.members[0].did == did
            assert await souk.broker.directory.get(did) is None
            agent.on_card = None
            await eventually(lambda: souk.broker.directory.get(did))


async def test_a_stopped_bridge_asks_nobody_any_more(souk: Souk) -> None:
    async with stranger() as agent, bridged(souk, agent) as bridge:
        await bridge.deployments.stop(bridge.record.id)
        await bridge.until(lambda listing, _: listing is None)
        await until(lambda: not bridge.host.members)
        shown = agent.shown
        await asyncio.sleep(1.3)
        assert agent.shown == shown


async def test_a_host_makes_no_bridge_inwards_unless_its_owner_allows_it(souk: Souk) -> None:
    """Whoever wrote the record: the gateway's word is not enough."""
    deployments = Deployments(MemoryRecords(), souk.broker.mailbox, CLOCK, IDS)
    async with stranger() as agent, souk.host(deployments=deployments) as host:
        made = await deployments.deploy("a2a", *await settings_of(agent))
        record = await left(deployments, made.id, "pending")
        assert record.state == "failed"
        assert record.error is not None
        assert record.error.startswith("unsafe_address")
        assert host.members == []


async def test_skills_that_no_card_has_room_for_are_left_out() -> None:
    async with stranger() as agent:
        wordy = {"name": "翻" * 100, "description": "訳" * 300, "tags": ["標" * 32] * 6}
        skills = [{"id": f"skill {number}"} | wordy for number in range(60)]
        agent.card = card_of(agent.url, skills=skills)
        name, config = await settings_of(agent)
        assert 5 < len(config["skills"]) <= 32
        made = A2aBridge().make(config, name)
        assert next(iter(made.offers)) == "skill-0"


async def test_settings_that_nobody_saw_are_refused(souk: Souk) -> None:
    assert "a2a" in BRIDGES
    assert "a2a" not in registry()
    assert template_named("a2a") is bridges()["a2a"]
    async with stranger() as agent:
        _, config = await settings_of(agent)
        for change in (
            {"pin": "x"},
            {"protocol": "9"},
            {"skills": []},
            {"probe_seconds": 0},
            {"x": 1},
        ):
            with pytest.raises(BadConfigError):
                A2aBridge().configure(config | change)
        sight = await see(agent.url, allow_private=True)
        with pytest.raises(BadInputError):
            snapshot(sight, agent.url + "/" + "x" * 256, LISTER)
        made = A2aBridge().make(config, "greeter")
        assert orjson.loads(await try_offer(made, "greet", {"text": "you"}))["output"]["text"]


def test_looks_that_fail_are_repeated_soon_and_then_ever_later() -> None:
    pauses = [pause_s(20, failures) for failures in range(40)]
    assert pauses[:5] == [20, 5, 10, 20, 40]
    assert sum(pauses[1:4]) < 60  # thrice within the lease
    assert pauses[-1] == SLOWEST_S


async def _answer(response: web.Response) -> web.Response:
    return response
