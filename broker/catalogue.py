"""Who is listed, in columns: what ranking asks of a card without having the card; pure.

A *place* is a card's number; a *row* is one skill of a card with its posted terms. Both only grow:
a card that changes takes a new place, and the old one is struck out. Lists of rows by skill, by tag
and of all are kept in order of one *dimension* (price, latency, quality, energy), ties by agent, so
that the first of many are found without looking at the others, and in the same order whoever came
first. What an unverified card says here decides only what is looked at; whatever is shown is
verified (see :mod:`broker.directory`).
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Literal

import msgspec

from broker.textindex import TextIndex
from broker.words import SKILL_MARK, TAG_MARK, card_words, fold_tag, marks_of, wanted_marks
from rahba.messages import Card, Energy, SkillOffer

Dimension = Literal["price", "latency", "quality", "energy"]
UNKNOWN: Final = 2**62
PRIVACY: Final = {"sealed": 0, "logged": 1, "public": 2}
_EVERYBODY: Final = "*"
_TERMS_KEPT: Final = 50_000


class Terms(msgspec.Struct, frozen=True):
    """One skill of one card as posted; ``None`` where nothing is said.

    Prices in fals, latency in ms, quality in thousandths, energy (its upper end) in uWh;
    ``privacy`` from 0 (sealed) to 2 (public).
    """

    skill: str
    tags: frozenset[str]
    price: int | None
    latency_ms: int | None
    quality: int | None
    energy_uwh: int | None
    privacy: int
    negotiable: bool


def terms_of(card: Card) -> list[Terms]:
    """Return the terms of each skill; a card without any has one row of nothing."""
    rows = [_terms(card, entry) for entry in card.skills]
    privacy = PRIVACY[card.data_policy]
    return rows or [Terms("", frozenset(), None, None, None, None, privacy, negotiable=True)]


def _terms(card: Card, entry: SkillOffer) -> Terms:
    issues = entry.posted.issues if entry.posted is not None else None
    privacy = PRIVACY[card.data_policy]
    tags = frozenset(map(fold_tag, entry.tags))
    if issues is None:
        return Terms(entry.skill, tags, None, None, None, None, privacy, entry.negotiable)
    return Terms(
        entry.skill,
        tags,
        min(issues.price_fals, UNKNOWN - 1),
        issues.latency_ms,
        issues.quality,
        _energy(issues.energy),
        max(privacy, PRIVACY[issues.privacy]),
        entry.negotiable,
    )


def _energy(energy: Energy) -> int | None:
    return None if energy.method == "unknown" else max(energy.uwh, energy.high)


class _Order:
    """Rows in order of one dimension; what is new waits until somebody asks."""

    __slots__ = ("new", "rows", "struck")

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.new: list[int] = []
        self.struck = 0


class Catalogue:
    """The listed cards of a market, searchable by skill, tag and text."""

    def __init__(self, text: TextIndex) -> None:
        """Find words by ``text``, which must be empty."""
        self.text = text
        self._place: dict[str, int] = {}
        self._agents: list[str] = []
        self._gone = bytearray()
        self._digests = array("Q")
        self._first_row = array("Q")
        self._owner = array("I")
        self._columns: dict[Dimension, array[int]] = {
            "price": array("q"),
            "latency": array("q"),
            "quality": array("q"),
            "energy": array("q"),
        }
        self._skills: list[str] = []
        self._tags: list[frozenset[str]] = []
        self._tag_sets: dict[frozenset[str], frozenset[str]] = {}
        self._privacy = bytearray()
        self._negotiable = bytearray()
        self._orders: dict[str, dict[Dimension, _Order]] = {}
        self._terms: dict[int, Terms] = {}

    def __len__(self) -> int:
        """Return how many cards are listed."""
        return len(self._place)

    @property
    def struck(self) -> int:
        """Return how many places still take room though their cards have gone."""
        return len(self._agents) - len(self._place)

    def put(self, agent: str, digest: str, card: Card) -> int | None:
        """List a card in place of the agent's last; ``None`` if it is the same, else its place."""
        short = int(digest[:16], 16)
        before = self._place.get(agent)
        if before is not None and self._digests[before] == short:
            return None
        self.remove(agent)
        agent = sys.intern(agent)
        place = len(self._agents)
        self._place[agent] = place
        self._agents.append(agent)
        self._gone.append(0)
        self._digests.append(short)
        self._first_row.append(len(self._owner))
        for terms in terms_of(card):
            self._add_row(place, terms)
        self.text.add(place, card_words(card), marks_of(card))
        return place

    def remove(self, agent: str) -> None:
        """Strike out an agent's card; nothing happens if it is not listed."""
        place = self._place.pop(agent, None)
        if place is None:
            return
        self.text.remove(place)
        for row in self.rows_of(place):
            for key in self._keys_of(row):
                for order in self._orders[key].values():
                    order.struck += 1
        self._gone[place] = 1

    def place_of(self, agent: str) -> int | None:
        """Return where an agent's card is."""
        return self._place.get(agent)

    def agent_at(self, place: int) -> str | None:
        """Return whose card is at a place; ``None`` if it has gone."""
        return None if self._gone[place] else self._agents[place]

    def is_same(self, agent: str, digest: str) -> bool:
        """Say whether the agent's card here has this digest."""
        place = self._place.get(agent)
        return place is not None and self._digests[place] == int(digest[:16], 16)

    def settle(self) -> None:
        """End the loading of many cards: put every list in order."""
        self.text.settle()
        for key in list(self._orders):
            self._ordered(key, "price")

    def rows_of(self, place: int) -> range:
        """Return the rows of a card."""
        more = place + 1 < len(self._first_row)
        return range(
            self._first_row[place], self._first_row[place + 1] if more else len(self._owner)
        )

    def value(self, dimension: Dimension, row: int) -> int:
        """Return by what a row stands in the order of a dimension: less is better."""
        return self._columns[dimension][row]

    def terms(self, row: int) -> Terms:
        """Return a row as it was posted."""
        found = self._terms.get(row)
        if found is None:
            if len(self._terms) >= _TERMS_KEPT:
                self._terms.clear()
            found = self._terms[row] = self._read(row)
        return found

    def terms_at(self, place: int) -> list[Terms]:
        """Return the rows of a card as they were posted."""
        rows = self.rows_of(place)
        return [self.terms(rows.start)] if len(rows) == 1 else [self.terms(row) for row in rows]

    def walk(
        self,
        dimension: Dimension,
        *,
        skill: str | None,
        tags: frozenset[str],
        after: tuple[int, str] | None = None,
    ) -> Iterator[tuple[int, int, str]]:
        """Yield (value, row, agent) of a skill and tags, the best first; ties by agent.

        ``after`` begins behind a value and an agent. Of qualities the value is what is missing to
        1000, so that less is better everywhere; the unknown come last.
        """
        key = self._narrowest(skill, tags)
        order = self._ordered(key, dimension)
        if order is None:
            return
        begin = 0
        if after is not None:
            begin = bisect_right(order.rows, after, key=self._rank(dimension))
        column, owner, gone = self._columns[dimension], self._owner, self._gone
        by_skill = None if key == f"{SKILL_MARK}{skill}" else skill
        for row in islice(order.rows, begin, None):
            place = owner[row]
            if gone[place] or (by_skill is not None and self._skills[row] != by_skill):
                continue
            if tags and not tags <= self._tags[row]:
                continue
            yield column[row], row, self._agents[place]

    def search(
        self, words: list[str], *, skill: str | None, tags: frozenset[str], limit: int
    ) -> list[tuple[float, int]]:
        """Return the best (BM25 score, place) of a skill and tags, best first."""
        return self.text.search(words, wanted_marks(skill, sorted(tags)), limit)

    def _read(self, row: int) -> Terms:
        price, latency, quality, energy = (
            None if column[row] == UNKNOWN else column[row] for column in self._columns.values()
        )
        return Terms(
            self._skills[row],
            self._tags[row],
            price,
            latency,
            None if quality is None else 1_000 - quality,
            energy,
            self._privacy[row],
            bool(self._negotiable[row]),
        )

    def _add_row(self, place: int, terms: Terms) -> None:
        row = len(self._owner)
        self._owner.append(place)
        quality = None if terms.quality is None else 1_000 - terms.quality
        values = (terms.price, terms.latency_ms, quality, terms.energy_uwh)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(UNKNOWN if value is None else value)
        self._skills.append(sys.intern(terms.skill))
        self._tags.append(self._tag_sets.setdefault(terms.tags, terms.tags))
        self._privacy.append(terms.privacy)
        self._negotiable.append(terms.negotiable)
        for key in self._keys_of(row):
            for order in self._orders.setdefault(key, {"price": _Order()}).values():
                order.new.append(row)

    def _keys_of(self, row: int) -> list[str]:
        keys = [f"{TAG_MARK}{tag}" for tag in self._tags[row]]
        return [_EVERYBODY, f"{SKILL_MARK}{self._skills[row]}", *keys]

    def _narrowest(self, skill: str | None, tags: frozenset[str]) -> str:
        if skill is None and not tags:
            return _EVERYBODY
        marks = wanted_marks(skill, sorted(tags))
        return min(marks, key=self._size)

    def _size(self, key: str) -> int:
        orders = self._orders.get(key)
        return 0 if orders is None else len(orders["price"].rows) + len(orders["price"].new)

    def _rank(self, dimension: Dimension) -> Callable[[int], tuple[int, str]]:
        column, owner, agents = self._columns[dimension], self._owner, self._agents
        return lambda row: (column[row], agents[owner[row]])

    def _ordered(self, key: str, dimension: Dimension) -> _Order | None:
        """Return a list in order; puts in what is new, drops the struck when they are many."""
        orders = self._orders.get(key)
        if orders is None:
            return None
        order = orders.get(dimension)
        if order is None:
            order = orders[dimension] = _Order()
            order.new = [*orders["price"].rows, *orders["price"].new]
        if order.struck * 2 > len(order.rows) + len(order.new):
            order.rows = [row for row in order.rows if not self._gone[self._owner[row]]]
            order.new = [row for row in order.new if not self._gone[self._owner[row]]]
            order.struck = 0
        if order.new:
            order.rows = _merged(order.rows, order.new, self._rank(dimension))
            order.new = []
        return order


def _merged(rows: list[int], new: list[int], rank: Callable[[int], tuple[int, str]]) -> list[int]:
    """Merge into a list in order; only the new rows are compared, the others are copied."""
    new = sorted(new, key=rank)
    if not rows:
        return new
    merged: list[int] = []
    begin = 0
    for row in new:
        end = bisect_left(rows, rank(row), lo=begin, key=rank)
        merged += rows[begin:end]
        merged.append(row)
        begin = end
    merged += rows[begin:]
    return merged
