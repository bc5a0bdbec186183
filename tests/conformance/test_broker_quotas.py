"""Who may fill whose mailbox: shares of senders and of pairs, and what is owed all the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker.errors import MailboxFullError, SenderQuotaError, TooManyThreadsError
from broker.mailboxes import MailboxLimits
from broker.ports import Delivery, Mailbox, MailboxReader
from broker.threads import ThreadLimits
from rahba.messages import NotUnderstood, Reject
from tests.fixtures.broker import LIMITS, Stand
from tests.fixtures.market_messages import Talk, signer

SHARE, BYTES = 8, 20_000


@pytest.fixture
def mailbox_limits() -> MailboxLimits:
    return replace(LIMITS, sender_messages=SHARE, sender_bytes=BYTES)


@pytest.fixture
def thread_limits() -> ThreadLimits:
    return ThreadLimits(open_threads=3)


async def all_of(reader: MailboxReader, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    while len(taken) < count:
        fresh = await reader.next(wait_ms=1_000)
        assert fresh
        taken += fresh
    return taken


async def fill(mailbox: Mailbox, sender: str, count: int = SHARE) -> None:
    for _ in range(count):
        await mailbox.send("ann", b"x", sender=sender)


async def refused(mailbox: Mailbox, sender: str, raw: bytes = b"x") -> bool:
    try:
        await mailbox.send("ann", raw, sender=sender)
    except SenderQuotaError as error:
        return error.retryable and int(error.facts["retry_after_ms"] or 0) > 0
    return False


async def test_a_flooder_fills_its_own_share_and_nobody_elses(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await fill(mailbox, "flooder")
    assert await refused(mailbox, "flooder")
    await fill(mailbox, "bob")
    await mailbox.send("ann", b"from the market's own processes")
    await mailbox.send("carol", b"elsewhere it has a share of its own", sender="flooder")
    assert await mailbox.depth("ann") == 2 * SHARE + 1


async def test_a_share_is_one_of_bytes_too(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await mailbox.send("ann", b"x" * (BYTES - 10), sender="bob")
    assert await refused(mailbox, "bob", b"x" * 11)
    assert not await refused(mailbox, "bob", b"x" * 10)
    assert await refused(mailbox, "bob", b"x")


@pytest.mark.parametrize("how", ["done", "bury"])
async def test_what_is_acknowledged_or_buried_is_off_its_senders_account(
    stand: Stand, how: str
) -> None:
    mailbox = stand.broker.mailbox
    await fill(mailbox, "bob")
    reader = mailbox.receive(["ann"], consumer="host")
    first, second, *others = await all_of(reader, SHARE)
    assert {one.sender for one in (first, second, *others)} == {"bob"}
    if how == "done":
        await reader.done([first, second])
        await reader.done([first])  # again: nothing more is taken off
    else:
        await reader.bury(first, "why")
        await reader.bury(second, "why")
    assert [await refused(mailbox, "bob") for _ in range(3)] == [False, False, True]
    await reader.done(others)
    await reader.close()


async def test_what_dies_undeliverable_is_off_its_senders_account(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await fill(mailbox, "bob")
    for _ in range(LIMITS.deliveries):
        reader = mailbox.receive(["ann"], consumer="host")
        await all_of(reader, SHARE)
        await reader.close()
    assert await refused(mailbox, "bob")
    reader = mailbox.receive(["ann"], consumer="host")
    assert await reader.next(wait_ms=100) == []
    assert len(await mailbox.dead("ann")) == SHARE
    assert not await refused(mailbox, "bob")
    await reader.close()


async def test_dead_letters_that_come_back_count_again(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    await fill(mailbox, "bob")
    reader = mailbox.receive(["ann"], consumer="host")
    for one in await all_of(reader, SHARE):
        await reader.bury(one, "why")
    assert await mailbox.revive("ann") == SHARE
    assert await refused(mailbox, "bob")
    back = await all_of(reader, SHARE)
    assert {one.sender for one in back} == {"bob"}
    await reader.done(back)
    await fill(mailbox, "bob")
    await reader.close()


async def test_of_many_at_once_exactly_the_share_gets_in(stand: Stand) -> None:
    mailbox = stand.broker.mailbox
    outcomes = await asyncio.gather(*(refused(mailbox, "bob") for _ in range(5 * SHARE)))
    assert outcomes.count(False) == await mailbox.depth("ann") == SHARE


async def test_a_message_that_finds_no_room_is_not_ruled_on_and_stands_when_it_comes_again(
    stand: Stand,
) -> None:
    mailbox, threads = stand.broker.mailbox, stand.broker.threads
    talk = Talk(clock=stand.clock)
    await threads.post(talk.say(talk.buyer, talk.opening()))
    for _ in range(SHARE - 1):
        raw = talk.say(talk.buyer, NotUnderstood(code="what"))
        assert (await threads.post(raw)).verdict == "OK"
    before = await threads.get(talk.thread)
    raw = talk.say(talk.buyer, NotUnderstood(code="what"))
    for _ in range(12):  # more often than a message is delivered again
        with pytest.raises(SenderQuotaError):
            await threads.post(raw)
    assert await threads.get(talk.thread) == before
    assert await mailbox.depth(talk.seller.did) == SHARE
    reader = mailbox.receive([talk.seller.did], consumer="host")
    await reader.done(await all_of(reader, SHARE))
    assert (await threads.post(raw)).verdict == "OK"
    assert [one.raw for one in await all_of(reader, 1)] == [raw]
    await reader.close()


async def test_a_full_mailbox_leaves_a_thread_as_it_was(stand: Stand) -> None:
    mailbox, threads = stand.broker.mailbox, stand.broker.threads
    talk = Talk(clock=stand.clock)
    await mailbox.send_many([(talk.seller.did, b"x")] * LIMITS.depth)
    with pytest.raises(MailboxFullError) as caught:
        await threads.post(talk.say(talk.buyer, talk.opening(), seq=1))
    assert caught.value.facts["retry_after_ms"]
    assert await threads.get(talk.thread) is None
    assert await threads.group(talk.group) == []
    assert await stand.broker.feed.tail(10) == []


async def test_a_refused_message_costs_no_share(stand: Stand) -> None:
    threads = stand.broker.threads
    talk = Talk(clock=stand.clock)
    await threads.post(talk.say(talk.buyer, talk.opening()))
    for _ in range(3 * SHARE):
        gap = talk.say(talk.buyer, NotUnderstood(code="what"), seq=9)
        assert (await threads.post(gap)).verdict == "OUT_OF_ORDER"
    ruling = await threads.post(talk.say(talk.buyer, NotUnderstood(code="what"), seq=2))
    assert ruling.verdict == "OK"


async def test_who_does_not_read_its_mail_is_delivered_to_all_the_same(stand: Stand) -> None:
    """Or a buyer could order, fill its mailbox, and have the work for nothing."""
    mailbox, threads = stand.broker.mailbox, stand.broker.threads
    talk = Talk(clock=stand.clock)
    asked = talk.offer()
    await threads.post(talk.say(talk.buyer, talk.opening()))
    await threads.post(talk.say(talk.seller, talk.quote(asked)))
    assert (await threads.post(talk.say(talk.buyer, talk.accept(asked)))).state == "held"
    await mailbox.send_many([(talk.buyer.did, b"x")] * (LIMITS.depth - 1))
    ruling = await threads.post(talk.say(talk.seller, talk.result(asked)))
    assert (ruling.verdict, ruling.state) == ("OK", "delivered")
    assert await mailbox.depth(talk.buyer.did) == LIMITS.depth + 1


async def test_a_buyer_has_so_many_threads_open_with_a_seller_and_no_more(stand: Stand) -> None:
    buyer, seller = signer(), signer()
    talks = [Talk(buyer=buyer, seller=seller, clock=stand.clock) for _ in range(5)]
    post = stand.broker.threads.post
    openings = [talk.say(buyer, talk.opening(), seq=1) for talk in talks]
    for raw in openings[:3]:
        assert (await post(raw)).verdict == "OK"
    with pytest.raises(TooManyThreadsError) as caught:
        await post(openings[3])
    assert 0 < int(caught.value.facts["retry_after_ms"] or 0) <= 60_000
    assert await stand.broker.threads.get(talks[3].thread) is None
    assert await stand.broker.mailbox.depth(seller.did) == 3
    other = Talk(buyer=buyer, clock=stand.clock)
    assert (await post(other.say(buyer, other.opening()))).verdict == "OK"
    assert (await post(openings[0])).verdict == "DUP"
    assert (await post(talks[0].say(buyer, Reject(reason="x"), seq=2))).state == "closed"
    assert (await post(openings[3])).verdict == "OK"
    assert (await stand.broker.threads.close(talks[1].thread, "failed")).verdict == "OK"
    assert (await post(openings[4])).verdict == "OK"


async def test_a_thread_whose_deadline_is_over_keeps_no_place(stand: Stand) -> None:
    buyer, seller = signer(), signer()
    post = stand.broker.threads.post
    for _ in range(3):
        talk = Talk(buyer=buyer, seller=seller, clock=stand.clock)
        await post(talk.say(buyer, talk.opening(deadline_ms=150)))
    late = Talk(buyer=buyer, seller=seller, clock=stand.clock)
    raw = late.say(buyer, late.opening())
    with pytest.raises(TooManyThreadsError):
        await post(raw)
    await stand.pause(200)
    assert (await post(raw)).verdict == "OK"


async def test_an_opening_that_is_refused_keeps_no_place(stand: Stand) -> None:
    buyer, seller = signer(), signer()
    post = stand.broker.threads.post
    for _ in range(5):
        talk = Talk(buyer=buyer, seller=seller, clock=stand.clock)
        assert (await post(talk.say(buyer, talk.opening(), seq=2))).verdict == "OUT_OF_ORDER"
    talk = Talk(buyer=buyer, seller=seller, clock=stand.clock)
    assert (await post(talk.say(buyer, talk.opening()))).verdict == "OK"


async def test_an_open_thread_cannot_be_made_to_give_its_place_back(stand: Stand) -> None:
    buyer, seller = signer(), signer()
    post = stand.broker.threads.post
    talks = [Talk(buyer=buyer, seller=seller, clock=stand.clock) for _ in range(4)]
    for talk in talks[:3]:
        await post(talk.say(buyer, talk.opening()))
    foreign = Talk(clock=stand.clock)
    await post(foreign.say(foreign.buyer, foreign.opening()))
    again = talks[0].say(buyer, talks[0].opening(group=foreign.group), seq=1)
    assert (await post(again)).verdict == "OUT_OF_TURN"
    second = talks[0].say(buyer, talks[0].opening(), seq=1)
    assert (await post(second)).verdict == "OUT_OF_TURN"
    with pytest.raises(TooManyThreadsError):
        await post(talks[3].say(buyer, talks[3].opening()))
