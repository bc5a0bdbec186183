"""Which listing comes first, and why; pure.

1. *Gate*: only what is relevant is looked at (shares a word or the meaning; see
   :mod:`broker.finding`).
2. *Mandate*: what breaks a limit of the query is left out.
3. *Utility*: price, latency and energy beside the best in the gate, quality as posted, weighed by
   the caller's weights; times the lower bound of the success rate that the agent has earned.
4. With a text, relevance times what of it is left by a low utility; without, the utility alone.
5. *Exploration*: one place in twenty of those who have too few deals to be judged takes a sample
   of what its success rate may be (Thompson 1933) instead of the lower bound, as long as no more
   than ``STAKE_FALS`` is at stake, and somebody in the gate is no newcomer. What is drawn depends
   on a seed, the query and the agent alone.

Ties are broken by agent id, and references come with the gate, so that the order never depends on
who came first, nor a place on a page on who comes and goes meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from typing import Final

import msgspec

from broker.catalogue import PRIVACY, Terms, terms_of
from broker.ports import Query, Standing, Weights
from broker.words import fold_tag
from rahba.messages import Card
from rahba.money import format_rhb

VALUE_SHARE: Final = 0.3
PRIOR: Final = 500
EXPLORED_SHARE: Final = 0.05
NEW_DEALS: Final = 6
STAKE_FALS: Final = 10_000_000
_DIGITS: Final = 9


class Candidate(msgspec.Struct, frozen=True):
    """One skill of one agent that came through the gate.

    ``relevance`` is above 0, and 1 for the best. It comes of a ``score`` (BM25), or of ``ranks`` by
    words and by meaning (``None``: not among the found), or of how many ``shared`` words there are.
    """

    agent: str
    terms: Terms
    relevance: float | None = None
    score: float | None = None
    ranks: tuple[int | None, int | None] | None = None
    shared: int | None = None


class Best(msgspec.Struct, frozen=True):
    """The lowest price (fals), latency (ms) and energy (uWh) in the gate; ``None``: unknown."""

    price: int | None
    latency_ms: int | None
    energy_uwh: int | None


class Place(msgspec.Struct, frozen=True):
    """A candidate in its place: smaller ``key`` first; ``explored`` in thousandths, if drawn."""

    candidate: Candidate
    key: tuple[float, str]
    bound: int | None = None
    explored: int | None = None


def meets(terms: Terms, query: Query) -> bool:
    """Say whether a row keeps the limits of a query."""
    if query.data_policy is not None and terms.privacy > PRIVACY[query.data_policy]:
        return False
    # Who is open to bargaining may come down to a price; the rest is as it was posted.
    if terms.negotiable:
        return terms.price is None or _keeps(terms, query)
    priced = terms.price is not None or query.max_price is None
    return priced and not _above(terms.price, query.max_price) and _keeps(terms, query)


def offered(card: Card, query: Query) -> list[Terms]:
    """Return the rows of a card that a query is about and whose limits they keep."""
    wanted = frozenset(map(fold_tag, query.tags))
    if query.agent is not None and card.agent != query.agent:
        return []
    return [
        terms
        for terms in terms_of(card)
        if (query.skill is None or terms.skill == query.skill)
        and wanted <= terms.tags
        and meets(terms, query)
    ]


def best_of(candidates: Sequence[Candidate]) -> Best:
    """Return what the gate's candidates are measured against."""
    rows = [candidate.terms for candidate in candidates]
    return Best(
        min((row.price for row in rows if row.price is not None), default=None),
        min((row.latency_ms for row in rows if row.latency_ms is not None), default=None),
        min((row.energy_uwh for row in rows if row.energy_uwh is not None), default=None),
    )


def rank(
    candidates: Sequence[Candidate],
    query: Query,
    best: Best,
    *,
    standing: Standing | None = None,
    seed: str = "",
) -> list[Place]:
    """Return one place an agent, the best first; an agent comes in by its best row."""
    key = _sorted_by_terms(query) if query.sort != "best" else _worth(query, best)
    places: dict[str, Place] = {}
    # Where all are new, there is nobody to try them against.
    drawn = seed if standing is not None and _any_proven(candidates, standing) else None
    for candidate in candidates:
        agent = candidate.agent
        if standing is None:
            place = Place(candidate, (key(candidate, PRIOR), agent))
        else:
            place = _judged(candidate, key, standing, drawn)
        before = places.setdefault(agent, place)
        if place.key < before.key:
            places[agent] = place
    return sorted(places.values(), key=_by_key)


def reasons(place: Place, best: Best) -> tuple[str, ...]:
    """Say for people why a listing stands where it does."""
    terms = place.candidate.terms
    said = [*_relevance_reason(place.candidate), _price_reason(terms.price, best.price)]
    if terms.price is not None:
        said += [f"latency {terms.latency_ms} ms", f"quality {terms.quality} of 1000 posted"]
        if terms.energy_uwh is not None:
            said.append(f"energy {terms.energy_uwh} uWh")
    if place.explored is not None:
        said.append(f"exploration: a newcomer, drawn at {place.explored} of 1000")
    elif place.bound is not None:
        said.append(f"succeeds at least {place.bound} times in 1000")
    return tuple(said)


_by_key: Final = attrgetter("key")


def _judged(
    candidate: Candidate,
    key: Callable[[Candidate, int], float],
    standing: Standing,
    seed: str | None,
) -> Place:
    bound = standing.lower_bound(candidate.agent)
    explored = None if seed is None else _explored(candidate, standing, seed)
    trust = next(value for value in (explored, bound, PRIOR) if value is not None)
    return Place(candidate, (key(candidate, trust), candidate.agent), bound, explored)


def _worth(query: Query, best: Best) -> Callable[[Candidate, int], float]:
    """Return what puts the most useful and relevant first."""
    worth_of = utility(query.weights, best)

    def key(candidate: Candidate, trust: int) -> float:
        worth = worth_of(candidate.terms) * trust / 1_000
        relevance = candidate.relevance
        if relevance is None:
            return -round(worth, _DIGITS)
        return -round(relevance * (1 - VALUE_SHARE + VALUE_SHARE * worth), _DIGITS)

    return key


def _sorted_by_terms(query: Query) -> Callable[[Candidate, int], float]:
    """Return what puts the least of what the query sorts by first, the unknown last."""

    def key(candidate: Candidate, _trust: int) -> float:
        terms, relevance = candidate.terms, candidate.relevance
        values = {
            "relevance": None if relevance is None else -relevance,
            "price": terms.price,
            "latency": terms.latency_ms,
            "quality": None if terms.quality is None else -terms.quality,
            "energy": terms.energy_uwh,
        }
        value = values[query.sort]
        return math.inf if value is None else float(value)

    return key


def utility(weights: Weights, best: Best) -> Callable[[Terms], float]:
    """Return what a row is worth to the caller, from 0 to 1; what is not posted counts nothing."""
    total = weights.price + weights.latency + weights.quality + weights.energy
    for_price, for_latency = weights.price / total, weights.latency / total
    for_quality, for_energy = weights.quality / total / 1_000, weights.energy / total
    price, latency, energy = best.price, best.latency_ms, best.energy_uwh

    def worth(terms: Terms) -> float:
        if terms.price is None:
            return 0.0
        return (
            for_price * _near(price, terms.price)
            + for_latency * _near(latency, terms.latency_ms)
            + for_quality * (terms.quality or 0)
            + (for_energy * _near(energy, terms.energy_uwh) if energy is not None else 0.0)
        )

    return worth


def _near(best: int | None, value: int | None) -> float:
    if value is None or best is None:
        return 0.0
    return 1.0 if value <= best else (best + 1) / (value + 1)


def _keeps(terms: Terms, query: Query) -> bool:
    """Say whether posted terms keep the limits; what is not said keeps none."""
    if query.max_energy is not None and terms.energy_uwh is None:
        return False
    if query.max_latency_ms is not None and terms.latency_ms is None:
        return False
    return (
        (terms.quality or 0) >= (query.min_quality or 0)
        and not _above(terms.latency_ms, query.max_latency_ms)
        and not _above(terms.energy_uwh, query.max_energy)
    )


def _above(value: int | None, limit: int | None) -> bool:
    return value is not None and limit is not None and value > limit


def _relevance_reason(candidate: Candidate) -> list[str]:
    if candidate.score is not None:
        return [f"relevance {candidate.score:.2f}"]
    if candidate.shared is not None:
        return [f"relevance: {candidate.shared} words shared"]
    if candidate.ranks is None:
        return []
    by_words, by_meaning = candidate.ranks
    words = "no word shared" if by_words is None else f"place {by_words} by words"
    meaning = "none" if by_meaning is None else f"place {by_meaning}"
    return [f"relevance: {words}, {meaning} by meaning"]


@lru_cache(maxsize=1_024)
def _price_reason(price: int | None, cheapest: int | None) -> str:
    if price is None:
        return "open to bargaining"
    if cheapest is None or price <= cheapest:
        return f"lowest posted price: {format_rhb(price)} RHB"
    if cheapest == 0:
        return f"posted price: {format_rhb(price)} RHB, others ask nothing"
    return f"posted price: {format_rhb(price)} RHB, {price / cheapest:.1f} times the lowest"


def _any_proven(candidates: Sequence[Candidate], standing: Standing) -> bool:
    return any(sum(standing.outcomes(one.agent)) > NEW_DEALS for one in candidates)


def _explored(candidate: Candidate, standing: Standing, seed: str) -> int | None:
    """Draw what a newcomer's success rate may be, for one in twenty of them."""
    price = candidate.terms.price
    if price is None or price > STAKE_FALS:
        return None
    good, bad = standing.outcomes(candidate.agent)
    if good + bad > NEW_DEALS:
        return None
    drawn = sha256(f"{seed} {candidate.agent}".encode()).digest()
    uniform = [int.from_bytes(drawn[at : at + 4]) / 2**32 for at in range(0, 32, 4)]
    if uniform[-1] >= EXPLORED_SHARE:
        return None
    # The a-th smallest of a + b - 1 uniform numbers is distributed as Beta(a, b).
    return round(sorted(uniform[: good + bad + 1])[good] * 1_000)
