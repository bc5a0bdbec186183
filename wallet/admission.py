"""The door of the ledger: submissions wait here in order while their signatures are verified.

* The queue is bounded by number and by bytes; what does not fit is told ``busy`` at once.
* Up to ``MAX_BATCH`` at a time are taken apart and verified in two threads (libsodium lets go of
  the interpreter's lock), a few in place: on a busy machine two threads that are woken for them
  cost as much as verifying several.
* A :class:`Ticket` stands for one call; it is settled when all its items have their answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

import msgspec

from rahba.errors import RahbaError
from wallet.forms import check_form, check_signatures
from wallet.ports import Answer
from wallet.transactions import Signed, read, transaction_id

MAX_QUEUED: Final = 20_000
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
MAX_BATCH: Final = 1_000
MAX_READY: Final = 2_000
_IN_PLACE: Final = 16
_IN_PLACE_BYTES: Final = 20_000


class Ticket:
    """One call's submissions and, in the same order, their answers."""

    __slots__ = ("_answers", "_missing", "done")

    def __init__(self, count: int, done: asyncio.Future[list[Answer]]) -> None:
        """Wait for ``count`` answers; ``done`` gets them all."""
        self._answers: list[Answer | None] = [None] * count
        self._missing = count
        self.done = done

    def settle(self, index: int, answer: Answer) -> None:
        """Take one answer."""
        self._answers[index] = answer
        self._missing -= 1
        if self._missing == 0 and not self.done.done():
            self.done.set_result([item for item in self._answers if item is not None])

    def fail(self, error: RahbaError) -> None:
        """End the call without answers."""
        if not self.done.done():
            self.done.set_exception(error)


class Item(msgspec.Struct, eq=False, gc=False):
    """One submission: its bytes, and after admission what they are or why they are nothing.

    The answer is the ``index``-th of its ticket. What is wrong stands here as an answer: an error
    would lead through its traceback back to the item, a cycle that the collector does not see.
    """

    raw: bytes
    ticket: Ticket
    index: int
    signed: Signed | None = None
    invalid: Answer | None = None


class Admission:
    """Queues submissions, verifies them, and hands them on in order."""

    def __init__(self, chain: str, pool: Executor, ready: Callable[[], None]) -> None:
        """Verify for ``chain`` in ``pool``; call ``ready`` when :attr:`verified` has more."""
        self._chain = chain
        self._pool = pool
        self._ready = ready
        self._queue: deque[Item] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._working: list[Item] = []
        self.verified: deque[Item] = deque()

    @property
    def empty(self) -> bool:
        """Say whether nothing waits."""
        return not (self._queue or self._working or self.verified)

    def submit(self, raws: Sequence[bytes]) -> Ticket:
        """Queue the submissions of one call; those that do not fit are answered ``busy``."""
        ticket = Ticket(len(raws), asyncio.get_running_loop().create_future())
        queue = self._queue
        for index, raw in enumerate(raws):
            if len(queue) >= MAX_QUEUED or self._queued_bytes >= MAX_QUEUED_BYTES:
                busy = Answer("retry", transaction_id(raw), code="busy", detail="the queue is full")
                ticket.settle(index, busy)
            else:
                queue.append(Item(raw, ticket, index))
                self._queued_bytes += len(raw)
        self._arrived.set()
        return ticket

    def take(self, limit: int) -> list[Item]:
        """Take up to ``limit`` verified submissions."""
        verified = self.verified
        items = [verified.popleft() for _ in range(min(limit, len(verified)))]
        self._taken.set()
        return items

    def abandon(self, error: RahbaError) -> None:
        """Fail every call that still waits."""
        for item in (*self.verified, *self._working, *self._queue):
            item.ticket.fail(error)
        self.verified.clear()
        self._queue.clear()
        self._queued_bytes = 0

    async def run(self) -> None:
        """Verify what arrives, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                queue = self._queue
                self._working = [queue.popleft() for _ in range(min(MAX_BATCH, len(queue)))]
                self._queued_bytes -= sum([len(item.raw) for item in self._working])
                await self._verify(self._working)
                self.verified += self._working
                self._working = []
                self._ready()
                while len(self.verified) > MAX_READY:
                    self._taken.clear()
                    await self._taken.wait()

    async def _verify(self, items: list[Item]) -> None:
        size_bytes = sum(len(item.raw) for item in items)  # as many signatures as it has room for
        if len(items) <= _IN_PLACE and size_bytes <= _IN_PLACE_BYTES:
            _admit(items, self._chain)
            return
        loop = asyncio.get_running_loop()
        middle = len(items) // 2
        halves = (items[:middle], items[middle:])
        jobs = [loop.run_in_executor(self._pool, _admit, half, self._chain) for half in halves]
        await asyncio.gather(*jobs)


def _admit(items: list[Item], chain: str) -> None:
    """Take all apart, then verify all: two threads get less in each other's way like this."""
    for item in items:
        try:
            signed = read(item.raw)
            check_form(signed, chain)
            item.signed = signed
        except RahbaError as error:
            item.invalid = _invalid(item.raw, error)
    for item in items:
        if item.signed is not None:
            try:
                check_signatures(item.signed)
            except RahbaError as error:
                item.signed, item.invalid = None, _invalid(item.raw, error)


def _invalid(raw: bytes, error: RahbaError) -> Answer:
    return Answer("invalid", transaction_id(raw), code=error.code, detail=error.message)
