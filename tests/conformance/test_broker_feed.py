"""What every feed does with events, whatever keeps them."""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import BadCursorError
from broker.events import FeedLimits
from rahba.errors import TooLargeError
from tests.fixtures.broker import Stand


async def test_a_subscriber_resumes_after_the_last_id_it_saw(stand: Stand) -> None:
    feed = stand.broker.feed
    ids = [await feed.publish("call", {"n": number}) for number in range(5)]
    subscription = feed.subscribe(after=ids[1])
    batch = await anext(subscription)
    assert [(name, event.data["n"]) for name, event in batch] == list(
        zip(ids[2:], (2, 3, 4), strict=True)
    )
    assert [event.kind for _, event in batch] == ["call"] * 3
    await subscription.aclose()


async def test_a_new_subscriber_hears_only_what_comes(stand: Stand) -> None:
    feed = stand.broker.feed
    await feed.publish("call", {"n": 1})
    subscription = feed.subscribe(after=None)
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0.1)
    await feed.publish("call", {"n": 2})
    batch = await asyncio.wait_for(waiting, 2)
    assert [event.data for _, event in batch] == [{"n": 2}]
    await subscription.aclose()


async def test_a_subscriber_hears_only_the_kinds_it_asked_for(stand: Stand) -> None:
    feed = stand.broker.feed
    for kind in ("offer", "settled", "offer"):
        await feed.publish(kind, {})
    subscription = feed.subscribe(after="0-0", kinds=frozenset({"settled"}))
    assert [event.kind for _, event in await anext(subscription)] == ["settled"]
    await subscription.aclose()


async def test_the_tail_is_the_newest_oldest_first(stand: Stand) -> None:
    for number in range(5):
        await stand.broker.feed.publish("call", {"n": number})
    tail = await stand.broker.feed.tail(2)
    assert [event.data["n"] for _, event in tail] == [3, 4]


@pytest.mark.parametrize("feed_limits", [FeedLimits(age_ms=300)])
async def test_events_are_kept_for_a_while_only(stand: Stand) -> None:
    feed = stand.broker.feed
    await feed.publish("call", {"n": 1})
    assert [event.data["n"] for _, event in await feed.tail(9)] == [1]
    await stand.pause(400)
    assert await feed.tail(9) == []
    await feed.publish("call", {"n": 2})
    subscription = feed.subscribe(after="0-0")
    assert [event.data["n"] for _, event in await anext(subscription)] == [2]
    await subscription.aclose()
    assert [event.data["n"] for _, event in await feed.tail(9)] == [2]


async def test_a_made_up_event_id_is_refused(stand: Stand) -> None:
    with pytest.raises(BadCursorError):
        await anext(stand.broker.feed.subscribe(after="yesterday"))


async def test_an_oversized_event_is_refused(stand: Stand) -> None:
    with pytest.raises(TooLargeError):
        await stand.broker.feed.publish("call", {"text": "x" * 20_000})


async def test_who_reads_now_and_then_hears_everything_in_fewer_batches(stand: Stand) -> None:
    feed, batches = stand.broker.feed, []
    subscription = feed.subscribe(after="0-0", kinds=frozenset({"call"}), every_ms=200)
    for number in range(30):
        await feed.publish("call" if number % 3 else "caller", {"n": number})
        if number % 10 == 0:
            await asyncio.sleep(0.01)
        if number == 5:
            batches.append(await anext(subscription))
    while sum(map(len, batches)) < 20:
        batches.append(await asyncio.wait_for(anext(subscription), 2))
    heard = [event.data["n"] for batch in batches for _, event in batch]
    assert heard == [number for number in range(30) if number % 3]
    assert len(batches) <= 4
    await subscription.aclose()
