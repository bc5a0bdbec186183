"""How many strangers' servers a gateway visits at once: a few in all, one for each API key.

Whoever sends the gateway to a server that dawdles waits for it in a line of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Visits:
    """At most ``most`` at a time. Who comes when its turn is taken waits."""

    def __init__(self, most: int) -> None:
        """Nobody visits yet."""
        self._seats = asyncio.Semaphore(most)
        self._lines: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn of ``key`` and have it until the end of the block."""
        lock, waiting = self._lines.get(key, (asyncio.Lock(), 0))
        self._lines[key] = lock, waiting + 1
        try:
            async with lock, self._seats:
                yield
        finally:
            lock, waiting = self._lines[key]
            if waiting == 1:
                del self._lines[key]
            else:
                self._lines[key] = lock, waiting - 1
