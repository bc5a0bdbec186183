"""Looks at holds that travel together: who asks in one moment, or while a request is away, shares.

* When they leave is :mod:`wallet.transports.convoy`'s to say.
* What is shown was read after it was asked for: nobody is given an answer that was on its way
  already.
* Whoever gives up takes nothing from those who asked with it.

    looks = Looks(ask, lambda: LedgerUnreachableError("the client was closed"))
    view = await looks.look(hold_id)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from itertools import islice
from typing import Final

from rahba.errors import RahbaError
from wallet.ports import HoldView
from wallet.transports.convoy import Convoy
from wallet.wire import MAX_HOLDS

MAX_TOGETHER: Final = MAX_HOLDS

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
        self._convoy = Convoy(lambda: len(self._waiting), self._load, full=MAX_TOGETHER)
        self._over = False

    async def look(self, hold_id: str) -> HoldView | None:
        """Return a hold as it is now, or ``None`` if there is none.

        Raises:
            RahbaError: what ``ask`` raised, or ``closed`` made.
        """
        if self._over:
            raise self._closed()
        view: asyncio.Future[HoldView | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(hold_id, []).append(view)
        self._convoy.notice()
        return await view

    async def close(self) -> None:
        """Give up what is asked for: whoever waits is told."""
        self._over = True
        asked, self._waiting = self._waiting, {}
        _fail(asked, self._closed())
        await self._convoy.close()

    def _load(self) -> Coroutine[None, None, None]:
        ids = list(islice(self._waiting, MAX_TOGETHER))
        return self._send({hold_id: self._waiting.pop(hold_id) for hold_id in ids})

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
