"""The server dies and comes back: what was durable is there, and readers go on by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.embedded_redis import EmbeddedRedis
from broker.errors import BrokerUnreachableError
from broker.ports import Query
from broker.transports.redis import connect
from broker.transports.redis.wire import BadRedisUrlError
from rahba.clock import SystemClock
from tests.fixtures.broker import kill_now
from tests.fixtures.market_messages import Talk, signed_card, signer

PATIENCE_SECONDS = 0.5
AOF_SYNC_SECONDS = 1.3


@pytest.fixture
def server(server_directory: Path) -> Iterator[EmbeddedRedis]:
    running = EmbeddedRedis(server_directory)
    running.start()
    yield running
    running.stop()


async def test_after_kill_and_restart_what_was_durable_is_there(server: EmbeddedRedis) -> None:
    broker = await connect(server.url, SystemClock(), patience_s=PATIENCE_SECONDS)
    talk = Talk()
    asked = talk.offer()
    await broker.directory.publish(signed_card(talk.seller, talk.clock.now_ms(), ttl_ms=60_000))
    await broker.threads.post(talk.say(talk.buyer, talk.opening()))
    await broker.threads.post(talk.say(talk.seller, talk.quote(asked)))
    accept = talk.say(talk.buyer, talk.accept(asked))
    assert (await broker.threads.post(accept)).verdict == "OK"
    newest = (await broker.feed.tail(1))[0][0]
    await asyncio.sleep(AOF_SYNC_SECONDS)
    kill_now(server)

    started = asyncio.get_running_loop().time()
    with pytest.raises(BrokerUnreachableError) as raised:
        await broker.threads.get(talk.thread)
    assert raised.value.retryable
    assert asyncio.get_running_loop().time() - started < PATIENCE_SECONDS + 4

    url = server.url
    assert server.start() == url
    view = await broker.threads.get(talk.thread)
    assert view is not None
    assert (view.state, len(view.transcript)) == ("held", 3)
    again = await broker.threads.post(accept)
    assert (again.verdict, again.first) == ("DUP", "OK")
    assert len((await broker.directory.find(Query())).listings) == 1
    assert (await broker.feed.tail(1))[0][0] == newest
    assert await broker.mailbox.depth(talk.seller.did) == 3
    await broker.close()


@pytest.mark.long
async def test_readers_and_subscribers_resume_by_themselves(server: EmbeddedRedis) -> None:
    broker = await connect(server.url, SystemClock(), patience_s=PATIENCE_SECONDS)
    reader = broker.mailbox.receive(["ann"], consumer="host")
    first = await broker.feed.publish("call", {"n": 0})
    events: list[object] = []

    async def listen() -> None:
        async for batch in broker.feed.subscribe(after=first):
            events.extend(event.data["n"] for _, event in batch)

    listening = asyncio.create_task(listen())
    for turn in range(1, 4):
        await broker.mailbox.send("ann", b"before %d" % turn)
        await broker.feed.publish("call", {"n": turn})
        got = await reader.next(wait_ms=2_000)
        await reader.done(got)
        assert [one.raw for one in got] == [b"before %d" % turn]
        await asyncio.sleep(AOF_SYNC_SECONDS)
        kill_now(server)
        assert await reader.next(wait_ms=300) == []
        server.start()
    await broker.mailbox.send("ann", b"after")
    await broker.feed.publish("call", {"n": 4})
    deadline = asyncio.get_running_loop().time() + 5
    late = []
    while not late and asyncio.get_running_loop().time() < deadline:
        late = await reader.next(wait_ms=500)
    assert [one.raw for one in late] == [b"after"]
    while len(events) < 4 and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert events == [1, 2, 3, 4]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await reader.close()
    await broker.close()


async def test_a_message_in_hand_when_the_server_dies_is_not_delivered_twice(
    server: EmbeddedRedis,
) -> None:
    broker = await connect(server.url, SystemClock(), patience_s=PATIENCE_SECONDS)
    await broker.mailbox.send("ann", b"job")
    reader = broker.mailbox.receive(["ann"], consumer="host")
    held = await reader.next(wait_ms=1_000)
    await asyncio.sleep(AOF_SYNC_SECONDS)
    kill_now(server)
    assert await reader.next(wait_ms=200) == []
    server.start()
    assert await reader.next(wait_ms=500) == []
    await reader.done(held)
    assert await broker.mailbox.depth("ann") == 0
    await reader.close()
    await broker.close()


async def test_everything_lost_is_started_over(server: EmbeddedRedis) -> None:
    broker = await connect(server.url, SystemClock(), patience_s=PATIENCE_SECONDS)
    reader = broker.mailbox.receive(["ann"], consumer="host")
    await broker.mailbox.send("ann", b"one")
    held = await reader.next(wait_ms=1_000)
    owner = signer()
    await broker.directory.publish(signed_card(owner, SystemClock().now_ms()))
    kill_now(server)
    for path in server.directory.glob("appendonlydir/*"):
        path.unlink()
    server.start()
    assert await reader.next(wait_ms=100) == []
    await reader.done(held)
    await broker.mailbox.send("ann", b"two")
    got = await reader.next(wait_ms=2_000)
    assert [one.raw for one in got] == [b"two"]
    assert await broker.directory.heartbeat([owner.did]) == [owner.did]
    await reader.close()
    await broker.close()


async def test_a_server_that_is_not_there_is_reported_in_time() -> None:
    started = asyncio.get_running_loop().time()
    with pytest.raises(BrokerUnreachableError):
        await connect("redis://127.0.0.1:1/0", SystemClock(), patience_s=0.2)
    assert asyncio.get_running_loop().time() - started < 2


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis", ""])
async def test_a_malformed_address_is_refused(url: str) -> None:
    with pytest.raises(BadRedisUrlError):
        await connect(url, SystemClock())
