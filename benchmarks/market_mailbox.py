"""Request and reply over two mailboxes, beside the same over raw Redis streams in the same run.

One embedded server, one process, ``AT_ONCE`` requests under way; once as the market runs it (every
write on the disk before it is acknowledged) and once without waiting for the disk, which would
hide what a mailbox costs.
Both ways use the same client and as many connections: one to write, one for each reader. Raw is
the least that a stream with a consumer group needs: XADD, XREADGROUP and XACK; entries stay. A
mailbox also keeps its depth and its senders' shares, fences every acknowledgement by its token and
deletes what is acknowledged. Blocks of the two take turns, and the median of each counts.

    python -m benchmarks.market_mailbox
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import orjson

from api.embedded_redis import EmbeddedRedis
from benchmarks.rows import Row, row
from broker.ports import Mailbox
from broker.transports.redis import connect
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock

AT_ONCE: Final = 32
TARGET: Final = 0.5
BATCH: Final = 16
WAIT_MS: Final = 1_000
BODY: Final = b"." * 200
SYNC: Final = {"always": "durable", "no": "not waiting for the disk"}

Handle = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: round trips in each of some blocks, after a warm-up."""

    warm_up: int = 1_000
    blocks: int = 5
    round_trips: int = 3_000


class Post(Protocol):
    """One way to carry messages."""

    async def send(self, to: str, raw: bytes) -> None:
        """Send; returns when it is durable."""
        ...

    async def serve(self, name: str, handle: Handle) -> None:
        """Handle whatever arrives for ``name`` and acknowledge it then, for ever."""
        ...


class Mailboxes(Post):
    """The market's own mailboxes."""

    def __init__(self, mailbox: Mailbox) -> None:
        """Send and read by ``mailbox``."""
        self._mailbox = mailbox

    async def send(self, to: str, raw: bytes) -> None:
        """Send within a sender's share."""
        await self._mailbox.send(to, raw, sender="bench")

    async def serve(self, name: str, handle: Handle) -> None:
        """Read by one reader."""
        reader, acknowledging = self._mailbox.receive([name], consumer="bench"), _Acknowledging()
        try:
            while True:
                taken = await reader.next(wait_ms=WAIT_MS)
                await asyncio.gather(*(handle(one.raw) for one in taken))
                acknowledging.start(reader.done(taken))
        finally:
            await reader.close()


class Streams(Post):
    """Bare streams with one consumer group each."""

    def __init__(self, wire: Wire) -> None:
        """Write on ``wire``; each reader opens a connection of its own."""
        self._wire = wire

    async def send(self, to: str, raw: bytes) -> None:
        """Append an entry."""
        await self._wire.call("XADD", to, "*", "m", raw)

    async def serve(self, name: str, handle: Handle) -> None:
        """Read what is new to the group."""
        await self._wire.call("XGROUP", "CREATE", name, "g", "0", "MKSTREAM")
        line, acknowledging = await self._wire.own_line(name, answer_seconds=10), _Acknowledging()
        read = ("XREADGROUP", "GROUP", "g", "bench", "COUNT", BATCH, "BLOCK", WAIT_MS)
        try:
            while True:
                for _, entries in await line.call(*read, "STREAMS", name, ">") or ():
                    await asyncio.gather(*(handle(fields[1]) for _, fields in entries))
                    ids = [entry for entry, _ in entries]
                    acknowledging.start(self._wire.call("XACK", name, "g", *ids))
        finally:
            await line.aclose()


class _Acknowledging:
    """Acknowledges beside the reading, as the courier does."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self, call: Awaitable[object]) -> None:
        async def done() -> object:
            return await call

        task = asyncio.create_task(done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run(size: Size | None = None) -> list[Row]:
    """Measure; takes about half a minute, as fast as the disk is."""
    size = size or Size()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="rahba-bench-") as folder:
        server = EmbeddedRedis(Path(folder))
        url = server.start()
        try:
            for sync in SYNC:
                rows += rows_of(sync, *asyncio.run(_measure(url, sync, size)))
        finally:
            server.stop()
    return rows


def rows_of(sync: str, ours: list[float], raw: list[float]) -> list[Row]:
    """Report the medians of round trips a second."""
    name = f"market: round trips over two mailboxes, {AT_ONCE} at once, {SYNC[sync]}"
    reference = statistics.median(raw)
    return [
        row(f"{name}: raw streams", reference, "1/s"),
        row(name, statistics.median(ours), "1/s", reference=reference, target=TARGET),
    ]


async def _measure(url: str, sync: str, size: Size) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    raw: list[float] = []
    broker, wire = await connect(url, SystemClock()), Wire(url)
    try:
        await wire.call("FLUSHALL")
        await wire.call("CONFIG", "SET", "appendfsync", sync)
        async with (
            _exchange(Mailboxes(broker.mailbox), "ours") as ask_ours,
            _exchange(Streams(wire), "raw") as ask_raw,
        ):
            for ask in (ask_ours, ask_raw):
                await _rate(ask, size.warm_up)
            for _ in range(size.blocks):
                ours.append(await _rate(ask_ours, size.round_trips))
                raw.append(await _rate(ask_raw, size.round_trips))
    finally:
        await wire.close()
        await broker.close()
    return ours, raw


@contextlib.asynccontextmanager
async def _exchange(post: Post, name: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Run a server and a client; gives a function that asks and waits for the reply."""
    waiting: dict[bytes, asyncio.Future[None]] = {}
    loop = asyncio.get_running_loop()

    async def reply(raw: bytes) -> None:
        await post.send(f"{name}-replies", raw)

    async def take(raw: bytes) -> None:
        waiting.pop(raw).set_result(None)

    async def ask(number: int) -> None:
        raw = b"%d " % number + BODY
        answered = waiting[raw] = loop.create_future()
        await post.send(f"{name}-requests", raw)
        await answered

    serving = [
        asyncio.create_task(post.serve(f"{name}-requests", reply)),
        asyncio.create_task(post.serve(f"{name}-replies", take)),
    ]
    try:
        yield ask
    finally:
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _rate(ask: Callable[[int], Awaitable[None]], count: int) -> float:
    """Return round trips a second, ``AT_ONCE`` under way."""
    left = iter(range(count))

    async def asking() -> None:
        for number in left:
            await ask(number)

    begun = time.perf_counter()
    await asyncio.gather(*(asking() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - begun)


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
