"""A master of a real cluster is killed: its replica takes its place, and the market goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from broker import Broker
from broker.errors import BrokerUnreachableError
from broker.ports import Query
from broker.transports.redis import connect
from broker.transports.redis.cluster import ClusterWire
from broker.transports.redis.directory import CARDS
from broker.transports.redis.feed import KEY as FEED
from broker.transports.redis.wire import Script
from rahba.clock import SystemClock
from tests.fixtures.cluster import CLUSTERED, Member, RedisCluster, program_of
from tests.fixtures.market_messages import signed_card, signer

pytestmark = pytest.mark.long

T = TypeVar("T")

PATIENCE_SECONDS = 0.5
FAILOVER_SECONDS = 15.0


@pytest.fixture(scope="module", params=CLUSTERED)
def replicated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisCluster]:
    """Run three masters and their replicas of each server in turn."""
    folder = tmp_path_factory.mktemp("replicated")
    cluster = RedisCluster(program_of(request.param), folder, replicas=True)
    yield cluster
    cluster.stop()


@pytest.fixture
def doomed(replicated: RedisCluster) -> RedisCluster:
    """Return the whole cluster, to be damaged."""
    replicated.mend()
    replicated.emptied()
    return replicated


async def promoted(cluster: RedisCluster, key: str, victim: Member) -> None:
    """Wait until all have heard who serves a key in place of ``victim``."""
    async with asyncio.timeout(10):
        while cluster.master_of(key) is victim:  # noqa: ASYNC110  # gossip tells nobody
            await asyncio.sleep(0.1)


async def test_after_a_master_is_killed_its_replica_serves_the_market(
    doomed: RedisCluster,
) -> None:
    clock = SystemClock()
    broker = await connect(doomed.members[0].url, clock, patience_s=PATIENCE_SECONDS)
    owners = [signer() for _ in range(20)]
    for owner in owners:
        raw = signed_card(owner, clock.now_ms(), ttl_ms=60_000)
        await broker.directory.publish(raw)
    first = await broker.feed.publish("call", {"n": 0})
    seen: list[object] = []

    async def listen() -> None:
        async for batch in broker.feed.subscribe(after=first):
            seen.extend(event.data["n"] for _, event in batch)

    listening = asyncio.create_task(listen())
    reader = broker.mailbox.receive(["ann"], consumer="host")
    assert await reader.next(wait_ms=50) == []
    for key in (CARDS, FEED):
        await asyncio.to_thread(doomed.settle)
        victim = doomed.master_of(key)
        victim.kill()
        started = asyncio.get_running_loop().time()
        with pytest.raises(BrokerUnreachableError) as raised:
            await touch(broker, key)
        assert raised.value.retryable
        assert asyncio.get_running_loop().time() - started < PATIENCE_SECONDS + 4
        await again(lambda key=key: touch(broker, key))
        await promoted(doomed, key, victim)
        victim.start()  # here: the kernel ends it with the thread that starts it
        await asyncio.to_thread(doomed.mend)
    listings = (await again(lambda: broker.directory.find(Query(limit=100)))).listings
    assert {one.card.agent for one in listings} == {owner.did for owner in owners}
    assert await broker.directory.heartbeat([owner.did for owner in owners]) == []
    await broker.mailbox.send("ann", b"after")
    await broker.feed.publish("call", {"n": "last"})
    [got] = await reader.next(wait_ms=10_000)
    assert got.raw == b"after"
    async with asyncio.timeout(10):
        while "last" not in seen:  # noqa: ASYNC110  # polled: what is waited for is plain data
            await asyncio.sleep(0.05)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await reader.close()
    await broker.close()


async def test_a_promoted_replica_is_taught_the_scripts_that_it_lacks(
    doomed: RedisCluster,
) -> None:
    wire = ClusterWire(doomed.members[5].url, patience_s=20)  # a replica leads to the masters too
    script = Script("return redis.call('INCR', KEYS[1])")
    assert await wire.run(script, ["{n}"]) == 1
    await asyncio.to_thread(doomed.settle)
    doomed.master_of("{n}").kill()
    assert await lost_or(wire.run(script, ["{n}"])) in {None, 2}
    assert await wire.run(script, ["{n}"]) >= 2  # waits for the promotion, within its patience
    await wire.close()


async def test_a_master_that_freezes_is_given_up_for_its_replica(
    doomed: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.transports.redis.wire.CONNECT_SECONDS", 0.3)
    wire = ClusterWire(doomed.members[0].url, patience_s=PATIENCE_SECONDS)
    await wire.call("SET", "{n}", 1)
    await asyncio.to_thread(doomed.settle)
    frozen = doomed.master_of("{n}")
    assert frozen.process is not None
    node = next(one for one in wire._nodes.values() if one.address.port == frozen.port)
    assert node.line is not None
    assert node.line._watch is not None
    node.line._watch.cancel()
    node.line._watch, node.line._answer_seconds = None, 0.5
    os.kill(frozen.process.pid, signal.SIGSTOP)
    with pytest.raises(BrokerUnreachableError):
        await wire.call("GET", "{n}")
    assert await again(lambda: wire.call("GET", "{n}")) == b"1"
    os.kill(frozen.process.pid, signal.SIGCONT)
    assert await again(lambda: wire.call("GET", "{n}")) == b"1"
    await wire.close()


async def touch(broker: Broker, key: str) -> object:
    """Use the part of the broker that lies under ``key``."""
    if key == CARDS:
        return await broker.directory.count()
    return await broker.feed.publish("call", {"n": 1})


async def lost_or(call: Awaitable[object]) -> object:
    """Return the answer, or nothing where it was lost with its server."""
    try:
        return await call
    except BrokerUnreachableError:
        return None


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call until it is answered, as a caller of the broker may."""
    async with asyncio.timeout(FAILOVER_SECONDS):
        while True:
            try:
                return await call()
            except BrokerUnreachableError:
                await asyncio.sleep(0.05)
