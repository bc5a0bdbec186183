"""The directory as the market uses it: verified cards under leases, ranked.

A card is verified when it is published, and once more a process when it is shown, however often
it is found; what is cached is the decoded card by digest, never who is listed. Searches run over a
local index (:mod:`broker.index`); whether a lease still runs is asked of the store for whatever is
about to be shown, by the server's clock: nothing stale is returned.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from typing_extensions import override

from broker.bulk import MAX_AT_ONCE, verify_many
from broker.cards import CardStore, Entry, Put
from broker.catalogue import Catalogue
from broker.cursors import Cursor, cursor_of, fingerprint, read_cursor
from broker.errors import StaleCardError
from broker.finding import Finder, Measures, Start, Tier
from broker.index import LocalIndex, MakeText
from broker.meaning import Meaning
from broker.ports import Directory, Embedder, Feed, Listing, Page, Published, Query, Standing
from broker.queries import check_query
from broker.ranking import Best, Candidate, Place, best_of, offered, rank, reasons
from broker.textindex import PlainIndex
from broker.words import card_words, wanted_words
from rahba.clock import Clock
from rahba.encoding import Json, sha256_hex
from rahba.errors import BadInputError, RahbaError, TooLargeError
from rahba.ids import key_of
from rahba.messages import MAX_CARD_BYTES, Card, open_card

MAX_HEARTBEATS: Final = 10_000
_CARDS_KEPT: Final = 20_000
_SEARCHES_KEPT: Final = 32
_TIERS_KEPT: Final = 4
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Search:
    """What a search may use besides the cards; nothing of it is needed.

    ``embedder`` finds by meaning; ``standing`` says what agents have earned (without it all count
    the same, and none is explored); ``seed`` is what exploration is drawn from, asked each search.
    """

    embedder: Embedder | None = None
    standing: Standing | None = None
    seed: Callable[[], str] | None = None


@dataclass(slots=True)
class _Shown:
    """A page as it is filled."""

    listings: list[Listing] = field(default_factory=list)
    reasons: list[tuple[str, ...]] = field(default_factory=list)
    start: Start = field(default_factory=Start)
    tier: Tier = field(default_factory=lambda: Tier([], Measures(Best(None, None, None)), None))
    last_key: tuple[float, str] | None = None

    def add(self, start: Start, tier: Tier, place: Place, listing: Listing) -> None:
        """Show one more listing."""
        self.start, self.tier, self.last_key = start, tier, place.key
        self.listings.append(listing)
        self.reasons.append(reasons(place, tier.measures.best))

    def cursor(self, query: str, seed: str, search: str) -> str:
        """Return where the next page begins."""
        return cursor_of(
            query,
            seed,
            search,
            start=self.start,
            place=self.last_key,
            measures=self.tier.measures,
        )

    def made(self, next_cursor: str | None) -> Page:
        """Return the page."""
        return Page(tuple(self.listings), tuple(self.reasons), next_cursor)


@dataclass(slots=True)
class _Search:
    """A search of several pages: its tiers as they were ranked, and whom they hold."""

    tiers: OrderedDict[Start, Tier] = field(default_factory=OrderedDict)
    seen: set[str] = field(default_factory=set)

    def tier(self, finder: Finder, start: Start, measures: Measures | None) -> Tier:
        """Return a tier as it was, or rank it now."""
        tier = self.tiers.get(start)
        if tier is None:
            tier = self.tiers[start] = finder.tier(start, measures, self.seen)
            if finder.query.text:  # only there do scores move; how deep it goes is limited
                self.seen.update(place.candidate.agent for place in tier.places)
            elif len(self.tiers) > _TIERS_KEPT:
                self.tiers.popitem(last=False)
        return tier


class CardDirectory(Directory):
    """The directory over any store. Anybody may publish: a card proves its agent."""

    def __init__(
        self,
        store: CardStore,
        *,
        feed: Feed,
        clock: Clock,
        make_text: MakeText | None = None,
        search: Search | None = None,
    ) -> None:
        """Keep cards in ``store``; tell ``feed`` who comes and goes.

        Args:
            store: where cards and leases are.
            feed: who is told.
            clock: judges the age of cards that are published.
            make_text: what searches the words of so many cards; posting lists by default.
            search: what searches may use besides.
        """
        self._store = store
        self._feed = feed
        self._clock = clock
        search = search or Search()
        self._meaning = Meaning(search.embedder) if search.embedder is not None else None
        self._standing = search.standing
        self._seed = search.seed or (lambda: "")
        self._verified: OrderedDict[str, tuple[Card, bytes]] = OrderedDict()
        self._searches: OrderedDict[str, _Search] = OrderedDict()
        self._count = itertools.count()
        self._index = LocalIndex(
            store,
            make_text or (lambda _: PlainIndex()),
            self._known,
            self._meaning.note if self._meaning is not None else None,
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
        seed = cursor.seed if cursor is not None else self._seed()[:32]
        catalogue = self._index.catalogue
        if catalogue is not None:  # as a rule nothing has changed, and one question is enough
            finder, notes = await self._finder(query, catalogue, seed)
            page = await self._page(finder, cursor, seed, unless_changed=True)
            if page is not None:
                return replace(page, notes=notes)
        finder, notes = await self._finder(query, await self._index.fresh(), seed)
        page = await self._page(finder, cursor, seed, unless_changed=False)
        assert page is not None
        return replace(page, notes=notes)

    @override
    async def get(self, agent: str) -> Listing | None:
        key_of(agent)
        entries = await self._store.present([agent])
        return next(iter(await self._listings(entries)), None)

    @override
    def judge_by(self, standing: Standing) -> None:
        self._standing = standing

    @override
    async def count(self) -> int:
        return await self._store.count()

    @override
    async def sweep(self) -> list[str]:
        gone = await self._store.sweep()
        for agent in gone:
            await self._feed.publish("agent.left", {"agent": agent})
        return gone

    @override
    async def follow(self) -> None:
        await self._index.follow()

    async def learned(self) -> None:
        """Wait until the meaning of every listed card is known, if meaning is searched."""
        await self._index.fresh()
        if self._meaning is not None:
            await self._meaning.learned()

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
        shared = None
        if query.text:
            shared = len(set(wanted_words(query.text)).intersection(card_words(listing.card)))
            if not shared:
                return Page((), (), None)
        candidates = [Candidate(agent, terms, shared=shared) for terms in rows]
        best = best_of(candidates)
        place = rank(candidates, query, best, standing=self._standing)[0]
        return Page((listing,), (reasons(place, best),), None)

    async def _finder(
        self, query: Query, catalogue: Catalogue, seed: str
    ) -> tuple[Finder, tuple[str, ...]]:
        near, notes = None, []
        if query.text and query.meaning and self._meaning is None:
            notes = ["meaning: no embeddings are configured"]
        if query.text and query.meaning is not False and self._meaning is not None:
            self._meaning.forget(catalogue)
            near, notes = await self._meaning.near(query.text)
        drawn = f"{seed} {fingerprint(query)}"
        return Finder(catalogue, query, self._standing, drawn, near), tuple(notes)

    async def _page(
        self, finder: Finder, cursor: Cursor | None, seed: str, *, unless_changed: bool
    ) -> Page | None:
        """Return who is listed now, from the cursor on, by verified cards.

        With ``unless_changed`` it is ``None`` if anybody came or went since the catalogue was read.
        """
        query, page = finder.query, _Shown()
        search = self._searches.get(cursor.search) if cursor is not None else None
        search = search or _Search()
        start: Start | None = cursor.start if cursor is not None else Start()
        measures = cursor.measures if cursor is not None else None
        behind = cursor.place if cursor is not None else None
        while start is not None:
            tier = search.tier(finder, start, measures)
            measures = tier.measures
            places = [place for place in tier.places if behind is None or place.key > behind]
            behind = None
            step = query.limit + 1  # the one more says whether there is another page
            for begin in range(0, max(len(places), 1), step):
                some = places[begin : begin + step]
                shown = await self._shown(some, query, unless_changed=unless_changed)
                if shown is None:
                    return None
                unless_changed = False
                for place, listing in shown:
                    if len(page.listings) == query.limit:
                        name = self._keep(search, cursor)
                        return page.made(page.cursor(fingerprint(query), seed, name))
                    page.add(start, tier, place, listing)
            start = tier.next_start
        return page.made(None)

    async def _shown(
        self, places: Sequence[Place], query: Query, *, unless_changed: bool
    ) -> list[tuple[Place, Listing]] | None:
        """Return the places whose agents are listed and fit; ``None`` if anything has changed."""
        agents = [place.candidate.agent for place in places]
        if unless_changed:
            entries = await self._index.look(agents)
            if entries is None:
                return None
        else:
            entries = await self._store.present(agents)
        found = {listing.card.agent: listing for listing in await self._listings(entries)}
        shown = [(place, found.get(place.candidate.agent)) for place in places]
        return [
            (place, listing)
            for place, listing in shown
            if listing is not None and self._fits(listing, query)
        ]

    def _fits(self, listing: Listing, query: Query) -> bool:
        """Say whether a verified card is the one that was found, or fits the query all the same."""
        catalogue = self._index.catalogue
        if catalogue is not None and catalogue.is_same(listing.card.agent, listing.digest):
            return True
        return bool(offered(listing.card, query))

    async def _listings(self, entries: Sequence[Entry | None]) -> list[Listing]:
        here = [entry for entry in entries if entry is not None]
        known = {entry.digest: self._verified.get(entry.digest) for entry in here}
        new = [entry.agent for entry in here if known[entry.digest] is None]
        replaced: dict[str, str] = {}  # a card may change between the two questions
        for agent, raw in zip(new, await self._store.cards(new) if new else (), strict=True):
            if raw is None:
                continue
            digest = replaced[agent] = sha256_hex(raw)
            try:  # its time was checked when it was published; since then the lease decides
                card = open_card(raw, now_ms=None)
                known[digest] = (card, raw)
                self._remember(raw, digest, card)
            except RahbaError as error:  # somebody wrote past the directory: nobody else suffers
                _log.warning("the listed card of %s does not stand: %s", agent, error)
        digests = [replaced.get(entry.agent, entry.digest) for entry in here]
        return [
            Listing(*found, digest, entry.lease_until_ms)
            for entry, digest in zip(here, digests, strict=True)
            if (found := known.get(digest)) is not None
            and found[0].agent == entry.agent  # else it left, or never stood
        ]

    def _known(self, digest: str) -> Card | None:
        found = self._verified.get(digest)
        return found[0] if found is not None else None

    def _keep(self, search: _Search, cursor: Cursor | None) -> str:
        """Keep a search for its next pages: they show it as it was when it began."""
        if cursor is not None and cursor.search in self._searches:
            name = cursor.search
        else:
            name = f"{self._clock.now_ms():x}.{next(self._count):x}"
        self._searches[name] = search
        self._searches.move_to_end(name)
        if len(self._searches) > _SEARCHES_KEPT:
            self._searches.popitem(last=False)
        return name

    def _remember(self, raw: bytes, digest: str, card: Card) -> None:
        self._verified[digest] = (card, raw)
        if len(self._verified) > _CARDS_KEPT:
            self._verified.popitem(last=False)
