"""The directory as the market uses it: verified cards under leases, ranked.

A card is verified when it is published, and once more a process when it is read, however often
it is found; what is cached is the decoded card by digest, never who is listed. Whether a lease
still runs is asked of the store each time, by the server's clock: nothing stale is returned.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec
from typing_extensions import override

from broker.errors import BadCursorError, BadQueryError, StaleCardError
from broker.ports import Directory, Feed, Listing, Page, Query
from broker.ranking import Ranked, rank
from rahba.clock import Clock
from rahba.encoding import Json, sha256_hex
from rahba.errors import BadInputError, RahbaError, TooLargeError
from rahba.ids import check_skill, key_of
from rahba.messages import MAX_CARD_BYTES, Card, open_card

MAX_LIMIT: Final = 100
MAX_TEXT: Final = 500
MAX_HEARTBEATS: Final = 10_000
_CARDS_KEPT: Final = 20_000
_CURSOR_CHARS: Final = 512
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """Who is listed, under which card, until when."""

    agent: str
    digest: str
    lease_until_ms: int


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a publication; ``returned``: the old lease had run out unnoticed."""

    outcome: Literal["new", "changed", "returned", "same", "stale"]
    lease_until_ms: int


class CardStore(Protocol):
    """Where cards and leases are kept; each method is atomic, by the server's clock."""

    async def put(self, card: Card, raw: bytes, digest: str) -> Put:
        """List a card for its ``ttl_ms`` unless a newer one is known."""
        ...

    async def touch(self, agents: Sequence[str]) -> list[str]:
        """Renew the leases that still run; return the agents whose don't."""
        ...

    async def drop(self, agent: str) -> bool:
        """Take an agent off; say whether it was listed."""
        ...

    async def live(self, *, skill: str | None, agent: str | None) -> list[Entry]:
        """Return who is listed now, narrowed by skill or agent."""
        ...

    async def cards(self, agents: Sequence[str]) -> list[bytes | None]:
        """Return the signed cards of agents; ``None`` for who has left."""
        ...

    async def sweep(self) -> list[str]:
        """Remove the entries whose lease is over and return them, each to one caller only."""
        ...


class CardDirectory(Directory):
    """The directory over any store. Anybody may publish: a card proves its agent."""

    def __init__(self, store: CardStore, *, feed: Feed, clock: Clock) -> None:
        """Keep cards in ``store``; tell ``feed`` who comes and goes."""
        self._store = store
        self._feed = feed
        self._clock = clock
        self._verified: OrderedDict[str, tuple[Card, bytes]] = OrderedDict()

    @override
    async def publish(self, raw: bytes) -> Listing:
        if len(raw) > MAX_CARD_BYTES:
            raise TooLargeError("card too large", size_bytes=len(raw), limit_bytes=MAX_CARD_BYTES)
        card = open_card(raw, now_ms=self._clock.now_ms())
        names = [entry.skill for entry in card.skills]
        if len(set(names)) != len(names):
            raise BadInputError("a card lists each skill once")
        digest = sha256_hex(raw)
        put = await self._store.put(card, raw, digest)
        if put.outcome == "stale":
            raise StaleCardError("a newer card is known, or the agent has left", agent=card.agent)
        self._remember(raw, digest, card)
        if put.outcome == "returned":
            await self._feed.publish("agent.left", {"agent": card.agent})
        if put.outcome != "same":
            listed: dict[str, Json] = {"agent": card.agent, "name": card.name, "skills": [*names]}
            await self._feed.publish("agent.listed", listed)
        return Listing(card, raw, digest, put.lease_until_ms)

    @override
    async def heartbeat(self, agents: Sequence[str]) -> list[str]:
        if len(agents) > MAX_HEARTBEATS:
            raise TooLargeError("too many heartbeats at once", limit=MAX_HEARTBEATS)
        return await self._store.touch(agents) if agents else []

    @override
    async def remove(self, agent: str) -> None:
        key_of(agent)
        if await self._store.drop(agent):
            await self._feed.publish("agent.left", {"agent": agent})

    @override
    async def find(self, query: Query) -> Page:
        after = _check_query(query)
        entries = await self._store.live(skill=query.skill, agent=query.agent)
        ranked = rank(await self._listings(entries), query)
        rest = [one for one in ranked if after is None or one.key > after]
        page = rest[: query.limit]
        return Page(
            listings=tuple(one.listing for one in page),
            reasons=tuple(one.reasons for one in page),
            next_cursor=_cursor(page[-1]) if len(rest) > len(page) else None,
        )

    @override
    async def get(self, agent: str) -> Listing | None:
        key_of(agent)
        entries = await self._store.live(skill=None, agent=agent)
        return next(iter(await self._listings(entries)), None)

    @override
    async def sweep(self) -> list[str]:
        gone = await self._store.sweep()
        for agent in gone:
            await self._feed.publish("agent.left", {"agent": agent})
        return gone

    async def _listings(self, entries: Sequence[Entry]) -> list[Listing]:
        new = [entry.agent for entry in entries if entry.digest not in self._verified]
        replaced: dict[str, str] = {}  # a card may change between the two questions
        for agent, raw in zip(new, await self._store.cards(new) if new else (), strict=True):
            if raw is None:
                continue
            replaced[agent] = sha256_hex(raw)
            try:  # its time was checked when it was published; since then the lease decides
                self._remember(raw, replaced[agent], open_card(raw, now_ms=None))
            except RahbaError as error:  # somebody wrote past the directory: nobody else suffers
                _log.warning("the listed card of %s does not stand: %s", agent, error)
        digests = [replaced.get(entry.agent, entry.digest) for entry in entries]
        known = [self._verified.get(digest) for digest in digests]
        return [
            Listing(*found, digest, entry.lease_until_ms)
            for entry, digest, found in zip(entries, digests, known, strict=True)
            if found is not None and found[0].agent == entry.agent  # else it left, or never stood
        ]

    def _remember(self, raw: bytes, digest: str, card: Card) -> None:
        self._verified[digest] = (card, raw)
        if len(self._verified) > _CARDS_KEPT:
            self._verified.popitem(last=False)


class _Place(msgspec.Struct, frozen=True, array_like=True):
    key: float | None
    agent: str


def _check_query(query: Query) -> tuple[float, str] | None:
    """Check a query and return the place after which its page begins."""
    if not 1 <= query.limit <= MAX_LIMIT:
        raise BadQueryError("limit out of range", limit=query.limit, most=MAX_LIMIT)
    if query.text is not None and len(query.text) > MAX_TEXT:
        raise BadQueryError("text too long", limit=MAX_TEXT)
    if query.max_price is not None and query.max_price < 0:
        raise BadQueryError("max_price is negative")
    if query.skill is not None:
        check_skill(query.skill)
    if query.agent is not None:
        key_of(query.agent)
    return _place(query.cursor) if query.cursor is not None else None


def _cursor(last: Ranked) -> str:
    key, agent = last.key
    place = _Place(None if key == float("inf") else key, agent)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode("ascii")


def _place(cursor: str) -> tuple[float, str]:
    if len(cursor) > _CURSOR_CHARS:
        raise BadCursorError("not a cursor of this directory")
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
        place = msgspec.json.decode(raw, type=_Place)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise BadCursorError("not a cursor of this directory") from error
    return (float("inf") if place.key is None else place.key, place.agent)
