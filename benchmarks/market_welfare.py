"""What a market is worth to all who trade on it: sealed tenders beside the best that there is.

Synthetic markets: some buyers who each want one job done, sellers who differ in cost, service and
capacity. Buyers come one after another. Each asks every seller with room left for a sealed quote
(the sellers' own rules make it) and takes the best score; the baselines take, of the same quotes,
the first one to arrive or the cheapest. Welfare counts both sides in fals: what a job is worth to
its buyer, by the very weights that it decides by, less what it costs its seller; the price only
moves money between them. The optimum is the best assignment of all buyers to all capacity, which
nobody in the market could know (assignment problem; Kuhn 1955, Munkres 1957).

    python -m benchmarks.market_welfare
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import orjson

from agents.negotiation.machine import Moment, Say, SellerPolicy, acceptable, seller_move
from agents.negotiation.mandate import Mandate, Weights
from agents.negotiation.score import FULL, Yardstick, best_first
from agents.negotiation.talk import Talk, hear
from agents.strategies import make_strategy
from benchmarks.rows import Row, row
from rahba.envelope import Signer
from rahba.messages import Cfp, Issues, Offer, Quote
from rahba.money import wire_fals

MARKETS: Final = 1_000
BUYERS, SELLERS = (3, 8), (2, 6)
SKILL: Final = "bench.job"
NOW_MS: Final = 1_700_000_000_000
LATER_MS: Final = NOW_MS + 60_000
_DIDS: Final = [Signer(number.to_bytes(32, "big")).did for number in range(1, 20)]
_INPUT: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Shop:
    """A seller's private side, and how many jobs it has room for."""

    did: str
    policy: SellerPolicy
    capacity: int

    @property
    def cost(self) -> int:
        """Return what a job costs it (fals)."""
        return self.policy.mandate.limit_fals


@dataclass(frozen=True, slots=True)
class Customer:
    """A buyer: what it may pay at most, and how it measures."""

    did: str
    mandate: Mandate
    yardstick: Yardstick

    def worth(self, issues: Issues) -> float:
        """Return what a job on these terms is worth to it, in fals, whatever its price."""
        fals_a_point = self.yardstick.price_scale_fals / (self.yardstick.weights.price * FULL)
        return self.yardstick.score(issues) * fals_a_point + issues.price_fals


@dataclass(frozen=True, slots=True)
class Market:
    """Who trades; ``customers`` come in this order."""

    customers: tuple[Customer, ...]
    shops: tuple[Shop, ...]


Choice = Callable[[Customer, Sequence[Offer]], int]


def run(markets: int = MARKETS) -> list[Row]:
    """Measure; takes some ten seconds."""
    found: dict[str, list[float]] = {name: [] for name in CHOICES}
    for number, market in enumerate(generate(markets, seed=1)):
        best = optimum(market)
        for name, choose in CHOICES.items():
            found[name].append(welfare(market, choose, random.Random(number)) / best)
    ours = fmean(found["best score"])
    rows = [row("market: welfare of sealed tenders, beside the optimum", ours, "", reference=1.0)]
    for name in ("first proposal", "cheapest"):
        label = f"market: welfare of sealed tenders, beside always the {name}"
        rows.append(row(label, ours, "", reference=fmean(found[name]), target=1.0))
    return rows


def generate(count: int, *, seed: int) -> Iterator[Market]:
    """Generate markets in which at least one deal makes sense."""
    rng = random.Random(seed)
    while count:
        dids = rng.sample(_DIDS, len(_DIDS))
        shops = tuple(_shop(dids.pop(), rng) for _ in range(rng.randint(*SELLERS)))
        cheapest = min(shop.policy.posted.price_fals for shop in shops)
        customers = tuple(_customer(dids.pop(), cheapest, rng) for _ in range(rng.randint(*BUYERS)))
        market = Market(customers, shops)
        if optimum(market) > 0:
            count -= 1
            yield market


def welfare(market: Market, choose: Choice, rng: random.Random) -> float:
    """Let the buyers buy; returns what all deals together are worth to both sides (fals)."""
    total = 0.0
    room = {shop.did: shop.capacity for shop in market.shops}
    for customer in market.customers:
        asked = [shop for shop in market.shops if room[shop.did]]
        rng.shuffle(asked)  # the order in which their answers arrive
        quotes = [(shop, offer) for shop in asked if (offer := _quoted(customer, shop))]
        if quotes:
            shop, offer = quotes[choose(customer, [offer for _, offer in quotes])]
            room[shop.did] -= 1
            total += customer.worth(offer.issues) - shop.cost
    return total


def optimum(market: Market) -> float:
    """Return the welfare of the best assignment of buyers to capacity."""
    places = [shop for shop in market.shops for _ in range(shop.capacity)]
    gains = [
        [_gain(customer, shop) for shop in places] + [0.0] * len(market.customers)
        for customer in market.customers
    ]
    return assign(gains)


def assign(gains: Sequence[Sequence[float]]) -> float:
    """Return the largest sum of one entry a row, no column twice (as many columns as rows or more).

    Rows come one by one, each by a shortest augmenting path over reduced costs.
    """
    columns = len(gains[0])
    holder: list[int | None] = [None] * (columns + 1)  # the last column is where paths start
    by_row, by_column = [0.0] * len(gains), [0.0] * (columns + 1)
    for new in range(len(gains)):
        holder[columns] = new
        back = _shortest_path(gains, holder, by_row, by_column)
        free = back.pop()
        while free != columns:
            holder[free], free = holder[back[free]], back[free]
        holder[columns] = None
    return sum(gains[who][place] for place, who in enumerate(holder) if who is not None)


def _shortest_path(
    gains: Sequence[Sequence[float]],
    holder: Sequence[int | None],
    by_row: list[float],
    by_column: list[float],
) -> list[int]:
    """Return how each column was reached, and last the free one at which the path ends."""
    columns = len(holder) - 1
    least, back, done = [float("inf")] * columns, [columns] * columns, [columns]
    at = columns
    while (who := holder[at]) is not None:
        left = [column for column in range(columns) if column not in done]
        for column in left:
            cost = -gains[who][column] - by_row[who] - by_column[column]
            if cost < least[column]:
                least[column], back[column] = cost, at
        nearest = min(left, key=least.__getitem__)
        step = least[nearest]
        for column in done:
            owner = holder[column]
            assert owner is not None
            by_row[owner] += step
            by_column[column] -= step
        for column in left:
            least[column] -= step
        done.append(nearest)
        at = nearest
    return [*back, at]


def _gain(customer: Customer, shop: Shop) -> float:
    """Return what a deal of these two is worth to both; 0 if the budget is below the cost."""
    if customer.mandate.limit_fals < shop.cost:
        return 0.0
    return max(0.0, customer.worth(shop.policy.posted) - shop.cost)


def _quoted(customer: Customer, shop: Shop) -> Offer | None:
    """Return the shop's sealed quote, if this customer could take it and gains by it."""
    talk = Talk("a" * 32, customer.did, shop.did)
    call = Cfp("b" * 32, SKILL, "tender", _INPUT, 1, LATER_MS, 1)
    talk = hear(talk, "buyer", call)
    move = seller_move(talk, shop.policy, Moment(NOW_MS, "5a17"))
    if not isinstance(move, Say) or not isinstance(move.body, Quote):
        return None
    offer = move.body.offer
    taken = acceptable(talk, offer, customer.mandate, now_ms=NOW_MS) is None
    return offer if taken and customer.yardstick.score(offer.issues) > 0 else None


def _best(customer: Customer, offers: Sequence[Offer]) -> int:
    return best_first(list(offers), customer.yardstick, nonce="0")[0]


def _first(_customer: Customer, _offers: Sequence[Offer]) -> int:
    return 0


def _cheapest(_customer: Customer, offers: Sequence[Offer]) -> int:
    return min(range(len(offers)), key=lambda place: offers[place].issues.price_fals)


CHOICES: Final[dict[str, Choice]] = {
    "best score": _best,
    "first proposal": _first,
    "cheapest": _cheapest,
}


def _shop(did: str, rng: random.Random) -> Shop:
    cost = rng.randint(200_000, 2_000_000)
    posted = Issues(
        price=wire_fals(round(cost * rng.uniform(1.1, 2.5))),
        latency_ms=rng.randint(100, 60_000),
        quality=rng.randint(0, 1_000),
    )
    mandate = Mandate(did, did, "sell", SKILL, wire_fals(cost), LATER_MS, "5a17")
    policy = SellerPolicy(mandate, posted, make_strategy("best"))
    return Shop(did, policy, rng.randint(1, 3))


def _customer(did: str, cheapest: int, rng: random.Random) -> Customer:
    limit = rng.randint(500_000, 4_000_000)
    weights = Weights(rng.randint(200, 900), rng.randint(0, 600), rng.randint(0, 400), 0)
    mandate = Mandate(did, did, "buy", SKILL, wire_fals(limit), LATER_MS, "5a17", weights=weights)
    return Customer(did, mandate, Yardstick(weights, min(limit, 2 * cheapest)))


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
