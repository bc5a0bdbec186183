"""What can be agreed on, and what it is worth to one side.

* An outcome is one value an issue: integers (prices in fals) or words.
* A utility is a float between 0 and 1 and stays inside this room: no money is computed with it.
* The reserve is private: an outcome below it is worse than no deal.

    >>> selling = price_ladder(best_fals=100, reserve_fals=60, steps=4)
    >>> [outcome for _, outcome in selling.ranked]
    [(100,), (90,), (80,), (70,), (60,)]
    >>> selling.worth((80,)), selling.acceptable((59,))
    (0.5, False)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Final

from rahba.errors import BadInputError

Value = int | str
Outcome = tuple[Value, ...]

MAX_OUTCOMES: Final = 100_000
MAX_STEPS: Final = 256


@dataclass(frozen=True)
class Preferences:
    """One side's private view: outcomes by falling utility, and the reserve below which it leaves.

    ``utility`` may be asked about outcomes that are not in the list (the other side's bids). What
    a strategy needs of the list at every turn is worked out once.
    """

    ranked: tuple[tuple[float, Outcome], ...]
    utility: Callable[[Outcome], float]
    reserve: float = 0.0

    @property
    def best(self) -> float:
        """Return the utility of the best outcome."""
        return self.ranked[0][0]

    def worth(self, outcome: Outcome) -> float:
        """Return what ``outcome`` is worth."""
        return self.utility(outcome)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Return the outcomes alone, best first."""
        return tuple(outcome for _, outcome in self.ranked)

    @cached_property
    def tastes(self) -> tuple[Mapping[Value, float], ...]:
        """Return, by issue, what the best outcome is worth with each value of the issue."""
        return tuple(
            {value: self.taste(issue, value) for value in set(column)}
            for issue, column in enumerate(zip(*self.outcomes, strict=True))
        )

    def taste(self, issue: int, value: Value) -> float:
        """Return what the best outcome is worth with another value of one issue."""
        best = self.ranked[0][1]
        return self.utility((*best[:issue], value, *best[issue + 1 :]))

    def acceptable(self, outcome: Outcome) -> bool:
        """Say whether ``outcome`` is at least as good as no deal."""
        return self.utility(outcome) >= self.reserve

    def at_least(self, target: float) -> tuple[tuple[float, Outcome], ...]:
        """Return the outcomes worth ``target`` or more, best first; the best one at least."""
        floor = max(target, self.reserve)
        count = bisect_right(self.ranked, -floor, key=lambda pair: -pair[0])
        return self.ranked[: max(count, 1)]


def rank(
    outcomes: Iterable[Outcome], utility: Callable[[Outcome], float], *, reserve: float = 0.0
) -> Preferences:
    """Rank ``outcomes`` that are at least as good as no deal.

    Raises:
        BadInputError: none of them is, or there are more than ``MAX_OUTCOMES``.
    """
    found: list[tuple[float, Outcome]] = []
    for outcome in outcomes:
        if len(found) >= MAX_OUTCOMES:
            raise BadInputError("too many outcomes", limit=MAX_OUTCOMES)
        worth = utility(outcome)
        if worth >= reserve:
            found.append((worth, outcome))
    if not found:
        raise BadInputError("no outcome is better than no deal")
    found.sort(key=lambda pair: (-pair[0], tuple(map(str, pair[1]))))
    return Preferences(tuple(found), utility, reserve)


def weighted(
    issues: Sequence[Mapping[Value, float]], weights: Sequence[float], *, reserve: float = 0.0
) -> Preferences:
    """Build additive preferences over all combinations; ``issues`` map value to utility."""
    if len(issues) != len(weights) or not issues:
        raise BadInputError("as many weights as issues, and at least one")
    total = sum(weights)
    shares = [weight / total for weight in weights]

    def utility(outcome: Outcome) -> float:
        return sum(
            share * issue.get(value, 0.0)
            for share, issue, value in zip(shares, issues, outcome, strict=True)
        )

    return rank(product(*issues), utility, reserve=reserve)


def price_ladder(*, best_fals: int, reserve_fals: int, steps: int = 64) -> Preferences:
    """Build preferences over whole prices from the best hoped for to the last acceptable one.

    Selling when ``best_fals`` is above ``reserve_fals``, buying when below.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise BadInputError("steps out of range", limit=MAX_STEPS)
    span = reserve_fals - best_fals

    def utility(outcome: Outcome) -> float:
        price = outcome[0]
        assert isinstance(price, int)
        if span == 0:
            return 1.0 if price == best_fals else -1.0
        return (reserve_fals - price) / span

    rungs = {best_fals + span * step // steps for step in range(steps + 1)} | {reserve_fals}
    return rank(((price,) for price in rungs), utility)
