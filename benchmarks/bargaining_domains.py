"""What a bargaining benchmark bargains about: seeded domains of many shapes, some kept aside.

A domain is a few issues with a table of tastes for each side, weights, and a reserve each. Shapes,
in turn:

* opposed: what one side gains the other loses, the weights are alike (close to zero-sum);
* trading: opposed on every issue, but each cares about others (room for give and take);
* shared: on some issues both want the same;
* mixed: anything from opposed to unrelated tastes;
* priced: one issue is a price in whole fals, the others are qualities.

Sizes run from 50 to 4,000 outcomes over two to five issues. Both parts come from the same rule and
from different seeds; ``aside`` is for the last measurement alone, nothing is ever tuned on it.

    >>> [domain.name for domain in generate(2, part="train")]
    ['opposed-0', 'trading-1']
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Final, Literal

from agents.strategies import Outcome, Preferences
from agents.strategies.outcomes import Value, weighted

Part = Literal["train", "aside"]

SEEDS: Final[dict[Part, int]] = {"train": 20_261, "aside": 77_003}
SHAPES: Final = ("opposed", "trading", "shared", "mixed", "priced")
SIZES: Final = (50, 4_000)
RESERVES: Final = (0.0, 0.0, 0.1, 0.2, 0.3, 0.4)
WORTH_A_DEAL: Final = 0.5  # of what each side can hope for, at the outcome fairest to both


@dataclass(frozen=True, slots=True)
class Side:
    """What one side wants: a table of tastes from 0 to 1 an issue, weights (sum 1), a reserve."""

    tastes: tuple[dict[Value, float], ...]
    weights: tuple[float, ...]
    reserve: float

    def preferences(self) -> Preferences:
        """Return them as a strategy of the house takes them."""
        return weighted(self.tastes, self.weights, reserve=self.reserve)

    def worth(self, outcome: Outcome) -> float:
        """Return the utility of an outcome."""
        pairs = zip(self.weights, self.tastes, outcome, strict=True)
        return sum(weight * tastes[value] for weight, tastes, value in pairs)

    def advantage(self, outcome: Outcome) -> float:
        """Return (utility - reserve) / (best - reserve)."""
        best = sum(w * max(t.values()) for w, t in zip(self.weights, self.tastes, strict=True))
        return (self.worth(outcome) - self.reserve) / (best - self.reserve)


@dataclass(frozen=True, slots=True)
class Domain:
    """Two views of the same outcomes, and the points that nobody can improve upon."""

    name: str
    sides: tuple[Side, Side]
    frontier: tuple[tuple[float, float], ...]
    nash: tuple[float, float]

    @property
    def outcomes(self) -> Iterator[Outcome]:
        """Return all combinations of the issues' values."""
        return product(*self.sides[0].tastes)


def generate(count: int, *, part: Part) -> Iterator[Domain]:
    """Generate the first ``count`` domains of a part; in each, some deal is worth it to both."""
    rng = random.Random(SEEDS[part])
    number = 0
    while number < count:
        shape = SHAPES[number % len(SHAPES)]
        domain = _draw(f"{shape}-{number}", shape, rng)
        if domain is not None:
            yield domain
            number += 1


def _draw(name: str, shape: str, rng: random.Random) -> Domain | None:
    values = _values(shape, rng)
    one = tuple(_tastes(issue, rng) for issue in values)
    other = tuple(_answer(shape, tastes, rng) for tastes in one)
    weights = _weights(len(values), rng)
    alike = tuple(weight * rng.uniform(0.85, 1.15) for weight in weights)
    theirs = _share(alike) if shape == "opposed" else _weights(len(values), rng)
    sides = (
        Side(one, weights, rng.choice(RESERVES)),
        Side(other, theirs, rng.choice(RESERVES)),
    )
    points = [(sides[0].worth(outcome), sides[1].worth(outcome)) for outcome in product(*one)]
    reserves = (sides[0].reserve, sides[1].reserve)
    good = [(x, y) for x, y in points if x >= reserves[0] and y >= reserves[1]]
    fairest = max(
        (min((x - reserves[0]) / (1 - reserves[0]), (y - reserves[1]) / (1 - reserves[1])))
        for x, y in [*good, reserves]
    )
    if fairest < WORTH_A_DEAL:
        return None
    nash = max(good, key=lambda point: (point[0] - reserves[0]) * (point[1] - reserves[1]))
    return Domain(name, sides, tuple(frontier(points)), nash)


def frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other is better than for one side and as good for the other."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found


def _values(shape: str, rng: random.Random) -> list[list[Value]]:
    """Draw the issues: words, and for ``priced`` a ladder of whole prices as the first."""
    low, high = SIZES
    while True:
        count = rng.randint(2, 5)
        sizes = [rng.randint(2, 12) for _ in range(count)]
        if shape == "priced":
            sizes[0] = rng.randint(12, 40)
        if low <= prod(sizes) <= high:
            break
    issues: list[list[Value]] = [[f"v{i}" for i in range(size)] for size in sizes]
    if shape == "priced":
        step = rng.randint(1, 50) * 1_000
        issues[0] = [step * (10 + i) for i in range(sizes[0])]
    return issues


def _tastes(values: list[Value], rng: random.Random) -> dict[Value, float]:
    """Draw tastes: rising evenly, rising along a curve, or in no order; prices always rise."""
    last = len(values) - 1
    curve = rng.choice([1.0, 0.5, 2.0, 0.0])
    if curve == 0.0 and isinstance(values[0], str):
        return _scaled({value: rng.random() for value in values})
    bend = curve or 1.0
    return {value: (i / last) ** bend for i, value in enumerate(values)}


def _answer(shape: str, tastes: dict[Value, float], rng: random.Random) -> dict[Value, float]:
    """Draw the other side's tastes to match the shape."""
    if isinstance(next(iter(tastes)), int) or shape in {"opposed", "trading"}:
        return _scaled({value: 1.0 - taste for value, taste in tastes.items()})
    if shape == "shared" and rng.random() < 0.4:
        return dict(tastes)
    opposition = rng.random() if shape == "mixed" else rng.uniform(0.6, 1.0)
    return _scaled(
        {
            v: opposition * (1 - taste) + (1 - opposition) * rng.random()
            for v, taste in tastes.items()
        }
    )


def _scaled(tastes: dict[Value, float]) -> dict[Value, float]:
    top, bottom = max(tastes.values()), min(tastes.values())
    return {value: (taste - bottom) / (top - bottom) for value, taste in tastes.items()}


def _weights(count: int, rng: random.Random) -> tuple[float, ...]:
    return _share(tuple(rng.uniform(0.1, 1.0) for _ in range(count)))


def _share(parts: tuple[float, ...]) -> tuple[float, ...]:
    total = sum(parts)
    return tuple(part / total for part in parts)
