"""What a deal can be about: each tier of a service at its own prices, and what that is worth.

* A tier is a combination of latency, quality, data policy and energy (:class:`Issues`) with the
  price that is asked for it; a seller's menu has one tier or several. The first is the posted one.
* An outcome is ``(price, tier)``. Bidding another tier is how two sides trade what matters to one
  for what is cheap to the other; bidding another price shares what that makes.
* A buyer measures in fals: by its yardstick, a better service is worth so much more money. A seller
  measures what is left above the floor of the tier. Neither is visible in any offer.

    >>> tier = Tier(Issues("100"), 60)
    >>> [outcome for _, outcome in selling([tier], steps=2).ranked]
    [(100, '0'), (80, '0'), (60, '0')]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from agents.negotiation.score import Yardstick
from agents.strategies import Outcome, Preferences, rank
from rahba.messages import Issues, Needs

STEPS: Final = 64
MIN_STEPS: Final = 2
SPARE_PERCENT: Final = 15
OPENING_BID_PERCENT: Final = 40
LOWEST_BID_PERCENT: Final = 20
OPENNESS: Final = {"sealed": 0, "logged": 1, "public": 2}


@dataclass(frozen=True, slots=True)
class Tier:
    """One service at its asking price; ``floor_fals`` is its seller's secret."""

    issues: Issues
    floor_fals: int = 0

    @property
    def ask_fals(self) -> int:
        """Return the asking price."""
        return self.issues.price_fals


def serves(issues: Issues, needs: Needs) -> bool:
    """Say whether a service is what a buyer needs."""
    energy = needs.max_energy_uwh
    hungry = energy is not None and (
        issues.energy.method == "unknown" or issues.energy.high > energy
    )
    slow = needs.max_latency_ms is not None and issues.latency_ms > needs.max_latency_ms
    return not (slow or hungry or is_too_open(issues, needs) or issues.quality < needs.min_quality)


def is_too_open(issues: Issues, needs: Needs) -> bool:
    """Say whether the input would be seen by more than a buyer allows."""
    return OPENNESS[issues.privacy] > OPENNESS[needs.privacy]


def tier_of(issues: Issues, tiers: Sequence[Tier]) -> int | None:
    """Return which tier an offer is about, whatever its price."""
    for place, tier in enumerate(tiers):
        if msgspec.structs.replace(issues, price=tier.issues.price) == tier.issues:
            return place
    return None


def selling(tiers: Sequence[Tier], *, steps: int = STEPS) -> Preferences:
    """Return a seller's preferences over its tiers: the money above each floor."""
    best = max(tier.ask_fals - tier.floor_fals for tier in tiers)

    def utility(outcome: Outcome) -> float:
        price, place = _read(outcome)
        tier = tiers[place]
        if best == 0:
            return 1.0 if price == tier.ask_fals else -1.0
        return (price - tier.floor_fals) / best

    return _ranked([(tier.ask_fals, tier.floor_fals) for tier in tiers], utility, steps)


def buying(
    tiers: Sequence[Tier],
    yardstick: Yardstick,
    *,
    limit_fals: int,
    here: int,
    elsewhere_fals: int | None = None,
    market_fals: int | None = None,
    steps: int = STEPS,
) -> Preferences:
    """Return a buyer's preferences over a seller's tiers, as surplus in fals.

    It pays no more for a tier than is asked for it, nor than its limit; nor does it take less than
    any tier within its limit would leave it at its asking price, or than what it has elsewhere: the
    price at which the service of tier ``here`` would be only as good. With nothing elsewhere, no
    deal is worth a little less than what is asked, as far as the limit is above that: no bargain
    shall fail for the last part of what it could save. Where everything is asked more for than its
    limit, nothing is sure to be had, and any tier at the limit is better than no deal. Whoever asks
    for much more than is paid on the market (``market_fals``) is answered by what is paid.
    """
    base = yardstick.worth_fals(tiers[here].issues)
    worth = [yardstick.worth_fals(tier.issues) - base for tier in tiers]
    caps = [min(tier.ask_fals, limit_fals) for tier in tiers]
    asks = [tier.ask_fals for tier in tiers]
    sure = [value - ask for value, ask in zip(worth, asks, strict=True) if ask <= limit_fals]
    floor = max(sure, default=min(worth) - limit_fals)
    hopes = [_hope(ask, market_fals) for ask in asks]
    best = max(value - hope for value, hope in zip(worth, hopes, strict=True))
    if elsewhere_fals is not None:
        floor = max(floor, -max(elsewhere_fals, 0))
    else:
        room = floor - max(worth) + limit_fals
        floor -= max(min((best - floor) * SPARE_PERCENT // 100, room), 0)

    def utility(outcome: Outcome) -> float:
        price, place = _read(outcome)
        surplus = worth[place] - price
        if price > caps[place]:
            return -1.0
        if best <= floor:
            return 1.0 if surplus >= floor else -1.0
        return (surplus - floor) / (best - floor)

    lasts = [min(value - floor, cap) for value, cap in zip(worth, caps, strict=True)]
    spans = [
        (min(hope, last), last) if last >= 0 else None
        for hope, last in zip(hopes, lasts, strict=True)
    ]
    return _ranked(spans, utility, steps)


def _hope(ask: int, market: int | None) -> int:
    hope = max(ask * OPENING_BID_PERCENT // 100, min(ask, 1))
    if market is None:
        return hope
    return min(hope, max(market, ask * LOWEST_BID_PERCENT // 100, 1))


def _ranked(
    spans: Sequence[tuple[int, int] | None], utility: Callable[[Outcome], float], steps: int
) -> Preferences:
    each = max(steps // len(spans), MIN_STEPS)
    outcomes: list[Outcome] = []
    for place, span in enumerate(spans):
        if span is not None:
            first, last = span
            rungs = {first + (last - first) * step // each for step in range(each + 1)} | {last}
            outcomes += [(price, str(place)) for price in sorted(rungs)]
    return rank(outcomes, utility)


def _read(outcome: Outcome) -> tuple[int, int]:
    price, place = outcome
    return int(price), int(place)
