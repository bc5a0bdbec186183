"""Agents on a host, with a real broker and a real ledger."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from agents import Agent, Job
from agents.deployments import Deployment, Deployments, write_deployment
from agents.errors import SellerFailedError
from agents.host import Host, HostRunningError, name_for, open_host
from agents.stores.memory import MemoryRecords
from agents.template import SelfTestError, Template, TemplateConfig, registry
from broker.ports import Query
from broker.transports.redis.wire import Wire
from rahba.encoding import b64, unb64
from tests.fixtures.hosting import CLOCK, IDS, Souk, echo_agent, source_of, until
from wallet.transactions import Challenge

pytestmark = pytest.mark.redis

EXAMPLE = Path(__file__).parents[2] / "examples" / "translator.py"


async def test_the_five_line_agent_is_bought_from_and_paid(souk: Souk) -> None:
    async with souk.host(EXAMPLE) as host:
        (member,) = host.members
        deal = await souk.buy("text.translate", {"text": "good morning market"})
        assert deal.output == "bon matin marché"
        assert deal.seller == member.did
        assert deal.receipt_verified
        assert await souk.settled(deal.thread) == "settled"
        assert deal.paid_fals == deal.agreed_fals > 0


@pytest.mark.parametrize("mode", ["posted", "tender", "bargain"])
async def test_an_agent_sells_in_every_mode(souk: Souk, mode: str) -> None:
    async with souk.hosting(echo_agent()) as member:
        before = (await souk.account(member.did)).posted
        deal = await souk.buy("text.echo", {"text": "salam", "times": 2}, mode=mode)
        assert deal.output == "salam salam"
        assert deal.mode == mode
        assert await souk.settled(deal.thread) == "settled"
        assert 1_000_000 <= deal.agreed_fals <= 2_000_000
        after = (await souk.account(member.did)).posted
        assert after - before == deal.agreed_fals - 1_000


async def test_a_job_that_raises_is_not_paid_and_its_hold_is_released(souk: Souk) -> None:
    agent = Agent("broken")

    @agent.offer("text.break", price="0.002")
    def broken(text: str) -> str:
        raise RuntimeError("secret detail")

    async with souk.hosting(agent):
        before = await souk.account(souk.wallet.account)
        with pytest.raises(SellerFailedError) as caught:
            await souk.buy("text.break", {"text": "x"})
        assert caught.value.facts["seller_code"] == "job_failed"
        assert "secret" not in caught.value.message
        after = await souk.account(souk.wallet.account)
        assert (after.held, before.posted - after.posted) == (0, 1_000)
        assert "capture" not in await souk.types_logged()


async def test_a_job_that_hangs_ends_at_its_deadline_and_its_hold_is_released(
    souk: Souk,
) -> None:
    agent = Agent("slow", capacity=1, backlog=0)

    @agent.offer("text.hang", price="0.002", latency_ms=100)
    def hang(text: str) -> str:
        time.sleep(3)
        return text

    async with souk.hosting(agent) as member:
        with pytest.raises(SellerFailedError) as caught:
            await souk.buy("text.hang", {"text": "x"}, within_ms=1_500)
        assert caught.value.facts["seller_code"] == "deadline_exceeded"
        assert (await souk.account(souk.wallet.account)).held == 0
        assert not member.seller.bench.free  # the thread still hangs: the agent says it is busy
        with pytest.raises(SellerFailedError) as caught:
            await souk.buy("text.hang", {"text": "x"}, mode="posted", within_ms=1_000)
        assert caught.value.facts["seller_code"] == "busy"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"text": "x", "volume": 11}, "bad_arguments"),
        ({}, "bad_arguments"),
        ({"text": "x", "times": "many"}, "bad_arguments"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_before_any_work(
    souk: Souk, args: dict[str, object], code: str
) -> None:
    async with souk.hosting(echo_agent()):
        with pytest.raises(SellerFailedError) as caught:
            await souk.buy("text.echo", args)
        assert caught.value.facts["seller_code"] == code
        assert (await souk.account(souk.wallet.account)).held == 0


async def test_an_order_delivered_twice_is_worked_on_and_paid_once(souk: Souk) -> None:
    agent, runs = Agent("counter"), []

    @agent.offer("text.count", price="0.002")
    async def count(text: str) -> int:
        runs.append(text)
        await asyncio.sleep(0.3)
        return len(runs)

    async with souk.hosting(agent) as member:
        buying = asyncio.create_task(souk.buy("text.count", {"text": "a"}, mode="posted"))
        await until(lambda: runs)
        (group,) = await souk.broker.threads.recent(limit=1)
        (view,) = await souk.broker.threads.group(group)
        await souk.broker.mailbox.send(member.did, view.transcript[0])
        deal = await buying
        await souk.broker.mailbox.send(member.did, view.transcript[0])
        assert await souk.settled(deal.thread) == "settled"
        await asyncio.sleep(0.3)
        assert runs == ["a"]
        assert (await souk.types_logged()).count("capture") == 1


async def test_a_host_that_is_cut_off_mid_job_does_it_again_after_its_restart_and_is_paid_once(
    souk: Souk,
) -> None:
    agent, runs = Agent("resumer"), []

    @agent.offer("text.resume", price="0.002")
    async def resume(text: str) -> int:
        runs.append(text)
        await asyncio.sleep(60 if len(runs) == 1 else 0)
        return len(runs)

    async with souk.host() as first:
        await first.add(agent, source_of(agent))
        buying = asyncio.create_task(
            souk.buy("text.resume", {"text": "a"}, mode="posted", within_ms=20_000)
        )
        await until(lambda: runs)
        await cut_off(first)
    async with souk.host() as second:
        await second.add(agent, source_of(agent))
        deal = await buying
        assert deal.output == 2
        assert await souk.settled(deal.thread) == "settled"
        assert (await souk.types_logged()).count("capture") == 1


async def test_neither_input_nor_output_of_a_deal_lies_readable_in_the_broker(
    souk: Souk, empty_redis: str
) -> None:
    wire, secret = Wire(empty_redis), "the-word-is-sesame"
    async with souk.hosting(echo_agent()) as member:
        deal = await souk.buy("text.echo", {"text": secret, "times": 2}, mode="bargain")
        assert deal.output == f"{secret} {secret}"
        assert await souk.settled(deal.thread) == "settled"
        dumped = b"".join([await wire.call("DUMP", key) for key in await wire.call("KEYS", "*")])
        view = await souk.broker.threads.get(deal.thread)
        assert view is not None
        log = b"".join(view.transcript)
        payloads = b"".join(
            unb64(part) for part in re.findall(r'"payload":"([^"]+)"', log.decode())
        )
    assert member.did.encode() in payloads, "what is public can be read"
    assert secret.encode() not in dumped + log + payloads
    assert b64(secret.encode())[:20].encode() not in dumped + log + payloads
    await wire.close()


async def test_a_job_buys_from_others_within_its_purse(souk: Souk) -> None:
    agent = Agent("middleman")

    @agent.offer("text.resell", price="0.01")
    async def resell(text: str, job: Job) -> str:
        job.progress(0.5)
        bought = await job.call("text.echo", text=text, times=3)
        return f"{bought} for {job.purse.spent}"

    async with souk.host() as host:
        await host.add(echo_agent(), source_of(echo_agent()))
        await host.add(agent, source_of(agent))
        deal = await souk.buy("text.resell", {"text": "ah"})
        words, _, spent = deal.output.partition(" for ")
        assert words == "ah ah ah"
        assert 1_000_000 <= int(spent) <= 2_000_000


async def test_a_dead_host_s_agents_disappear_within_their_lease_and_a_stopped_one_s_at_once(
    souk: Souk,
) -> None:
    async with souk.hosting(echo_agent()) as member:
        assert await souk.broker.directory.get(member.did) is not None
    assert await souk.broker.directory.get(member.did) is None


async def test_a_deployment_runs_and_stops_when_asked(souk: Souk) -> None:
    deployments = Deployments(MemoryRecords(), souk.broker.mailbox, CLOCK, IDS)
    async with souk.host(deployments=deployments) as host:
        made = await deployments.deploy("keywords", "finder", {})
        await reached(deployments, made.id, "running")
        (member,) = host.members
        assert (await deployments.get(made.id)).agent == member.did
        await deployments.stop(made.id)
        await reached(deployments, made.id, "stopped")
        assert host.members == []
        assert await souk.broker.directory.get(member.did) is None


async def test_a_host_takes_its_deployments_again_under_their_old_keys(souk: Souk) -> None:
    deployments = Deployments(MemoryRecords(), souk.broker.mailbox, CLOCK, IDS)
    async with souk.host(deployments=deployments):
        made = await deployments.deploy("keywords", "finder", {})
        before = await reached(deployments, made.id, "running")
    async with souk.host(deployments=deployments) as host:
        await until(lambda: host.members)
        assert host.members[0].did == before.agent


async def reached(deployments: Deployments, deployment_id: str, state: str) -> Deployment:
    for _ in range(200):
        record = await deployments.get(deployment_id)
        if record.state == state:
            return record
        await asyncio.sleep(0.05)
    raise AssertionError(f"still {record}")


async def cut_off(host: Host) -> None:
    """Stop a host as if its process had been killed: nothing is acknowledged or said."""
    for task in [*host._courier._loops, *host._courier._tasks]:
        task.cancel()
    await asyncio.gather(*host._courier._loops, *host._courier._tasks, return_exceptions=True)
    host._courier._loops = []


class Ailment(TemplateConfig):
    ailment: str


class Sickly(Template):
    """Fails in the way that its settings ask for."""

    name: ClassVar[str] = "sickly"
    title: ClassVar[str] = "Sickly"
    description: ClassVar[str] = "Fails its self-test."
    Config: ClassVar[type[BaseModel]] = Ailment

    def build(self, config: Any, name: str) -> Agent:
        if config.ailment == "no agent":
            raise RuntimeError("no agent today")
        agent = echo_agent()
        agent.description = config.ailment
        return agent

    async def self_test(self, agent: Agent) -> None:
        if agent.description == "raises":
            raise ValueError("not well")
        if agent.description == "hangs":
            await asyncio.sleep(60)
        raise SelfTestError("wrong result")


@pytest.mark.parametrize("ailment", ["raises", "hangs", "wrong"])
async def test_a_deployment_that_fails_its_self_test_says_so_and_is_never_listed(
    souk: Souk, monkeypatch: pytest.MonkeyPatch, ailment: str
) -> None:
    monkeypatch.setitem(registry(), "sickly", Sickly())
    monkeypatch.setattr("agents.host.SELF_TEST_S", 0.2)
    deployments = Deployments(MemoryRecords(), souk.broker.mailbox, CLOCK, IDS)
    async with souk.host(deployments=deployments) as host:
        made = await deployments.deploy("sickly", "sick", {"ailment": ailment})
        failed = await reached(deployments, made.id, "failed")
        assert failed.error is not None
        assert failed.error.startswith("self_test_failed")
        assert host.members == []
        assert (await souk.broker.directory.find(Query(skill="text.echo"))).listings == ()
        well = await deployments.deploy("keywords", "well", {})
        await reached(deployments, well.id, "running")


async def test_a_deployment_whose_word_got_lost_is_taken_all_the_same(
    souk: Souk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.host.ORPHAN_MS", 100)
    store = MemoryRecords()
    deployments = Deployments(store, souk.broker.mailbox, CLOCK, IDS)
    async with souk.host(deployments=deployments):
        record = Deployment(IDS.new(), "keywords", "lost", {}, "pending", CLOCK.now_ms())
        await store.put(record.id, write_deployment(record))
        await reached(deployments, record.id, "running")


async def test_one_process_at_a_time_runs_a_host(souk: Souk) -> None:
    async with souk.host():
        with pytest.raises(HostRunningError), open_host(souk.world(), "test"):
            pass
        with open_host(souk.world(), "another"):
            pass
    with open_host(souk.world(), "test"):
        pass


async def test_an_agent_whose_lease_was_lost_is_listed_again(
    souk: Souk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.host.HEARTBEAT_S", 0.1)
    async with souk.hosting(echo_agent()) as member:
        await souk.broker.directory.remove(member.did)
        async with asyncio.timeout(5):
            while await souk.broker.directory.get(member.did) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def test_hosts_of_other_files_have_other_names(tmp_path: Path) -> None:
    one, two = tmp_path / "a.py", tmp_path / "b.py"
    assert len({name_for([]), name_for([one]), name_for([two]), name_for([one, two])}) == 4
    assert name_for([one, two])[2:] == name_for([two, one])[2:]


async def challenged(souk: Souk, hold: str | None) -> str:
    """Say as the customer that nothing was delivered; returns the hold's id."""
    assert hold is not None
    await souk.wallet.do(Challenge, hold=hold)
    return hold


async def status_of(souk: Souk, hold: str, wanted: str = "", within_s: float = 10) -> str:
    """Return the status of a hold, once it is ``wanted`` if something is."""
    for _ in range(int(within_s / 0.05)):
        shown = await souk.ledger.hold(hold)
        assert shown is not None
        if wanted in {"", shown.status}:
            break
        await asyncio.sleep(0.05)
    return shown.status


async def test_a_host_answers_buyers_that_deny_what_they_got(
    souk: Souk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.host.HEARTBEAT_S", 0.2)
    async with souk.hosting(echo_agent()) as member:
        first = await souk.buy("text.echo", {"text": "salam", "times": 2})
        second = await souk.buy("text.echo", {"text": "labas", "times": 2})
        holds = [await challenged(souk, deal.hold) for deal in (first, second)]
        for hold in holds:
            assert await status_of(souk, hold, "captured") == "captured"
        account = await souk.account(member.did)
        assert account.held == 0
    assert (await souk.types_logged()).count("deliver") == 2


async def test_a_host_that_starts_again_answers_what_was_challenged_meanwhile(
    souk: Souk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.host.HEARTBEAT_S", 0.2)
    async with souk.hosting(echo_agent(), key="echo"):
        deal = await souk.buy("text.echo", {"text": "salam", "times": 2})
    hold = await challenged(souk, deal.hold)
    await asyncio.sleep(0.5)
    assert await status_of(souk, hold) == "challenged"
    async with souk.hosting(echo_agent(), key="echo") as member:
        assert member.did == deal.seller
        assert await status_of(souk, hold, "captured") == "captured"
