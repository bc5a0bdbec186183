"""When requests leave that carry what many callers ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest
import uvloop

from wallet.transports.convoy import MOST_AWAY, Convoy

FULL = 4
Run = Callable[[Coroutine[None, None, None]], None]
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


class Post:
    """Items that wait, and the requests that took them; each comes back when its door opens."""

    def __init__(self, *, slow_s: float = 60.0) -> None:
        self.items: list[int] = []
        self.sent: list[list[int]] = []
        self.doors: list[asyncio.Event] = []
        self.cancelled = 0
        self.convoy = Convoy(lambda: len(self.items), self.load, full=FULL, slow_s=slow_s)

    async def load(self) -> None:
        taken, self.items = self.items[:FULL], self.items[FULL:]
        door = asyncio.Event()
        self.sent.append(taken)
        self.doors.append(door)
        try:
            await door.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def ask(self, *items: int) -> None:
        for item in items:
            self.items.append(item)
            self.convoy.notice()
        await asyncio.sleep(0.01)


@on_both_loops
def test_what_waits_leaves_at_the_end_of_the_tick_together(run: Run) -> None:
    async def play() -> None:
        post = Post()
        await post.ask(1, 2)
        assert post.sent == [[1, 2]]

    run(play())


@on_both_loops
def test_what_comes_while_a_request_is_away_gathers_for_the_next(run: Run) -> None:
    async def play() -> None:
        post = Post()
        await post.ask(1)
        await post.ask(2)
        await post.ask(3)
        assert post.sent == [[1]]
        post.doors[0].set()
        await asyncio.sleep(0.01)
        assert post.sent == [[1], [2, 3]]

    run(play())


@on_both_loops
def test_a_full_request_waits_for_nobody_but_only_so_many_are_away(run: Run) -> None:
    async def play() -> None:
        post = Post()
        await post.ask(0)
        await post.ask(*range(1, 1 + FULL * MOST_AWAY))
        assert [len(sent) for sent in post.sent] == [1] + [FULL] * (MOST_AWAY - 1)
        post.doors[0].set()
        await asyncio.sleep(0.01)
        assert len(post.sent) == MOST_AWAY + 1

    run(play())


@on_both_loops
def test_nobody_waits_for_a_request_that_is_slow(run: Run) -> None:
    async def play() -> None:
        post = Post(slow_s=0.5)
        await post.ask(1)
        await post.ask(2)
        assert post.sent == [[1]]
        await asyncio.sleep(1.0)
        assert post.sent == [[1], [2]]

    run(play())


@on_both_loops
def test_closing_gives_up_what_is_away_and_sends_nothing_more(run: Run) -> None:
    async def play() -> None:
        post = Post()
        await post.ask(1)
        await post.ask(2)
        await post.convoy.close()
        await asyncio.sleep(0.01)
        assert post.sent == [[1]]
        assert post.cancelled == 1

    run(play())
