"""Keeps room for what a seller offers, and finds out which of it nobody will come back for.

A promise takes its room until it is kept, over, or known to be wanted no more. Who loses a sealed
tender is not told: its thread is closed. So a seller that is short of room looks at the threads of
its promises, and keeps those only that may still be taken.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agents.patience import patiently
from agents.perform import Workbench
from broker.ports import Threads
from broker.thread import ENDED
from rahba.clock import Clock

LOOK_EVERY_MS: Final = 100


class Rooms:
    """The room of one seller's bench."""

    def __init__(self, bench: Workbench, threads: Threads, clock: Clock) -> None:
        """Promise room on ``bench``; look at ``threads``."""
        self._bench = bench
        self._threads = threads
        self._clock = clock
        self._looked_ms = 0
        self._looking: asyncio.Task[None] | None = None

    async def promise(self, thread: str, buyer: str, *, until_ms: int) -> bool:
        """Promise the room of one job, or prolong a promise; false if there is none."""
        if self._bench.promise(thread, buyer, until_ms=until_ms):
            return True
        looking = self._look()
        if looking is None:
            return False
        await asyncio.shield(looking)
        return self._bench.promise(thread, buyer, until_ms=until_ms)

    def _look(self) -> asyncio.Task[None] | None:
        """Return the look under way, or a new one unless somebody looked a moment ago."""
        if self._looking is not None and not self._looking.done():
            return self._looking
        now_ms = self._clock.now_ms()
        if now_ms < self._looked_ms + LOOK_EVERY_MS:
            return None
        self._looked_ms = now_ms
        self._looking = asyncio.create_task(self._take_off())
        return self._looking

    async def _take_off(self) -> None:
        """Take off the books what is over."""
        promised = self._bench.promised_threads
        states = await patiently(lambda: self._threads.states(promised))
        for thread, state in zip(promised, states, strict=True):
            if state is None or state in ENDED:
                self._bench.forget(thread)
