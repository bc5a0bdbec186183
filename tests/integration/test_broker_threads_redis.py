"""A whole bargain over a real server."""

from __future__ import annotations

import asyncio

from broker import Broker
from tests.fixtures.market_messages import SKILL, Talk, signed_card


async def test_a_bargain_goes_from_the_first_call_to_the_payment(broker: Broker) -> None:
    talk = Talk()
    post = broker.threads.post
    assert (await post(talk.say(talk.buyer, talk.opening()))).verdict == "OK"
    asked, offered = talk.offer(1_000), talk.offer(700)
    assert (await post(talk.say(talk.seller, talk.quote(asked)))).verdict == "OK"
    assert (await post(talk.say(talk.buyer, talk.counter(offered)))).verdict == "OK"
    nod = await post(talk.say(talk.seller, talk.nod(offered)))
    assert (nod.verdict, nod.state) == ("OK", "agreed")
    assert (await post(talk.say(talk.buyer, talk.job(offered)))).state == "held"
    assert (await post(talk.say(talk.seller, talk.result(offered)))).state == "delivered"
    ruling = await broker.threads.settle(talk.thread, paid=700, tx="a" * 64)
    assert (ruling.verdict, ruling.state) == ("OK", "settled")
    view = await broker.threads.deal(talk.agreement(offered).digest())
    assert view is not None
    assert (view.facts["asked"], view.facts["agreed"], view.facts["paid"]) == ("1000", "700", "700")
    assert len(view.transcript) == 6
    kinds = [event.kind for _, event in await broker.feed.tail(100)]
    assert kinds == [
        "negotiation.opened", "offer", "offer", "accepted", "held", "delivered", "settled",
    ]  # fmt: skip


async def test_a_posted_price_is_taken_in_one_message(broker: Broker) -> None:
    talk = Talk()
    listing = await broker.directory.publish(signed_card(talk.seller, talk.clock.now_ms()))
    entry = listing.card.skill(SKILL)
    assert entry is not None and entry.posted is not None
    raw = talk.say(talk.buyer, talk.take_posted(entry.posted))
    ruling = await broker.threads.post(raw)
    assert (ruling.verdict, ruling.state) == ("OK", "held")
    reader = broker.mailbox.receive([talk.seller.did], consumer="host-1")
    (delivery,) = await reader.next(wait_ms=1_000)
    assert delivery.raw == raw
    await reader.done([delivery])
    assert await broker.mailbox.depth(talk.seller.did) == 0
    await reader.close()


async def test_fifty_races_of_eight_accepts_have_one_winner_each(broker: Broker) -> None:
    for _ in range(50):
        talk = Talk()
        quoted = talk.offer()
        await broker.threads.post(talk.say(talk.buyer, talk.opening()))
        await broker.threads.post(talk.say(talk.seller, talk.quote(quoted)))
        raws = [talk.say(talk.buyer, talk.accept(quoted), seq=2) for _ in range(8)]
        rulings = await asyncio.gather(*(broker.threads.post(raw) for raw in raws))
        assert sorted(ruling.verdict for ruling in rulings) == ["CLOSED"] * 7 + ["OK"]
