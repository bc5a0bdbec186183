"""Requests that carry what many callers ask: few large ones cost less than many small.

* Who asks alone waits for nobody: what waits leaves at the end of its loop tick.
* While a request is away, what is asked for gathers for the next. One that is full does not wait,
  and nobody waits for a request that is slow.

    convoy = Convoy(lambda: len(waiting), lambda: send(waiting), full=64)
    waiting.append(item)
    convoy.notice()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final

MOST_AWAY: Final = 4
SLOW_S: Final = 0.05


class Convoy:
    """For one kind of request and any number of tasks of one event loop."""

    def __init__(
        self,
        waiting: Callable[[], int],
        load: Callable[[], Coroutine[None, None, None]],
        *,
        full: int,
        slow_s: float = SLOW_S,
    ) -> None:
        """Send nothing yet.

        Args:
            waiting: says how many items wait.
            load: takes some of them at once, and returns the sending of their request, which tells
                whoever waits of any failure.
            full: how many items need not wait for a request that is away.
            slow_s: after how many seconds nobody waits for it.
        """
        self._waiting = waiting
        self._load = load
        self._full = full
        self._slow_s = slow_s
        self._away: set[asyncio.Task[None]] = set()
        self._next: asyncio.Handle | None = None
        self._waits = False  # for a request that is away
        self._closed = False

    def notice(self) -> None:
        """Say that something more waits."""
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._dispatch)
        elif self._waits and self._waiting() >= self._full:
            self._dispatch()

    async def close(self) -> None:
        """Give up the requests that are away; what waits is the owner's to end."""
        self._closed = True
        if self._next is not None:
            self._next.cancel()
        await asyncio.sleep(0)  # a request that has not begun could tell nobody
        away = tuple(self._away)
        for request in away:
            request.cancel()
        await asyncio.gather(*away, return_exceptions=True)

    def _dispatch(self, *, slow: bool = False) -> None:
        """Let leave what may; what may not is looked at again when it might."""
        if self._next is not None:
            self._next.cancel()
        self._next, self._waits = None, False
        loop = asyncio.get_running_loop()
        while self._waiting() and not self._closed and self._may_leave(slow=slow):
            request = loop.create_task(self._load())
            self._away.add(request)
            request.add_done_callback(self._back)
            slow = False
        if self._waiting() and not self._closed and len(self._away) < MOST_AWAY:
            self._next = loop.call_later(self._slow_s, partial(self._dispatch, slow=True))
            self._waits = True

    def _may_leave(self, *, slow: bool) -> bool:
        if not self._away:
            return True
        return len(self._away) < MOST_AWAY and (slow or self._waiting() >= self._full)

    def _back(self, request: asyncio.Task[None]) -> None:
        self._away.discard(request)
        if self._waiting():
            self._dispatch()
