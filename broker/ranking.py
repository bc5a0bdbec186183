"""Which listing comes first, and why; pure.

1. *Gate*: only what is relevant is looked at (shares a word or the meaning; see
   :mod:`broker.finding`).
2. *Mandate*: what breaks a limit of the query is left out.
3. *Utility*: price, latency and energy beside the best in the gate, quality as posted, weighed by
   the caller's weights; times the lower bound of the success rate that the agent has earned.
4. With a text, relevance times what of it is left by a low utility; without, the utility alone.
5. *Exploration*: one place in twenty of those who have too few deals to be judged takes a sample
   of what its success rate may be (Thompson 1933) instead of the lower bound, as long as no more
   than ``STAKE_FALS`` is at stake. What is drawn depends on a seed, the query and the agent alone.

Ties are broken by agent id, and references come with the gate, so that the order never depends on
who came first, nor a place on a page on who comes and goes meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from broker.catalogue import PRIVACY, Terms, terms_of
from broker.ports import Query, Standing
from broker.words import fold_tag
from rahba.messages import Card
from rahba.money import format_rhb

VALUE_SHARE: Final = 0.3
PRIOR: Final = 500
EXPLORED_SHARE: Final = 0.05
NEW_DEALS: Final = 6
STAKE_FALS: Final = 10_000_000
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Candidate:
    """One skill of one agent that came through the gate; ``relevance`` above 0, the best is 1."""

    agent: str
    terms: Terms
    relevance: float | None = None
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Best:
    """The lowest price (fals), latency (ms) and energy (uWh) in the gate; ``None``: unknown."""

    price: int | None
    latency_ms: int | None
    energy_uwh: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """A candidate in its place: smaller ``key`` first; ``explored`` in thousandths, if drawn."""

    candidate: Candidate
    key: tuple[float, str]
    bound: int | None
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
    places: dict[str, Place] = {}
    for candidate in candidates:
        place = _place(candidate, query, best, standing, seed)
        before = places.get(candidate.agent)
        if before is None or place.key < before.key:
            places[candidate.agent] = place
    return sorted(places.values(), key=lambda place: place.key)


def reasons(place: Place, best: Best) -> tuple[str, ...]:
    """Say for people why a listing stands where it does."""
    terms, said = place.candidate.terms, list(place.candidate.why)
    said.append(_price_reason(terms.price, best.price))
    if terms.price is not None:
        said += [f"latency {terms.latency_ms} ms", f"quality {terms.quality} of 1000 posted"]
        if terms.energy_uwh is not None:
            said.append(f"energy {terms.energy_uwh} uWh")
    if place.explored is not None:
        said.append(f"exploration: a newcomer, drawn at {place.explored} of 1000")
    elif place.bound is not None:
        said.append(f"succeeds at least {place.bound} times in 1000")
    return tuple(said)


def _place(
    candidate: Candidate, query: Query, best: Best, standing: Standing | None, seed: str
) -> Place:
    bound, explored = None, None
    if standing is not None:
        bound = standing.lower_bound(candidate.agent)
        explored = _explored(candidate, standing, seed)
    trust = next(value for value in (explored, bound, PRIOR) if value is not None) / 1_000
    key = _key(candidate, query, utility(candidate.terms, query, best) * trust)
    return Place(candidate, (round(key, _DIGITS), candidate.agent), bound, explored)


def _key(candidate: Candidate, query: Query, worth: float) -> float:
    terms, relevance = candidate.terms, candidate.relevance
    if query.sort == "best":
        share = 1.0 if relevance is None else VALUE_SHARE
        return -(1.0 if relevance is None else relevance) * (1 - share + share * worth)
    values = {
        "relevance": None if relevance is None else -relevance,
        "price": terms.price,
        "latency": terms.latency_ms,
        "quality": None if terms.quality is None else -terms.quality,
        "energy": terms.energy_uwh,
    }
    value = values[query.sort]
    return float("inf") if value is None else float(value)


def utility(terms: Terms, query: Query, best: Best) -> float:
    """Return what a row is worth to the caller, from 0 to 1; what is not posted counts nothing."""
    weights = query.weights
    total = weights.price + weights.latency + weights.quality + weights.energy
    worth = (
        weights.price * _near(best.price, terms.price)
        + weights.latency * _near(best.latency_ms, terms.latency_ms)
        + weights.quality * (terms.quality or 0) / 1_000
        + weights.energy * _near(best.energy_uwh, terms.energy_uwh)
    )
    return worth / total


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


def _price_reason(price: int | None, cheapest: int | None) -> str:
    if price is None:
        return "open to bargaining"
    if cheapest is None or price <= cheapest:
        return f"lowest posted price: {format_rhb(price)} RHB"
    if cheapest == 0:
        return f"posted price: {format_rhb(price)} RHB, others ask nothing"
    return f"posted price: {format_rhb(price)} RHB, {price / cheapest:.1f} times the lowest"


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
