"""Bad input to a negotiation, on every real server: refused by name, and nothing is half done.

A deal is under way between a buyer with money on a real ledger and a seller; each test sends one
kind of bad input and then looks at everything that could have changed: the thread and its
transcript, both mailboxes, the dead letters, the public feed, and the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from agents.attendance import Letter
from agents.courier import Courier
from broker import Broker
from broker.errors import SenderQuotaError, TooManyThreadsError
from broker.mailboxes import MailboxLimits
from broker.threads import ThreadLimits
from rahba.encoding import canonical
from rahba.envelope import Signer, seal
from rahba.errors import BadInputError, EnvelopeExpiredError, RahbaError, TooLargeError
from rahba.messages import (
    MAX_MESSAGE_BYTES,
    MESSAGE_TYPE,
    NotUnderstood,
    Offer,
    Result,
    open_message,
)
from tests.fixtures.hosting import CLOCK, CUSTOMER, IDS, Souk, until
from tests.fixtures.market_messages import Talk, signed_card, signer

pytestmark = pytest.mark.redis

PRICE = 1_000


@pytest_asyncio.fixture
async def broker(each_broker: Broker) -> Broker:
    """Let the souk stand on each server in turn."""
    return each_broker


class Deal:
    """A thread between the customer and a seller, with the money held."""

    def __init__(self, souk: Souk) -> None:
        self.souk = souk
        self.talk = Talk(buyer=CUSTOMER)

    async def say(self, who: Signer, body: Any, **fields: Any) -> str:
        ruling = await self.souk.broker.threads.post(self.talk.say(who, body, **fields))
        return ruling.verdict

    async def quoted(self, *, valid_ms: int = 30_000) -> Offer:
        asked = self.talk.offer(PRICE, valid_ms=valid_ms)
        assert await self.say(self.talk.buyer, self.talk.opening()) == "OK"
        assert await self.say(self.talk.seller, self.talk.quote(asked)) == "OK"
        return asked

    async def held(self) -> Offer:
        asked = await self.quoted()
        agreement = self.talk.agreement(asked).digest()
        expires = CLOCK.now_ms() + 60_000
        hold = (await self.souk.wallet.hold(self.talk.seller.did, PRICE, expires, agreement)).id
        accept = self.talk.accept(asked, hold=hold)
        assert await self.say(self.talk.buyer, accept) == "OK"
        return asked

    async def picture(self) -> dict[str, Any]:
        """Return everything that bad input must leave as it is."""
        broker, ledger = self.souk.broker, self.souk.ledger
        both = (self.talk.buyer.did, self.talk.seller.did)
        return {
            "thread": await broker.threads.get(self.talk.thread),
            "group": await broker.threads.group(self.talk.group),
            "mail": [await broker.mailbox.depth(who) for who in both],
            "dead": [await broker.mailbox.dead(who) for who in both],
            "feed": await broker.feed.tail(1_000),
            "supply": await ledger.supply(),
            "accounts": [await ledger.account(who) for who in both],
            "entries": [
                entry.payload
                for entry in await ledger.entries(0, 1_000)
                if entry.payload["type"] != "state"  # the ledger's own, as time passes
            ],
        }

    @asynccontextmanager
    async def unchanged(self, *but: str) -> AsyncIterator[None]:
        """Check that nothing changes in the block, ``but`` the parts that are named."""
        before = await self.picture()
        yield
        after = await self.picture()
        for part in but:
            del before[part], after[part]
        assert after == before


@pytest.fixture
def deal(souk: Souk) -> Deal:
    return Deal(souk)


async def test_a_late_message_is_refused_and_changes_nothing(deal: Deal) -> None:
    asked = await deal.held()
    async with deal.unchanged():
        past = CLOCK.now_ms() - 1
        assert await deal.say(deal.talk.seller, deal.talk.result(asked), reply_by=past) == "LATE"


async def test_a_duplicate_gets_its_first_answer_and_is_handled_once(deal: Deal) -> None:
    talk, threads = deal.talk, deal.souk.broker.threads
    asked = await deal.quoted()
    accept = talk.say(talk.buyer, talk.accept(asked))
    assert (await threads.post(accept)).verdict == "OK"
    async with deal.unchanged("mail"):  # it is delivered again: the first delivery may be lost
        for _ in range(3):
            again = await threads.post(accept)
            assert (again.verdict, again.first, again.ok) == ("DUP", "OK", True)


async def test_a_replayed_message_changes_nothing_once_the_thread_went_on(deal: Deal) -> None:
    talk, threads = deal.talk, deal.souk.broker.threads
    opening = talk.say(talk.buyer, talk.opening())
    assert (await threads.post(opening)).ok
    first = talk.offer(PRICE)
    quote = talk.say(talk.seller, talk.quote(first))
    assert (await threads.post(quote)).ok
    assert await deal.say(talk.buyer, talk.counter(talk.offer(PRICE // 2))) == "OK"
    async with deal.unchanged("mail"):
        for raw in (opening, quote):
            assert (await threads.post(raw)).verdict == "DUP"
    async with deal.unchanged():
        assert await deal.say(talk.seller, talk.quote(first), seq=1) == "OUT_OF_ORDER"


async def test_an_out_of_order_message_is_refused_and_the_one_in_order_stands(deal: Deal) -> None:
    asked = await deal.held()
    async with deal.unchanged():
        for seq in (1, 3, 9, 1_000):
            verdict = await deal.say(deal.talk.seller, deal.talk.result(asked), seq=seq)
            assert verdict == "OUT_OF_ORDER"
    assert await deal.say(deal.talk.seller, deal.talk.result(asked), seq=2) == "OK"


async def test_a_message_in_an_unknown_thread_is_refused_and_leaves_no_thread(deal: Deal) -> None:
    talk = deal.talk
    async with deal.unchanged():
        for body in (
            talk.quote(talk.offer()),
            talk.accept(talk.offer()),
            talk.result(talk.offer()),
        ):
            assert await deal.say(talk.seller, body, seq=1) == "UNKNOWN_THREAD"


async def test_an_expired_offer_is_not_taken_and_the_money_is_not_spent(deal: Deal) -> None:
    asked = await deal.quoted(valid_ms=40)
    await asyncio.sleep(0.06)
    async with deal.unchanged():
        assert await deal.say(deal.talk.buyer, deal.talk.accept(asked)) == "OFFER_EXPIRED"


async def test_an_envelope_from_the_future_or_past_its_reply_by_is_refused(deal: Deal) -> None:
    await deal.quoted()
    talk, now_ms = deal.talk, CLOCK.now_ms()
    async with deal.unchanged():
        with pytest.raises(EnvelopeExpiredError):
            await deal.say(talk.buyer, talk.counter(talk.offer()), seq=2, ts=now_ms + 60_000)
        old = talk.say(talk.seller, talk.quote(talk.offer()), seq=9, reply_by=now_ms - 1)
        with pytest.raises(EnvelopeExpiredError):
            open_message(old, me=talk.buyer.did, now_ms=now_ms)


async def test_a_changed_price_is_refused_and_the_price_asked_still_stands(deal: Deal) -> None:
    asked, talk = await deal.quoted(), deal.talk
    cheaper = msgspec.structs.replace(
        asked, issues=msgspec.structs.replace(asked.issues, price="1")
    )
    async with deal.unchanged():
        for accept in (talk.accept(cheaper), talk.accept(cheaper, digest=asked.digest())):
            assert await deal.say(talk.buyer, accept, seq=2) == "OFFER_CHANGED"
    assert await deal.say(talk.buyer, talk.accept(asked), seq=2) == "OK"


async def test_a_price_that_changed_on_the_card_is_not_taken_at_the_old_one(deal: Deal) -> None:
    talk, directory = deal.talk, deal.souk.broker.directory
    now_ms = CLOCK.now_ms()
    old = await directory.publish(signed_card(talk.seller, now_ms, price=100))
    await directory.publish(signed_card(talk.seller, now_ms + 1, price=200))
    posted = old.card.skills[0].posted
    assert posted is not None
    async with deal.unchanged():
        assert await deal.say(talk.buyer, talk.take_posted(posted)) == "OFFER_CHANGED"


async def test_a_message_to_the_wrong_audience_is_refused_by_the_thread_and_the_reader(
    deal: Deal,
) -> None:
    asked, talk = await deal.held(), deal.talk
    stranger = signer()
    async with deal.unchanged():
        verdict = await deal.say(talk.seller, talk.result(asked), seq=2, to=stranger.did)
        assert verdict == "NOT_PARTY"
        verdict = await deal.say(stranger, talk.result(asked), seq=2, to=talk.buyer.did)
        assert verdict == "NOT_PARTY"
    raw = talk.say(talk.seller, talk.result(asked), seq=2, to=stranger.did)
    handled, reasons = await read(deal, [raw])
    assert raw not in handled
    assert reasons == ["wrong_audience"]


async def test_an_oversized_message_is_refused_before_anything_is_read(deal: Deal) -> None:
    asked, talk = await deal.held(), deal.talk
    huge = msgspec.structs.replace(talk.result(asked), output="A" * (MAX_MESSAGE_BYTES * 3 // 4))
    async with deal.unchanged():
        for raw in (talk.say(talk.seller, huge, seq=2), b"[" * (MAX_MESSAGE_BYTES + 1)):
            assert len(raw) > MAX_MESSAGE_BYTES
            with pytest.raises(TooLargeError):
                await deal.souk.broker.threads.post(raw)
            with pytest.raises(TooLargeError):
                await deal.souk.broker.mailbox.send(talk.buyer.did, raw)


def malformed(deal: Deal) -> dict[str, bytes]:
    """Return what is no message, each in its own way, properly signed where that is possible."""
    talk = deal.talk
    good = talk.say(talk.seller, NotUnderstood(code="what"), seq=2)
    fields = msgspec.json.decode(canonical(open_message(good, me=None, now_ms=0)))

    def signed(**changes: Any) -> bytes:
        return seal(MESSAGE_TYPE, {**fields, **changes}, talk.seller)

    return {
        "empty": b"",
        "noise": bytes(range(256)),
        "not json": b"{",
        "deep": b"[" * 100_000,
        "another document": b'{"hello":"world"}',
        "cut off": good[:-2],
        "with a space": good.replace(b",", b", ", 1),
        "twice": good + good,
        "an unknown field": signed(extra=1),
        "no sequence number": seal(
            MESSAGE_TYPE, {name: fields[name] for name in fields if name != "seq"}, talk.seller
        ),
        "a number for a name": signed(thread=5),
        "a sequence number of zero": signed(seq=0),
        "an unknown type": signed(body={"type": "bribe"}),
        "another version": signed(v=2),
        "a thread that is no id": signed(thread="../../etc/passwd"),
        "a recipient that is no key": signed(to="did:key:zzz"),
        "another type of document": seal("application/x-other", fields, talk.seller),
        "the signature of another": seal(MESSAGE_TYPE, fields, signer()),
    }


async def test_a_malformed_message_is_refused_by_its_code_and_changes_nothing(deal: Deal) -> None:
    await deal.quoted()
    for name, raw in malformed(deal).items():
        async with deal.unchanged():
            with pytest.raises(RahbaError) as caught:
                await deal.souk.broker.threads.post(raw)
        assert caught.value.code != "error", name
        assert not caught.value.retryable, name


async def test_an_amount_a_digest_or_a_skill_that_is_malformed_is_refused(deal: Deal) -> None:
    asked, talk = await deal.quoted(), deal.talk
    bodies = [
        talk.counter(msgspec.structs.replace(asked, penalty="-1")),
        talk.counter(msgspec.structs.replace(asked, skill="Not A Skill")),
        talk.accept(asked, digest="short"),
        Result(agreement="x", signature="", output="", receipt=""),
    ]
    async with deal.unchanged():
        for body in bodies:
            with pytest.raises(BadInputError):
                await deal.say(talk.buyer, body, seq=2)


async def test_malformed_mail_is_buried_with_its_reason_and_stops_nobody_elses(deal: Deal) -> None:
    talk = deal.talk
    bad = [raw for raw in malformed(deal).values() if raw]
    good = talk.say(talk.seller, NotUnderstood(code="what"), seq=2)
    handled, reasons = await read(deal, [*bad, good])
    assert handled == [good]
    assert len(reasons) == len(bad)


async def test_a_flooder_is_cut_off_and_the_others_are_served(deal: Deal) -> None:
    """One key opens threads without end, another talks without end, a third repeats itself."""
    talk, threads = deal.talk, deal.souk.broker.threads
    asked = await deal.quoted()
    flooder, opened, refused = signer(), 0, 0
    for _ in range(ThreadLimits().open_threads + 20):
        flood = Talk(buyer=flooder, seller=talk.seller)
        try:
            opened += (await threads.post(flood.say(flooder, flood.opening()))).ok
        except TooManyThreadsError as error:
            refused += error.retryable and int(error.facts["retry_after_ms"] or 0) > 0
    assert (opened, refused) == (ThreadLimits().open_threads, 20)

    chatter = Talk(seller=talk.seller)
    await threads.post(chatter.say(chatter.buyer, chatter.opening()))
    said = [chatter.say(chatter.buyer, NotUnderstood(code="x")) for _ in range(40)]
    verdicts = [(await threads.post(raw)).verdict for raw in said]
    assert verdicts == ["OK"] * 31 + ["ROUND_LIMIT"] + ["OUT_OF_ORDER"] * 8
    before = await deal.souk.broker.mailbox.depth(talk.seller.did)
    for _ in range(30):
        assert (await threads.post(said[0])).verdict == "DUP"
    assert await deal.souk.broker.mailbox.depth(talk.seller.did) == before + 8

    async with deal.unchanged("thread", "group", "mail", "feed"):
        assert await deal.say(talk.buyer, talk.accept(asked)) == "OK"


async def test_a_flood_of_mail_fills_the_flooders_share_alone(deal: Deal) -> None:
    mailbox, owner = deal.souk.broker.mailbox, deal.talk.seller.did
    limits, sent = MailboxLimits(), 0

    async def send() -> None:
        nonlocal sent
        try:
            await mailbox.send(owner, b"x" * 100, sender="flooder")
        except SenderQuotaError:
            return
        sent += 1

    await asyncio.gather(*(send() for _ in range(2 * limits.sender_messages)))
    assert sent == limits.sender_messages == await mailbox.depth(owner)
    async with deal.unchanged("thread", "group", "mail", "feed"):
        await deal.quoted()


async def read(deal: Deal, mail: list[bytes]) -> tuple[list[bytes], list[str]]:
    """Put mail past the threads into the buyer's mailbox; what was handled, what buried."""
    handled: list[bytes] = []

    async def handle(letter: Letter) -> None:
        handled.append(letter.raw)

    mailbox, me = deal.souk.broker.mailbox, deal.talk.buyer.did
    courier = Courier(mailbox, CLOCK, consumer=IDS.new(), wait_ms=20)
    courier.serve(me, handle)
    await courier.start()
    try:
        for raw in mail:
            await mailbox.send(me, raw)
        await emptied(lambda: mailbox.depth(me))
        await until(lambda: len(handled) + courier.buried >= len(mail))
    finally:
        await courier.stop()
    return handled, [reason for _, reason in await mailbox.dead(me)]


async def emptied(depth: Callable[[], Awaitable[int]]) -> None:
    async with asyncio.timeout(10):
        while await depth():  # noqa: ASYNC110  # the mailbox is in another process
            await asyncio.sleep(0.02)
