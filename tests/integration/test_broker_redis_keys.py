"""How the market lies in Redis: bounded streams, expiring threads, one hash tag a script."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broker.bundle import Broker
from broker.events import MAX_EVENTS
from broker.threads import THREAD_TTL_MS
from broker.transports.redis.directory import KEYS
from broker.transports.redis.feed import KEY as FEED
from broker.transports.redis.mailbox import dead_of, stream_of
from broker.transports.redis.market import connect
from broker.transports.redis.threads import GROUPS
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from tests.fixtures.market_messages import Talk, signed_card

TAG = re.compile(r"\{[^{}]+\}")


@pytest_asyncio.fixture
async def wire(empty_redis: str) -> AsyncIterator[Wire]:
    made = Wire(empty_redis)
    yield made
    await made.close()


async def traded(broker: Broker) -> Talk:
    """Post one posted deal."""
    talk = Talk()
    listing = await broker.directory.publish(signed_card(talk.seller, talk.clock.now_ms()))
    posted = listing.card.skills[0].posted
    assert posted is not None
    ruling = await broker.threads.post(talk.say(talk.buyer, talk.take_posted(posted)))
    assert ruling.verdict == "OK"
    return talk


async def test_every_key_has_exactly_one_hash_tag_and_is_expected(
    broker: Broker, wire: Wire
) -> None:
    talk = await traded(broker)
    keys = {str(key, "ascii") for key in await wire.call("KEYS", "*")}
    assert all(len(TAG.findall(key)) == 1 for key in keys)
    thread = {f"{{t:{talk.thread}}}:{part}" for part in ("s", "log", "ids")}
    group = {f"{{g:{talk.group}}}", f"{{g:{talk.group}}}:buyer"}
    assert thread | group | {GROUPS, FEED, stream_of(talk.seller.did)} <= keys
    deal = {key for key in keys if key.startswith("{d:")}
    directory = {key for key in keys if key.startswith("{dir}:")}
    assert len(deal) == 1
    assert set(KEYS[:4]) <= directory
    assert keys == thread | group | deal | directory | {GROUPS, FEED, stream_of(talk.seller.did)}


async def test_what_belongs_to_a_thread_expires_after_a_week(broker: Broker, wire: Wire) -> None:
    await traded(broker)
    for pattern in ("{t:*", "{g:*", "{d:*"):
        keys = await wire.call("KEYS", pattern)
        assert keys
        for key in keys:
            left_ms = await wire.call("PTTL", key)
            assert THREAD_TTL_MS - 60_000 < left_ms <= THREAD_TTL_MS, key


async def test_the_feed_keeps_the_newest_ten_thousand_or_so(broker: Broker, wire: Wire) -> None:
    for _ in range(12):
        await asyncio.gather(*(broker.feed.publish("call", {}) for _ in range(1_000)))
    assert MAX_EVENTS <= await wire.call("XLEN", FEED) < MAX_EVENTS + 500


async def test_an_acknowledged_message_leaves_nothing_behind(broker: Broker, wire: Wire) -> None:
    reader = broker.mailbox.receive(["ann"], consumer="host")
    for raw in (b"done", b"buried"):
        await broker.mailbox.send("ann", raw)
    done, buried = await reader.next(wait_ms=1_000)
    await reader.done([done])
    await reader.bury(buried, "why")
    assert await wire.call("XLEN", stream_of("ann")) == 0
    assert await wire.call("XLEN", dead_of("ann")) == 1
    assert (await wire.call("XPENDING", stream_of("ann"), "g"))[0] == 0
    await reader.close()


async def test_a_posted_deal_takes_four_round_trips_and_a_warm_card_no_bytes(
    empty_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await connect(empty_redis, SystemClock())
    await traded(broker)  # the scripts are loaded
    talk = Talk()
    listing = await broker.directory.publish(signed_card(talk.seller, talk.clock.now_ms()))
    posted = listing.card.skills[0].posted
    assert posted is not None
    sent: list[str] = []
    call = Wire.call

    async def counted(self: Wire, *command: str | int | bytes) -> object:
        sent.append(str(command[0]))
        return await call(self, *command)

    monkeypatch.setattr(Wire, "call", counted)
    await broker.threads.post(talk.say(talk.buyer, talk.take_posted(posted)))
    assert sent.count("EVALSHA") == 4, "place, card, ruling, delivery"
    assert "HMGET" not in sent, "the card was verified before and is not fetched again"
    await broker.close()
