"""Mailboxes on Redis: one stream an owner with one consumer group; a reader for a whole process.

A message is leased to the consumer that reads it; its fencing token is the number of its
deliveries. A lease that is over is taken over by whoever looks next; a restarted consumer takes
its own messages back at once; after five deliveries a message goes to the dead letters.

Nothing stays for ever: mailbox and dead letters expire a day (and up to an hour) after the threads
that their newest letters belong to, and a reader that is closed takes its consumer off every
mailbox where no message is leased to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from hiredis import ReplyError
from typing_extensions import override

from broker.errors import BrokerUnreachableError, LeaseLostError
from broker.mailboxes import (
    MAX_DEAD,
    MAX_OWNERS,
    MailboxLimits,
    check_message,
    check_owner,
    refusal,
)
from broker.ports import Delivery, Mailbox, MailboxReader, Room
from broker.threads import THREAD_TTL_MS
from broker.transports.redis.batches import MARKET, MAX_TOGETHER, Batches
from broker.transports.redis.lua_files import load
from broker.transports.redis.wire import Argument, Line, Reply, Wire
from rahba.errors import TooLargeError

GROUP: Final = "g"
MAILBOX_TTL_MS: Final = THREAD_TTL_MS + 24 * 3600 * 1000
MAX_BLOCK_MS: Final = 5_000
FIRST_COUNT: Final = 16
READ_BYTES: Final = 8 * 1024 * 1024
RETRY_SECONDS: Final = 0.2
_LEAVING_SECONDS: Final = 2.0
_MAX_LEFT: Final = 4 * MAX_OWNERS
_GONE: Final = ("NOGROUP", "UNBLOCKED")
_SEND: Final = load("head", "room", "send")
_CLAIM: Final = load("claim")
_FINISH: Final = load("finish")
_LEAVE: Final = load("leave")
_REVIVE: Final = load("revive")
_log = logging.getLogger(__name__)


def stream_of(owner: str) -> str:
    """Return the key of an owner's mailbox."""
    return f"{MARKET}:a:{owner}:in"


def dead_of(owner: str) -> str:
    """Return the key of an owner's dead letters."""
    return f"{MARKET}:a:{owner}:dead"


def charges_of(owner: str) -> str:
    """Return the key of what each sender has unacknowledged in an owner's mailbox."""
    return f"{MARKET}:a:{owner}:from"


def room_of(limits: MailboxLimits) -> tuple[int, ...]:
    """Return the limits that ``room.lua`` takes."""
    return MAILBOX_TTL_MS, limits.depth, limits.sender_messages, limits.sender_bytes


def _keys_of(owner: str) -> list[str]:
    return [stream_of(owner), dead_of(owner), charges_of(owner)]


class RedisMailbox(Mailbox):
    """Sends to any mailbox, and makes readers."""

    def __init__(self, wire: Wire, limits: MailboxLimits | None = None) -> None:
        """Send over ``wire`` within ``limits``; each reader opens a connection of its own."""
        self._wire = wire
        self._limits = limits or MailboxLimits()
        room = room_of(self._limits)
        self._outbox = Batches(wire, _SEND, lambda: room)

    @override
    async def send(self, owner: str, raw: bytes, *, sender: str = "", room: Room = "asked") -> None:
        check_message(raw, self._limits)
        told = (room, check_owner(owner), sender and check_owner(sender), raw)
        _, answer = await self._outbox.put(*told, size_bytes=len(raw))
        if answer != b"OK":
            raise refusal(owner, sender, full=answer == b"FULL", limits=self._limits)

    @override
    async def send_many(self, items: Sequence[tuple[str, bytes]], *, sender: str = "") -> None:
        sent = await asyncio.gather(
            *(self.send(owner, raw, sender=sender) for owner, raw in items),
            return_exceptions=True,
        )
        for outcome in sent:
            if isinstance(outcome, BaseException):
                raise outcome

    @override
    def receive(self, owners: Sequence[str], *, consumer: str) -> RedisMailboxReader:
        return RedisMailboxReader(self._wire, owners, check_owner(consumer), self._limits)

    @override
    async def depth(self, owner: str) -> int:
        return int(await self._wire.call("XLEN", stream_of(check_owner(owner))))

    @override
    async def dead(self, owner: str, *, limit: int = 100) -> list[tuple[bytes, str]]:
        key = dead_of(check_owner(owner))
        entries = await self._wire.call("XREVRANGE", key, "+", "-", "COUNT", min(limit, MAX_DEAD))
        return [(fields[1], str(fields[3], "utf-8")) for _, fields in entries]

    @override
    async def revive(self, owner: str, *, limit: int = 100) -> int:
        keys = _keys_of(check_owner(owner))
        most = min(limit, MAX_DEAD)
        return int(await self._wire.run(_REVIVE, keys, most, self._limits.depth, MAILBOX_TTL_MS))


class RedisMailboxReader(MailboxReader):
    """One consumer over any number of mailboxes; for one reading task at a time.

    ``next`` survives the loss of the server: it answers nothing while the server is away and goes
    on where it was. Cancelling it loses no message.
    """

    def __init__(
        self, wire: Wire, owners: Iterable[str], consumer: str, limits: MailboxLimits
    ) -> None:
        """Read on a connection of its own; acknowledge over ``wire``."""
        self._wire = wire
        self._consumer = consumer
        self._limits = limits
        self._line: Line | None = None
        self._reading: asyncio.Future[Reply] | None = None
        self._owners: dict[str, None] = {}
        self._fresh: dict[str, None] = {}
        self._joined: dict[str, None] = {}
        self._in_hand: dict[str, dict[str, int]] = {}
        self._count = FIRST_COUNT
        self._next_sweep = 0.0
        self._changed: asyncio.Future[None] | None = None
        self._closed = False
        for owner in owners:
            self.add(owner)

    @override
    def add(self, owner: str) -> None:
        if check_owner(owner) in self._owners:
            return
        if len(self._owners) >= MAX_OWNERS:
            raise TooLargeError("too many mailboxes for one reader", limit=MAX_OWNERS)
        self._owners[owner] = None
        self._fresh[owner] = None
        self._wake()

    @override
    def discard(self, owner: str) -> None:
        self._owners.pop(owner, None)
        self._fresh.pop(owner, None)
        self._in_hand.pop(owner, None)

    @override
    async def next(self, *, wait_ms: int) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_ms / 1000
        while not self._closed:
            try:
                taken = await self._take_over()
                if not taken:
                    taken = await self._read(deadline)
            except (OSError, BrokerUnreachableError) as error:
                _log.warning("the broker is away: %s", error)
                self._start_over()
                await asyncio.sleep(min(RETRY_SECONDS, max(0.0, deadline - loop.time())))
                taken = []
            except asyncio.CancelledError:
                self._fresh = dict.fromkeys(self._owners)  # what was claimed is claimed again
                raise
            taken = [delivery for delivery in taken if delivery.owner in self._owners]
            for delivery in taken:
                self._in_hand.setdefault(delivery.owner, {})[delivery.entry] = delivery.token
            if taken or loop.time() >= deadline:
                return taken
        return []

    @override
    async def done(self, deliveries: Sequence[Delivery]) -> None:
        await self._finish("done", deliveries)

    @override
    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        await self._finish("extend", deliveries)

    @override
    async def bury(self, delivery: Delivery, reason: str) -> None:
        await self._finish("bury", [delivery], reason[:200])

    @override
    async def close(self) -> None:
        self._closed = True
        self._wake()
        if self._line is not None:
            await self._line.aclose()
        joined, self._joined = list(self._joined), {}
        with contextlib.suppress(BrokerUnreachableError, TimeoutError):
            async with asyncio.timeout(_LEAVING_SECONDS):
                await asyncio.gather(*(self._leave(owner) for owner in joined))

    async def _leave(self, owner: str) -> None:
        try:
            await self._wire.run(_LEAVE, [stream_of(owner)], GROUP, self._consumer)
        except ReplyError as error:
            if not str(error).startswith("NOGROUP"):
                raise

    async def _finish(self, action: str, deliveries: Sequence[Delivery], reason: str = "") -> None:
        lost: list[str] = []
        for start in range(0, len(deliveries), MAX_TOGETHER):
            some = deliveries[start : start + MAX_TOGETHER]
            lost += await self._finish_some(action, some, reason)
        if lost:
            raise LeaseLostError("somebody else took it over", entries=len(lost), first=lost[0])

    async def _finish_some(
        self, action: str, deliveries: Sequence[Delivery], reason: str
    ) -> list[str]:
        """Finish messages of any mailboxes in one call; returns those that somebody else holds."""
        by_owner: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            by_owner.setdefault(delivery.owner, []).append(delivery)
        told: list[Argument] = []
        for owner, some in by_owner.items():
            told += (owner, len(some))
            for one in some:
                told += (one.entry, one.token, one.sender, len(one.raw))
        how = (action, GROUP, self._consumer, MAX_DEAD, MAILBOX_TTL_MS, reason)
        answers = await self._wire.run(_FINISH, [MARKET], *how, *told)
        lost = [str(entry, "ascii") for answer in answers for entry in answer]
        for one in deliveries:
            if action != "extend" or one.entry in lost:
                self._let_go(one)
        return lost

    def _let_go(self, delivery: Delivery) -> None:
        held = self._in_hand.get(delivery.owner, {})
        if held.get(delivery.entry) == delivery.token:
            del held[delivery.entry]

    def _start_over(self) -> None:
        """After a loss, look again for what was handed to us in an answer that never came."""
        if self._line is not None:
            self._line.close()
        self._reading = None
        self._fresh = dict.fromkeys(self._owners)

    async def _take_over(self) -> list[Delivery]:
        """Take back one's own messages in new mailboxes, and stale ones in all, now and then."""
        loop = asyncio.get_running_loop()
        if self._fresh:
            fresh = list(self._fresh)
            await asyncio.gather(*(self._make_group(owner) for owner in fresh))
            for owner in fresh:
                self._fresh.pop(owner, None)
            return await self._claim(fresh, "own")
        if loop.time() >= self._next_sweep:
            self._next_sweep = loop.time() + self._limits.lease_ms / 3000
            return await self._claim(list(self._owners), "stale")
        return []

    async def _make_group(self, owner: str) -> None:
        key = stream_of(owner)
        self._joined[owner] = None
        if len(self._joined) > _MAX_LEFT:  # left long ago: its mailbox expires
            del self._joined[next(iter(self._joined))]
        try:
            await self._wire.call("XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM")
        except ReplyError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        await self._wire.call("PEXPIRE", key, MAILBOX_TTL_MS)

    async def _claim(self, owners: list[str], which: str) -> list[Delivery]:
        answers = await asyncio.gather(*(self._claim_one(owner, which) for owner in owners))
        return [delivery for answer in answers for delivery in answer]

    async def _claim_one(self, owner: str, which: str) -> list[Delivery]:
        limits, count = self._limits, self._count
        skipped = list(self._in_hand.get(owner, ())) if which == "own" else []
        try:
            answer = await self._wire.run(
                _CLAIM,
                _keys_of(owner),
                GROUP,
                self._consumer,
                limits.lease_ms,
                limits.deliveries,
                count,
                MAX_DEAD,
                MAILBOX_TTL_MS,
                which,
                *skipped,
            )
        except ReplyError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self._fresh[owner] = None
            return []
        if which == "own" and len(answer) >= count:
            self._fresh[owner] = None
        return [
            Delivery(owner, str(entry, "ascii"), token, raw, str(sender, "ascii"))
            for entry, token, raw, sender in answer
        ]

    async def _read(self, deadline: float) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        if self._reading is None or self._changed is None:
            self._changed = loop.create_future()
            if not self._owners:
                await asyncio.wait([self._changed], timeout=max(0.0, deadline - loop.time()))
                return []
            self._reading = await self._ask(deadline - loop.time())
        # The answer is kept when the caller is cancelled or its time is up: it may hold messages.
        await asyncio.wait(
            [self._reading, self._changed],
            timeout=max(0.0, deadline - loop.time()) + 0.05,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._changed.done() and not self._reading.done():
            self._changed = loop.create_future()
            if self._line is not None:
                await self._wire.unblock(self._line)
        return self._what_was_read()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _what_was_read(self) -> list[Delivery]:
        if self._reading is None or not self._reading.done():
            return []
        reading, self._reading = self._reading, None
        try:
            streams = reading.result()
        except ReplyError as error:
            if not str(error).startswith(_GONE):
                raise
            self._start_over()
            return []
        read = [
            Delivery(_owner_of(key), str(entry, "ascii"), 1, fields[1], _sender_of(fields))
            for key, entries in streams or ()
            for entry, fields in entries
        ]
        if read:
            self._count = self._count_after(read)
        return read

    def _count_after(self, read: Sequence[Delivery]) -> int:
        """Return how many to take of each mailbox next: more than before, if they are small.

        Each read costs the server a synced write; but what is read must not fill the memory.
        """
        largest = max(1, *(len(one.raw) for one in read))  # one may be empty
        room = READ_BYTES // (largest * max(len(self._owners), 1))
        return max(1, min(self._limits.batch, 2 * self._count, room))

    async def _ask(self, seconds: float) -> asyncio.Future[Reply]:
        if self._line is None or self._line.closed:
            near, silence_s = stream_of(next(iter(self._owners))), MAX_BLOCK_MS / 1000 + 5
            self._line = await self._wire.own_line(near, answer_seconds=silence_s)
        # Neither a new mailbox nor a stale lease should wait for the end of a long silence.
        block_ms = max(1, min(int(seconds * 1000), self._limits.lease_ms // 3, MAX_BLOCK_MS))
        keys = [stream_of(owner) for owner in self._owners]
        return self._line.call(
            "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", self._count,
            "BLOCK", block_ms, "STREAMS", *keys, *[">"] * len(keys),
        )  # fmt: skip


def _sender_of(fields: list[bytes]) -> str:
    return str(fields[3], "ascii") if len(fields) > 3 else ""


def _owner_of(key: bytes) -> str:
    return str(key, "ascii")[len(stream_of("")) - len(":in") : -len(":in")]
