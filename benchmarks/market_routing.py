"""Whom to order from: discounted Thompson sampling beside the cheapest and beside any seller.

Synthetic markets of some sellers with posted prices. How likely each delivers changes at times that
nobody is told; among them are sellers that are cheap because they fail. Each job goes to the
seller that a policy puts first, and its end is all that the policies learn from. Regret is what the
best seller of that moment (known to nobody) would have promised, less what the chosen one did, in
parts of what a job is worth (:func:`agents.routing.promise`); it is summed over all jobs.

    python -m benchmarks.market_routing
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

import orjson

from agents.routing import Arm, promise, route, worth_of
from benchmarks.rows import Row, row
from broker.knowledge.outcomes import Outcomes

MARKETS: Final = 40
JOBS: Final = 1_000
SELLERS: Final = (3, 8)
STAYS: Final = (150, 500)
LURES: Final = 0.4
USUAL: Final = 1_000_000
SKILL: Final = "bench.job"
SEED: Final = 4_711


@dataclass(slots=True)
class Shop:
    """A seller: its price, and how likely it delivers now and until which job."""

    name: str
    price: int
    chance: float
    until: int
    lure: bool

    def gain(self, worth: int) -> float:
        """Return what a delivery is worth beyond its price."""
        return max((worth - self.price) / worth, -1.0)


Policy = Callable[[list[Shop], Outcomes, int, int], int]


def run(markets: int = MARKETS) -> list[Row]:
    """Measure; takes some ten seconds."""
    regrets: dict[str, list[float]] = {name: [] for name in POLICIES}
    failed: dict[str, list[float]] = {name: [] for name in POLICIES}
    for number in range(markets):
        for name, policy in POLICIES.items():
            regret, failures = spent(policy, seed=SEED + number)
            regrets[name].append(regret)
            failed[name].append(failures)
    ours = fmean(regrets["thompson"])
    rows = [
        row(
            f"routing: regret a job, beside {name}",
            ours,
            "of its worth",
            reference=fmean(regrets[name]),
            target=0.5,
            at_most=True,
        )
        for name in ("cheapest", "any seller")
    ]
    share = fmean(failed["thompson"])
    label = "routing: jobs that failed at the first seller, beside cheapest"
    rows.append(row(label, share, "", reference=fmean(failed["cheapest"])))
    return rows


def spent(policy: Policy, *, seed: int, jobs: int = JOBS) -> tuple[float, float]:
    """Let one policy route every job of a market; returns regret and failures a job."""
    rng = random.Random(seed)
    shops = [_shop(place, rng) for place in range(rng.randint(*SELLERS))]
    worth = worth_of(10 * USUAL, usual_fals=int(median(shop.price for shop in shops)))
    outcomes, regret, failures = Outcomes(), 0.0, 0
    for job in range(jobs):
        for shop in shops:
            if job >= shop.until:
                _change(shop, job, rng)
        luck = rng.random()  # drawn for every policy alike
        promises = [promise(shop.gain(worth), shop.chance) for shop in shops]
        chosen = policy(shops, outcomes, worth, seed * jobs + job)
        regret += max(promises) - promises[chosen]
        delivered = luck < shops[chosen].chance
        failures += not delivered
        outcomes.note(SKILL, shops[chosen].name, "buyer", delivered=delivered)
    return regret / jobs, failures / jobs


def _thompson(shops: list[Shop], outcomes: Outcomes, worth: int, seed: int) -> int:
    arms = [
        Arm(shop.name, shop.price, shop.gain(worth), outcomes.evidence(SKILL, shop.name))
        for shop in shops
    ]
    return route(arms, how="thompson", seed=seed).order[0]


def _cheapest(shops: list[Shop], _outcomes: Outcomes, _worth: int, seed: int) -> int:
    arms = [Arm(shop.name, shop.price, 0.0) for shop in shops]
    return route(arms, how="cheapest", seed=seed).order[0]


def _any(shops: list[Shop], _outcomes: Outcomes, _worth: int, seed: int) -> int:
    return random.Random(seed).randrange(len(shops))


POLICIES: Final[dict[str, Policy]] = {
    "thompson": _thompson,
    "cheapest": _cheapest,
    "any seller": _any,
}


def _shop(place: int, rng: random.Random) -> Shop:
    lure = rng.random() < LURES
    price = round(USUAL * (rng.uniform(0.3, 0.8) if lure else rng.uniform(0.7, 1.4)))
    shop = Shop(f"shop {place}", price, 0.0, 0, lure)
    _change(shop, 0, rng)
    return shop


def _change(shop: Shop, job: int, rng: random.Random) -> None:
    """Let a seller become better or worse: a lure mostly fails, others mostly deliver."""
    good = rng.random() < (0.15 if shop.lure else 0.8)
    shop.chance = rng.uniform(0.85, 1.0) if good else rng.uniform(0.0, 0.5)
    shop.until = job + rng.randint(*STAYS)


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
