"""The local index of a process: the catalogue, kept up with the stream of changes.

It is loaded at the first search, card by card, and from then on brought up to date *before* each
search: whatever was listed or left before a search began is seen by it. Searches that come
together share one look. Where changes were lost (the stream was trimmed meanwhile, or the server
emptied) all cards are read anew.

Cards are not verified here; :mod:`broker.directory` verifies what it shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from broker.cards import CardStore, Entry, peek_card
from broker.catalogue import Catalogue
from broker.textindex import TextIndex
from rahba.encoding import sha256_hex
from rahba.errors import RahbaError
from rahba.messages import Card

REBUILD_AT: Final = 20_000
FOLLOW_EVERY_S: Final = 0.5
_log: Final = logging.getLogger(__name__)

# What searches the words of a market of this many cards.
MakeText = Callable[[int], TextIndex]
Learn = Callable[[Card], None]


class LocalIndex:
    """A catalogue that is never older than the question; for the tasks of one loop."""

    def __init__(
        self,
        store: CardStore,
        make_text: MakeText,
        known: Callable[[str], Card | None],
        on_new: Learn | None = None,
    ) -> None:
        """Read from ``store``; ``known`` returns a card that was decoded before, by digest."""
        self._store = store
        self._make_text = make_text
        self._known = known
        self._on_new = on_new
        self._catalogue: Catalogue | None = None
        self._position = "0-0"
        self._size = 0
        self._lock = asyncio.Lock()
        self._begun = 0
        self._ended = 0
        self._rebuilding: asyncio.Task[None] | None = None

    @property
    def catalogue(self) -> Catalogue | None:
        """Return the catalogue as it is; ``None`` before the first search."""
        return self._catalogue

    async def fresh(self) -> Catalogue:
        """Return the catalogue with everything that changed before this call."""
        asked = self._begun
        async with self._lock:
            if self._catalogue is None or self._ended <= asked:
                self._begun += 1
                turn = self._begun
                await self._catch_up()
                self._ended = turn
            assert self._catalogue is not None
            return self._catalogue

    async def look(self, agents: Sequence[str]) -> list[Entry | None] | None:
        """Return who of these is listed; ``None`` if the catalogue is not fresh any more."""
        catalogue = self._catalogue
        fresh, entries = await self._store.look(self._position, agents)
        return entries if fresh and catalogue is self._catalogue else None

    async def follow(self) -> None:
        """Keep up for ever, so that a search finds little left to do."""
        while True:
            try:
                await self.fresh()
            except RahbaError as error:
                _log.warning("the index does not follow: %s", error)
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def close(self) -> None:
        """Stop what runs beside the searches."""
        if self._rebuilding is not None:
            self._rebuilding.cancel()
            await asyncio.gather(self._rebuilding, return_exceptions=True)

    async def _catch_up(self) -> None:
        if self._catalogue is None:
            self._catalogue, self._position = await self._load()
        while True:
            news = await self._store.changes(self._position)
            if news.lost:
                _log.info("changes were lost: reading every card anew")
                self._catalogue, self._position = await self._load()
                continue
            if not news.changes:
                break
            await self._apply(self._catalogue, news.changes)
            self._position = news.position
        if self._is_due() and (self._rebuilding is None or self._rebuilding.done()):
            self._rebuilding = asyncio.create_task(self._rebuild())

    async def _load(self) -> tuple[Catalogue, str]:
        """Read every card; what changes meanwhile follows from the position returned."""
        position, self._size = await self._store.position(), await self._store.count()
        catalogue = Catalogue(self._make_text(self._size))
        cursor = "0"
        while True:
            cursor, cards = await self._store.scan(cursor)
            self._put(catalogue, cards)
            if cursor == "0":
                break
        await asyncio.to_thread(catalogue.settle)
        return catalogue, position

    async def _apply(self, catalogue: Catalogue, changes: Iterable[tuple[str, str]]) -> None:
        last = {agent: kind for kind, agent in changes if agent}
        listed = [agent for agent, kind in last.items() if kind == "listed"]
        raws = await self._store.cards(listed) if listed else []
        for agent, raw in zip(listed, raws, strict=True):
            if raw is None:
                catalogue.remove(agent)
        for agent, kind in last.items():
            if kind == "left":
                catalogue.remove(agent)
        found = zip(listed, raws, strict=True)
        self._put(catalogue, ((agent, raw) for agent, raw in found if raw is not None))

    def _put(self, catalogue: Catalogue, cards: Iterable[tuple[str, bytes]]) -> None:
        for agent, raw in cards:
            digest = sha256_hex(raw)
            if catalogue.is_same(agent, digest):
                continue
            try:
                card = self._known(digest) or peek_card(raw)
                place = catalogue.put(agent, digest, card) if card.agent == agent else None
            except RahbaError as error:  # somebody wrote past the directory: nobody else suffers
                catalogue.remove(agent)
                _log.warning("the listed card of %s cannot be read: %s", agent, error)
                continue
            if place is not None and self._on_new is not None:
                self._on_new(card)

    def _is_due(self) -> bool:
        """Say whether the struck take much room, or the market has outgrown what searches it."""
        catalogue = self._catalogue
        assert catalogue is not None
        outgrown = len(catalogue) > REBUILD_AT and len(catalogue) > 2 * self._size
        return outgrown or catalogue.struck > REBUILD_AT + len(catalogue)

    async def _rebuild(self) -> None:
        """Load a second catalogue while the first one answers; then change over."""
        catalogue, position = await self._load()
        async with self._lock:
            self._catalogue, self._position = catalogue, position
