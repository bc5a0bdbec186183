"""The parts of the broker on a real cluster: directory, feed, knowledge, records, a mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from agents.stores.redis import RedisMarks, RedisRecords
from api.http.idempotency import Idempotency, Reservation
from api.keys import Box
from broker import Broker
from broker.directory import CardDirectory
from broker.ports import Query
from broker.transports.redis import connect
from broker.transports.redis.cluster import ClusterWire
from broker.transports.redis.feed import KEY as FEED
from broker.transports.redis.knowledge import RedisKnowledgeStore
from broker.transports.redis.mailbox import stream_of
from rahba.clock import SystemClock
from rahba.encoding import sha256_hex
from rahba.ids import RandomIds
from tests.fixtures.cluster import RedisCluster
from tests.fixtures.listings import skill_offer
from tests.fixtures.market_messages import SKILL, signed_card, signer


@pytest_asyncio.fixture
async def other(each_cluster: RedisCluster, cluster_broker: Broker) -> AsyncIterator[Broker]:
    """Return the broker of a second process, which knows another node."""
    broker = await connect(each_cluster.members[2].url, SystemClock())
    yield broker
    await broker.close()


async def listed(broker: Broker, about: str, ttl_ms: int = 10_000) -> str:
    owner = signer()
    entry = skill_offer(100, about=about, tags=(about,))
    now_ms = SystemClock().now_ms()
    await broker.directory.publish(signed_card(owner, now_ms, ttl_ms=ttl_ms, skills=[entry]))
    return owner.did


async def found(broker: Broker, query: Query) -> set[str]:
    return {one.card.agent for one in (await broker.directory.find(query)).listings}


async def test_what_one_process_lists_another_finds_by_skill_tag_and_text(
    cluster_broker: Broker, other: Broker
) -> None:
    weather = [await listed(cluster_broker, "weather") for _ in range(3)]
    taxes = await listed(other, "taxes")
    for broker in (cluster_broker, other):
        assert await found(broker, Query(skill=SKILL)) == {*weather, taxes}
        assert await found(broker, Query(tags=("weather",))) == set(weather)
        assert await found(broker, Query(text="taxes")) == {taxes}
    await other.directory.remove(weather[0])
    assert await found(cluster_broker, Query(text="weather")) == set(weather[1:])
    assert await cluster_broker.directory.heartbeat([*weather, taxes]) == [weather[0]]
    assert await other.directory.count() == 3


async def test_changes_are_told_in_order_and_leases_are_swept(
    cluster_broker: Broker, other: Broker
) -> None:
    assert isinstance(other.directory, CardDirectory)
    position = await other.directory._store.position()
    gone, kept = await listed(cluster_broker, "brief", 1_000), await listed(cluster_broker, "long")
    await asyncio.sleep(1.1)
    assert await found(other, Query()) == {kept}
    assert await other.directory.sweep() == [gone]
    changes = await other.directory._store.changes(position)
    assert changes.changes == [("listed", gone), ("listed", kept), ("left", gone)]
    assert not changes.lost


async def test_many_cards_are_listed_at_once(cluster_broker: Broker, other: Broker) -> None:
    now_ms = SystemClock().now_ms()
    raws = [signed_card(signer(), now_ms) for _ in range(300)]
    done = await cluster_broker.directory.publish_many([*raws, b"no card"])
    assert [one.code for one in done] == [None] * 300 + ["bad_encoding"]
    assert await other.directory.count() == 300
    assert len(await found(other, Query(limit=100))) == 100


async def test_the_feed_is_read_from_where_one_was_while_its_slot_moves(
    each_cluster: RedisCluster, cluster_broker: Broker, other: Broker
) -> None:
    first = await cluster_broker.feed.publish("call", {"n": 0})
    seen: list[object] = []

    async def listen() -> None:
        async for batch in other.feed.subscribe(after=first):
            seen.extend(event.data["n"] for _, event in batch)

    listening = asyncio.create_task(listen())
    for number in range(1, 31):
        if number % 10 == 0:
            moving = each_cluster.moving(FEED)
            await asyncio.to_thread(moving.__enter__)
            await cluster_broker.feed.publish("call", {"n": number})
            await asyncio.to_thread(moving.__exit__, None, None, None)
        else:
            await cluster_broker.feed.publish("call", {"n": number})
    await until(lambda: len(seen) == 30)
    assert seen == list(range(1, 31))
    newest = await cluster_broker.feed.tail(3)
    assert [event.data["n"] for _, event in newest] == [28, 29, 30]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_one_mailbox_is_served_from_the_node_that_keeps_it(
    each_cluster: RedisCluster, cluster_broker: Broker, other: Broker
) -> None:
    for owner in ("ann", "bob", "cyd"):
        reader = other.mailbox.receive([owner], consumer="host")
        waiting = asyncio.create_task(reader.next(wait_ms=5_000))
        await asyncio.sleep(0.05)
        await cluster_broker.mailbox.send(owner, b"hello")
        [got] = await waiting
        await reader.done([got])
        with each_cluster.moving(stream_of(owner)):
            pass
        await cluster_broker.mailbox.send(owner, b"moved")
        [again] = await reader.next(wait_ms=5_000)
        assert (got.raw, again.raw) == (b"hello", b"moved")
        await reader.done([again])
        assert await other.mailbox.depth(owner) == 0
        await reader.close()


async def test_knowledge_records_and_marks_are_kept(cluster_wire: ClusterWire) -> None:
    knowledge = RedisKnowledgeStore(cluster_wire)
    assert await knowledge.save(b"newer", "5-0")
    assert not await knowledge.save(b"older", "4-9")
    assert await knowledge.load() == b"newer"
    assert [await knowledge.claim("notice", 1_000) for _ in range(2)] == [True, False]
    records, marks = RedisRecords(cluster_wire), RedisMarks(cluster_wire)
    for number in range(10):
        await records.put(f"d{number}", b"old")
        assert await records.replace(f"d{number}", b"old", b"new")
        order = sha256_hex(b"%d" % number)
        assert [await marks.take(order, who) for who in "ab"] == [True, False]
        assert await marks.renew(order, "a")
        await marks.keep(order, b"result")
        await marks.leave(order, "a")
        assert not await marks.taken(order)
        assert await marks.kept(order) == b"result"
    assert await records.all() == [b"new"] * 10


async def test_idempotency_keys_hold_on_every_node(cluster_wire: ClusterWire) -> None:
    idempotency = Idempotency(cluster_wire, RandomIds(), reservation_ms=50, kept_s=60)
    box = Box(bytes(32))
    for number in range(10):
        first = await idempotency.reserve("owner", f"key-{number}", "hash", box)
        assert isinstance(first, Reservation)
        await asyncio.sleep(0.06)
        again = await idempotency.reserve("owner", f"key-{number}", "hash", box)
        assert isinstance(again, Reservation)
        assert (again.resource, again.resumed) == (first.resource, True)


async def until(true: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  # polled: what is waited for is plain data
            await asyncio.sleep(0.02)
