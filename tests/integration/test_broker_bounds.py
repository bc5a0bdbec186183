"""What mailboxes and threads keep: all that is owed, nothing without end, exact accounts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from broker import Broker
from broker.errors import (
    BrokerUnreachableError,
    DamagedThreadError,
    LeaseLostError,
    MailboxFullError,
    SenderQuotaError,
)
from broker.mailboxes import MAX_DEAD
from broker.ports import Delivery, Mailbox, MailboxReader, Room, Ruling
from broker.thread import MAX_MESSAGES_A_SIDE, MAX_SEEN
from broker.threads import _TERMS_KEPT, THREAD_TTL_MS, ThreadDesk
from broker.transports.redis import connect
from broker.transports.redis.mailbox import (
    READ_BYTES,
    RedisMailbox,
    charges_of,
    dead_of,
    stream_of,
)
from broker.transports.redis.threads import thread_of
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from rahba.messages import (
    _KNOWN,
    _REMEMBERED,
    _REMEMBERED_BYTES,
    NotUnderstood,
    _remember,
    open_message,
)
from tests.fixtures.broker import LIMITS
from tests.fixtures.market_messages import Talk

pytestmark = pytest.mark.redis

SENDERS = ["", "ann", "bob", "carol"]


@pytest_asyncio.fixture
async def wire(empty_redis: str) -> AsyncIterator[Wire]:
    made = Wire(empty_redis)
    yield made
    await made.close()


async def lying(wire: Wire, owner: str) -> tuple[Counter[str], Counter[str]]:
    """Return how many messages, and bytes, of each sender lie in a mailbox."""
    messages: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for _, fields in await wire.call("XRANGE", stream_of(owner), "-", "+"):
        sender = str(fields[3], "ascii")
        if sender:
            messages[sender] += 1
            sizes[sender] += len(fields[1])
    return messages, sizes


async def charged(wire: Wire, owner: str) -> tuple[Counter[str], Counter[str]]:
    """Return what each sender is charged with."""
    flat = [str(part, "ascii") for part in await wire.call("HGETALL", charges_of(owner))]
    pairs = dict(zip(flat[::2], map(int, flat[1::2]), strict=True))
    return (
        Counter({name[2:]: count for name, count in pairs.items() if name.startswith("n:")}),
        Counter({name[2:]: count for name, count in pairs.items() if name.startswith("b:")}),
    )


@pytest.mark.parametrize("seed", range(6))
async def test_the_accounts_of_senders_are_exact_whatever_becomes_of_their_messages(
    empty_redis: str, wire: Wire, seed: int
) -> None:
    rng = random.Random(seed)
    limits = replace(LIMITS, lease_ms=1, sender_messages=9, sender_bytes=700, deliveries=4)
    broker = await connect(empty_redis, SystemClock(), limits=limits)
    readers = [broker.mailbox.receive(["ann"], consumer=f"c{number}") for number in range(3)]
    held: list[tuple[MailboxReader, Delivery]] = []
    refused = 0
    for _ in range(150):
        match rng.randrange(6):
            case 0 | 1:
                refused += await send_some(broker.mailbox, rng)
            case 2:
                reader = rng.choice(readers)
                held += [(reader, one) for one in await reader.next(wait_ms=3)]
            case 3 if held:
                await finish(rng, held)
            case 4:
                await broker.mailbox.revive("ann", limit=rng.randint(1, 5))
            case _:
                await asyncio.sleep(0.002)
        assert await charged(wire, "ann") == await lying(wire, "ann")
    assert refused
    for reader in readers:
        await reader.close()
    await broker.close()


async def send_some(mailbox: Mailbox, rng: random.Random) -> int:
    """Send a few at once; returns how many were refused."""

    async def one() -> int:
        sender, raw = rng.choice(SENDERS), b"x" * rng.randint(1, 200)
        room: Room = "owed" if rng.random() < 0.3 else "asked"
        try:
            await mailbox.send("ann", raw, sender=sender, room=room)
        except (SenderQuotaError, MailboxFullError):
            return 1
        return 0

    return sum(await asyncio.gather(*(one() for _ in range(rng.randint(1, 6)))))


async def finish(rng: random.Random, held: list[tuple[MailboxReader, Delivery]]) -> None:
    rng.shuffle(held)
    some = [held.pop() for _ in range(rng.randint(1, len(held)))]
    reader = some[0][0]
    mine = [one for by, one in some if by is reader]
    try:
        if rng.random() < 0.7:
            await reader.done([*mine, *mine[:1]])
        else:
            await reader.bury(mine[0], "why")
    except LeaseLostError:
        pass  # somebody else took it over: the lease is a millisecond


@pytest.mark.long
async def test_nothing_unacknowledged_is_trimmed_however_much_passes_by(
    broker: Broker, wire: Wire
) -> None:
    """Half a thousand dead letters too many and thousands of others come and go."""
    kept = broker.mailbox.receive(["ann"], consumer="slow")
    await broker.mailbox.send("ann", b"first")
    (first,) = await kept.next(wait_ms=1_000)
    reader = broker.mailbox.receive(["ann"], consumer="quick")
    passed = 0
    while passed < MAX_DEAD + 500:
        await broker.mailbox.send_many([("ann", b"%d" % n) for n in range(250)], sender="bob")
        for _ in range(16):
            taken = await reader.next(wait_ms=100)
            await asyncio.gather(*(reader.bury(one, "why") for one in taken))
            passed += len(taken)
    assert MAX_DEAD <= await wire.call("XLEN", dead_of("ann")) < MAX_DEAD + 200
    assert await broker.mailbox.depth("ann") >= 1
    await kept.done([first])
    for one in (reader, kept):
        await one.close()


async def test_a_message_that_waits_is_not_lost_to_those_that_are_done(
    broker: Broker, wire: Wire
) -> None:
    reader = broker.mailbox.receive(["ann"], consumer="host")
    await broker.mailbox.send_many([("ann", b"%d" % number) for number in range(300)])
    taken: list[Delivery] = []
    while len(taken) < 300:
        taken += await reader.next(wait_ms=1_000)
    rng = random.Random(5)
    waiting = set(rng.sample(taken, 20))
    rest = [one for one in taken if one not in waiting]
    rng.shuffle(rest)
    await reader.done(rest)
    left = await wire.call("XRANGE", stream_of("ann"), "-", "+")
    assert {fields[1] for _, fields in left} == {one.raw for one in waiting}
    await reader.done(list(waiting))
    assert await broker.mailbox.depth("ann") == 0
    await reader.close()


async def test_the_ids_that_a_thread_remembers_are_bounded_and_end_with_it(
    broker: Broker, wire: Wire
) -> None:
    talk = Talk()
    await broker.threads.post(talk.say(talk.buyer, talk.opening()))
    raws = [talk.say(talk.seller, NotUnderstood(code="x"), seq=9) for _ in range(3 * MAX_SEEN)]
    for start in range(0, len(raws), 64):
        await asyncio.gather(*(broker.threads.post(raw) for raw in raws[start : start + 64]))
    key = thread_of(talk.thread)
    assert await wire.call("HLEN", key) == 1 + 1 + MAX_SEEN, "header, message, ids"
    said = [talk.say(talk.seller, NotUnderstood(code="x")) for _ in range(MAX_MESSAGES_A_SIDE)]
    verdicts = [(await broker.threads.post(raw)).verdict for raw in said]
    assert verdicts == ["OK"] * MAX_MESSAGES_A_SIDE
    assert await wire.call("HLEN", key) == 2 + MAX_SEEN + 2 * MAX_MESSAGES_A_SIDE
    assert THREAD_TTL_MS < await wire.call("PTTL", key) <= THREAD_TTL_MS + 3_600_000


async def test_a_process_remembers_a_bounded_number_of_messages_and_threads(
    broker: Broker,
) -> None:
    assert isinstance(broker.threads, ThreadDesk)
    talk = Talk()
    message = open_message(talk.say(talk.buyer, talk.opening(), seq=1), me=None, now_ms=0)
    for number in range(_REMEMBERED + 10):
        _remember(b"%d" % number, message, "")
        assert len(_KNOWN) <= _REMEMBERED
    _remember(b"x" * (_REMEMBERED_BYTES + 1), message, "")
    assert not any(len(raw) > _REMEMBERED_BYTES for raw in _KNOWN)
    _KNOWN.clear()
    await broker.threads.post(talk.say(talk.buyer, talk.opening()))
    await broker.threads.post(talk.say(talk.seller, talk.quote(talk.offer())))
    terms = broker.threads._terms[talk.thread]
    broker.threads._terms.update((f"{number:032x}", terms) for number in range(_TERMS_KEPT - 1))
    assert len(broker.threads._terms) == _TERMS_KEPT
    for _ in range(3):
        talk = Talk()
        await broker.threads.post(talk.say(talk.buyer, talk.opening()))
        await broker.threads.post(talk.say(talk.seller, talk.quote(talk.offer())))
        assert len(broker.threads._terms) == _TERMS_KEPT


async def test_a_reader_takes_more_at_a_time_under_load_and_less_of_what_is_large(
    wire: Wire,
) -> None:
    mailbox = RedisMailbox(wire, replace(LIMITS, depth=1_000, sender_bytes=10**9))
    reader = mailbox.receive(["ann", "bob"], consumer="one")
    sizes: list[int] = []

    async def read(total: int) -> list[int]:
        sizes.clear()
        while sum(sizes) < total:
            read = await reader.next(wait_ms=2_000)
            assert read, sizes
            sizes.append(len(read))
            await reader.done(read)
        return sizes

    try:
        assert await reader.next(wait_ms=1) == []
        await mailbox.send_many([("ann", b"small")] * 200, sender="eve")
        assert await read(200) == [16, 32, 64, 64, 24]
        large = bytes(300_000)
        room = READ_BYTES // (2 * len(large))
        await mailbox.send_many([("ann", large)] * 40 + [("bob", large)] * 5, sender="eve")
        first, *rest = await read(45)
        assert first == 40 + 5, "nobody could know that they are so large"
        assert rest == []
        await mailbox.send_many([("ann", large)] * (2 * room + 1), sender="eve")
        assert await read(2 * room + 1) == [room, room, 1]
    finally:
        await reader.close()


async def test_an_empty_entry_that_somebody_wrote_past_the_mailbox_stops_no_reader(
    broker: Broker, wire: Wire
) -> None:
    reader = broker.mailbox.receive(["ann"], consumer="one")
    try:
        assert await reader.next(wait_ms=1) == []
        await wire.call("XADD", stream_of("ann"), "*", "m", b"", "s", "")
        (empty,) = await reader.next(wait_ms=2_000)
        assert empty.raw == b""
        await reader.bury(empty, "empty")
        await broker.mailbox.send("ann", b"letter")
        (letter,) = await reader.next(wait_ms=2_000)
        assert letter.raw == b"letter"
    finally:
        await reader.close()


async def test_a_damaged_thread_is_nobody_elses_trouble(broker: Broker, wire: Wire) -> None:
    damaged, sound = Talk(), Talk()
    for talk in (damaged, sound):
        assert (await broker.threads.post(talk.say(talk.buyer, talk.opening()))).verdict == "OK"
    await wire.call("HSET", thread_of(damaged.thread), "h", b"\xc1 is no header")
    raws = [talk.say(talk.seller, NotUnderstood(code="x")) for talk in (damaged, sound)]
    broken, ruled = await broker.threads.post_all(raws)
    assert isinstance(broken, DamagedThreadError)
    assert isinstance(ruled, Ruling)
    assert ruled.verdict == "OK"
    _, depths = await charged(wire, sound.buyer.did)
    assert depths == {sound.seller.did: len(raws[1])}


@pytest.mark.parametrize("damage", [("HSET", "h", b"\xc1 is no header"), ("HDEL", "m1")])
async def test_a_damaged_thread_is_left_out_where_threads_are_shown(
    broker: Broker, wire: Wire, damage: tuple[str, *tuple[str | bytes, ...]]
) -> None:
    damaged = Talk()
    sound = Talk(buyer=damaged.buyer, group=damaged.group)
    for talk in (damaged, sound):
        assert (await broker.threads.post(talk.say(talk.buyer, talk.opening()))).ok
    command, *rest = damage
    await wire.call(command, thread_of(damaged.thread), *rest)
    with pytest.raises(DamagedThreadError):
        await broker.threads.get(damaged.thread)
    shown = await broker.threads.group(sound.group)
    assert [view.id for view in shown] == [sound.thread]
    states = await broker.threads.states([damaged.thread, sound.thread])
    assert states == ["open", "open"]


async def test_a_server_that_is_full_is_no_damage_and_is_asked_again(
    broker: Broker, wire: Wire
) -> None:
    talk = Talk()
    await broker.threads.post(talk.say(talk.buyer, talk.opening()))
    raw = talk.say(talk.seller, NotUnderstood(code="x"))
    await wire.call("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerUnreachableError) as caught:
            await broker.threads.post(raw)
        assert caught.value.retryable
    finally:
        await wire.call("CONFIG", "SET", "maxmemory", 0)
    assert (await broker.threads.post(raw)).verdict == "OK", "nothing of it was recorded"


async def test_the_accounts_of_senders_last_as_long_as_the_mailbox(
    broker: Broker, wire: Wire
) -> None:
    await broker.mailbox.send("ann", b"one", sender="bob")
    for key in (stream_of("ann"), charges_of("ann")):
        await wire.call("PEXPIRE", key, 5_000)
    await broker.mailbox.send("ann", b"two", sender="bob")
    for key in (stream_of("ann"), charges_of("ann")):
        assert await wire.call("PTTL", key) > THREAD_TTL_MS, key
