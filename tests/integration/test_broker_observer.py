"""An observer of a real feed: learns, goes on after a restart, and tells an anomaly once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from typing_extensions import override

from api.embedded_redis import EmbeddedRedis
from benchmarks.market_anomalies import Teller, Told
from broker import Broker
from broker.knowledge.endings import Ending, Proofs
from broker.knowledge.fold import Knowledge
from broker.knowledge.outliers import MIN_DEALS
from broker.observer import KnowledgeStore, Observer
from broker.transports.redis import connect, knowledge
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from tests.fixtures.broker import kill_now
from wallet.errors import LedgerUnavailableError

CLOCK = SystemClock()


@pytest_asyncio.fixture
async def store(empty_redis: str) -> AsyncIterator[KnowledgeStore]:
    wire = Wire(empty_redis)
    yield knowledge.RedisKnowledgeStore(wire)
    await wire.close()


class Everything(Proofs):
    """Bears out whatever is told: here it is about the feed. ``away`` is a ledger that is not."""

    away = False

    @override
    async def borne_out(self, endings: Sequence[Ending]) -> list[bool]:
        if self.away:
            raise LedgerUnavailableError("away")
        return [True] * len(endings)


@contextlib.asynccontextmanager
async def observing(
    broker: Broker, store: KnowledgeStore, *, tells: bool = True, proofs: Proofs | None = None
) -> AsyncIterator[Observer]:
    observer = Observer(broker.feed, CLOCK, proofs or Everything(), store=store, tells=tells)
    task = asyncio.create_task(observer.run())
    try:
        yield observer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def publish(broker: Broker, events: list[Told]) -> None:
    for _, event in events:
        await broker.feed.publish(event.kind, event.data)


async def until(said: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if said():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def deals(observer: Observer, skill: str = "text.upper") -> int:
    history = observer.history(skill)
    return 0 if history is None else history.deals


async def test_an_observer_learns_from_what_was_told_before_it_came_and_after(
    broker: Broker, store: KnowledgeStore
) -> None:
    teller = Teller()
    await publish(broker, teller.job("b", "s", 1_000))
    async with observing(broker, store) as observer:
        await until(lambda: deals(observer) == 1)
        await publish(broker, teller.job("b", "s", 2_000))
        await publish(broker, teller.job("b", "s", 2_000, end="failed"))
        await until(lambda: observer.evidence("text.upper", "s").failures > 0)
        view = observer.prices("text.upper")
        assert view is not None
        assert (view.last, view.deals) == (2_000, 2)
        assert observer.prices("text.upper") == view
        assert observer.prices("never.sold") is None
        assert observer.outlook("never.sold") is None


async def test_a_new_observer_goes_on_where_the_last_one_was_though_the_feed_forgot(
    broker: Broker, store: KnowledgeStore, empty_redis: str
) -> None:
    teller = Teller()
    async with observing(broker, store) as first:
        await publish(broker, [event for _ in range(5) for event in teller.job("b", "s", 1_000)])
        await until(lambda: deals(first) == 5)
        await first.keep()
    wire = Wire(empty_redis)
    await wire.call("XTRIM", "{feed}", "MAXLEN", 0)
    await wire.close()
    await publish(broker, teller.job("b", "s", 3_000))
    async with observing(broker, store, tells=False) as second:
        await until(lambda: deals(second) == 6)
        await second.keep()  # one that tells nothing keeps nothing
    raw = await store.load()
    assert raw is not None
    assert Knowledge.restore(raw).skills["text.upper"].history.deals == 5


async def test_what_waits_for_the_ledger_is_kept_and_counts_once_it_is_back(
    broker: Broker, store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.observer._PAUSE_S", 0.05)
    teller, away = Teller(), Everything()
    away.away = True
    async with observing(broker, store, proofs=away) as first:
        await publish(broker, [event for _ in range(5) for event in teller.job("b", "s", 1_000)])
        await until(lambda: len(first._known.waiting) == 5)
        assert first.history("text.upper") is None
        await first.keep()
    async with observing(broker, store, proofs=away) as second:
        await until(lambda: len(second._known.waiting) == 5)
        await publish(broker, teller.job("b", "s", 2_000))
        for number in range(2 * MIN_DEALS):
            await publish(broker, teller.job(f"b{number}", "s", 1_000))
        await publish(broker, teller.job("b", "odd", 90_000_000))
        await until(lambda: len(second._known.waiting) == 7 + 2 * MIN_DEALS)
        assert deals(second) == 0
        assert second.flags("odd") == []
        away.away = False
        await until(lambda: deals(second) == 7 + 2 * MIN_DEALS)
        assert second._known.waiting == []
        assert second.flags("odd"), "though nothing more was told"


async def test_what_is_kept_never_forgets(store: KnowledgeStore) -> None:
    assert await store.load() is None
    assert await store.save(b"newer", "1700000000000-2")
    for old in ("1700000000000-1", "1700000000000-2", "999-9"):
        assert not await store.save(b"older", old)
    assert await store.load() == b"newer"
    assert await store.save(b"newest", "1700000000000-10")
    assert await store.load() == b"newest"


async def test_every_observer_sees_an_anomaly_and_one_of_them_tells_it(
    broker: Broker, store: KnowledgeStore
) -> None:
    teller = Teller()
    async with (
        observing(broker, store) as one,
        observing(broker, store) as other,
        observing(broker, store, tells=False) as silent,
    ):
        for number in range(40):
            await publish(broker, teller.job("b", "s", 1_000_000 + number))
        await publish(broker, teller.job("b", "odd", 90_000_000))
        for observer in (one, other, silent):
            await until(lambda observer=observer: bool(observer.flags("odd")))
        await asyncio.sleep(0.2)
    told = [event for _, event in await broker.feed.tail(1_000) if "anomaly" in event.kind]
    assert [event.kind for event in told] == ["anomaly.price"]
    assert told[0].data["seller"] == "odd"
    assert told[0].data["z_thousandths"] > 5_000


async def test_an_observer_keeps_its_state_by_itself_and_outlives_an_outage(
    server_directory: Path,
) -> None:
    server = EmbeddedRedis(server_directory)
    server.start()
    broker, wire = await connect(server.url, CLOCK), Wire(server.url)
    store, teller = knowledge.RedisKnowledgeStore(wire), Teller()
    observer = Observer(broker.feed, CLOCK, Everything(), store=store, tells=True, save_every_ms=1)
    kill_now(server)
    task = asyncio.create_task(observer.run())
    await asyncio.sleep(0.1)
    server.start()
    try:
        await publish(broker, teller.job("b", "s", 1_000))
        await until(lambda: deals(observer) == 1)
        raw = None
        for _ in range(200):
            raw = raw or await store.load()
            await asyncio.sleep(0.01)
        assert raw is not None
        kept = Knowledge.restore(raw)
        kept.count([True] * len(kept.waiting))  # what waited when it was kept waits again
        assert kept.skills["text.upper"].history.deals == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await wire.close()
        await broker.close()
        server.stop()
