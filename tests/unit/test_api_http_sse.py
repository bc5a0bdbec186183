"""A hub that knows less of the feed than its client does repeats nothing."""

from __future__ import annotations

import asyncio

from api.http.metrics import Metrics
from api.http.sse import Hub
from broker.transports import memory
from rahba.clock import SystemClock


async def test_a_client_that_was_told_more_elsewhere_is_told_nothing_twice() -> None:
    feed = memory.connect(SystemClock()).feed
    await feed.publish("tick", {"n": 0})
    hub = Hub(feed, Metrics(), kept=100, every_ms=1, heartbeat_ms=5_000)
    running = asyncio.create_task(hub.run())
    try:
        anything = hub.follow(None, None, tail=1)
        waiting = asyncio.ensure_future(anext(anything))
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
