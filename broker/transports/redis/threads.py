"""Threads on Redis: one script posts, which is to find room, judge, record, tell and deliver."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, cast

import msgspec
from hiredis import ReplyError
from typing_extensions import override

from broker.errors import BrokerUnreachableError, DamagedThreadError
from broker.mailboxes import MailboxLimits, check_size, refusal
from broker.ports import Ruling, ThreadState, Verdict
from broker.thread import Ending, Header, Said
from broker.threads import (
    MAX_GROUP,
    MAX_RECENT,
    THREAD_TTL_MS,
    Posting,
    ThreadLimits,
    ThreadStore,
    Whole,
    crowded,
)
from broker.transports.redis.batches import MARKET, Batches
from broker.transports.redis.feed import RedisFeed
from broker.transports.redis.lua_files import load
from broker.transports.redis.mailbox import room_of
from broker.transports.redis.wire import Reply, Wire
from rahba.clock import Clock
from rahba.errors import RahbaError

T = TypeVar("T")
GROUPS: Final = f"{MARKET}:groups"
MAX_GROUPS: Final = 100_000
TRIM_EVERY_MS: Final = 1_000
_POST: Final = load("head", "clock", "packed", "rules", "room", "told", "post")
# What a server says that is full, read-only or on its way elsewhere, before anything is written.
_REFUSED: Final = re.compile(
    r"\b(OOM|READONLY|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|LOADING)\b"
)
_pack: Final = msgspec.msgpack.Encoder()
_log: Final = logging.getLogger(__name__)
_headers: Final = msgspec.msgpack.Decoder(Header)
_ARRAY_16: Final = 0xDC  # heads an array of 16 fields or more in three bytes, else it takes one
_HEADER_HEAD: Final = b"\xdc\x00%c" % len(Header.__struct_fields__)


def thread_of(thread: str) -> str:
    """Return the key of a thread."""
    return f"{MARKET}:t:{thread}"


def group_of(group: str) -> str:
    """Return the key of a group of threads."""
    return f"{MARKET}:g:{group}"


def deal_of(agreement: str) -> str:
    """Return the key of an agreement's thread."""
    return f"{MARKET}:d:{agreement}"


def open_between(buyer: str, seller: str) -> str:
    """Return the key of the threads that a buyer has open with a seller."""
    return f"{MARKET}:p:{buyer}:{seller}"


def pack(what: Said | Ending | Header) -> bytes:
    """Return the fields alone, one after another, as ``packed.lua`` has them."""
    packed = _pack.encode(what)
    return packed[3 if packed[0] == _ARRAY_16 else 1 :]


def read_header(packed: bytes) -> Header:
    """Read a stored header; raises msgspec.DecodeError for what is none."""
    return _headers.decode(_HEADER_HEAD + packed)


class RedisThreadStore(ThreadStore):
    """Keeps threads for seven days after their last message, or up to an hour longer."""

    def __init__(
        self,
        wire: Wire,
        feed: RedisFeed,
        clock: Clock,
        *,
        mailboxes: MailboxLimits | None = None,
        limits: ThreadLimits | None = None,
    ) -> None:
        """Work over ``wire`` and tell ``feed``, within ``limits`` and those of the mailboxes."""
        self._wire = wire
        self._feed = feed
        self._clock = clock
        self._mailboxes = mailboxes or MailboxLimits()
        self._limits = (
            *room_of(self._mailboxes),
            THREAD_TTL_MS,
            (limits or ThreadLimits()).open_threads,
            feed.limits.events,
            MAX_GROUP,
        )
        self._trimmed_ms = 0
        self._posts = Batches(wire, _POST, self._limits_now)

    @override
    async def post(self, postings: Sequence[Posting]) -> list[Ruling | RahbaError]:
        try:
            await self._feed.keep_young()
        except (RahbaError, ReplyError) as error:  # it is old for a while longer
            _log.debug("the feed was not trimmed: %s", error)
        waiting = [self._put(posting) for posting in postings]
        outcomes: list[Ruling | RahbaError] = []
        for posting, answer in zip(postings, waiting, strict=True):
            try:
                outcomes.append(self._outcome(posting.said, *await answer))
            except RahbaError as error:
                outcomes.append(error)
        return outcomes

    @override
    async def end(self, threads: Sequence[str], ending: Ending) -> list[Ruling]:
        what = pack(ending)
        ends = [self._posts.put(thread, "end", what, b"", size_bytes=0) for thread in threads]
        return [_ruling(*await answer) for answer in ends]

    @override
    async def headers(self, threads: Sequence[str]) -> list[Header | DamagedThreadError | None]:
        answers = await self._wire.many(*(("HGET", thread_of(thread), "h") for thread in threads))
        return [_read(read_header, answer) for answer in answers]

    @override
    async def whole(self, threads: Sequence[str]) -> list[Whole | DamagedThreadError | None]:
        answers = await self._wire.many(*(("HGETALL", thread_of(thread)) for thread in threads))
        return [_read(_whole, answer) for answer in answers]

    @override
    async def members(self, group: str) -> list[str]:
        answer = await self._wire.call("LRANGE", group_of(group), 1, -1)
        return [str(thread, "ascii") for thread in answer]

    @override
    async def recent(self, limit: int, before_ms: int | None) -> list[str]:
        newest = "+inf" if before_ms is None else f"({before_ms}"
        answer = await self._wire.call(
            "ZREVRANGEBYSCORE", GROUPS, newest, "-inf", "LIMIT", 0, min(limit, MAX_RECENT)
        )
        return [str(group, "ascii") for group in answer]

    @override
    async def deal(self, agreement: str) -> str | None:
        thread = await self._wire.call("GET", deal_of(agreement))
        return str(thread, "ascii") if thread is not None else None

    def _limits_now(self) -> Sequence[int]:
        now_ms = self._clock.now_ms()
        if now_ms < self._trimmed_ms + TRIM_EVERY_MS:
            return (*self._limits, 0, MAX_GROUPS)
        self._trimmed_ms = now_ms
        return (*self._limits, max(now_ms - THREAD_TTL_MS, 1), MAX_GROUPS)

    def _put(self, posting: Posting) -> asyncio.Future[Reply]:
        size_bytes = len(posting.raw)
        try:
            check_size(size_bytes, self._mailboxes)
        except RahbaError as error:
            refused: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused
        what = pack(posting.said)
        return self._posts.put(posting.thread, "say", what, posting.raw, size_bytes=size_bytes)

    def _outcome(self, said: Said, at_ms: int, answer: list[Reply]) -> Ruling:
        """Return the ruling, or raise why there is no room."""
        match answer:
            case [b"FULL" | b"QUOTA" as why]:
                raise refusal(said.to, said.sender, full=why == b"FULL", limits=self._mailboxes)
            case [b"THREADS", int(wait_ms)]:
                raise crowded(wait_ms)
            case _:
                return _ruling(at_ms, answer)


def _ruling(at_ms: int, answer: list[Reply]) -> Ruling:
    if answer[0] == b"BROKEN":
        reason = str(answer[1], "utf-8", "replace")
        if _REFUSED.search(reason) is not None:
            raise BrokerUnreachableError(f"the server takes nothing now: {reason}")
        raise DamagedThreadError("the post failed", reason=reason)
    verdict, first, state = answer
    return Ruling(
        verdict=cast("Verdict", str(verdict, "ascii")),
        state=cast("ThreadState", str(state, "ascii")),
        at_ms=at_ms,
        first=cast("Verdict", str(first, "ascii")) if first else None,
    )


def _read(read: Callable[[Reply], T], answer: Reply) -> T | DamagedThreadError | None:
    try:
        return read(answer) if answer else None
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        return DamagedThreadError("the stored thread cannot be read", reason=repr(error)[:200])


def _whole(flat: list[bytes]) -> Whole:
    stored = dict(zip(flat[::2], flat[1::2], strict=True))
    header = read_header(stored[b"h"])
    return header, tuple(stored[b"m%d" % number] for number in range(1, header.messages + 1))
