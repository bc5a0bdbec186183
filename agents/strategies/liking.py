"""A frequency model of the other side, from its bids alone.

Words it bids often are liked; numbers are liked the closer they are to what it bid. An issue that
it changes seldom weighs more. Earlier bids count more: they are closer to its heart.

    >>> likes = liking(((100, "fast"), (90, "fast")))
    >>> likes((95, "fast")) > likes((95, "slow")) > likes((40, "slow"))
    True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from agents.strategies.outcomes import Outcome, Value

_FADE: Final = 0.97


def liking(bids: Sequence[Outcome]) -> Callable[[Outcome], float]:
    """Return how much the other side seems to like an outcome (0 without any bid)."""
    if not bids:
        return lambda _: 0.0
    columns = list(zip(*bids, strict=True))
    weights = [_steadiness(column) for column in columns]
    tastes = [_taste(column) for column in columns]

    def likes(outcome: Outcome) -> float:
        return sum(
            weight * taste(value)
            for weight, taste, value in zip(weights, tastes, outcome, strict=True)
        )

    return likes


def _steadiness(column: Sequence[Value]) -> float:
    changes = sum(one != other for one, other in pairwise(column))
    return 1.0 - 0.8 * changes / max(len(column) - 1, 1)


def _taste(column: Sequence[Value]) -> Callable[[Value], float]:
    shares = [_FADE**index for index in range(len(column))]
    total = sum(shares)
    numbers = [value for value in column if isinstance(value, int)]
    if len(numbers) == len(column):
        centre = sum(n * share for n, share in zip(numbers, shares, strict=True)) / total

        def near(value: Value) -> float:
            return (
                1.0 / (1.0 + abs(value - centre) / (abs(centre) + 1.0))
                if isinstance(value, int)
                else 0.0
            )

        return near
    counts: dict[Value, float] = {}
    for value, share in zip(column, shares, strict=True):
        counts[value] = counts.get(value, 0.0) + share / total
    top = max(counts.values())
    return lambda value: counts.get(value, 0.0) / top
