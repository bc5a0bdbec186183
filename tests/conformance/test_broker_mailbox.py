"""What every mailbox does with messages, whatever keeps them."""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import BadOwnerError, LeaseLostError, MailboxFullError
from broker.ports import Delivery
from rahba.errors import TooLargeError
from tests.fixtures.broker import LIMITS, Stand


async def test_messages_arrive_in_order_and_once(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    for number in range(5):
        await mailbox.send("ann", b"%d" % number)
    reader = mailbox.receive(["ann"], consumer="one")
    taken = await reader.next(wait_ms=500)
    assert [one.raw for one in taken] == [b"0", b"1", b"2", b"3", b"4"]
    assert {(one.owner, one.token) for one in taken} == {("ann", 1)}
    assert await mailbox.depth("ann") == 5
    await reader.done(taken)
    assert await mailbox.depth("ann") == 0
    assert await reader.next(wait_ms=50) == []
    await reader.close()


async def test_one_reader_serves_many_mailboxes_and_new_ones_at_once(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    reader = mailbox.receive([], consumer="host")
    waiting = asyncio.create_task(reader.next(wait_ms=3_000))
    await asyncio.sleep(0.05)
    reader.add("ann")
    await mailbox.send("ann", b"first")
    assert [one.raw for one in await waiting] == [b"first"]

    waiting = asyncio.create_task(reader.next(wait_ms=3_000))
    await asyncio.sleep(0.05)
    started = asyncio.get_running_loop().time()
    reader.add("bob")
    await mailbox.send_many([("bob", b"second"), ("bob", b"third")])
    got = [one.raw for one in await waiting]
    got += [one.raw for one in await reader.next(wait_ms=300)] if len(got) == 1 else []
    assert got == [b"second", b"third"]
    assert asyncio.get_running_loop().time() - started < 1

    reader.discard("bob")
    await mailbox.send("bob", b"fourth")
    assert await reader.next(wait_ms=200) == []
    await reader.close()


async def test_a_message_wakes_a_waiting_reader(stand: Stand) -> None:
    reader = stand.broker.mailbox.receive(["ann"], consumer="one")
    await reader.next(wait_ms=1)
    waiting = asyncio.create_task(reader.next(wait_ms=5_000))
    await asyncio.sleep(0.1)
    started = asyncio.get_running_loop().time()
    await stand.broker.mailbox.send("ann", b"now")
    assert len(await waiting) == 1
    assert asyncio.get_running_loop().time() - started < 0.5
    await reader.close()


async def test_a_cancelled_wait_loses_no_message(stand: Stand) -> None:
    reader = stand.broker.mailbox.receive(["ann"], consumer="one")
    for number in range(10):
        waiting = asyncio.create_task(reader.next(wait_ms=5_000))
        await asyncio.sleep(0.003 * number)
        await stand.broker.mailbox.send("ann", b"%d" % number)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    seen: set[bytes] = set()
    while fresh := await reader.next(wait_ms=400):
        seen |= {one.raw for one in fresh}
        await reader.done(fresh)
    lost = {b"%d" % number for number in range(10)} - seen
    # What a cancelled call had taken already comes back when its lease is over.
    await stand.pause(LIMITS.lease_ms + 50)
    while lost and (late := await reader.next(wait_ms=400)):
        lost -= {one.raw for one in late}
        await reader.done(late)
    assert lost == set()
    await reader.close()


async def test_a_dead_consumers_message_is_taken_over_and_fenced(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await mailbox.send("ann", b"job")
    slow = mailbox.receive(["ann"], consumer="slow")
    (held,) = await slow.next(wait_ms=500)
    quick = mailbox.receive(["ann"], consumer="quick")
    assert await quick.next(wait_ms=50) == []
    await stand.pause(LIMITS.lease_ms + 50)
    (taken,) = await quick.next(wait_ms=1_000)
    assert (taken.raw, taken.entry, taken.token) == (b"job", held.entry, 2)
    for late in (slow.done([held]), slow.extend([held]), slow.bury(held, "late")):
        with pytest.raises(LeaseLostError):
            await late
    assert await mailbox.depth("ann") == 1
    await quick.done([taken])
    assert await mailbox.depth("ann") == 0
    await quick.done([taken])  # again: nothing happens
    for reader in (slow, quick):
        await reader.close()


async def test_an_extended_lease_is_not_taken_over(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await mailbox.send("ann", b"job")
    busy = mailbox.receive(["ann"], consumer="busy")
    other = mailbox.receive(["ann"], consumer="other")
    held = await busy.next(wait_ms=500)
    for _ in range(4):
        await stand.pause(LIMITS.lease_ms // 2)
        await busy.extend(held)
        assert await other.next(wait_ms=1) == []
    await busy.done(held)
    with pytest.raises(LeaseLostError):
        await busy.extend(held)
    for reader in (busy, other):
        await reader.close()


async def test_a_restarted_consumer_gets_its_own_messages_back_at_once(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    for number in range(40):
        await mailbox.send("ann", b"%d" % number)
    first = mailbox.receive(["ann"], consumer="host")
    taken = 0
    while taken < 40:
        taken += len(await first.next(wait_ms=500))
    await first.close()
    again = mailbox.receive(["ann"], consumer="host")
    back: list[bytes] = []
    while len(back) < 40:
        fresh = await again.next(wait_ms=100)
        assert fresh
        assert {one.token for one in fresh} == {2}
        back += [one.raw for one in fresh]
    assert sorted(back) == sorted(b"%d" % number for number in range(40))
    await again.close()


async def test_after_five_deliveries_a_message_is_dead(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await mailbox.send("ann", b"poison")
    for token in range(1, 6):
        reader = mailbox.receive(["ann"], consumer="host")
        (taken,) = await reader.next(wait_ms=500)
        assert taken.token == token
        await reader.close()
    reader = mailbox.receive(["ann"], consumer="host")
    assert await reader.next(wait_ms=100) == []
    assert await mailbox.dead("ann") == [(b"poison", "undeliverable")]
    assert await mailbox.depth("ann") == 0
    await reader.close()


async def test_what_cannot_be_handled_is_buried_with_its_reason(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await mailbox.send("ann", b"nonsense")
    reader = mailbox.receive(["ann"], consumer="host")
    (taken,) = await reader.next(wait_ms=500)
    await reader.bury(taken, "bad_encoding")
    assert await mailbox.dead("ann") == [(b"nonsense", "bad_encoding")]
    assert await mailbox.depth("ann") == 0
    await reader.close()


async def test_dead_letters_are_delivered_again_oldest_first_as_if_they_were_new(
    stand: Stand,
) -> None:
    mailbox = stand.broker.mailbox
    words = [b"one", b"two", b"three"]
    reader = mailbox.receive(["ann"], consumer="host")
    for word in words:
        await mailbox.send("ann", word)
        for taken in await reader.next(wait_ms=500):
            await reader.bury(taken, "bad_encoding")
    assert await mailbox.revive("nobody") == 0
    assert await mailbox.revive("ann", limit=2) == 2
    assert await mailbox.dead("ann") == [(b"three", "bad_encoding")]
    back: list[Delivery] = []
    while len(back) < 2:
        back += await reader.next(wait_ms=500)
    assert [(one.raw, one.token) for one in back] == [(b"one", 1), (b"two", 1)]
    await reader.done(back)
    assert (await mailbox.revive("ann"), await mailbox.revive("ann")) == (1, 0)
    assert (await mailbox.depth("ann"), await mailbox.dead("ann")) == (1, [])
    await reader.close()


async def test_only_as_many_dead_letters_come_back_as_there_is_room_for(stand: Stand) -> None:
    mailbox, depth = stand.broker.mailbox, LIMITS.depth
    reader = mailbox.receive(["ann"], consumer="host")
    for number in range(3):
        await mailbox.send("ann", b"dead %d" % number)
        for taken in await reader.next(wait_ms=500):
            await reader.bury(taken, "bad_encoding")
    await reader.close()
    for _ in range(depth - 1):
        await mailbox.send("ann", b"alive")
    assert (await mailbox.revive("ann"), await mailbox.revive("ann")) == (1, 0)
    assert (await mailbox.depth("ann"), len(await mailbox.dead("ann"))) == (depth, 2)


async def test_a_full_mailbox_refuses_until_it_is_read(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await mailbox.send_many([("ann", b"x")] * LIMITS.depth)
    with pytest.raises(MailboxFullError):
        await mailbox.send("ann", b"one too many")
    with pytest.raises(MailboxFullError):
        await mailbox.send_many([("ann", b"one too many"), ("bob", b"fine")])
    assert await mailbox.depth("bob") == 1
    reader = mailbox.receive(["ann"], consumer="host")
    await reader.done(await reader.next(wait_ms=500))
    await mailbox.send("ann", b"now it fits")
    await reader.close()


async def test_an_oversized_or_empty_message_is_refused(stand: Stand) -> None:
    for raw in (b"", b"x" * (LIMITS.message_bytes + 1)):
        with pytest.raises(TooLargeError):
            await stand.broker.mailbox.send("ann", raw)
    assert await stand.broker.mailbox.depth("ann") == 0


@pytest.mark.parametrize("owner", ["", "a b", "{a}", "x" * 129, "a\n"])
async def test_a_malformed_owner_is_refused(stand: Stand, owner: str) -> None:
    with pytest.raises(BadOwnerError):
        await stand.broker.mailbox.send(owner, b"x")
    with pytest.raises(BadOwnerError):
        stand.broker.mailbox.receive([owner], consumer="host")


async def test_a_thousand_concurrent_messages_each_arrive_once(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    owners = [f"agent-{number}" for number in range(50)]
    reader = mailbox.receive(owners, consumer="host")
    items = [(owner, f"{owner}:{turn}".encode()) for owner in owners for turn in range(20)]
    sending = asyncio.gather(*(mailbox.send(owner, raw) for owner, raw in items))
    got: list[bytes] = []
    while len(got) < 1_000:
        fresh = await reader.next(wait_ms=2_000)
        assert fresh
        assert all(one.raw.startswith(one.owner.encode() + b":") for one in fresh)
        got += [one.raw for one in fresh]
        await reader.done(fresh)
    await sending
    assert sorted(got) == sorted(raw for _, raw in items)
    await reader.close()
