"""How the market lies in Redis: bounded streams, expiring threads, one hash tag a market."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broker.bundle import Broker
from broker.events import MAX_EVENTS, FeedLimits
from broker.ports import Query
from broker.threads import THREAD_TTL_MS
from broker.transports.redis.directory import KEYS
from broker.transports.redis.feed import KEY as FEED
from broker.transports.redis.mailbox import MAILBOX_TTL_MS, charges_of, dead_of, stream_of
from broker.transports.redis.market import connect
from broker.transports.redis.threads import GROUPS, deal_of, group_of, open_between, thread_of
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from rahba.encoding import sha256_hex
from tests.fixtures.market_messages import SKILL, Talk, signed_card, signer

HOUR_MS = 3_600_000  # what is used often is renewed that late
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
    thread, group = {thread_of(talk.thread)}, {group_of(talk.group)}
    mail = {stream_of(talk.seller.did), charges_of(talk.seller.did)}
    pair = {open_between(talk.buyer.did, talk.seller.did)}
    deal = {key for key in keys if key.startswith(deal_of(""))}
    directory = {key for key in keys if key.startswith("{dir}:")}
    assert len(deal) == 1
    assert set(KEYS[:4]) <= directory
    assert keys == thread | group | deal | directory | mail | pair | {GROUPS, FEED}


async def test_what_belongs_to_a_thread_expires_after_a_week(broker: Broker, wire: Wire) -> None:
    await traded(broker)
    for pattern in (thread_of("*"), group_of("*"), deal_of("*")):
        keys = await wire.call("KEYS", pattern)
        assert keys
        for key in keys:
            left_ms = await wire.call("PTTL", key)
            assert THREAD_TTL_MS - 60_000 < left_ms <= THREAD_TTL_MS + HOUR_MS, key


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


async def test_a_posted_deal_takes_two_scripts_and_a_warm_card_no_bytes(
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
    assert sent.count("EVALSHA") == 2, "the card; the post"
    assert "HMGET" not in sent, "the card was verified before and is not fetched again"
    await broker.close()


async def test_a_mailbox_and_its_dead_letters_expire_a_day_after_their_threads(
    broker: Broker, wire: Wire
) -> None:
    async def lasts(key: str) -> bool:
        left_ms = await wire.call("PTTL", key)
        return MAILBOX_TTL_MS - 60_000 < int(left_ms) <= MAILBOX_TTL_MS + HOUR_MS

    assert MAILBOX_TTL_MS > THREAD_TTL_MS
    await broker.mailbox.send("ann", b"one")
    assert await lasts(stream_of("ann"))
    await wire.call("PEXPIRE", stream_of("ann"), 5_000)
    await broker.mailbox.send("ann", b"two")
    assert await lasts(stream_of("ann")), "whoever sends keeps it"
    await wire.call("PEXPIRE", stream_of("ann"), 5_000)
    reader = broker.mailbox.receive(["ann", "bob"], consumer="host")
    one, _ = await reader.next(wait_ms=1_000)
    assert await lasts(stream_of("ann")), "whoever joins keeps it"
    assert await lasts(stream_of("bob")), "an empty one expires, too"
    await reader.bury(one, "why")
    assert await lasts(dead_of("ann"))
    await reader.close()


async def test_an_undeliverable_message_lies_among_dead_letters_that_expire(
    broker: Broker, wire: Wire
) -> None:
    await broker.mailbox.send("ann", b"poison")
    for _ in range(6):
        reader = broker.mailbox.receive(["ann"], consumer="host")
        await reader.next(wait_ms=100)
        await reader.close()
    assert await broker.mailbox.dead("ann") == [(b"poison", "undeliverable")]
    assert 0 < await wire.call("PTTL", dead_of("ann")) <= MAILBOX_TTL_MS


async def test_a_mailbox_that_expires_under_its_reader_is_read_again(
    broker: Broker, wire: Wire
) -> None:
    reader = broker.mailbox.receive(["ann"], consumer="host")
    await reader.next(wait_ms=1)
    waiting = asyncio.create_task(reader.next(wait_ms=5_000))
    await asyncio.sleep(0.05)
    await wire.call("PEXPIRE", stream_of("ann"), 1)
    await asyncio.sleep(0.3)
    await broker.mailbox.send("ann", b"still here")
    assert [one.raw for one in await waiting] == [b"still here"]
    await reader.close()


async def test_a_closed_reader_leaves_a_consumer_only_where_a_message_is_leased_to_it(
    broker: Broker, wire: Wire
) -> None:
    async def consumers(owner: str) -> int:
        return len(await wire.call("XINFO", "CONSUMERS", stream_of(owner), "g"))

    await broker.mailbox.send_many([("ann", b"kept"), ("bob", b"done"), ("eve", b"gone")])
    reader = broker.mailbox.receive(["ann", "bob", "eve"], consumer="host")
    taken = await reader.next(wait_ms=1_000)
    assert len(taken) == 3
    await reader.done([one for one in taken if one.owner != "ann"])
    reader.discard("bob")
    await wire.call("DEL", stream_of("eve"))
    assert [await consumers(owner) for owner in ("ann", "bob")] == [1, 1]
    await reader.close()
    assert [await consumers(owner) for owner in ("ann", "bob")] == [1, 0]
    again = broker.mailbox.receive(["ann"], consumer="host")
    (back,) = await again.next(wait_ms=1_000)
    assert (back.raw, back.token) == (b"kept", 2)
    await again.done([back])
    await again.close()
    assert await consumers("ann") == 0


async def test_a_card_written_past_the_directory_is_left_out_and_hurts_nobody_else(
    broker: Broker, empty_redis: str, wire: Wire
) -> None:
    now_ms = SystemClock().now_ms()
    honest, forged = signer(), signer()
    await broker.directory.publish(signed_card(honest, now_ms))
    await broker.directory.publish(signed_card(forged, now_ms))
    stolen = await wire.call("HGET", "{dir}:cards", honest.did)
    own = await wire.call("HGET", "{dir}:cards", forged.did)
    for raw in (own.replace(b'"sig":"', b'"sig":"A', 1), b"no card", stolen):
        await wire.call("HSET", "{dir}:cards", forged.did, raw)
        await wire.call("HSET", "{dir}:digests", forged.did, sha256_hex(raw))
        stranger = await connect(empty_redis, SystemClock())  # has verified nothing yet
        page = await stranger.directory.find(Query(skill=SKILL))
        assert [found.card.agent for found in page.listings] == [honest.did]
        assert await stranger.directory.get(forged.did) is None
        await stranger.close()


async def test_old_events_leave_the_server_itself(empty_redis: str, wire: Wire) -> None:
    broker = await connect(empty_redis, SystemClock(), feed_limits=FeedLimits(age_ms=200))
    for _ in range(10):
        await broker.feed.publish("call", {})
    await asyncio.sleep(0.3)
    await broker.feed.publish("call", {})
    assert await wire.call("XLEN", FEED) == 1
    await broker.close()
