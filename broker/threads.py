"""Threads as the market uses them: verify once, rule, index, tell, deliver.

The rules are ``broker.thread``'s, applied by a :class:`ThreadStore` (atomically, by the server's
clock). This file decides the order of things around them:

1. the signature is verified and the body checked; nothing is written for a message that fails;
2. a first message claims its place in its group: one buyer a group, at most 64 threads;
3. the store rules and records;
4. on OK: indexes and public events; on OK or its repetition: delivery to the recipient's mailbox.

A crash between 3 and 4 is mended by posting the same bytes again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

from typing_extensions import override

from broker.errors import BadQueryError
from broker.ports import (
    Directory,
    Feed,
    Mailbox,
    Ruling,
    Threads,
    ThreadState,
    ThreadView,
    Verdict,
)
from broker.said import Terms, rounds_of, said_of, terms_of_opening, told, told_at_end
from broker.thread import Ending, Said
from rahba.clock import Clock
from rahba.encoding import sha256_hex
from rahba.errors import EnvelopeExpiredError
from rahba.ids import check_digest, check_id
from rahba.messages import CLOCK_SKEW_MS, Accept, Message, Offer, open_message
from rahba.money import wire_fals

THREAD_TTL_MS: Final = 7 * 24 * 3_600_000
MAX_GROUP: Final = 64
MAX_RECENT: Final = 1_000
_TERMS_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True)
class Ruled:
    """A store's answer: the ruling, whether to deliver, and on OK the header after it."""

    ruling: Ruling
    deliver: bool
    header: dict[str, str]


class ThreadStore(Protocol):
    """Where threads are kept; each method is atomic."""

    async def say(self, thread: str, said: Said, raw: bytes) -> Ruled:
        """Judge one message by the rules and record it if it stands."""
        ...

    async def end(self, thread: str, ending: Ending) -> Ruled:
        """Judge an ending by the rules and record it if it stands."""
        ...

    async def join(self, group: str, buyer: str, thread: str) -> Verdict:
        """Claim a place in a group: OK, NOT_PARTY (another buyer's) or ROUND_LIMIT (full)."""
        ...

    async def note_group(self, group: str, opened_ms: int) -> None:
        """Put a group into the list of recent ones."""
        ...

    async def note_deal(self, agreement: str, thread: str) -> None:
        """Remember which thread led to an agreement."""
        ...

    async def headers(self, threads: Sequence[str]) -> list[dict[str, str]]:
        """Return the headers of threads, empty for unknown ones."""
        ...

    async def transcripts(self, threads: Sequence[str]) -> list[tuple[bytes, ...]]:
        """Return the messages of threads that were ruled OK, in order."""
        ...

    async def members(self, group: str) -> list[str]:
        """Return the threads that joined a group, in order."""
        ...

    async def recent(self, limit: int, before_ms: int | None) -> list[str]:
        """Return group ids, newest first."""
        ...

    async def deal(self, agreement: str) -> str | None:
        """Return the thread that led to an agreement."""
        ...


class ThreadDesk(Threads):
    """The threads of a market over any store. Anybody may post: a message proves its sender."""

    def __init__(
        self,
        store: ThreadStore,
        *,
        mailbox: Mailbox,
        directory: Directory,
        feed: Feed,
        clock: Clock,
    ) -> None:
        """Deliver to ``mailbox``, find posted offers in ``directory``, tell ``feed``."""
        self._store = store
        self._mailbox = mailbox
        self._directory = directory
        self._feed = feed
        self._clock = clock
        self._terms: OrderedDict[str, Terms] = OrderedDict()

    @override
    async def post(self, raw: bytes) -> Ruling:
        now_ms = self._clock.now_ms()
        message = open_message(raw, me=None, now_ms=now_ms)  # 1
        if message.ts > now_ms + CLOCK_SKEW_MS:
            raise EnvelopeExpiredError("the message is dated in the future", ts=message.ts)
        opening = terms_of_opening(message)
        terms = opening or await self._terms_of(message)
        said = said_of(message, sha256_hex(raw), terms=terms)
        if opening is not None:
            place, posted = await asyncio.gather(  # 2
                self._store.join(opening.group, opening.buyer, message.thread),
                self._posted_offer(message),
            )
            if place != "OK":
                return Ruling(place, "closed", now_ms)
            if posted is not None:
                said = said_of(message, said.digest, terms=terms, posted=posted)
        ruled = await self._store.say(message.thread, said, raw)  # 3
        if ruled.ruling.verdict == "OK":  # 4
            await self._index(message.thread, said, ruled.header)
            for event in told(message.thread, said, ruled.header):
                await self._feed.publish(*event)
            await self._mailbox.send(message.to, raw)
        elif ruled.deliver:  # what a crash may have left undone the first time
            if opening is not None or said.type == "accept":
                (header,) = await self._store.headers([message.thread])
                await self._index(message.thread, said, header)
            await self._mailbox.send(message.to, raw)
        return ruled.ruling

    @override
    async def settle(self, thread: str, *, paid: int, tx: str) -> Ruling:
        return await self._end(
            thread, Ending(kind="settled", paid=wire_fals(paid), tx=check_digest(tx) if tx else "")
        )

    @override
    async def close(self, thread: str, state: Literal["failed", "expired"]) -> Ruling:
        return await self._end(thread, Ending(kind=state))

    @override
    async def get(self, thread: str) -> ThreadView | None:
        return next(iter(await self._views([check_id(thread)])), None)

    @override
    async def group(self, group: str) -> list[ThreadView]:
        return await self._views(await self._store.members(check_id(group)))

    @override
    async def recent(self, *, limit: int, before_ms: int | None = None) -> list[str]:
        if not 1 <= limit <= MAX_RECENT:
            raise BadQueryError("limit out of range", limit=limit, most=MAX_RECENT)
        return await self._store.recent(limit, before_ms)

    @override
    async def deal(self, agreement: str) -> ThreadView | None:
        thread = await self._store.deal(check_digest(agreement))
        return await self.get(thread) if thread is not None else None

    async def _end(self, thread: str, ending: Ending) -> Ruling:
        ruled = await self._store.end(check_id(thread), ending)
        if ruled.ruling.verdict == "OK":
            for event in told_at_end(thread, ruled.header):
                await self._feed.publish(*event)
        return ruled.ruling

    async def _index(self, thread: str, said: Said, header: dict[str, str]) -> None:
        notes = []
        if said.type == "cfp" or said.opening:
            notes.append(self._store.note_group(header["group"], int(header["opened_ms"])))
        if said.type == "accept" and header["agreement"]:
            notes.append(self._store.note_deal(header["agreement"], thread))
        await asyncio.gather(*notes)

    async def _posted_offer(self, message: Message) -> Offer | None:
        body = message.body
        if not isinstance(body, Accept) or body.opening is None:
            return None
        listing = await self._directory.get(message.to)
        entry = listing.card.skill(body.opening.skill) if listing is not None else None
        return entry.posted if entry is not None else None

    async def _terms_of(self, message: Message) -> Terms | None:
        """Return a thread's terms for a message that makes an offer; others do without."""
        if message.type not in {"quote", "counter"}:
            return None
        terms = self._terms.get(message.thread)
        if terms is None:
            (header,) = await self._store.headers([message.thread])
            if not header:
                return None
            terms = Terms(
                header["group"], header["buyer"], header["seller"], header["input_digest"]
            )
            self._terms[message.thread] = terms
            if len(self._terms) > _TERMS_KEPT:
                self._terms.popitem(last=False)
        return terms

    async def _views(self, threads: Sequence[str]) -> list[ThreadView]:
        headers, transcripts = await asyncio.gather(
            self._store.headers(threads), self._store.transcripts(threads)
        )
        return [
            view_of(thread, header, transcript)
            for thread, header, transcript in zip(threads, headers, transcripts, strict=True)
            if header
        ]


_NAMES: Final = (
    "group",
    "skill",
    "mode",
    "input_digest",
    "agreement",
    "hold",
    "receipt",
    "code",
    "tx",
)
_AMOUNTS: Final = ("asked", "agreed", "paid")
_TIMES: Final = ("deadline", "opened_ms", "agreed_ms", "delivered_ms", "settled_ms")


def view_of(thread: str, header: dict[str, str], transcript: tuple[bytes, ...]) -> ThreadView:
    """Show a thread: the facts of its header, without what has not happened yet."""
    facts = {name: header[name] for name in (*_NAMES, *_AMOUNTS) if header[name]}
    times = {name: header[name] for name in _TIMES if header[name] != "0"}
    return ThreadView(
        id=thread,
        buyer=header["buyer"],
        seller=header["seller"],
        state=cast("ThreadState", header["state"]),
        facts={**facts, **times, "rounds": str(rounds_of(header))},
        transcript=transcript,
    )
