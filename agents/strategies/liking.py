"""What the other side seems to like, learnt from its bids alone.

* A value that it bid early is liked more than one that it came to late: it starts at its best.
* A value that it never bid is liked less than those it did. The closer it is to one of them in
  *our* taste, the more: interests are mostly opposed or shared, so our own order is the best guess
  of its order (it halved what a bid wastes, against "never bid, never liked").
* An issue that it changes seldom, or by little, weighs more (a change by a quarter of our range
  counts as a whole one: prices move a little with every bid, and matter all the same).

The level of an outcome runs from 0 to 1 and only means something beside the levels of other
outcomes under the same bids.

    >>> from agents.strategies.outcomes import price_ladder
    >>> likes = Liking.of(((100,), (90,)), price_ladder(best_fals=10, reserve_fals=100))
    >>> likes.level((100,)) > likes.level((90,)) > likes.level((40,)) > likes.level((10,))
    True
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import getitem
from typing import Final

from agents.strategies.outcomes import Outcome, Preferences, Value

_LATEST: Final = 0.5  # how much the last value it came to is liked, beside its first
_UNSEEN: Final = 0.8  # how much a value that it never bid is liked, beside an equal one that it did
_RESTLESS: Final = 0.8  # how much weight an issue loses that changes with every bid
_FAR: Final = 4.0  # 1 / the share of our range that counts as a whole change


@dataclass(frozen=True, slots=True)
class Liking:
    """How much each value of each issue adds to the level of an outcome."""

    tables: tuple[Mapping[Value, float], ...]

    @classmethod
    def of(cls, bids: Sequence[Outcome], preferences: Preferences) -> Liking:
        """Learn from ``bids`` (at least one, the oldest first)."""
        columns = list(zip(*bids, strict=True))
        tastes = [_tastes(preferences, issue, column) for issue, column in enumerate(columns)]
        weights = [
            _steadiness(column, taste) for column, taste in zip(columns, tastes, strict=True)
        ]
        total = sum(weights)
        return cls(
            tuple(
                _table(column, taste, weight / total)
                for column, taste, weight in zip(columns, tastes, weights, strict=True)
            )
        )

    def level(self, outcome: Outcome) -> float:
        """Return how much ``outcome`` is liked; values that neither side ever named add nothing."""
        return sum(table.get(value, 0.0) for table, value in zip(self.tables, outcome, strict=True))

    def levels(self, outcomes: Iterable[Outcome]) -> list[float]:
        """Return the levels of outcomes that are in the preferences."""
        tables = self.tables
        return [sum(map(getitem, tables, outcome)) for outcome in outcomes]


def _tastes(preferences: Preferences, issue: int, column: Sequence[Value]) -> Mapping[Value, float]:
    """Return our taste in the values of an issue, those included that only the other side names.

    However outlandish those are, they count as at most twice as far away as our own.
    """
    known = preferences.tastes[issue]
    low, high = min(known.values()), max(known.values())
    reach = high - low or 1.0
    strange = {value for value in column if value not in known}
    return {
        **known,
        **{
            value: min(max(preferences.taste(issue, value), low - reach), high + reach)
            for value in strange
        },
    }


def _steadiness(column: Sequence[Value], taste: Mapping[Value, float]) -> float:
    reach = max(taste.values()) - min(taste.values()) or 1.0
    changes = sum(
        min(_FAR * abs(taste[one] - taste[other]) / reach, 1.0) for one, other in pairwise(column)
    )
    return 1.0 - _RESTLESS * changes / max(len(column) - 1, 1)


def _table(
    column: Sequence[Value], taste: Mapping[Value, float], weight: float
) -> dict[Value, float]:
    seen: dict[Value, float] = {}
    for number, value in enumerate(column):
        seen.setdefault(value, 1.0 - (1.0 - _LATEST) * number / len(column))
    known = [(taste[value], liked) for value, liked in seen.items()]
    span = max(taste.values()) - min(taste.values()) or 1.0
    table = {value: liked * weight for value, liked in seen.items()}
    for value, own in taste.items():
        if value not in table:
            table[value] = _guess(own, known, span) * weight
    return table


def _guess(own: float, known: Sequence[tuple[float, float]], span: float) -> float:
    """Return the liking of a value that was never bid, from the nearest that was."""
    distance, liked = min((abs(own - other) / span, -liked) for other, liked in known)
    return -liked * max(1.0 - distance, 0.0) * _UNSEEN
