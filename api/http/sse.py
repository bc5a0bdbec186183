"""Server-sent events: one reader of the feed for all clients, encoded once, resumable.

What it does: a ``Hub`` follows the broker's feed, keeps the newest events encoded, and wakes its
clients at most five times a second; a ``Stream`` is the ASGI response of one client.

Rules:

* An event's ``id`` is the feed's id; ``Last-Event-ID`` resumes right after it. What the hub no
  longer keeps is read from the feed itself, so that a reconnect misses nothing the feed has.
* A client too slow to keep up is cut off; it resumes by its last id.
* A comment goes out every ten seconds of silence, so that dead connections are noticed.
* While nobody listens the feed is not followed, only after ``_LINGER_S``: who comes first starts
  from what the feed has then.
* ``data`` is ``{"id", "kind", "ts", "data"}``; unnamed events, so one listener gets them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import orjson
from hiredis import ReplyError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api.http.errors import TooManyStreamsError
from api.http.metrics import Metrics
from broker.ports import Feed
from rahba.errors import BadInputError, RahbaError
from rahba.messages import Event

Kinds = frozenset[str] | None

HEARTBEAT: Final = b": still here\n\n"
_PREAMBLE: Final = b"retry: 1000\n\n"
_BEFORE_ALL: Final = "0-0"
_SEND_WITHIN_S: Final = 30
_PAST: Final = 1_000
_LINGER_S: Final = 30.0

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One event as it goes over the wire."""

    id: tuple[int, int]
    kind: str
    wire: bytes


def encode(event_id: str, event: Event) -> Encoded:
    """Encode one event of the feed."""
    data = orjson.dumps({"id": event_id, "kind": event.kind, "ts": event.ts, "data": event.data})
    return Encoded(
        parse_event_id(event_id), event.kind, b"id: %s\ndata: %s\n\n" % (event_id.encode(), data)
    )


def parse_event_id(text: str) -> tuple[int, int]:
    """Read an id of the feed (``milliseconds-number``) for comparison."""
    head, dash, tail = text.partition("-")
    if not (dash and _number(head) and _number(tail)):
        raise BadInputError("Last-Event-ID is not an id of this feed")
    return int(head), int(tail)


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


class Hub:
    """Follows the feed once for all clients of the process.

    ``run`` is one task; everything else is for the streams. All events after ``_floor`` are kept
    while the feed is followed (``follows``), which is as long as anybody listens and a little
    longer.
    """

    def __init__(
        self,
        feed: Feed,
        metrics: Metrics,
        *,
        kept: int,
        every_ms: int,
        heartbeat_ms: int,
        linger_s: float = _LINGER_S,
    ) -> None:
        """Keep the ``kept`` newest events; wake clients every ``every_ms`` at most.

        Once nobody listens, the feed is followed for ``linger_s`` more.
        """
        self._feed, self._metrics, self._limit = feed, metrics, kept
        self._every_s, self._heartbeat_s = every_ms / 1000, heartbeat_ms / 1000
        self._kept: deque[Encoded] = deque()
        self._floor = (0, 0)
        self._end = 0  # how many events there ever were: the place after the newest
        self._linger_s = linger_s
        self._listeners = 0
        self._idle_since = 0.0
        self._listened = asyncio.Event()
        self.follows = False
        self._woken = asyncio.Event()
        self._chunks: dict[tuple[int, Kinds], bytes] = {}
        self.closed = False

    async def run(self) -> None:
        """Follow the feed until cancelled, over whatever outage of the broker."""
        while True:
            await self._listened.wait()
            try:
                await self._follow_feed()
            except (RahbaError, ReplyError) as error:
                _log.warning("the feed is out of reach: %s", error)
                await asyncio.sleep(1)

    def close(self) -> None:
        """End all streams; the clients resume elsewhere."""
        self.closed = True
        self._wake()

    async def now(self) -> str | None:
        """Return the id after which a client is told what happens from now on.

        ``None`` if the feed cannot be read: what happens until it can is not to be had.
        """
        if self.follows:
            return "{}-{}".format(*self._newest())
        try:
            newest = await self._feed.tail(1)
        except (RahbaError, ReplyError):
            return None
        return newest[0][0] if newest else _BEFORE_ALL

    async def follow(
        self, after: str | None, kinds: Kinds, *, tail: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """Yield what one client gets: from after the event ``after``, else the ``tail`` newest."""
        self._listeners += 1
        self._listened.set()
        try:
            while not (self.follows or self.closed):
                if not await self._news():
                    yield HEARTBEAT
            async with contextlib.aclosing(self._told(after, kinds, tail)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._listeners -= 1
            self._idle_since = asyncio.get_running_loop().time()

    async def _told(
        self, after: str | None, kinds: Kinds, tail: int
    ) -> AsyncGenerator[bytes, None]:
        place, ahead = self._end - min(tail, len(self._kept)), False
        last = (0, 0)
        if after is not None:
            last = parse_event_id(after)
            if last < self._floor:
                async for reached, chunk in self._caught_up(after, kinds):
                    last = reached
                    yield chunk
            ahead = True
        while not self.closed:
            woken = self._woken
            if ahead:  # it may have been told more elsewhere than is known here yet
                place, ahead = self._place_after(last), self._newest() < last
            if place < self._end - len(self._kept):
                return  # too slow: it comes back with its last id
            if chunk := self._chunk(place, kinds):
                yield chunk
            if place < self._end:
                place = self._end
                continue
            if not await self._news(woken):
                yield HEARTBEAT

    async def _news(self, woken: asyncio.Event | None = None) -> bool:
        """Wait until something is new; false when it is time for a comment."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await (woken or self._woken).wait()
        except TimeoutError:
            return False
        return True

    async def _follow_feed(self) -> None:
        if not self.follows:
            past = [encode(*event) for event in await self._feed.tail(_PAST)]
            self._floor = past[0].id if past else (0, 0)
            self._kept = deque(past[1:])
            self._end = len(self._kept)
            self.follows = True
            self._wake()
        head = self._newest()
        async for batch in self._feed.subscribe(after=f"{head[0]}-{head[1]}"):
            fresh = [encode(event_id, event) for event_id, event in batch]
            self._kept.extend(fresh)
            self._end += len(fresh)
            while len(self._kept) > self._limit:
                self._floor = self._kept.popleft().id
            self._metrics.events.inc(len(fresh))
            self._wake()
            if self._rests():
                return
            await asyncio.sleep(self._every_s)

    def _rests(self) -> bool:
        """Forget everything if nobody has listened for a while; says whether that is so."""
        idle_s = asyncio.get_running_loop().time() - self._idle_since
        if self._listeners or idle_s < self._linger_s:
            return False
        self._listened.clear()
        self.follows = False
        self._kept.clear()
        return True

    async def _caught_up(
        self, after: str, kinds: Kinds
    ) -> AsyncGenerator[tuple[tuple[int, int], bytes], None]:
        """Read from the feed itself until what is kept here takes over."""
        async for batch in self._feed.subscribe(after=after):
            events = [encode(event_id, event) for event_id, event in batch]
            if events:
                yield events[-1].id, _joined(events, kinds)
            if events and events[-1].id >= self._floor:
                return

    def _newest(self) -> tuple[int, int]:
        return self._kept[-1].id if self._kept else self._floor

    def _place_after(self, last: tuple[int, int]) -> int:
        newer = 0
        for event in reversed(self._kept):
            if event.id <= last:
                break
            newer += 1
        return self._end - newer

    def _chunk(self, place: int, kinds: Kinds) -> bytes:
        chunk = self._chunks.get((place, kinds))
        if chunk is None:
            skipped = len(self._kept) - (self._end - place)
            chunk = _joined(islice(self._kept, skipped, None), kinds)
            self._chunks[place, kinds] = chunk
        return chunk

    def _wake(self) -> None:
        self._chunks.clear()
        self._woken.set()
        self._woken = asyncio.Event()


class Seats:
    """How many event streams a process holds open."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        """Let ``limit`` streams be open."""
        self._limit, self._metrics, self._taken = limit, metrics, 0

    def take(self) -> None:
        """Count one stream in.

        Raises:
            TooManyStreamsError: all seats are taken.
        """
        if self._taken >= self._limit:
            raise TooManyStreamsError("too many event streams are open", limit=self._limit)
        self._taken += 1
        self._metrics.streams.set(self._taken)

    def give_back(self) -> None:
        """Count one stream out."""
        self._taken -= 1
        self._metrics.streams.set(self._taken)


class EventStream(Response):
    """The response of one client: sends what ``source`` yields until either side ends it."""

    def __init__(self, source: AsyncGenerator[bytes, None], seats: Seats) -> None:
        """Take a seat; it is given back when the response ends."""
        super().__init__(
            status_code=200,
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
            media_type="text/event-stream",
        )
        del self.headers["content-length"]
        self._source, self._seats = source, seats
        seats.take()

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        pump = asyncio.create_task(self._pump(send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._seats.give_back()
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)
        if not pump.cancelled() and (error := pump.exception()) is not None:
            raise error

    async def _pump(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": _PREAMBLE, "more_body": True})
        async with contextlib.aclosing(self._source) as chunks:
            async for chunk in chunks:
                async with asyncio.timeout(_SEND_WITHIN_S):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _joined(events: Iterable[Encoded], kinds: Kinds) -> bytes:
    return b"".join(event.wire for event in events if kinds is None or event.kind in kinds)
