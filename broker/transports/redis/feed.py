"""The feed on Redis: one capped stream; ids are the stream's own and only grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from hiredis import ReplyError
from typing_extensions import override

from broker.events import FeedLimits, check_event_id, encode_event
from broker.ports import Feed
from broker.transports.redis.batches import MARKET
from broker.transports.redis.wire import Line, Reply, Wire
from rahba.clock import Clock
from rahba.encoding import Json
from rahba.messages import Event, read_event

KEY: Final = f"{MARKET}:feed"
BATCH: Final = 1_024
BLOCK_MS: Final = 5_000
TRIM_EVERY_MS: Final = 60_000
RETRY_SECONDS: Final = 0.2


class RedisFeed(Feed):
    """The market's public events.

    Guarantees: a subscriber that resumes with the last id it saw reads every event once and in
    order, as long as that id is within the limits of number and age. After a loss of the server
    it resumes by itself.
    """

    def __init__(self, wire: Wire, clock: Clock, limits: FeedLimits | None = None) -> None:
        """Publish over ``wire``; each subscription opens a connection of its own."""
        self._wire = wire
        self._clock = clock
        self.limits = limits or FeedLimits()
        self._trimmed_ms = 0

    @override
    async def publish(self, kind: str, data: dict[str, Json]) -> str:
        raw = encode_event(kind, data, self._clock.now_ms())
        await self.keep_young()
        head = ("XADD", KEY, "MAXLEN", "~", self.limits.events, "*", "e")
        return str(await self._wire.call(*head, raw), "ascii")

    async def keep_young(self) -> None:
        """Forget now and then what is too old."""
        now_ms, limits = self._clock.now_ms(), self.limits
        if now_ms - self._trimmed_ms >= min(limits.age_ms, TRIM_EVERY_MS):
            self._trimmed_ms = now_ms
            await self._wire.call("XTRIM", KEY, "MINID", max(now_ms - limits.age_ms, 0))

    @override
    async def subscribe(
        self, *, after: str | None, kinds: frozenset[str] | None = None, every_ms: int = 0
    ) -> AsyncIterator[list[tuple[str, Event]]]:
        position = check_event_id(after) if after is not None else None
        line: Line | None = None
        try:
            while True:
                try:
                    if line is None or line.closed:
                        line = await self._wire.own_line(KEY, answer_seconds=BLOCK_MS / 1000 + 5)
                    if position is None:
                        position = await _newest(line)
                    entries = await _read(line, position)
                except (OSError, ReplyError):
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if not entries:
                    continue
                position = str(entries[-1][0], "ascii")
                young = self.limits.young(_events(entries, kinds), self._clock.now_ms())
                if young:
                    yield young
                if every_ms and len(entries) < BATCH:  # else there is more to catch up with
                    await asyncio.sleep(every_ms / 1_000)
        finally:
            if line is not None:
                await line.aclose()

    @override
    async def tail(self, limit: int) -> list[tuple[str, Event]]:
        count = max(1, min(limit, self.limits.events))
        entries = await self._wire.call("XREVRANGE", KEY, "+", "-", "COUNT", count)
        return self.limits.young(_events(list(reversed(entries))), self._clock.now_ms())


async def _newest(line: Line) -> str:
    entries = await line.call("XREVRANGE", KEY, "+", "-", "COUNT", 1)
    return str(entries[0][0], "ascii") if entries else "0-0"


async def _read(line: Line, position: str) -> list[Reply]:
    streams = await line.call("XREAD", "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS", KEY, position)
    return streams[0][1] if streams else []


def _events(entries: list[Reply], kinds: frozenset[str] | None = None) -> list[tuple[str, Event]]:
    if kinds is not None:  # most need not be decoded to be seen to be of another kind
        heads = tuple(b'{"kind":"%s"' % kind.encode() for kind in kinds)
        entries = [entry for entry in entries if entry[1][1].startswith(heads)]
    return [(str(entry[0], "ascii"), read_event(entry[1][1])) for entry in entries]
