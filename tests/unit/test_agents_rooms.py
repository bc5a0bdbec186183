"""Room for what is offered: what nobody will come back for is found out when room is short."""

from __future__ import annotations

import asyncio

from agents.perform import Workbench
from agents.rooms import LOOK_EVERY_MS, Rooms
from broker import Broker
from broker.transports import memory
from rahba.clock import SystemClock
from rahba.messages import Quote
from tests.fixtures.market_messages import Talk

FAR_MS = 10**13


class Moving(SystemClock):
    """A clock that tests move."""

    at_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


class Counted:
    """A broker's threads, and how often somebody asked how some stand."""

    def __init__(self, broker: Broker) -> None:
        self.looks: list[int] = []
        self._threads = broker.threads

    async def states(self, threads: list[str]) -> object:
        self.looks.append(len(threads))
        return await self._threads.states(threads)


async def quoted(broker: Broker, clock: Moving) -> Talk:
    """Open a thread in which the seller has quoted."""
    talk = Talk(clock=clock, mode="tender", rounds=1)
    await broker.threads.post(talk.say(talk.buyer, talk.opening()))
    await broker.threads.post(talk.say(talk.seller, Quote(talk.offer())))
    return talk


async def test_room_is_found_among_threads_that_are_over_and_only_when_it_is_short() -> None:
    clock = Moving()
    broker = memory.connect(clock)
    bench, counted = Workbench(2, 2, clock), Counted(broker)
    rooms = Rooms(bench, counted, clock)  # type: ignore[arg-type]
    talks = [await quoted(broker, clock) for _ in range(6)]
    for talk in talks[:4]:
        assert await rooms.promise(talk.thread, talk.buyer.did, until_ms=FAR_MS)
    assert counted.looks == []
    last = talks[4]
    assert not await rooms.promise(last.thread, last.buyer.did, until_ms=FAR_MS)
    assert counted.looks == [4], "nothing is over"
    await broker.threads.release([talk.thread for talk in talks[:3]], "not_chosen")
    assert not await rooms.promise(last.thread, last.buyer.did, until_ms=FAR_MS)
    assert counted.looks == [4], "somebody looked a moment ago"
    clock.at_ms += LOOK_EVERY_MS
    assert await rooms.promise(last.thread, last.buyer.did, until_ms=FAR_MS)
    assert bench.promised_threads == [talks[3].thread, last.thread]
    another = talks[5]
    assert await rooms.promise(another.thread, another.buyer.did, until_ms=FAR_MS)
    assert counted.looks == [4, 4]
    await broker.close()


async def test_a_promise_that_stands_is_prolonged_without_a_look() -> None:
    clock = Moving()
    broker = memory.connect(clock)
    counted = Counted(broker)
    rooms = Rooms(Workbench(1, 0, clock), counted, clock)  # type: ignore[arg-type]
    talk = await quoted(broker, clock)
    for _ in range(2):
        assert await rooms.promise(talk.thread, talk.buyer.did, until_ms=FAR_MS)
    assert counted.looks == []
    await broker.close()


async def test_a_thread_that_the_broker_does_not_know_keeps_no_room() -> None:
    clock = Moving()
    broker = memory.connect(clock)
    rooms = Rooms(Workbench(1, 0, clock), broker.threads, clock)
    assert await rooms.promise("a" * 32, "did:key:zAnn", until_ms=FAR_MS)
    assert await rooms.promise("b" * 32, "did:key:zBob", until_ms=FAR_MS)
    await broker.close()


async def test_who_comes_while_somebody_looks_waits_for_what_is_found() -> None:
    clock = Moving()
    broker = memory.connect(clock)
    rooms = Rooms(Workbench(2, 2, clock), broker.threads, clock)
    talks = [await quoted(broker, clock) for _ in range(8)]
    for talk in talks[:4]:
        assert await rooms.promise(talk.thread, talk.buyer.did, until_ms=FAR_MS)
    await broker.threads.release([talk.thread for talk in talks[:4]], "not_chosen")
    found = await asyncio.gather(
        *(rooms.promise(talk.thread, talk.buyer.did, until_ms=FAR_MS) for talk in talks[4:])
    )
    assert found == [True] * 4
    await broker.close()
