"""The broker in one process's memory: the same rules and limits, by the given clock.

For simulations and quick tests. Nothing survives the process; several tasks of one loop may use
it. Every change is made without awaiting in between, so each is atomic.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from typing_extensions import override

from broker.bundle import Broker
from broker.directory import CardDirectory, Search
from broker.errors import LeaseLostError
from broker.events import FeedLimits, check_event_id, encode_event
from broker.mailboxes import (
    MAX_DEAD,
    MAX_OWNERS,
    MailboxLimits,
    check_message,
    check_owner,
    check_size,
    refusal,
)
from broker.ports import Delivery, Feed, Mailbox, MailboxReader, Room, Ruling, Verdict
from broker.thread import Decision, Ending, Said, ThreadRecord, header_of, rule, rule_ending
from broker.threads import MAX_GROUP, Ruled, ThreadDesk, ThreadLimits, ThreadStore
from broker.transports.memory_cards import MemoryCardStore
from rahba.clock import Clock
from rahba.encoding import Json
from rahba.errors import TooLargeError
from rahba.messages import Event, read_event

POLL_SECONDS: Final = 0.005


def connect(
    clock: Clock,
    *,
    limits: MailboxLimits | None = None,
    feed_limits: FeedLimits | None = None,
    thread_limits: ThreadLimits | None = None,
    search: Search | None = None,
) -> Broker:
    """Return a broker of one's own, empty."""
    feed = MemoryFeed(clock, feed_limits or FeedLimits())
    mailbox = MemoryMailbox(clock, limits or MailboxLimits())
    directory = CardDirectory(MemoryCardStore(clock), feed=feed, clock=clock, search=search)
    store = MemoryThreadStore(clock, thread_limits or ThreadLimits())
    threads = ThreadDesk(store, mailbox=mailbox, directory=directory, feed=feed, clock=clock)
    return Broker(directory, mailbox, threads, feed, directory.close)


class MemoryThreadStore(ThreadStore):
    """Threads as the pure rules leave them."""

    def __init__(self, clock: Clock, limits: ThreadLimits) -> None:
        """Judge by ``clock`` within ``limits``."""
        self._clock = clock
        self._limits = limits
        self._open: dict[tuple[str, str], dict[str, int]] = {}
        self._records: dict[str, ThreadRecord] = {}
        self._logs: dict[str, list[bytes]] = {}
        self._groups: dict[str, tuple[str, list[str]]] = {}
        self._opened: dict[str, int] = {}
        self._deals: dict[str, str] = {}

    def record(self, thread: str) -> ThreadRecord | None:
        """Return a thread as the rules see it."""
        return self._records.get(thread)

    @override
    async def say(self, thread: str, said: Said, raw: bytes) -> Ruled:
        now_ms = self._clock.now_ms()
        decision = rule(self._records.get(thread), said, now_ms)
        if decision.verdict == "OK":
            self._logs.setdefault(thread, []).append(raw)
        return self._keep(thread, decision, now_ms)

    @override
    async def end(self, thread: str, ending: Ending) -> Ruled:
        now_ms = self._clock.now_ms()
        return self._keep(thread, rule_ending(self._records.get(thread), ending, now_ms), now_ms)

    @override
    async def join(self, group: str, buyer: str, thread: str) -> Verdict:
        owner, members = self._groups.setdefault(group, (buyer, []))
        if owner != buyer:
            return "NOT_PARTY"
        if thread not in members:
            if len(members) >= MAX_GROUP:
                return "ROUND_LIMIT"
            members.append(thread)
        return "OK"

    @override
    async def meet(self, buyer: str, seller: str, thread: str, until_ms: int) -> int:
        now_ms = self._clock.now_ms()
        places = self._open.get((buyer, seller), {})
        places = {name: until for name, until in places.items() if until > now_ms}
        self._open[buyer, seller] = places
        if thread in places:
            return 0
        if len(places) >= self._limits.open_threads:
            return now_ms - min(places.values())
        places[thread] = until_ms
        return 1

    @override
    async def part(self, buyer: str, seller: str, thread: str) -> None:
        self._open.get((buyer, seller), {}).pop(thread, None)

    @override
    async def note_group(self, group: str, opened_ms: int) -> None:
        self._opened.setdefault(group, opened_ms)

    @override
    async def note_deal(self, agreement: str, thread: str) -> None:
        self._deals[agreement] = thread

    @override
    async def headers(self, threads: Sequence[str]) -> list[dict[str, str]]:
        records = [self._records.get(thread) for thread in threads]
        return [header_of(record) if record is not None else {} for record in records]

    @override
    async def whole(self, threads: Sequence[str]) -> list[tuple[dict[str, str], tuple[bytes, ...]]]:
        logs = [tuple(self._logs.get(thread, ())) for thread in threads]
        return list(zip(await self.headers(threads), logs, strict=True))

    @override
    async def members(self, group: str) -> list[str]:
        return list(self._groups.get(group, ("", []))[1])

    @override
    async def recent(self, limit: int, before_ms: int | None) -> list[str]:
        groups = [
            (opened_ms, group)
            for group, opened_ms in self._opened.items()
            if before_ms is None or opened_ms < before_ms
        ]
        return [group for _, group in sorted(groups, reverse=True)[:limit]]

    @override
    async def deal(self, agreement: str) -> str | None:
        return self._deals.get(agreement)

    def _keep(self, thread: str, decision: Decision, now_ms: int) -> Ruled:
        record = decision.record
        if record is not None:
            self._records[thread] = record
        state = record.state if record is not None else "closed"
        header = header_of(record) if record is not None and decision.verdict == "OK" else {}
        ruling = Ruling(decision.verdict, state, now_ms, decision.first)
        return Ruled(ruling, decision.deliver, header)


@dataclass(slots=True)
class _Letter:
    raw: bytes
    sender: str = ""
    consumer: str | None = None
    token: int = 0
    leased_ms: int = 0


@dataclass(slots=True)
class _Box:
    letters: dict[str, _Letter] = field(default_factory=dict)
    dead: list[tuple[_Letter, str]] = field(default_factory=list)
    reserved: list[tuple[str, int]] = field(default_factory=list)

    def bury(self, entry: str, reason: str) -> None:
        """Move a letter to the dead ones."""
        self.dead.append((self.letters.pop(entry), reason))
        del self.dead[:-MAX_DEAD]

    def sizes_of(self, sender: str) -> list[int]:
        """Return the sizes of what a sender has here, unacknowledged or reserved."""
        waiting = [len(one.raw) for one in self.letters.values() if one.sender == sender]
        return waiting + [size for name, size in self.reserved if name == sender]


class MemoryMailbox(Mailbox):
    """Mailboxes in dictionaries, in order of arrival."""

    def __init__(self, clock: Clock, limits: MailboxLimits) -> None:
        """Judge leases by ``clock``."""
        self.clock = clock
        self.limits = limits
        self.boxes: dict[str, _Box] = {}
        self._count = 0

    @override
    async def reserve(self, owner: str, size_bytes: int, *, sender: str) -> None:
        check_size(size_bytes, self.limits)
        self._box_with_room(owner, size_bytes, sender).reserved.append((sender, size_bytes))

    @override
    async def cancel(self, owner: str, size_bytes: int, *, sender: str) -> None:
        box = self.boxes.setdefault(check_owner(owner), _Box())
        if (sender, size_bytes) in box.reserved:
            box.reserved.remove((sender, size_bytes))

    @override
    async def send(self, owner: str, raw: bytes, *, sender: str = "", room: Room = "asked") -> None:
        check_message(raw, self.limits)
        if room == "asked":
            self._box_with_room(owner, len(raw), sender)
        elif room == "reserved":
            await self.cancel(owner, len(raw), sender=sender)
        self._put(self.boxes.setdefault(check_owner(owner), _Box()), raw, sender)

    def _put(self, box: _Box, raw: bytes, sender: str) -> None:
        self._count += 1
        box.letters[f"{self._count}-0"] = _Letter(raw, sender)

    def _box_with_room(self, owner: str, size_bytes: int, sender: str) -> _Box:
        limits, box = self.limits, self.boxes.setdefault(check_owner(owner), _Box())
        if len(box.letters) >= limits.depth:
            raise refusal(owner, sender, full=True, limits=limits)
        sizes = box.sizes_of(sender) if sender else []
        over = len(sizes) >= limits.sender_messages or sum(sizes) + size_bytes > limits.sender_bytes
        if sender and over:
            raise refusal(owner, sender, full=False, limits=limits)
        return box

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
    def receive(self, owners: Sequence[str], *, consumer: str) -> MemoryMailboxReader:
        return MemoryMailboxReader(self, owners, check_owner(consumer))

    @override
    async def depth(self, owner: str) -> int:
        return len(self.boxes.get(check_owner(owner), _Box()).letters)

    @override
    async def dead(self, owner: str, *, limit: int = 100) -> list[tuple[bytes, str]]:
        dead = self.boxes.get(check_owner(owner), _Box()).dead
        return [(letter.raw, reason) for letter, reason in dead[::-1][: min(limit, MAX_DEAD)]]

    @override
    async def revive(self, owner: str, *, limit: int = 100) -> int:
        box = self.boxes.get(check_owner(owner), _Box())
        count = min(limit, self.limits.depth - len(box.letters), len(box.dead))
        for letter, _ in box.dead[: max(count, 0)]:
            self._put(box, letter.raw, letter.sender)
        del box.dead[: max(count, 0)]
        return max(count, 0)


class MemoryMailboxReader(MailboxReader):
    """One consumer over any number of mailboxes."""

    def __init__(self, mailbox: MemoryMailbox, owners: Iterable[str], consumer: str) -> None:
        """Take from ``mailbox`` under the name ``consumer``."""
        self._mailbox = mailbox
        self._consumer = consumer
        self._owners: dict[str, None] = {}
        self._in_hand: set[tuple[str, str]] = set()
        self._closed = False
        for owner in owners:
            self.add(owner)

    @override
    def add(self, owner: str) -> None:
        if len(self._owners) >= MAX_OWNERS:
            raise TooLargeError("too many mailboxes for one reader", limit=MAX_OWNERS)
        self._owners.setdefault(check_owner(owner))

    @override
    def discard(self, owner: str) -> None:
        self._owners.pop(owner, None)

    @override
    async def next(self, *, wait_ms: int) -> list[Delivery]:
        deadline = asyncio.get_running_loop().time() + wait_ms / 1000
        while not self._closed:
            taken = [delivery for owner in list(self._owners) for delivery in self._take(owner)]
            if taken or asyncio.get_running_loop().time() >= deadline:
                return taken
            await asyncio.sleep(POLL_SECONDS)
        return []

    @override
    async def done(self, deliveries: Sequence[Delivery]) -> None:
        self._finish(deliveries, lambda box, entry: box.letters.pop(entry))

    @override
    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        now_ms = self._mailbox.clock.now_ms()
        lost = self._finish(deliveries, lambda box, entry: _renew(box.letters[entry], now_ms))
        if lost:
            raise LeaseLostError("it was acknowledged before", first=lost[0].entry)

    @override
    async def bury(self, delivery: Delivery, reason: str) -> None:
        self._finish([delivery], lambda box, entry: box.bury(entry, reason[:200]))

    @override
    async def close(self) -> None:
        self._closed = True

    def _take(self, owner: str) -> list[Delivery]:
        box, now_ms = self._mailbox.boxes.get(owner), self._mailbox.clock.now_ms()
        if box is None:
            return []
        limits = self._mailbox.limits
        free = [
            entry
            for entry, letter in box.letters.items()
            if letter.consumer is None
            or now_ms - letter.leased_ms >= limits.lease_ms
            or (letter.consumer == self._consumer and (owner, entry) not in self._in_hand)
        ]
        taken = []
        for entry in islice(free, limits.batch):
            letter = box.letters[entry]
            if letter.token >= limits.deliveries:
                box.bury(entry, "undeliverable")
                continue
            letter.consumer, letter.leased_ms = self._consumer, now_ms
            letter.token += 1
            self._in_hand.add((owner, entry))
            taken.append(Delivery(owner, entry, letter.token, letter.raw, letter.sender))
        return taken

    def _finish(
        self, deliveries: Sequence[Delivery], act: Callable[[_Box, str], object]
    ) -> list[Delivery]:
        """Act on what is still ours; return what is gone; raise if somebody else has some."""
        gone, lost = [], []
        for one in deliveries:
            box = self._mailbox.boxes.get(one.owner, _Box())
            letter = box.letters.get(one.entry)
            if letter is None:
                gone.append(one)
            elif (letter.consumer, letter.token) == (self._consumer, one.token):
                act(box, one.entry)
                if one.entry in box.letters:
                    continue
            else:
                lost.append(one)
            self._in_hand.discard((one.owner, one.entry))
        if lost:
            raise LeaseLostError(
                "somebody else took it over", entries=len(lost), first=lost[0].entry
            )
        return gone


def _renew(letter: _Letter, now_ms: int) -> None:
    letter.leased_ms = now_ms


class MemoryFeed(Feed):
    """The newest events in a list."""

    def __init__(self, clock: Clock, limits: FeedLimits) -> None:
        """Date events by ``clock``."""
        self._clock = clock
        self._limits = limits
        self._events: list[tuple[str, Event]] = []
        self._count = 0

    @override
    async def publish(self, kind: str, data: dict[str, Json]) -> str:
        raw = encode_event(kind, data, self._clock.now_ms())
        self._count += 1
        self._events.append((f"{self._count}-0", read_event(raw)))
        self._events = self._kept()[-self._limits.events :]
        return f"{self._count}-0"

    @override
    async def publish_all(self, events: Sequence[tuple[str, dict[str, Json]]]) -> None:
        for kind, data in events:
            await self.publish(kind, data)

    @override
    async def subscribe(
        self, *, after: str | None, kinds: frozenset[str] | None = None, every_ms: int = 0
    ) -> AsyncIterator[list[tuple[str, Event]]]:
        seen = int(check_event_id(after).split("-")[0]) if after is not None else self._count
        while True:
            new = self._kept()[-(self._count - seen) :] if self._count > seen else []
            seen = self._count
            wanted = [item for item in new if kinds is None or item[1].kind in kinds]
            if wanted:
                yield wanted
            if every_ms or not wanted:
                await asyncio.sleep(max(every_ms / 1_000, POLL_SECONDS))

    @override
    async def tail(self, limit: int) -> list[tuple[str, Event]]:
        return self._kept()[-max(1, min(limit, self._limits.events)) :]

    def _kept(self) -> list[tuple[str, Event]]:
        return self._limits.young(self._events, self._clock.now_ms())
