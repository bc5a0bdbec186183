"""What is asked of one script at a time: together, in order, and nobody is left waiting."""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import BrokerUnreachableError
from broker.transports.redis.batches import MAX_TOGETHER, MAX_TOGETHER_BYTES, Batches
from broker.transports.redis.wire import Argument, Reply, Script, Wire


class Slow(Wire):
    """A wire whose script answers each request by itself, once it may."""

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:1")
        self.calls: list[list[Argument]] = []
        self.may = asyncio.Event()
        self.failure: Exception | None = None

    async def run(self, script: Script, keys: list[str], *arguments: Argument) -> Reply:
        count = int(arguments[0])
        told = list(arguments[1 + count :])
        self.calls.append(told)
        await self.may.wait()
        if self.failure is not None:
            raise self.failure
        return [7, *told]


def batches(wire: Slow) -> Batches:
    return Batches(wire, Script("return 1"), lambda: (1, 2, 3))


async def test_what_is_asked_during_a_call_gathers_for_the_next() -> None:
    wire = Slow()
    some = batches(wire)
    first = [some.put(f"a{n}", size_bytes=1) for n in range(3)]
    await asyncio.sleep(0)
    later = [some.put(f"b{n}", size_bytes=1) for n in range(4)]
    await asyncio.sleep(0)
    assert wire.calls == [["a0", "a1", "a2"]]
    wire.may.set()
    assert await asyncio.gather(*first) == [(7, f"a{n}") for n in range(3)]
    assert await asyncio.gather(*later) == [(7, f"b{n}") for n in range(4)]
    assert wire.calls[1:] == [["b0", "b1", "b2", "b3"]]


async def test_a_call_takes_so_many_requests_and_bytes_and_no_more() -> None:
    wire = Slow()
    wire.may.set()
    some = batches(wire)
    await asyncio.gather(*(some.put(f"{n}", size_bytes=1) for n in range(2 * MAX_TOGETHER + 5)))
    assert [len(call) for call in wire.calls] == [MAX_TOGETHER, MAX_TOGETHER, 5]
    wire.calls.clear()
    half = MAX_TOGETHER_BYTES // 2
    sizes = [half, half, 1, 3 * MAX_TOGETHER_BYTES, 1]
    await asyncio.gather(*(some.put(f"{n}", size_bytes=size) for n, size in enumerate(sizes)))
    assert wire.calls == [["0", "1"], ["2"], ["3"], ["4"]]


@pytest.mark.parametrize("failure", [BrokerUnreachableError("away"), ZeroDivisionError()])
async def test_a_call_that_fails_fails_for_those_that_are_in_it_alone(failure: Exception) -> None:
    wire = Slow()
    some = batches(wire)
    lost = [some.put("lost", size_bytes=1) for _ in range(2)]
    await asyncio.sleep(0)
    wire.failure = failure
    wire.may.set()
    found = await asyncio.gather(*lost, return_exceptions=True)
    assert found == [failure, failure]
    wire.failure = None
    assert await some.put("found", size_bytes=1) == (7, "found")


async def test_who_gave_up_takes_nothing_from_the_others() -> None:
    wire = Slow()
    some = batches(wire)
    gone, left = some.put("gone", size_bytes=1), some.put("left", size_bytes=1)
    gone.cancel()
    wire.may.set()
    assert await left == (7, "left")


async def test_a_broker_that_is_closed_leaves_nobody_waiting() -> None:
    wire = Slow()
    some = batches(wire)
    waiting = [some.put(f"{n}", size_bytes=MAX_TOGETHER_BYTES) for n in range(3)]
    await asyncio.sleep(0)
    assert some._carrying is not None
    some._carrying.cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [BrokerUnreachableError] * 3


async def test_an_answer_that_does_not_fit_leaves_nobody_waiting() -> None:
    class Short(Slow):
        async def run(self, script: Script, keys: list[str], *arguments: Argument) -> Reply:
            return [7, "one"]

    some = batches(Short())
    found = await asyncio.gather(
        *(some.put(f"{n}", size_bytes=1) for n in range(3)), return_exceptions=True
    )
    assert [type(each) for each in found[1:]] == [ValueError] * 2
