"""From a query to places: which listings a search looks at, a gate at a time; pure.

A *tier* is the next ``GATE`` candidates in a static order, by what the caller cares about most, or
with a text the next ``WORDED_GATE`` by relevance. All of a tier stand before the next one, and are
ranked among each other (:mod:`broker.ranking`). With a text a tier ends only where the relevance
really falls, as long as no more than ``MAX_TIES`` are alike, and some ``MAX_DEPTH`` places are
shown at most. With meaning there is one tier: what is found by words and what is near in meaning,
fused by reciprocal rank (Cormack, Clarke and Büttcher 2009; ``RRF_K`` of 10 did better than the
usual 60 on four labelled sets).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from broker.catalogue import Catalogue, Dimension, Terms
from broker.ports import Query, Standing
from broker.ranking import Best, Candidate, Place, best_of, meets, rank
from broker.words import fold_tag, wanted_words

GATE: Final = 64
WORDED_GATE: Final = 32
MAX_TIES: Final = 200
MAX_DEPTH: Final = 5_000
RELEVANT: Final = 0.3
RRF_K: Final = 10
_ALIKE: Final = 1 - 1e-5
_DIMENSIONS: Final[tuple[Dimension, ...]] = ("price", "latency", "quality", "energy")

# What a text found, in order: minus the BM25 score, the agent, the place of its card.
Hit = tuple[float, str, int]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a tier begins: behind a static value and an agent, ``depth`` candidates down."""

    after: tuple[float, str] | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Measures:
    """What all tiers of one search are measured by: the best terms, and the best BM25 score."""

    best: Best
    top_score: float | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """Ranked places, the measures, and where the next tier starts (``None``: there is no more)."""

    places: list[Place]
    measures: Measures
    next_start: Start | None


@dataclass(frozen=True)
class Finder:
    """One search over a catalogue; ``near`` are (similarity, agent) by meaning."""

    catalogue: Catalogue
    query: Query
    standing: Standing | None = None
    seed: str = ""
    near: Sequence[tuple[float, str]] | None = None

    def tier(
        self,
        start: Start,
        measures: Measures | None = None,
        seen: AbstractSet[str] | None = None,
    ) -> Tier:
        """Return the tier that begins at ``start``; the first one sets the measures.

        Scores move while cards come and go. Who knows whom the tiers before have shown says so by
        ``seen``: nobody is shown twice then, and nobody missed.
        """
        if not self.query.text:
            candidates, following = self._posted(start)
            return self._ranked(candidates, following, None, measures)
        if self.near is not None:
            return self._ranked(self._fused(self.near), None, None, measures)
        return self._worded(start, measures, seen)

    def _ranked(
        self,
        candidates: list[Candidate],
        following: Start | None,
        top: float | None,
        measures: Measures | None,
    ) -> Tier:
        measures = measures or Measures(best_of(candidates), top)
        places = rank(candidates, self.query, measures.best, standing=self.standing, seed=self.seed)
        return Tier(places, measures, following)

    # Without a text.

    def _posted(self, start: Start) -> tuple[list[Candidate], Start | None]:
        catalogue, query = self.catalogue, self.query
        dimension, after = self._dimension(), start.after
        walk = catalogue.walk(
            dimension,
            skill=query.skill,
            tags=self._tags(),
            after=None if after is None else (int(after[0]), after[1]),
        )
        found: list[Candidate] = []
        last: tuple[float, str] | None = None
        for value, row, agent in walk:
            terms = catalogue.terms(row)
            if not self.unlimited and not meets(terms, query):
                continue
            if query.skill is None and not self._is_first(dimension, value, row, agent):
                continue
            if len(found) == GATE:
                return found, Start(last, start.depth + GATE)
            found.append(Candidate(agent, terms))
            last = (value, agent)
        return found, None

    def _dimension(self) -> Dimension:
        sort = self.query.sort
        if sort != "best" and sort != "relevance":  # noqa: PLR1714  # mypy follows this form only
            return sort
        weights = self.query.weights
        shares = (weights.price, weights.latency, weights.quality, weights.energy)
        return _DIMENSIONS[shares.index(max(shares))]

    def _tags(self) -> frozenset[str]:
        return frozenset(map(fold_tag, self.query.tags))

    def _is_first(self, dimension: Dimension, value: int, row: int, agent: str) -> bool:
        """Say whether a row is the first of its card that counts: a card is one candidate."""
        place = self.catalogue.place_of(agent)
        assert place is not None
        rows = self.catalogue.rows_of(place)
        if len(rows) == 1:
            return True
        others = [
            (self.catalogue.value(dimension, other), other)
            for other in rows
            if self._tags() <= self.catalogue.terms(other).tags
            and meets(self.catalogue.terms(other), self.query)
        ]
        return min(others) == (value, row)

    # By words.

    def _worded(
        self, start: Start, measures: Measures | None, seen: AbstractSet[str] | None
    ) -> Tier:
        depth = start.depth
        top = measures.top_score if measures is not None else None
        while True:
            hits, more = self._hits(depth)
            if top is None:
                top = -hits[0][0] if hits else 1.0
            after = start.after
            if seen:
                beyond = [hit for hit in hits if hit[1] not in seen]
            else:
                beyond = hits if after is None else [hit for hit in hits if hit[:2] > after]
            found = self._candidates(beyond, top)
            more = more and -hits[-1][0] >= self._least(top)
            if not more or len({one.agent for one in found}) > self.query.limit:
                break
            depth = 4 * len(hits)  # the limits of the query leave little: look much further
        deep = start.depth >= MAX_DEPTH or len(seen or ()) >= MAX_DEPTH
        following = Start(hits[-1][:2], len(hits)) if more and not deep else None
        return self._ranked(found, following, top, measures)

    def _hits(self, depth: int) -> tuple[list[Hit], bool]:
        """Return ``WORDED_GATE`` hits or more beyond a depth in order, and whether there are more.

        They end where the score falls: who is let in does not depend on who came first.
        """
        words, want = wanted_words(self.query.text or ""), depth + WORDED_GATE
        limit = want + WORDED_GATE
        while True:
            found = self._search(words, limit) if words else []
            falls = (
                at for at in range(want, len(found)) if found[at][0] < found[at - 1][0] * _ALIKE
            )
            edge = next(falls, None)
            if edge is None and len(found) == limit and limit >= depth + MAX_TIES:
                edge = limit - 1
            if edge is not None:
                return self._in_order(found[:edge]), True
            if len(found) < limit:
                return self._in_order(found), False
            limit = min(depth + (limit - depth) * 3, depth + MAX_TIES)

    def _search(self, words: list[str], limit: int) -> list[tuple[float, int]]:
        return self.catalogue.search(words, skill=self.query.skill, tags=self._tags(), limit=limit)

    def _in_order(self, found: Sequence[tuple[float, int]]) -> list[Hit]:
        agent_at = self.catalogue.agent_at
        return sorted([(-_short(score), agent_at(place) or "", place) for score, place in found])

    def _candidates(self, hits: Sequence[Hit], top: float) -> list[Candidate]:
        rows = self.catalogue.terms_at if self.free else self._rows
        least = self._least(top)
        return [
            Candidate(agent, terms, max(-negative, 0.0) / (top or 1.0), -negative)
            for negative, agent, place in hits
            if -negative >= least
            for terms in rows(place)
        ]

    def _least(self, top: float) -> float:
        """Return the score below which nothing is shown: far from the best, in another order."""
        return 0.0 if self.query.sort in {"best", "relevance"} else RELEVANT * top

    def _rows(self, place: int) -> list[Terms]:
        query = self.query
        rows = self.catalogue.terms_at(place)
        if self.free:
            return rows
        tags = self._tags()
        return [
            terms
            for terms in rows
            if (query.skill is None or terms.skill == query.skill)
            and tags <= terms.tags
            and meets(terms, query)
        ]

    @cached_property
    def unlimited(self) -> bool:
        """Say whether the query sets no limits on terms."""
        query = self.query
        limits = (query.max_price, query.max_latency_ms, query.min_quality, query.max_energy)
        return query.data_policy is None and all(limit is None for limit in limits)

    @cached_property
    def free(self) -> bool:
        """Say whether a text is all that the query asks for."""
        return self.unlimited and self.query.skill is None and not self.query.tags

    # By words and meaning.

    def _fused(self, near: Sequence[tuple[float, str]]) -> list[Candidate]:
        hits, _ = self._hits(0)
        by_words = _ranks([(negative, agent) for negative, agent, _ in hits])
        by_meaning = _ranks([(-_short(score), agent) for score, agent in near])
        both = (by_words, by_meaning)
        fused = [
            (-sum(1 / (RRF_K + ranks[agent]) for ranks in both if agent in ranks), agent)
            for agent in by_words | by_meaning
        ]
        found = []
        for agent, rank_ in _ranks(fused).items():
            place = self.catalogue.place_of(agent)
            if place is None:
                continue
            ranks = (by_words.get(agent), by_meaning.get(agent))
            relevance = 1 / math.log2(1 + rank_)
            found += [
                Candidate(agent, terms, relevance, None, ranks) for terms in self._rows(place)
            ]
        return found


def _short(score: float) -> float:
    """Keep five digits of a score: cards alike are equal, whichever engine weighed them."""
    return float(f"{score:.5g}")


def _ranks(keyed: Sequence[tuple[float, str]]) -> dict[str, int]:
    """Return each agent's rank from 1; equals share one."""
    ranks: dict[str, int] = {}
    last, place = None, 0
    for key, agent in sorted(keyed):
        if key != last:
            last, place = key, place + 1
        ranks[agent] = place
    return ranks
