"""Whom to order from when any seller will do: by what they delivered, or simply the cheapest; pure.

``thompson`` is Thompson sampling over discounted outcomes (Thompson 1933; Raj & Kalyani, "Taming
Non-stationary Bandits: A Bayesian Approach", 2017): for each seller draw how likely it delivers
from Beta(1 + successes, 1 + failures), and order from whom the draw promises most:

    promise = drawn x gain - (1 - drawn) x FAILURE_COST

``gain`` is the buyer's own score of the posted terms, price included, in parts of the best
thinkable; a failure gives the money back and costs time, which is ``FAILURE_COST``. Nobody is
excluded: a seller nobody knows draws from the whole range, and one that failed long ago comes back
as its failures are discounted.

``cheapest`` is the baseline, shown beside it: the lowest posted price, whatever came of it.

The same arms and seed always give the same order; the seed is the buyer's secret until then, so a
seller cannot tell when it will be drawn.

    >>> sure = Arm("sure", price_fals=100, gain=0.5, evidence=Evidence(90, 1))
    >>> lure = Arm("lure", price_fals=10, gain=0.9, evidence=Evidence(1, 40))
    >>> routed = route([sure, lure], how="thompson", seed=7)
    >>> routed.order[0], routed.cheapest
    (0, 1)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from agents.negotiation.mandate import Weights
from agents.negotiation.score import Yardstick
from agents.ports import Observations
from broker.knowledge.outcomes import Evidence
from broker.ports import Listing
from rahba.messages import Issues
from rahba.money import format_rhb

Route = Literal["thompson", "cheapest"]

FAILURE_COST: Final = 0.25
WORTH_OVER_USUAL: Final = 2
UNKNOWN: Final = Evidence()
_PRIOR: Final = 1.0


@dataclass(frozen=True, slots=True)
class Arm:
    """One seller that would serve: its price, the gain by its delivery (at most 1), its record."""

    seller: str
    price_fals: int
    gain: float
    evidence: Evidence = UNKNOWN


@dataclass(frozen=True, slots=True)
class Choice:
    """A seller in its place, with the reason."""

    seller: str
    price_fals: int
    reason: str


@dataclass(frozen=True, slots=True)
class Routing:
    """In which order sellers were to be tried, and who is the ``cheapest``: the baseline."""

    how: Route
    order: tuple[Choice, ...]
    cheapest: str


@dataclass(frozen=True, slots=True)
class Routed:
    """The arms' places, whom to try first; a reason each; and which arm is the ``cheapest``."""

    order: tuple[int, ...]
    reasons: tuple[str, ...]
    cheapest: int


def route(arms: Sequence[Arm], *, how: Route, seed: int) -> Routed:
    """Put sellers in the order in which to try them.

    Raises:
        ValueError: there is none.
    """
    if not arms:
        raise ValueError("no seller to choose from")
    by_price = sorted(
        range(len(arms)), key=lambda place: (arms[place].price_fals, _tie(arms[place].seller, seed))
    )
    cheapest = by_price[0]
    if how == "cheapest":
        reasons = tuple(f"posted at {format_rhb(arm.price_fals)} RHB" for arm in arms)
        return Routed(tuple(by_price), reasons, cheapest)
    draws = [draw(arm.evidence, seed=f"{seed}:{arm.seller}") for arm in arms]
    promises = [promise(arm.gain, drawn) for arm, drawn in zip(arms, draws, strict=True)]
    order = sorted(
        range(len(arms)), key=lambda place: (-promises[place], _tie(arms[place].seller, seed))
    )
    reasons = tuple(
        f"delivers {drawn:.0%} by the draw, on a record of {arm.evidence.successes:.1f} : "
        f"{arm.evidence.failures:.1f}; posted at {format_rhb(arm.price_fals)} RHB, "
        f"promise {value:+.3f}"
        for arm, drawn, value in zip(arms, draws, promises, strict=True)
    )
    return Routed(tuple(order), reasons, cheapest)


def put_in_order(
    listings: Sequence[Listing],
    skill: str,
    *,
    how: Route,
    limit_fals: int,
    weights: Weights,
    observations: Observations | None,
    seed: int,
    shown: int,
) -> tuple[list[Listing], Routing | None]:
    """Put the listings of a skill in the order in which to try them.

    Who posts no price comes last, in the order given; there is no routing if nobody does. The
    routing shows the first ``shown``, and the cheapest in any case.
    """
    priced = [(each, offer) for each in listings if (offer := _posted(each, skill)) is not None]
    if not priced:
        return list(listings), None
    known = None if observations is None else observations.prices(skill)
    usual = int(median(offer.price_fals for _, offer in priced)) if known is None else known.median
    yardstick = Yardstick(weights, worth_of(limit_fals, usual_fals=usual))
    arms = [
        Arm(
            each.card.agent,
            offer.price_fals,
            yardstick.score(offer) / yardstick.best,
            observations.evidence(skill, each.card.agent) if observations else UNKNOWN,
        )
        for each, offer in priced
    ]
    routed = route(arms, how=how, seed=seed)
    order = [
        Choice(arms[place].seller, arms[place].price_fals, routed.reasons[place])
        for rank, place in enumerate(routed.order)
        if rank < shown or place == routed.cheapest
    ]
    routing = Routing(how, tuple(order), arms[routed.cheapest].seller)
    ordered = [priced[place][0] for place in routed.order]
    return ordered + [each for each in listings if _posted(each, skill) is None], routing


def promise(gain: float, chance: float) -> float:
    """Return what an order promises, if the seller delivers with this chance."""
    return chance * gain - (1 - chance) * FAILURE_COST


def worth_of(budget_fals: int, *, usual_fals: int) -> int:
    """Return what a job is taken to be worth: the budget, or twice what it usually costs if less.

    A budget is often set wide. The usual price is a median, so that one lure does not move it.
    """
    return max(min(budget_fals, WORTH_OVER_USUAL * usual_fals), 1)


def _posted(listing: Listing, skill: str) -> Issues | None:
    entry = listing.card.skill(skill)
    return None if entry is None or entry.posted is None else entry.posted.issues


def draw(evidence: Evidence, *, seed: str) -> float:
    """Draw the chance that a seller delivers from what is believed of it; from 0 to 1."""
    uniform = _uniforms(seed)
    hits = _gamma(_PRIOR + evidence.successes, uniform)
    misses = _gamma(_PRIOR + evidence.failures, uniform)
    return hits / (hits + misses)


def _gamma(shape: float, uniform: Iterator[float]) -> float:
    """Draw from Gamma(shape >= 1, 1) by the squeeze of Marsaglia & Tsang (2000)."""
    part = shape - 1 / 3
    scale = 1 / math.sqrt(9 * part)
    while True:
        normal = math.sqrt(-2 * math.log(next(uniform))) * math.cos(math.tau * next(uniform))
        cube = (1 + scale * normal) ** 3
        if cube > 0 and math.log(next(uniform)) < (
            normal * normal / 2 + part - part * cube + part * math.log(cube)
        ):
            return part * cube


def _uniforms(seed: str) -> Iterator[float]:
    """Yield numbers above 0 and up to 1 from a hash of the seed: the same on every machine."""
    block = 0
    while True:
        digest = hashlib.sha256(f"{seed}:{block}".encode()).digest()
        for at in range(0, 32, 8):
            yield (int.from_bytes(digest[at : at + 8], "big") // 2048 + 1) / 2**53
        block += 1


def _tie(seller: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{seller}".encode()).hexdigest()
