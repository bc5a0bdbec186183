"""A job buys within its purse and depth, and tells how far it is."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agents.job import (
    MAX_DEPTH,
    CannotBuyError,
    DepthExceededError,
    Job,
    JobBudgetError,
    Purse,
    Terms,
)
from agents.ports import Bought, Errand, Progress
from rahba.clock import ManualClock
from rahba.errors import RahbaError, TooLargeError

CLOCK = ManualClock(1_000)


class Shop:
    """Sells everything at one price, or fails, and remembers what it was asked."""

    def __init__(self, price: int = 40, *, error: RahbaError | None = None) -> None:
        self.price, self.error = price, error
        self.asked: list[Errand] = []
        self.open = asyncio.Event()
        self.open.set()

    async def purchase(self, errand: Errand) -> Bought:
        self.asked.append(errand)
        await self.open.wait()
        return Bought(self.price, output=errand.args, error=self.error)


def job(shop: Shop | None, *, total: int = 100, depth: int = 0) -> Job:
    terms = Terms("d" * 64, "text.x", "buyer", deadline=61_000, depth=depth)
    return Job(terms, clock=CLOCK, purse=Purse(total), purchaser=shop)


async def test_a_job_knows_how_long_it_has() -> None:
    assert (job(None).deadline, job(None).remaining_ms) == (61_000, 60_000)


async def test_arguments_of_a_purchase_come_as_a_dict_or_by_name() -> None:
    shop = Shop()
    assert await job(shop).call("text.y", {"a": 1}, b=2) == {"a": 1, "b": 2}
    (errand,) = shop.asked
    assert (errand.skill, errand.depth, errand.parent) == ("text.y", 1, "d" * 64)
    assert errand.budget_fals == 100
    assert errand.deadline_ms < 61_000


async def test_a_purse_runs_out() -> None:
    buying = job(Shop(40))
    await buying.call("text.y", budget=40)
    await buying.call("text.y")
    assert (buying.purse.spent, buying.purse.remaining) == (80, 20)
    with pytest.raises(JobBudgetError):
        await buying.call("text.y", budget=40)
    with pytest.raises(JobBudgetError):
        await buying.call("text.y", budget=-1)
    assert buying.purse.remaining == 20


async def test_a_budget_in_words_is_in_rhb() -> None:
    shop = Shop(0)
    await job(shop, total=2_000_000).call("text.y", budget="0.0015")
    assert shop.asked[0].budget_fals == 1_500_000


async def test_purchases_at_the_same_time_cannot_overspend_together() -> None:
    shop = Shop(60)
    shop.open.clear()
    buying = job(shop)
    first = asyncio.create_task(buying.call("text.y", budget=60))
    await asyncio.sleep(0)
    with pytest.raises(JobBudgetError):
        await buying.call("text.y", budget=60)
    shop.open.set()
    await first
    assert buying.purse.spent == 60


async def test_what_may_yet_be_paid_for_a_failed_purchase_stays_spent() -> None:
    buying = job(Shop(40, error=RahbaError("no answer")))
    with pytest.raises(RahbaError, match="no answer"):
        await buying.call("text.y", budget=60)
    assert buying.purse.spent == 40


async def test_depth_ends_at_the_limit() -> None:
    shop = Shop()
    await job(shop, depth=MAX_DEPTH - 1).call("text.y")
    with pytest.raises(DepthExceededError):
        await job(shop, depth=MAX_DEPTH).call("text.y")
    assert len(shop.asked) == 1


async def test_a_job_outside_the_market_cannot_buy() -> None:
    with pytest.raises(CannotBuyError):
        await job(None).call("text.y")


async def test_news_from_a_thread_arrive_on_the_event_loop() -> None:
    news: list[tuple[Progress, int]] = []
    telling = Job(
        Terms("d", "text.x", "b", 2_000),
        clock=CLOCK,
        on_progress=lambda item: news.append((item, threading.get_ident())),
    )
    telling.progress(0.25)
    await asyncio.to_thread(telling.progress, 7)
    await asyncio.to_thread(telling.emit, "chunk")
    await asyncio.sleep(0)
    assert [(item.kind, item.text) for item, _ in news] == [
        ("progress", "0.250"),
        ("progress", "1.000"),
        ("chunk", "chunk"),
    ]
    assert {thread for _, thread in news} == {threading.get_ident()}


async def test_what_is_emitted_is_bounded() -> None:
    telling = job(None)
    telling.emit("x" * 600_000)
    with pytest.raises(TooLargeError):
        telling.emit("x" * 600_000)
