"""A hub repeats nothing, and rests while nobody listens."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing

from api.http.metrics import Metrics
from api.http.sse import HEARTBEAT, Hub
from broker.transports import memory
from broker.transports.redis.feed import RedisFeed
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock


async def test_a_client_that_was_told_more_elsewhere_is_told_nothing_twice() -> None:
    feed = memory.connect(SystemClock()).feed
    await feed.publish("tick", {"n": 0})
    hub = Hub(feed, Metrics(), kept=100, every_ms=1, heartbeat_ms=5_000)
    running = asyncio.create_task(hub.run())
    try:
        anything = hub.follow(None, None, tail=1)
        waiting = asyncio.ensure_future(anext(anything))
        for _ in range(5):
            await asyncio.sleep(0)  # the hub has read what there was, and sleeps
        ids = [await feed.publish("tick", {"n": n}) for n in range(1, 5)]
        told = hub.follow(ids[1], None)
        chunk = await asyncio.wait_for(anext(told), 5)
        while chunk.count(b"data:") < 2:
            chunk += await asyncio.wait_for(anext(told), 5)
        assert [b'"n":%d' % n in chunk for n in range(5)] == [False, False, False, True, True]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_hub_rests_while_nobody_listens_and_who_comes_then_misses_nothing() -> None:
    feed, metrics = memory.connect(SystemClock()).feed, Metrics()
    hub = Hub(feed, metrics, kept=3, every_ms=1, heartbeat_ms=20, linger_s=0)
    running = asyncio.create_task(hub.run())
    ids = [await feed.publish("tick", {"n": n}) for n in range(10)]
    try:
        assert await _numbers(hub, None, tail=2) == [8, 9]
        await feed.publish("tick", {"n": 10})
        await _until_it_rests(hub)
        ids += [await feed.publish("tick", {"n": n}) for n in range(11, 20)]
        await asyncio.sleep(0.05)
        assert b"rahba_feed_events_total 1.0" in metrics.text()  # nobody was told of the others
        assert await _numbers(hub, ids[4]) == list(range(5, 20))
        assert await _numbers(hub, None, tail=1) == [19]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_comes_while_the_hub_rests_is_told_all_that_happens_from_then_on() -> None:
    feed = memory.connect(SystemClock()).feed
    hub = Hub(feed, Metrics(), kept=3, every_ms=1, heartbeat_ms=20)
    assert await hub.now() == "0-0"
    first = await feed.publish("tick", {"n": 0})
    after = await hub.now()
    assert after == first
    await feed.publish("tick", {"n": 1})  # before anybody follows the feed
    running = asyncio.create_task(hub.run())
    try:
        assert await _numbers(hub, after) == [1]
        last = await feed.publish("tick", {"n": 2})
        assert await _numbers(hub, after) == [1, 2]
        assert await hub.now() == last
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_where_the_feed_cannot_be_read_nobody_knows_where_now_is() -> None:
    wire = Wire("redis://127.0.0.1:1/0", patience_s=0.0)
    hub = Hub(RedisFeed(wire, SystemClock()), Metrics(), kept=3, every_ms=1, heartbeat_ms=5)
    assert await hub.now() is None
    await wire.close()


async def test_a_hub_that_cannot_read_the_feed_yet_says_that_it_is_there_and_closes_at_once() -> (
    None
):
    hub = Hub(
        memory.connect(SystemClock()).feed, Metrics(), kept=3, every_ms=1, heartbeat_ms=5
    )  # nobody runs it
    told = hub.follow(None, None)
    assert await asyncio.wait_for(anext(told), 5) == HEARTBEAT
    rest = asyncio.ensure_future(anext(told, b"over"))
    await asyncio.sleep(0)
    hub.close()
    assert await asyncio.wait_for(rest, 5) == b"over"


async def _numbers(hub: Hub, after: str | None, *, tail: int = 0) -> list[int]:
    """Return what one client is told until there is silence."""
    said = b""
    async with aclosing(hub.follow(after, None, tail=tail)) as told:
        async for chunk in told:
            if chunk == HEARTBEAT:
                break
            said += chunk
    return [int(found) for found in re.findall(rb'"n":(\d+)', said)]


async def _until_it_rests(hub: Hub) -> None:
    async with asyncio.timeout(5):
        while hub.follows:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
