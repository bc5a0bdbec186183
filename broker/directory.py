"""The directory as the market uses it: verified cards under leases, ranked.

A card is verified when it is published, and once more a process when it is shown, however often
it is found; what is cached is the decoded card by digest, never who is listed. Searches run over a
local index (:mod:`broker.index`); whether a lease still runs is asked of the store for whatever is
about to be shown, by the server's clock: nothing stale is returned.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from typing_extensions import override

from broker.bulk import MAX_AT_ONCE, verify_many
from broker.cards import CardStore, Entry, Put
from broker.cursors import Cursor, cursor_of, fingerprint, read_cursor
from broker.errors import StaleCardError
from broker.finding import Finder, Measures, Start, Tier
from broker.index import LocalIndex, MakeText
from broker.meaning import Meaning
from broker.ports import Directory, Feed, Listing, Page, Published, Query, Standing
from broker.queries import check_query
from broker.ranking import Candidate as Row
from broker.ranking import Place, best_of, offered, rank, reasons
from broker.textindex import PlainIndex
from broker.words import card_words, wanted_words
from rahba.clock import Clock
from rahba.encoding import Json, sha256_hex
from rahba.errors import BadInputError, RahbaError, TooLargeError
from rahba.ids import key_of
from rahba.messages import MAX_CARD_BYTES, Card, open_card

MAX_HEARTBEATS: Final = 10_000
_CARDS_KEPT: Final = 20_000
_TIERS_KEPT: Final = 64
_log: Final = logging.getLogger(__name__)


class CardDirectory(Directory):
    """The directory over any store. Anybody may publish: a card proves its agent."""

    def __init__(
        self,
        store: CardStore,
        *,
        feed: Feed,
        clock: Clock,
        make_text: MakeText | None = None,
        meaning: Meaning | None = None,
        standing: Standing | None = None,
        seed: Callable[[], str] | None = None,
    ) -> None:
        """Keep cards in ``store``; tell ``feed`` who comes and goes.

        Args:
            store: where cards and leases are.
            feed: who is told.
            clock: judges the age of cards that are published.
            make_text: what searches the words of so many cards; posting lists by default.
            meaning: what searches by meaning, if anything does.
            standing: what agents have earned; without it all count the same, none is explored.
            seed: what exploration is drawn from; asked once a search.
        """
        self._store = store
        self._feed = feed
        self._clock = clock
        self._meaning = meaning
        self._standing = standing
        self._seed = seed or (lambda: "")
        self._verified: OrderedDict[str, tuple[Card, bytes]] = OrderedDict()
        self._tiers: OrderedDict[tuple[str, str, Start], Tier] = OrderedDict()
        self._index = LocalIndex(
            store,
            make_text or (lambda _: PlainIndex()),
            self._known,
            meaning.note if meaning is not None else None,
        )

    @override
    async def publish(self, raw: bytes) -> Listing:
        if len(raw) > MAX_CARD_BYTES:
            raise TooLargeError("card too large", size_bytes=len(raw), limit_bytes=MAX_CARD_BYTES)
        return await self._list(raw, open_card(raw, now_ms=self._clock.now_ms()))

    @override
    async def publish_many(self, raws: Sequence[bytes]) -> list[Published]:
        if len(raws) > MAX_AT_ONCE:
            raise TooLargeError("too many cards at once", size=len(raws), limit=MAX_AT_ONCE)
        return await verify_many(raws, self._list, now_ms=self._clock.now_ms())

    async def _list(self, raw: bytes, card: Card) -> Listing:
        names = [entry.skill for entry in card.skills]
        if len(set(names)) != len(names):
            raise BadInputError("a card lists each skill once")
        digest = sha256_hex(raw)
        put = await self._store.put(card, raw, digest)
        if put.outcome == "stale":
            raise StaleCardError("a newer card is known, or the agent has left", agent=card.agent)
        self._remember(raw, digest, card)
        await self._announce(card, put, names)
        return Listing(card, raw, digest, put.lease_until_ms)

    async def _announce(self, card: Card, put: Put, names: list[str]) -> None:
        if put.outcome == "returned":
            await self._feed.publish("agent.left", {"agent": card.agent})
        if put.outcome != "same":
            listed: dict[str, Json] = {"agent": card.agent, "name": card.name, "skills": [*names]}
            await self._feed.publish("agent.listed", listed)

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
        check_query(query)
        cursor = read_cursor(query.cursor, query) if query.cursor is not None else None
        if query.agent is not None:
            return await self._find_one(query, query.agent)
        catalogue = await self._index.fresh()
        near, notes = None, []
        if query.text and self._meaning is None and query.meaning:
            notes.append("meaning: no embeddings are configured")
        if query.text and self._meaning is not None and query.meaning is not False:
            near, said = await self._meaning.near(query.text, catalogue)
            notes += said
        name = fingerprint(query)
        seed = cursor.seed if cursor is not None else self._seed()[:32]
        finder = Finder(catalogue, query, self._standing, f"{seed} {name}", near)
        return await self._page(finder, cursor, name, seed, tuple(notes))

    @override
    async def get(self, agent: str) -> Listing | None:
        key_of(agent)
        entries = await self._store.present([agent])
        return next(iter(await self._listings(entries)), None)

    @override
    async def count(self) -> int:
        return await self._store.count()

    @override
    async def sweep(self) -> list[str]:
        gone = await self._store.sweep()
        for agent in gone:
            await self._feed.publish("agent.left", {"agent": agent})
        return gone

    async def follow(self) -> None:
        """Keep the local index up for ever, so that no search waits for it."""
        await self._index.follow()

    async def close(self) -> None:
        """Stop what runs beside the searches."""
        await self._index.close()
        if self._meaning is not None:
            await self._meaning.close()

    async def _find_one(self, query: Query, agent: str) -> Page:
        """Look at one agent, without the index: who asks for it by name knows what it wants."""
        listing = await self.get(agent)
        rows = offered(listing.card, query) if listing is not None else []
        if listing is None or not rows or query.cursor is not None:
            return Page((), (), None)
        said: tuple[str, ...] = ()
        if query.text:
            shared = set(wanted_words(query.text)).intersection(card_words(listing.card))
            if not shared:
                return Page((), (), None)
            said = (f"relevance: {len(shared)} words shared",)
        candidates = [Row(agent, terms, None, said) for terms in rows]
        best = best_of(candidates)
        place = rank(candidates, query, best, standing=self._standing)[0]
        return Page((listing,), (reasons(place, best),), None)

    async def _page(
        self, finder: Finder, cursor: Cursor | None, name: str, seed: str, notes: tuple[str, ...]
    ) -> Page:
        shown: list[tuple[Start, Tier, Place, Listing]] = []
        following = None
        async for found in self._live(finder, cursor, name, seed):
            if len(shown) == finder.query.limit:
                start, tier, place, _ = shown[-1]
                self._keep((name, seed, start), tier)
                following = cursor_of(name, seed, start, place.key, tier.measures)
                break
            shown.append(found)
        return Page(
            listings=tuple(listing for _, _, _, listing in shown),
            reasons=tuple(reasons(place, tier.measures.best) for _, tier, place, _ in shown),
            next_cursor=following,
            notes=notes,
        )

    async def _live(
        self, finder: Finder, cursor: Cursor | None, name: str, seed: str
    ) -> AsyncIterator[tuple[Start, Tier, Place, Listing]]:
        """Yield what may be shown from the cursor on: who is listed now, by a verified card."""
        start: Start | None = cursor.start if cursor is not None else Start()
        measures: Measures | None = cursor.measures if cursor is not None else None
        behind = cursor.place if cursor is not None else None
        while start is not None:
            tier = self._tiers.get((name, seed, start)) if cursor is not None else None
            tier = tier or finder.tier(start, measures)
            measures = tier.measures
            places = [place for place in tier.places if behind is None or place.key > behind]
            behind = None
            step = finder.query.limit + 1  # the one more says whether there is another page
            for begin in range(0, len(places), step):
                some = places[begin : begin + step]
                for place, listing in zip(some, await self._shown(some, finder.query), strict=True):
                    if listing is not None:
                        yield start, tier, place, listing
            start = tier.next_start

    async def _shown(self, places: Sequence[Place], query: Query) -> list[Listing | None]:
        """Return the listings of places; ``None`` for who has gone or fits no more."""
        entries = await self._store.present([place.candidate.agent for place in places])
        found = {listing.card.agent: listing for listing in await self._listings(entries)}
        listings = [found.get(place.candidate.agent) for place in places]
        return [
            listing if listing is not None and offered(listing.card, query) else None
            for listing in listings
        ]

    async def _listings(self, entries: Sequence[Entry | None]) -> list[Listing]:
        here = [entry for entry in entries if entry is not None]
        new = [entry.agent for entry in here if entry.digest not in self._verified]
        replaced: dict[str, str] = {}  # a card may change between the two questions
        for agent, raw in zip(new, await self._store.cards(new) if new else (), strict=True):
            if raw is None:
                continue
            replaced[agent] = sha256_hex(raw)
            try:  # its time was checked when it was published; since then the lease decides
                self._remember(raw, replaced[agent], open_card(raw, now_ms=None))
            except RahbaError as error:  # somebody wrote past the directory: nobody else suffers
                _log.warning("the listed card of %s does not stand: %s", agent, error)
        digests = [replaced.get(entry.agent, entry.digest) for entry in here]
        known = [self._verified.get(digest) for digest in digests]
        return [
            Listing(*found, digest, entry.lease_until_ms)
            for entry, digest, found in zip(here, digests, known, strict=True)
            if found is not None and found[0].agent == entry.agent  # else it left, or never stood
        ]

    def _known(self, digest: str) -> Card | None:
        found = self._verified.get(digest)
        return found[0] if found is not None else None

    def _keep(self, name: tuple[str, str, Start], tier: Tier) -> None:
        """Keep a tier for the next pages: they show the search as it was when it began."""
        self._tiers[name] = tier
        self._tiers.move_to_end(name)
        if len(self._tiers) > _TIERS_KEPT:
            self._tiers.popitem(last=False)

    def _remember(self, raw: bytes, digest: str, card: Card) -> None:
        self._verified[digest] = (card, raw)
        if len(self._verified) > _CARDS_KEPT:
            self._verified.popitem(last=False)
