"""Looks at holds that travel together: who asks in one moment, or while a request is away, shares.

* A look that is alone leaves at the end of its loop tick, and is a request of its own.
* While a request is away, what is asked for gathers for the next. One that is full does not wait,
  and nobody waits for a request that is slow (``SLOW_S``).
* What is shown was read after it was asked for: nobody is given an answer that was on its way
  already.
* Whoever gives up takes nothing from those who asked with it.

    looks = Looks(ask, lambda: LedgerUnreachableError("the client was closed"))
    view = await looks.look(hold_id)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

from rahba.errors import RahbaError
from wallet.ports import HoldView
from wallet.wire import MAX_HOLDS

MAX_TOGETHER: Final = MAX_HOLDS
MAX_AWAY: Final = 4
SLOW_S: Final = 0.05

Ask = Callable[[list[str]], Awaitable[list[HoldView | None]]]
_Asked = dict[str, list[asyncio.Future[HoldView | None]]]


class Looks:
    """For any number of tasks of one event loop."""

    def __init__(self, ask: Ask, closed: Callable[[], RahbaError]) -> None:
        """Ask nothing yet.

        Args:
            ask: is given at most ``MAX_TOGETHER`` ids, each once, and returns a view for each.
            closed: makes the error for those who still wait when this is closed.
        """
        self._ask = ask
        self._closed = closed
        self._waiting: _Asked = {}
        self._away: set[asyncio.Task[None]] = set()
        self._left_at = 0.0
        self._over = False
        self._next: asyncio.Handle | None = None

    async def look(self, hold_id: str) -> HoldView | None:
        """Return a hold as it is now, or ``None`` if there is none.

        Raises:
            RahbaError: what ``ask`` raised, or ``closed`` made.
        """
        if self._over:
            raise self._closed()
        loop = asyncio.get_running_loop()
        view: asyncio.Future[HoldView | None] = loop.create_future()
        self._waiting.setdefault(hold_id, []).append(view)
        if self._next is None:
            self._next = loop.call_soon(self._dispatch)
        elif len(self._waiting) == MAX_TOGETHER:
            self._dispatch()
        return await view

    async def close(self) -> None:
        """Give up what is asked for: whoever waits is told."""
        self._over = True
        asked, self._waiting = self._waiting, {}
        _fail(asked, self._closed())
        if self._next is not None:
            self._next.cancel()
        away = tuple(self._away)
        for request in away:
            request.cancel()
        await asyncio.gather(*away, return_exceptions=True)

    def _dispatch(self) -> None:
        """Let leave what may; what may not is looked at again when it might."""
        loop = asyncio.get_running_loop()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while self._waiting and self._may_leave(loop.time()):
            ids = list(islice(self._waiting, MAX_TOGETHER))
            asked = {hold_id: self._waiting.pop(hold_id) for hold_id in ids}
            request = loop.create_task(self._send(asked))
            self._away.add(request)
            self._left_at = loop.time()
            request.add_done_callback(self._back)
        if self._waiting and len(self._away) < MAX_AWAY:
            self._next = loop.call_later(SLOW_S, self._dispatch)

    def _may_leave(self, now_s: float) -> bool:
        if not self._away:
            return True
        slow = now_s - self._left_at >= SLOW_S
        return len(self._away) < MAX_AWAY and (slow or len(self._waiting) >= MAX_TOGETHER)

    def _back(self, request: asyncio.Task[None]) -> None:
        self._away.discard(request)
        if self._waiting:
            self._dispatch()

    async def _send(self, asked: _Asked) -> None:
        try:
            views = await self._ask(list(asked))
        except RahbaError as error:
            _fail(asked, error)
            return
        except BaseException:  # cancelled, or a defect: nobody must wait for ever
            _fail(asked, self._closed())
            raise
        for waiting, view in zip(asked.values(), views, strict=True):
            for one in waiting:
                if not one.done():  # its caller may have been cancelled meanwhile
                    one.set_result(view)


def _fail(asked: _Asked, error: RahbaError) -> None:
    for waiting in asked.values():
        for one in waiting:
            if not one.done():
                one.set_exception(error)
