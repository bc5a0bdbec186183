"""Negotiations on a real cluster: threads, several mailboxes of one reader, moves of their slot."""

from __future__ import annotations

import asyncio

from broker import Broker
from broker.ports import Delivery
from broker.transports.redis.mailbox import stream_of
from rahba.clock import SystemClock
from rahba.messages import open_message
from tests.fixtures.cluster import RedisCluster
from tests.fixtures.market_messages import Talk, signed_card


async def held(broker: Broker, talk: Talk) -> None:
    """Carry a negotiation to its agreement."""
    now_ms = SystemClock().now_ms()
    await broker.directory.publish(signed_card(talk.seller, now_ms, ttl_ms=60_000))
    asked = talk.offer()
    for body, who in (
        (talk.opening(), talk.buyer),
        (talk.quote(asked), talk.seller),
        (talk.accept(asked), talk.buyer),
    ):
        ruling = await broker.threads.post(talk.say(who, body))
        assert ruling.verdict == "OK"


async def test_many_negotiate_at_once_and_one_reader_serves_all_sellers(
    cluster_broker: Broker,
) -> None:
    talks = [Talk() for _ in range(12)]
    sellers = [talk.seller.did for talk in talks]
    reader = cluster_broker.mailbox.receive(sellers[:6], consumer="host")
    assert await reader.next(wait_ms=20) == []
    waiting = asyncio.create_task(reader.next(wait_ms=5_000))
    for seller in sellers[6:]:
        reader.add(seller)
    await asyncio.gather(*(held(cluster_broker, talk) for talk in talks))
    got: list[Delivery] = await waiting
    async with asyncio.timeout(10):
        while len(got) < 24:
            got += await reader.next(wait_ms=500)
    said = {(one.owner, open_message(one.raw, me=None, now_ms=0).type) for one in got}
    assert said == {(seller, kind) for seller in sellers for kind in ("cfp", "accept")}
    await reader.done(got)
    assert [await cluster_broker.mailbox.depth(seller) for seller in sellers] == [0] * 12
    for talk in talks:
        view = await cluster_broker.threads.get(talk.thread)
        assert view is not None
        assert (view.state, len(view.transcript)) == ("held", 3)
    await reader.close()


async def test_a_market_goes_on_while_its_slot_moves(
    each_cluster: RedisCluster, cluster_broker: Broker
) -> None:
    reader = cluster_broker.mailbox.receive(["ann", "bob"], consumer="host")
    seen: list[bytes] = []

    async def read() -> None:
        while True:
            got = await reader.next(wait_ms=500)
            await reader.done(got)
            seen.extend(one.raw for one in got)

    reading = asyncio.create_task(read())
    for turn in range(3):
        await held(cluster_broker, Talk())
        for owner in ("ann", "bob"):
            await cluster_broker.mailbox.send(owner, b"before %d" % turn)
        moving = each_cluster.moving(stream_of("ann"))
        await asyncio.to_thread(moving.__enter__)
        sending = asyncio.create_task(cluster_broker.mailbox.send("bob", b"during %d" % turn))
        talking = asyncio.create_task(held(cluster_broker, Talk()))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(moving.__exit__, None, None, None)
        await asyncio.gather(sending, talking)
    async with asyncio.timeout(15):
        while len(seen) < 9:  # noqa: ASYNC110  # polled: what is waited for is plain data
            await asyncio.sleep(0.02)
    assert sorted(seen) == sorted(
        b"%s %d" % (when, turn) for turn in range(3) for when in (b"before", b"before", b"during")
    )
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await reader.close()
