"""Event streams: live, filtered, resumed without a gap, and within their limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from tests.fixtures.gateway import Site, parts_of, serving

Event = dict[str, Any]


async def listen(
    site: Site, path: str, count: int, *, after: str | None = None, within_s: float = 5
) -> list[Event]:
    """Read ``count`` events of a stream and hang up."""
    headers = {} if after is None else {"last-event-id": after}
    told: list[Event] = []
    async with asyncio.timeout(within_s):
        async with site.web.get(site.url + path, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.startswith(b"data: "):
                    told.append(orjson.loads(line[6:]))
                if len(told) == count:
                    return told
    raise AssertionError(told)


async def publish(site: Site, count: int, *, start: int = 0, kind: str = "test.tick") -> list[str]:
    feed = site.parts.broker.feed
    return [await feed.publish(kind, {"n": n}) for n in range(start, start + count)]


async def soon(site: Site, count: int, **how: Any) -> list[str]:
    await asyncio.sleep(0.2)
    return await publish(site, count, **how)


async def test_events_arrive_live_in_their_order(site: Site) -> None:
    told, ids = await asyncio.gather(listen(site, "/v1/feed", 10), soon(site, 10))
    assert [event["data"]["n"] for event in told] == list(range(10))
    assert [event["id"] for event in told] == ids
    assert all(event["kind"] == "test.tick" and event["ts"] > 0 for event in told)


async def test_a_resumed_stream_misses_nothing_and_repeats_nothing(site: Site) -> None:
    first, _ = await asyncio.gather(listen(site, "/v1/feed", 3), soon(site, 8))
    await publish(site, 8, start=8)
    rest = await listen(site, "/v1/feed", 13, after=first[-1]["id"])
    assert [event["data"]["n"] for event in [*first, *rest]] == list(range(16))


async def test_a_stream_resumes_at_another_gateway_that_never_saw_the_events(site: Site) -> None:
    ids = await publish(site, 30)
    parts = site.parts
    small = parts_of(parts.ledger, parts.broker, parts.wire, feed_kept=5)
    async with serving(small) as url:
        other = Site(url, parts, site.owner, site.token, site.web)
        await publish(site, 10, start=30)
        told = await listen(other, "/v1/feed", 35, after=ids[4])
    assert [event["data"]["n"] for event in told] == list(range(5, 40))


async def test_events_published_while_a_client_catches_up_are_not_lost(site: Site) -> None:
    ids = await publish(site, 200)
    told, _ = await asyncio.gather(
        listen(site, "/v1/feed", 399, after=ids[0]), publish(site, 200, start=200)
    )
    assert [event["data"]["n"] for event in told] == list(range(1, 400))


async def test_only_the_wanted_kinds_are_told(site: Site) -> None:
    async def mixed() -> None:
        await asyncio.sleep(0.2)
        for n in range(5):
            await publish(site, 1, start=n, kind="noise")
            await publish(site, 1, start=n, kind="signal")

    told, _ = await asyncio.gather(listen(site, "/v1/feed?kinds=signal,other", 5), mixed())
    assert {event["kind"] for event in told} == {"signal"}


async def test_a_stream_may_begin_with_the_newest_past_events(site: Site) -> None:
    await publish(site, 20)
    await asyncio.sleep(0.5)
    told = await listen(site, "/v1/feed?tail=6", 6)
    assert [event["data"]["n"] for event in told] == list(range(14, 20))


async def test_silence_is_broken_by_a_comment(site: Site) -> None:
    parts = site.parts
    quiet = parts_of(parts.ledger, parts.broker, parts.wire, heartbeat_ms=100)
    async with serving(quiet) as url, site.web.get(url + "/v1/feed") as answer:
        assert await beats(answer.content, 2) == 2


async def test_bursts_are_sent_in_few_batches(site: Site) -> None:
    chunks = 0

    async def count() -> None:
        nonlocal chunks
        seen = 0
        async with asyncio.timeout(5), site.web.get(site.url + "/v1/feed") as answer:
            async for data, _ in answer.content.iter_chunks():
                chunks += 1
                seen += data.count(b"data: ")
                if seen == 300:
                    return

    await asyncio.gather(count(), soon(site, 300))
    assert chunks <= 12


async def test_streams_beyond_the_limit_are_refused_until_one_ends(site: Site) -> None:
    parts = site.parts
    narrow = parts_of(parts.ledger, parts.broker, parts.wire, max_streams=2)
    async with serving(narrow) as url:
        feed = url + "/v1/feed"
        async with site.web.get(feed) as first, site.web.get(feed):
            assert first.status == 200
            async with site.web.get(feed) as third:
                assert third.status == 503
                assert (await third.json())["code"] == "too_many_streams"
        for _ in range(40):
            async with site.web.get(feed) as later:
                if later.status == 200:
                    return
            await asyncio.sleep(0.05)
    raise AssertionError("the seats were not given back")


async def test_a_stopping_gateway_ends_its_streams_at_once(site: Site) -> None:
    parts = site.parts
    stopped = asyncio.get_running_loop().time()
    async with serving(parts_of(parts.ledger, parts.broker, parts.wire)) as url:
        answer = await site.web.get(url + "/v1/feed")
        await answer.content.readline()
        stopped = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopped < 3
    answer.close()


async def beats(lines: AsyncIterator[bytes], wanted: int) -> int:
    heard = 0
    async with asyncio.timeout(5):
        async for line in lines:
            heard += line.startswith(b":")
            if heard == wanted:
                break
    return heard
