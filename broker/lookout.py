"""Waits until threads are settled: one look at all of them at a time, as long as somebody waits.

The pause between looks begins anew whenever there is news or somebody more who waits, and grows
while there is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from broker.thread import Header
from rahba.errors import RahbaError

FIRST_PAUSE_S: Final = 0.006
LONGEST_PAUSE_S: Final = 0.2
_log: Final = logging.getLogger(__name__)


class Lookout:
    """Looks at any number of threads for any number of tasks of one loop."""

    def __init__(self, headers: Callable[[Sequence[str]], Awaitable[Sequence[object]]]) -> None:
        """Look by ``headers``; nothing is looked at while nobody waits."""
        self._headers = headers
        self._waiting: dict[str, list[asyncio.Future[str]]] = {}
        self._pause_s = FIRST_PAUSE_S
        self._looking: asyncio.Task[None] | None = None

    async def settlement(self, thread: str, *, wait_ms: int) -> str | None:
        """Return the id of the payment ("" for nothing), or ``None`` if there is none in time."""
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(thread, []).append(found)
        self._pause_s = FIRST_PAUSE_S
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(max(wait_ms, 0) / 1_000):
                return await found
        except TimeoutError:
            return None
        finally:
            self._forget(thread, found)

    def _forget(self, thread: str, found: asyncio.Future[str]) -> None:
        others = self._waiting.get(thread, [])
        if found in others:
            others.remove(found)
        if not others:
            _ = self._waiting.pop(thread, None)

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 1.5, LONGEST_PAUSE_S)
            threads = list(self._waiting)
            try:
                headers = await self._headers(threads)
            except RahbaError as error:
                _log.debug("no look at the threads: %s", error)
                continue
            for thread, header in zip(threads, headers, strict=True):
                if isinstance(header, Header) and header.state == "settled":
                    self._found(thread, header.tx)

    def _found(self, thread: str, tx: str) -> None:
        self._pause_s = FIRST_PAUSE_S
        for waiting in self._waiting.pop(thread, []):
            if not waiting.done():
                waiting.set_result(tx)
