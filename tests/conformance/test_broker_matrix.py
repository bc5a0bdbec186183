"""The whole table of verdicts, and races, on every server that we speak to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from broker import Broker
from rahba.messages import Offer, Withdraw
from tests.fixtures.market_messages import Talk, signer

pytestmark = pytest.mark.redis

RACES: Final = 200
Case = Callable[[Broker, Talk], Awaitable[bytes]]


async def say(broker: Broker, raw: bytes) -> bytes:
    ruling = await broker.threads.post(raw)
    assert ruling.verdict == "OK", ruling
    return raw


async def quoted(broker: Broker, talk: Talk, *, valid_ms: int = 30_000) -> Offer:
    asked = talk.offer(valid_ms=valid_ms)
    await say(broker, talk.say(talk.buyer, talk.opening()))
    await say(broker, talk.say(talk.seller, talk.quote(asked)))
    return asked


async def late(broker: Broker, talk: Talk) -> bytes:
    await quoted(broker, talk)
    return talk.say(talk.buyer, talk.counter(talk.offer()), reply_by=talk.clock.now_ms() - 1)


async def duplicate(broker: Broker, talk: Talk) -> bytes:
    return await say(broker, talk.say(talk.buyer, talk.opening()))


async def replayed_seq(broker: Broker, talk: Talk) -> bytes:
    await quoted(broker, talk)
    return talk.say(talk.buyer, talk.counter(talk.offer()), seq=1)


async def gap(broker: Broker, talk: Talk) -> bytes:
    await quoted(broker, talk)
    return talk.say(talk.buyer, talk.counter(talk.offer()), seq=3)


async def unknown_thread(broker: Broker, talk: Talk) -> bytes:  # nothing is there
    return talk.say(talk.seller, talk.quote(talk.offer()))


async def stranger(broker: Broker, talk: Talk) -> bytes:
    await quoted(broker, talk)
    return talk.say(signer(), talk.counter(talk.offer()), seq=2, to=talk.seller.did)


async def changed_price(broker: Broker, talk: Talk) -> bytes:
    asked = await quoted(broker, talk)
    return talk.say(talk.buyer, talk.accept(talk.offer(1), digest=asked.digest()))


async def expired_offer(broker: Broker, talk: Talk) -> bytes:
    asked = await quoted(broker, talk, valid_ms=30)
    await asyncio.sleep(0.05)
    return talk.say(talk.buyer, talk.accept(asked))


async def withdrawn(broker: Broker, talk: Talk) -> bytes:
    asked = await quoted(broker, talk)
    await say(broker, talk.say(talk.seller, Withdraw(offer=asked.digest())))
    return talk.say(talk.buyer, talk.accept(asked))


async def after_the_deal(broker: Broker, talk: Talk) -> bytes:
    asked = await quoted(broker, talk)
    await say(broker, talk.say(talk.buyer, talk.accept(asked)))
    return talk.say(talk.seller, talk.counter(talk.offer()))


async def too_many_offers(broker: Broker, talk: Talk) -> bytes:
    talk.rounds = 1
    await quoted(broker, talk)
    await say(broker, talk.say(talk.buyer, talk.counter(talk.offer(5))))
    return talk.say(talk.seller, talk.counter(talk.offer(9)))


async def out_of_turn(broker: Broker, talk: Talk) -> bytes:
    await say(broker, talk.say(talk.buyer, talk.opening()))
    return talk.say(talk.buyer, talk.counter(talk.offer()))


MATRIX: Final[dict[str, tuple[Case, str]]] = {
    "late": (late, "LATE"),
    "duplicate id": (duplicate, "DUP"),
    "replayed seq": (replayed_seq, "OUT_OF_ORDER"),
    "gap": (gap, "OUT_OF_ORDER"),
    "unknown thread": (unknown_thread, "UNKNOWN_THREAD"),
    "stranger": (stranger, "NOT_PARTY"),
    "changed price": (changed_price, "OFFER_CHANGED"),
    "expired offer": (expired_offer, "OFFER_EXPIRED"),
    "withdrawn": (withdrawn, "NO_STANDING_OFFER"),
    "after the deal": (after_the_deal, "CLOSED"),
    "too many offers": (too_many_offers, "ROUND_LIMIT"),
    "out of turn": (out_of_turn, "OUT_OF_TURN"),
}


@pytest.mark.parametrize("case", MATRIX)
async def test_every_failure_has_its_verdict_and_changes_nothing(
    each_broker: Broker, case: str
) -> None:
    talk = Talk()
    make, verdict = MATRIX[case]
    raw = await make(each_broker, talk)
    before = await each_broker.threads.get(talk.thread)
    ruling = await each_broker.threads.post(raw)
    assert ruling.verdict == verdict
    assert ruling.first == ("OK" if verdict == "DUP" else None)
    assert await each_broker.threads.get(talk.thread) == before


async def test_two_hundred_races_of_eight_accepts_have_two_hundred_winners(
    each_broker: Broker,
) -> None:
    winners = 0
    for _ in range(RACES):
        talk = Talk()
        asked = await quoted(each_broker, talk)
        raws = [talk.say(talk.buyer, talk.accept(asked), seq=2) for _ in range(8)]
        rulings = await asyncio.gather(*(each_broker.threads.post(raw) for raw in raws))
        won = [raw for raw, ruling in zip(raws, rulings, strict=True) if ruling.verdict == "OK"]
        assert sorted(ruling.verdict for ruling in rulings) == ["CLOSED"] * 7 + ["OK"]
        view = await each_broker.threads.get(talk.thread)
        assert view is not None
        assert view.transcript[-1:] == tuple(won)
        winners += len(won)
    assert winners == RACES


async def test_when_both_sides_accept_at_once_one_of_them_decides(each_broker: Broker) -> None:
    states = set()
    for turn in range(RACES):
        talk = Talk()
        asked, wanted = await quoted(each_broker, talk), talk.offer(500)
        await say(each_broker, talk.say(talk.buyer, talk.counter(wanted)))
        raws = [
            talk.say(talk.buyer, talk.accept(asked)),
            talk.say(talk.seller, talk.nod(wanted)),
        ][:: 1 if turn % 2 else -1]
        rulings = await asyncio.gather(*(each_broker.threads.post(raw) for raw in raws))
        assert sorted(ruling.verdict for ruling in rulings) == ["CLOSED", "OK"]
        states |= {ruling.state for ruling in rulings}
    assert states == {"held", "agreed"}
