"""How far jobs are is told now and then, and never in the way of the job."""

from __future__ import annotations

import asyncio

from agents.news import PROGRESS_MS, News
from agents.ports import Progress
from broker.transports import memory
from rahba.clock import SystemClock
from rahba.encoding import Json
from rahba.errors import LocalError


class Moving(SystemClock):
    """A clock that tests move."""

    at_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


async def test_progress_is_told_at_most_every_so_often_and_chunks_never() -> None:
    clock = Moving()
    broker = memory.connect(clock)
    news = News(broker.feed, clock)
    steps = [(0, "0.1"), (1, "0.2"), (PROGRESS_MS - 1, "0.3"), (PROGRESS_MS, "0.4")]
    for ahead_ms, done in steps:
        clock.at_ms += ahead_ms
        news.tell(Progress("a" * 64, "progress", done))
    clock.at_ms += PROGRESS_MS
    news.tell(Progress("a" * 64, "chunk", "secret words"))
    await asyncio.sleep(0.01)
    events = [event.data for _, event in await broker.feed.tail(10)]
    assert [data["done"] for data in events] == ["0.1", "0.3", "0.4"]
    await broker.close()


async def test_a_feed_that_fails_disturbs_no_job() -> None:
    class Failing:
        async def publish(self, kind: str, data: dict[str, Json]) -> str:
            raise LocalError("away")

    clock = Moving()
    news = News(Failing(), clock)  # type: ignore[arg-type]
    news.tell(Progress("a" * 64, "progress", "0.5"))
    await asyncio.sleep(0.01)
    assert not news._telling
