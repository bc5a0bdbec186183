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
    refusal,
)
from broker.ports import Delivery, Feed, Mailbox, MailboxReader, Room, Ruling, Verdict
from broker.said import Told, told, told_at_end
from broker.thread import (
    BINDING,
    ENDED,
    Decision,
    Ending,
    Header,
    Said,
    ThreadRecord,
    header_of,
    rule,
    rule_ending,
)
from broker.threads import (
    MAX_GROUP,
    THREAD_TTL_MS,
    Posting,
    ThreadDesk,
    ThreadLimits,
    ThreadStore,
    Whole,
    crowded,
)
from broker.transports.memory_cards import MemoryCardStore
from rahba.clock import Clock
from rahba.encoding import Json
from rahba.errors import RahbaError, TooLargeError
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
    store = MemoryThreadStore(mailbox, feed, clock, thread_limits or ThreadLimits())
    threads = ThreadDesk(store, directory=directory, clock=clock)
    return Broker(directory, mailbox, threads, feed, directory.close)


class MemoryThreadStore(ThreadStore):
    """Threads as the pure rules leave them."""

    def __init__(
        self, mailbox: MemoryMailbox, feed: MemoryFeed, clock: Clock, limits: ThreadLimits
    ) -> None:
        """Judge by ``clock`` within ``limits``; tell ``feed`` and deliver to ``mailbox``."""
        self._mailbox = mailbox
        self._feed = feed
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
    async def post(self, postings: Sequence[Posting]) -> list[Ruling | RahbaError]:
        outcomes: list[Ruling | RahbaError] = []
        for posting in postings:
            try:
                outcomes.append(self._say(posting.thread, posting.said, posting.raw))
            except RahbaError as error:
                outcomes.append(error)
        return outcomes

    @override
    async def end(self, threads: Sequence[str], ending: Ending) -> list[Ruling]:
        return [self._end(thread, ending) for thread in threads]

    def _end(self, thread: str, ending: Ending) -> Ruling:
        now_ms = self._clock.now_ms()
        decision = rule_ending(self._records.get(thread), ending, now_ms)
        if decision.verdict == "OK" and decision.record is not None:
            record = decision.record
            self._part(record.buyer, record.seller, thread)
            self._feed.tell(told_at_end(thread, header_of(record)))
        return self._keep(thread, decision, now_ms)

    @override
    async def headers(self, threads: Sequence[str]) -> list[Header | None]:
        records = [self._records.get(thread) for thread in threads]
        return [header_of(record) if record is not None else None for record in records]

    @override
    async def whole(self, threads: Sequence[str]) -> list[Whole | None]:
        return [
            (header, tuple(self._logs[thread])) if header is not None else None
            for thread, header in zip(threads, await self.headers(threads), strict=True)
        ]

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

    def _say(self, thread: str, said: Said, raw: bytes) -> Ruling:
        check_message(raw, self._mailbox.limits)
        if said.type not in BINDING:
            self._mailbox.find_room(said.to, len(raw), said.sender)
        now_ms, record = self._clock.now_ms(), self._records.get(thread)
        if record is None and said.group:
            self._find_place(said.sender, said.to, now_ms)
            verdict = self._outsider(said)
            if verdict is not None:
                return Ruling(verdict, "closed", now_ms)
        decision = rule(record, said, now_ms)
        if decision.verdict == "OK" and decision.record is not None:
            if record is None and said.group:
                self._join(thread, said, now_ms)
            self._logs.setdefault(thread, []).append(raw)
            self._note(thread, said, decision.record)
        if decision.deliver:
            self._mailbox.append(said.to, raw, said.sender)
        return self._keep(thread, decision, now_ms)

    def _find_place(self, buyer: str, seller: str, now_ms: int) -> None:
        places = self._open.get((buyer, seller), {})
        places = {name: until for name, until in places.items() if until > now_ms}
        self._open[buyer, seller] = places
        if len(places) >= self._limits.open_threads:
            raise crowded(min(places.values()) - now_ms)

    def _outsider(self, said: Said) -> Verdict | None:
        owner, members = self._groups.get(said.group, (said.sender, []))
        if owner != said.sender:
            return "NOT_PARTY"
        return "ROUND_LIMIT" if len(members) >= MAX_GROUP else None

    def _join(self, thread: str, said: Said, now_ms: int) -> None:
        until_ms = min(said.deadline, now_ms + THREAD_TTL_MS)
        self._open[said.sender, said.to][thread] = until_ms
        self._groups.setdefault(said.group, (said.sender, []))[1].append(thread)
        self._opened.setdefault(said.group, now_ms)

    def _note(self, thread: str, said: Said, record: ThreadRecord) -> None:
        if said.type == "accept" and record.agreement:
            self._deals[record.agreement] = thread
        if record.state in ENDED:
            self._part(record.buyer, record.seller, thread)
        self._feed.tell(told(thread, said, header_of(record)))

    def _part(self, buyer: str, seller: str, thread: str) -> None:
        self._open.get((buyer, seller), {}).pop(thread, None)

    def _keep(self, thread: str, decision: Decision, now_ms: int) -> Ruling:
        record = decision.record
        if record is not None:
            self._records[thread] = record
        state = record.state if record is not None else "closed"
        return Ruling(decision.verdict, state, now_ms, decision.first)


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

    def bury(self, entry: str, reason: str) -> None:
        """Move a letter to the dead ones."""
        self.dead.append((self.letters.pop(entry), reason))
        del self.dead[:-MAX_DEAD]

    def sizes_of(self, sender: str) -> list[int]:
        """Return the sizes of what a sender has here unacknowledged."""
        return [len(one.raw) for one in self.letters.values() if one.sender == sender]


class MemoryMailbox(Mailbox):
    """Mailboxes in dictionaries, in order of arrival."""

    def __init__(self, clock: Clock, limits: MailboxLimits) -> None:
        """Judge leases by ``clock``."""
        self.clock = clock
        self.limits = limits
        self.boxes: dict[str, _Box] = {}
        self._count = 0

    @override
    async def send(self, owner: str, raw: bytes, *, sender: str = "", room: Room = "asked") -> None:
        check_message(raw, self.limits)
        if room == "asked":
            self.find_room(owner, len(raw), sender)
        self.append(owner, raw, sender)

    def append(self, owner: str, raw: bytes, sender: str) -> None:
        """Put a message into a mailbox, whatever its room."""
        self._put(self.boxes.setdefault(check_owner(owner), _Box()), raw, sender)

    def _put(self, box: _Box, raw: bytes, sender: str) -> None:
        self._count += 1
        box.letters[f"{self._count}-0"] = _Letter(raw, sender)

    def find_room(self, owner: str, size_bytes: int, sender: str) -> None:
        """Raise if there is no room for a message; errors as of :meth:`send`."""
        limits, box = self.limits, self.boxes.setdefault(check_owner(owner), _Box())
        if len(box.letters) >= limits.depth:
            raise refusal(owner, sender, full=True, limits=limits)
        sizes = box.sizes_of(sender) if sender else []
        over = len(sizes) >= limits.sender_messages or sum(sizes) + size_bytes > limits.sender_bytes
        if sender and over:
            raise refusal(owner, sender, full=False, limits=limits)

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
        self.tell([(kind, data)])
        return f"{self._count}-0"

    def tell(self, events: Sequence[Told]) -> None:
        """Append several, in order."""
        for kind, data in events:
            self._append(kind, data)

    def _append(self, kind: str, data: dict[str, Json]) -> None:
        raw = encode_event(kind, data, self._clock.now_ms())
        self._count += 1
        self._events.append((f"{self._count}-0", read_event(raw)))
        self._events = self._kept()[-self._limits.events :]

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
