"""Waiting for settlements: many wait, one looks; whoever gives up is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from broker.errors import BrokerUnreachableError
from broker.lookout import Lookout
from broker.thread import Header


class Shelf:
    """Headers of threads, and how often somebody looked at how many."""

    def __init__(self) -> None:
        self.headers: dict[str, Header] = {}
        self.looks: list[int] = []
        self.away = 0

    async def look(self, threads: Sequence[str]) -> list[Header | None]:
        self.looks.append(len(threads))
        if self.away:
            self.away -= 1
            raise BrokerUnreachableError("away")
        return [self.headers.get(thread) for thread in threads]

    def settle(self, thread: str, tx: str) -> None:
        self.headers[thread] = Header(buyer="b", seller="s", state="settled", tx=tx)


async def test_many_wait_and_each_look_is_at_all_of_them() -> None:
    shelf = Shelf()
    lookout = Lookout(shelf.look)
    waiting = [asyncio.create_task(lookout.settlement(f"t{n}", wait_ms=2_000)) for n in range(10)]
    twice = asyncio.create_task(lookout.settlement("t0", wait_ms=2_000))
    await asyncio.sleep(0.03)
    assert shelf.looks
    assert set(shelf.looks) == {10}
    for n in range(10):
        shelf.settle(f"t{n}", f"tx{n}")
    assert await asyncio.gather(*waiting) == [f"tx{n}" for n in range(10)]
    assert await twice == "tx0"
    looks = len(shelf.looks)
    await asyncio.sleep(0.05)
    assert len(shelf.looks) == looks, "nobody waits, nobody looks"


async def test_who_waits_in_vain_is_forgotten_and_the_looks_grow_rarer() -> None:
    shelf = Shelf()
    lookout = Lookout(shelf.look)
    shelf.headers["t"] = Header(buyer="b", seller="s", state="delivered")
    assert await lookout.settlement("t", wait_ms=400) is None
    assert 3 <= len(shelf.looks) <= 12
    waiting = asyncio.create_task(lookout.settlement("u", wait_ms=60_000))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0.2)
    shelf.looks.clear()
    await asyncio.sleep(0.05)
    assert shelf.looks == []


async def test_a_broker_that_is_away_is_asked_again() -> None:
    shelf = Shelf()
    shelf.away = 2
    shelf.settle("t", "")
    assert await Lookout(shelf.look).settlement("t", wait_ms=2_000) == ""
    assert len(shelf.looks) == 3
