"""Waiting for letters: a thread's, or those of many threads at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from rahba.messages import Message

MAX_WAITING_LETTERS: Final = 128


class Letter(msgspec.Struct, frozen=True):
    """A verified message for ``owner``; ``token`` counts its deliveries, from 1."""

    owner: str
    message: Message
    raw: bytes
    token: int


class Attendance:
    """Somebody waiting for the letters of one thread; one task at a time."""

    __slots__ = ("letters", "when_arrived")

    def __init__(self) -> None:
        """Wait with an empty queue."""
        self.letters: deque[Letter] = deque()
        self.when_arrived: Callable[[], None] | None = None

    def give(self, letter: Letter) -> bool:
        """Hand a letter over; says whether there was room."""
        if len(self.letters) >= MAX_WAITING_LETTERS:
            return False
        self.letters.append(letter)
        if self.when_arrived is not None:
            arrived, self.when_arrived = self.when_arrived, None
            arrived()
        return True

    def take(self) -> Letter | None:
        """Return the next letter if it has come."""
        return self.letters.popleft() if self.letters else None

    async def next(self, timeout_s: float) -> Letter | None:
        """Return the next letter, or ``None`` if none comes within ``timeout_s``."""
        if not self.letters:
            await all_arrived([self], timeout_s)
        return self.take()


async def all_arrived(attendances: Sequence[Attendance], timeout_s: float) -> None:
    """Wait until each has a letter, but no longer than ``timeout_s``; none is taken."""
    missing = [each for each in attendances if not each.letters]
    if not missing:
        return
    loop = asyncio.get_running_loop()
    complete: asyncio.Future[None] = loop.create_future()
    left = len(missing)

    def arrived() -> None:
        nonlocal left
        left -= 1
        if not left and not complete.done():
            complete.set_result(None)

    for each in missing:
        each.when_arrived = arrived
    timer = loop.call_later(max(timeout_s, 0.0), _give_up, complete)
    try:
        await complete
    finally:
        timer.cancel()
        for each in missing:
            each.when_arrived = None


def _give_up(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
