"""How far jobs are, for whoever watches: told on the feed, now and then."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from agents.ports import Progress
from broker.ports import Feed
from rahba.clock import Clock
from rahba.errors import RahbaError

PROGRESS_MS: Final = 250

_log: Final = logging.getLogger(__name__)


class News:
    """Tells of the jobs of one seller, at most every ``PROGRESS_MS``."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        """Tell ``feed``."""
        self._feed = feed
        self._clock = clock
        self._told_ms = 0
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, news: Progress) -> None:
        """Pass on how far a job is, unless somebody was told a moment ago; nobody waits for it."""
        now_ms = self._clock.now_ms()
        if news.kind != "progress" or now_ms - self._told_ms < PROGRESS_MS:
            return
        self._told_ms = now_ms
        task = asyncio.create_task(self._publish(news))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _publish(self, news: Progress) -> None:
        try:
            _ = await self._feed.publish(
                "progress", {"agreement": news.agreement, "done": news.text}
            )
        except RahbaError as error:
            _log.debug("progress not told: %s", error)
