"""Threads as the market uses them: verify once, rule, index, tell, deliver.

The rules are ``broker.thread``'s, applied by a :class:`ThreadStore` (atomically, by the server's
clock). This file decides the order of things around them:

1. the signature is verified and the body checked; nothing is written for a message that fails;
2. a place in the recipient's mailbox is reserved, within the sender's quota there; a first message
   also claims its places among the threads of its two parties (``ThreadLimits.open_threads``) and
   in its group (one buyer a group, at most 64 threads). Where there is none, nothing is ruled on
   and nothing recorded: the sender learns when to try again;
3. the store rules and records;
4. on OK: indexes and public events; on OK or its repetition: delivery to the recipient's mailbox.
   Whatever is not delivered gives its place back.

What the parties owe each other under an agreement (``OWED``) needs no place: whoever lets its
mailbox fill up cannot keep a seller from delivering, and threads bound how much that is.

A crash between 3 and 4 is mended by posting the same bytes again; a place that a crash left
reserved is forgotten once the mailbox is empty, one among threads at the thread's deadline.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, cast

from typing_extensions import override

from broker.errors import BadQueryError, TooManyThreadsError
from broker.ports import (
    Directory,
    Feed,
    Mailbox,
    Room,
    Ruling,
    Threads,
    ThreadState,
    ThreadView,
    Verdict,
)
from broker.said import Terms, rounds_of, said_of, terms_of_opening, told, told_at_end
from broker.thread import BINDING, ENDED, Ending, Said
from rahba.clock import Clock
from rahba.encoding import sha256_hex
from rahba.errors import EnvelopeExpiredError, RahbaError
from rahba.ids import check_digest, check_id
from rahba.messages import CLOCK_SKEW_MS, Accept, Message, Offer, open_message
from rahba.money import wire_fals

THREAD_TTL_MS: Final = 7 * 24 * 3_600_000
MAX_GROUP: Final = 64
MAX_RECENT: Final = 1_000
OWED: Final = BINDING
_TERMS_KEPT: Final = 4_096


@dataclass(frozen=True, slots=True)
class ThreadLimits:
    """How many threads one buyer may have open with one seller at a time."""

    open_threads: int = 512


@dataclass(frozen=True, slots=True)
class Ruled:
    """A store's answer: the ruling, whether to deliver, and on OK the header after it."""

    ruling: Ruling
    deliver: bool
    header: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a message has reserved: so many bytes at its recipient, and a new place of a thread."""

    sender: str
    recipient: str
    reserved: int
    met: bool = False


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

    async def meet(self, buyer: str, seller: str, thread: str, until_ms: int) -> int:
        """Claim a place among the open threads of two parties, until ``until_ms`` at most.

        Returns 1 if it is new, 0 if it was claimed before, and if there is none -N: one will be
        free in N ms at the latest.
        """
        ...

    async def part(self, buyer: str, seller: str, thread: str) -> None:
        """Give the place of a thread that is over back."""
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

    async def whole(self, threads: Sequence[str]) -> list[tuple[dict[str, str], tuple[bytes, ...]]]:
        """Return the headers of threads with their messages that were ruled OK, in order."""
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
        terms = terms_of_opening(message) or await self._terms_of(message)
        said = said_of(message, sha256_hex(raw), terms=terms)
        claim = await self._claim(said, len(raw), message.thread)  # 2
        ruled = await self._rule(message, said, raw, terms)  # 3
        if ruled.ruling.verdict == "OK":  # 4
            await self._index(message.thread, said, ruled.header)
            await self._feed.publish_all(told(message.thread, said, ruled.header))
        elif ruled.deliver and (said.group or said.type == "accept"):
            # what a crash may have left undone the first time
            (header,) = await self._store.headers([message.thread])
            await self._index(message.thread, said, header)
        if ruled.deliver:
            room: Room = "reserved" if claim.reserved else "owed"
            sending = self._mailbox.send(message.to, raw, sender=message.sender, room=room)
            await asyncio.gather(sending, self._give_back(claim, message.thread, ruled))
        else:
            await self._give_back(claim, message.thread, ruled)
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

    async def _claim(self, said: Said, size_bytes: int, thread: str) -> _Claim:
        """Reserve what a message needs, or raise and leave nothing reserved."""
        if said.type in OWED:
            return _Claim(said.sender, said.to, 0)
        claim = _Claim(said.sender, said.to, size_bytes)
        reserving = self._mailbox.reserve(said.to, size_bytes, sender=said.sender)
        if not said.group:
            await reserving
            return claim
        until_ms = min(said.deadline, self._clock.now_ms() + THREAD_TTL_MS)
        place, full = await asyncio.gather(
            self._store.meet(said.sender, said.to, thread, until_ms),
            _refused(reserving),
        )
        if full is not None:
            if place == 1:
                await self._store.part(said.sender, said.to, thread)
            raise full
        if place < 0:
            await self._mailbox.cancel(said.to, size_bytes, sender=said.sender)
            raise TooManyThreadsError(
                "as many threads are open as one may have with a seller", retry_after_ms=-place
            )
        return replace(claim, met=place == 1)

    async def _rule(self, message: Message, said: Said, raw: bytes, terms: Terms | None) -> Ruled:
        if said.group:
            place, posted = await asyncio.gather(
                self._store.join(said.group, said.sender, message.thread),
                self._posted_offer(message),
            )
            if place != "OK":
                return Ruled(Ruling(place, "closed", self._clock.now_ms()), False, {})
            if posted is not None:
                said = said_of(message, said.digest, terms=terms, posted=posted)
        return await self._store.say(message.thread, said, raw)

    async def _give_back(self, claim: _Claim, thread: str, ruled: Ruled) -> None:
        """Give back what a message did not need, and a place among threads when one is over."""
        if claim.reserved and not ruled.deliver:
            await self._mailbox.cancel(claim.recipient, claim.reserved, sender=claim.sender)
        if ruled.ruling.verdict == "OK" and ruled.ruling.state in ENDED:
            await self._store.part(ruled.header["buyer"], ruled.header["seller"], thread)
        elif claim.met and not ruled.ruling.ok:
            await self._store.part(claim.sender, claim.recipient, thread)

    async def _end(self, thread: str, ending: Ending) -> Ruling:
        ruled = await self._store.end(check_id(thread), ending)
        if ruled.ruling.verdict == "OK":
            await self._store.part(ruled.header["buyer"], ruled.header["seller"], thread)
            await self._feed.publish_all(told_at_end(thread, ruled.header))
        return ruled.ruling

    async def _index(self, thread: str, said: Said, header: dict[str, str]) -> None:
        if said.type == "cfp" or said.opening:
            await self._store.note_group(header["group"], int(header["opened_ms"]))
        if said.type == "accept" and header["agreement"]:
            await self._store.note_deal(header["agreement"], thread)

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
            terms = self._keep_terms(message.thread, header)
        return terms

    def _keep_terms(self, thread: str, header: dict[str, str]) -> Terms:
        terms = Terms(header["group"], header["buyer"], header["seller"], header["input_digest"])
        self._terms[thread] = terms
        if len(self._terms) > _TERMS_KEPT:
            self._terms.popitem(last=False)
        return terms

    async def _views(self, threads: Sequence[str]) -> list[ThreadView]:
        found = zip(threads, await self._store.whole(threads), strict=True)
        views = []
        for thread, (header, transcript) in found:
            if header:
                views.append(view_of(thread, header, transcript))
                if header["state"] == "open" and thread not in self._terms:
                    self._keep_terms(thread, header)  # who reads an open thread answers in it
        return views


async def _refused(reserving: Awaitable[None]) -> RahbaError | None:
    """Return why a place was not reserved."""
    try:
        await reserving
    except RahbaError as error:
        return error
    return None


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
