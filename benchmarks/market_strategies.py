"""Every strategy of the house against every other, on generated domains, as both sides.

Advantage = (utility - reserve) / (best - reserve), averaged over all games; a game without a deal
counts 0. ``pareto`` is the mean distance of deals from the Pareto frontier.

    python -m benchmarks.market_strategies [--rounds 20] [--domains 40] [--json]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import hypot
from statistics import fmean

import orjson

from agents.strategies import STRATEGIES, Outcome, Preferences, make_strategy
from agents.strategies.outcomes import Value, weighted
from agents.strategies.play import Player, play
from benchmarks.rows import Row, row

ROUNDS, DOMAINS = 20, 40
ISSUES = (2, 3, 4)
VALUES = (3, 8)
RESERVES = (0.0, 0.45)


@dataclass(frozen=True)
class Domain:
    """Two private views of the same outcomes; at least one outcome suits both."""

    seller: Preferences
    buyer: Preferences
    frontier: tuple[tuple[float, float], ...]

    def pareto_distance(self, outcome: Outcome) -> float:
        """Return how far an outcome is from the nearest one that nobody can improve upon."""
        one, other = self.seller.worth(outcome), self.buyer.worth(outcome)
        return min(hypot(x - one, y - other) for x, y in self.frontier)


@dataclass
class Record:
    """What one strategy got over its games."""

    advantage: list[float] = field(default_factory=list)
    deals: list[bool] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)


def domains(count: int, *, seed: int) -> Iterator[Domain]:
    """Generate ``count`` domains of mixed conflict: from opposed to mostly shared interests."""
    rng = random.Random(seed)
    while count:
        shape = [rng.randint(*VALUES) for _ in range(rng.choice(ISSUES))]
        opposition = rng.random()
        one = [_tastes(size, rng) for size in shape]
        other = [_answer(tastes, opposition, rng) for tastes in one]
        seller = _preferences(one, rng)
        buyer = _preferences(other, rng)
        both = [outcome for _, outcome in seller.ranked if buyer.acceptable(outcome)]
        if not both:
            continue
        points = [(seller.worth(outcome), buyer.worth(outcome)) for outcome in both]
        yield Domain(seller, buyer, tuple(_frontier(points)))
        count -= 1


def _tastes(size: int, rng: random.Random) -> dict[Value, float]:
    tastes = [rng.random() for _ in range(size)]
    top, bottom = max(tastes), min(tastes)
    return {f"v{i}": (taste - bottom) / (top - bottom) for i, taste in enumerate(tastes)}


def _answer(
    tastes: dict[Value, float], opposition: float, rng: random.Random
) -> dict[Value, float]:
    mixed = {
        value: opposition * (1 - taste) + (1 - opposition) * rng.random()
        for value, taste in tastes.items()
    }
    top, bottom = max(mixed.values()), min(mixed.values())
    return {value: (taste - bottom) / (top - bottom) for value, taste in mixed.items()}


def _preferences(issues: list[dict[Value, float]], rng: random.Random) -> Preferences:
    weights = [rng.uniform(0.2, 1.0) for _ in issues]
    return weighted(issues, weights, reserve=rng.uniform(*RESERVES))


def _frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    frontier: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not frontier or y > frontier[-1][1]:
            frontier.append((x, y))
    return frontier


def tournament(names: list[str], *, rounds: int, count: int, seed: int = 1) -> dict[str, Record]:
    """Play all pairs (each as both sides, itself included) on the same domains."""
    records = {name: Record() for name in names}
    for number, domain in enumerate(domains(count, seed=seed)):
        for one in names:
            for other in names:
                first = Player(make_strategy(one, seed=number), domain.seller)
                second = Player(make_strategy(other, seed=number + 1), domain.buyer)
                _note(records, one, other, domain, play(first, second, rounds=rounds).outcome)
    return records


def _note(
    records: dict[str, Record], one: str, other: str, domain: Domain, outcome: Outcome | None
) -> None:
    for name, preferences in ((one, domain.seller), (other, domain.buyer)):
        record = records[name]
        record.deals.append(outcome is not None)
        if outcome is None:
            record.advantage.append(0.0)
            continue
        reserve = preferences.reserve
        gain = preferences.worth(outcome) - reserve
        record.advantage.append(gain / max(preferences.best - reserve, 1e-9))
        record.distance.append(domain.pareto_distance(outcome))


def run() -> list[Row]:
    """Measure what each strategy gets, beside the mean of all on the same domains."""
    records = tournament(list(STRATEGIES), rounds=ROUNDS, count=DOMAINS)
    advantages = {name: fmean(record.advantage) for name, record in records.items()}
    mean = fmean(advantages.values())
    return [
        row(f"negotiation: advantage of {name}, beside the mean", value, "share", reference=mean)
        for name, value in sorted(advantages.items(), key=lambda item: -item[1])
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--domains", type=int, default=DOMAINS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    records = tournament(list(STRATEGIES), rounds=options.rounds, count=options.domains)
    rows = [
        {
            "strategy": name,
            "advantage": round(fmean(record.advantage), 3),
            "agreement": round(fmean(record.deals), 3),
            "pareto_distance": round(fmean(record.distance), 3),
        }
        for name, record in records.items()
    ]
    rows.sort(key=lambda row: -float(row["advantage"]))
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(rows) + b"\n")
        return
    line = "{strategy:<12} {advantage:.3f}  {agreement:.3f}  {pareto_distance:.3f}"
    for item in rows:
        print(line.format(**item))


if __name__ == "__main__":
    main()
