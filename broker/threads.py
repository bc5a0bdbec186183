"""Threads as the market uses them: verify once; then one step that rules, records and delivers.

1. The signature is verified and the body checked; nothing is written for a message that fails.
2. The store does the rest in one step, or nothing of it (``docs/adr/0030``):

   a. there is room in the recipient's mailbox, within the sender's share of it, and for a first
      message a place among the threads of its two parties (``ThreadLimits.open_threads``) and in
      its group (one buyer a group, at most 64 threads). Where there is none, nothing is ruled on
      and nothing recorded: the sender learns when to try again;
   b. the rules of :mod:`broker.thread` judge;
   c. what stands is recorded, told on the feed and delivered; what stood before and comes again is
      delivered again.

What the parties owe each other under an agreement (``BINDING``) needs no room: whoever lets its
mailbox fill up cannot keep a seller from delivering, and threads bound how much that is.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec
from typing_extensions import override

from broker.errors import BadQueryError, DamagedThreadError, TooManyThreadsError
from broker.lookout import Lookout
from broker.ports import Directory, Ruling, Threads, ThreadState, ThreadView
from broker.said import Terms, rounds_of, said_of, terms_of_opening
from broker.thread import Ending, Header, Said
from rahba.clock import Clock
from rahba.errors import EnvelopeExpiredError, RahbaError
from rahba.ids import check_digest, check_id
from rahba.messages import (
    CLOCK_SKEW_MS,
    Accept,
    Message,
    Offer,
    message_digest,
    open_message,
)
from rahba.money import wire_fals

THREAD_TTL_MS: Final = 7 * 24 * 3_600_000
MAX_GROUP: Final = 64
MAX_RECENT: Final = 1_000
MAX_CODE_CHARS: Final = 64
_TERMS_KEPT: Final = 4_096
_log: Final = logging.getLogger(__name__)

Whole = tuple[Header, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class ThreadLimits:
    """How many threads one buyer may have open with one seller at a time."""

    open_threads: int = 512


class Posting(msgspec.Struct, frozen=True):
    """A verified message on its way into a thread: what it says, and its bytes."""

    thread: str
    said: Said
    raw: bytes


def crowded(wait_ms: int) -> TooManyThreadsError:
    """Return the error for a thread that finds no place; one is free in ``wait_ms`` at most."""
    return TooManyThreadsError(
        "as many threads are open as one may have with a seller", retry_after_ms=max(wait_ms, 1)
    )


class ThreadStore(Protocol):
    """Where threads are kept; each posting and each ending is one step."""

    async def post(self, postings: Sequence[Posting]) -> list[Ruling | RahbaError]:
        """Find room, judge, record, tell and deliver; answers the ruling of each, or no room."""
        ...

    async def end(self, threads: Sequence[str], ending: Ending) -> list[Ruling]:
        """Judge an ending of each thread by the rules; record and tell it where it stands."""
        ...

    async def headers(self, threads: Sequence[str]) -> Sequence[Header | DamagedThreadError | None]:
        """Return the headers of threads, ``None`` for unknown ones, what is wrong with others."""
        ...

    async def whole(self, threads: Sequence[str]) -> Sequence[Whole | DamagedThreadError | None]:
        """Return such headers with the messages that were ruled OK, in order."""
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

    def __init__(self, store: ThreadStore, *, directory: Directory, clock: Clock) -> None:
        """Find posted offers in ``directory``."""
        self._store = store
        self._directory = directory
        self._clock = clock
        self._terms: OrderedDict[str, Terms] = OrderedDict()
        self._lookout = Lookout(store.headers)

    @override
    async def post(self, raw: bytes) -> Ruling:
        (outcome,) = await self._store.post([await self._read(raw)])
        if isinstance(outcome, RahbaError):
            raise outcome
        return outcome

    @override
    async def post_all(self, raws: Sequence[bytes]) -> list[Ruling | RahbaError]:
        outcomes: list[Ruling | RahbaError] = []
        postings: list[Posting] = []
        for raw in raws:
            try:
                postings.append(await self._read(raw))
            except RahbaError as error:
                outcomes.append(error)
            else:
                outcomes.append(_UNRULED)
        ruled = iter(await self._store.post(postings))
        return [next(ruled) if outcome is _UNRULED else outcome for outcome in outcomes]

    @override
    def expect(self, opening: Message) -> None:
        terms = terms_of_opening(opening)
        if terms is not None:
            self._keep_terms(opening.thread, terms)

    @override
    async def settlement(self, thread: str, *, wait_ms: int) -> str | None:
        return await self._lookout.settlement(check_id(thread), wait_ms=wait_ms)

    @override
    async def settle(self, thread: str, *, paid: int, tx: str) -> Ruling:
        return await self._end(
            thread, Ending(kind="settled", paid=wire_fals(paid), tx=check_digest(tx) if tx else "")
        )

    @override
    async def close(self, thread: str, state: Literal["failed", "expired"]) -> Ruling:
        return await self._end(thread, Ending(kind=state))

    @override
    async def release(self, threads: Sequence[str], code: str) -> None:
        ids = [check_id(thread) for thread in threads]
        _ = await self._store.end(ids, Ending(kind="closed", code=code[:MAX_CODE_CHARS]))

    @override
    async def states(self, threads: Sequence[str]) -> list[ThreadState | None]:
        headers = await self._store.headers([check_id(thread) for thread in threads])
        return [_state_in(header) for header in headers]

    @override
    async def get(self, thread: str) -> ThreadView | None:
        (whole,) = await self._store.whole([check_id(thread)])
        if isinstance(whole, DamagedThreadError):
            raise whole
        return None if whole is None else self._view(thread, whole)

    @override
    async def group(self, group: str) -> list[ThreadView]:
        members = await self._store.members(check_id(group))
        found = zip(members, await self._store.whole(members), strict=True)
        views = []
        for thread, whole in found:
            if isinstance(whole, DamagedThreadError):
                _log.warning("thread %s is left out of its group: %s", thread, whole)
            elif whole is not None:
                views.append(self._view(thread, whole))
        return views

    @override
    async def recent(self, *, limit: int, before_ms: int | None = None) -> list[str]:
        if not 1 <= limit <= MAX_RECENT:
            raise BadQueryError("limit out of range", limit=limit, most=MAX_RECENT)
        return await self._store.recent(limit, before_ms)

    @override
    async def deal(self, agreement: str) -> ThreadView | None:
        thread = await self._store.deal(check_digest(agreement))
        return await self.get(thread) if thread is not None else None

    async def _read(self, raw: bytes) -> Posting:
        """Verify and check a message (1)."""
        now_ms = self._clock.now_ms()
        message = open_message(raw, me=None, now_ms=now_ms)
        if message.ts > now_ms + CLOCK_SKEW_MS:
            raise EnvelopeExpiredError("the message is dated in the future", ts=message.ts)
        terms = terms_of_opening(message) or await self._terms_of(message)
        posted = await self._posted_offer(message)
        said = said_of(message, message_digest(raw), terms=terms, posted=posted)
        return Posting(message.thread, said, raw)

    async def _end(self, thread: str, ending: Ending) -> Ruling:
        (ruling,) = await self._store.end([check_id(thread)], ending)
        return ruling

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
            if not isinstance(header, Header):  # the store will say why
                return None
            terms = _terms_in(header)
            self._keep_terms(message.thread, terms)
        return terms

    def _keep_terms(self, thread: str, terms: Terms) -> None:
        self._terms[thread] = terms
        if len(self._terms) > _TERMS_KEPT:
            self._terms.popitem(last=False)

    def _view(self, thread: str, whole: Whole) -> ThreadView:
        header, transcript = whole
        if header.state == "open" and thread not in self._terms:
            self._keep_terms(thread, _terms_in(header))  # who reads it answers in it
        return view_of(thread, header, transcript)


_UNRULED: Final = Ruling("OUT_OF_ORDER", "closed", 0)

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


def _state_in(header: Header | DamagedThreadError | None) -> ThreadState | None:
    """Return the state; of a damaged thread nobody knows that it has ended."""
    if isinstance(header, DamagedThreadError):
        return "open"
    return None if header is None else header.state


def _terms_in(header: Header) -> Terms:
    return Terms(header.group, header.buyer, header.seller, header.input_digest)


def view_of(thread: str, header: Header, transcript: tuple[bytes, ...]) -> ThreadView:
    """Show a thread: the facts of its header, without what has not happened yet."""
    facts = {name: value for name in (*_NAMES, *_AMOUNTS) if (value := getattr(header, name))}
    times = {name: str(value) for name in _TIMES if (value := getattr(header, name))}
    return ThreadView(
        id=thread,
        buyer=header.buyer,
        seller=header.seller,
        state=header.state,
        facts={**facts, **times, "rounds": str(rounds_of(header))},
        transcript=transcript,
    )
