"""What it is worth to know what the market pays: deals with the price view beside deals without.

Two questions, each answered on the same seeded markets with and without a
:class:`~broker.knowledge.forecast.PriceView`:

* A buyer bargains with a seller whose posted price is anything from fair to four times what is
  usually paid. What does it save, and does it lose deals?
* A seller quotes in sealed tenders among others who don't know the market. What does it earn? And
  what is paid, and who wins, if all of them know it?

    python -m benchmarks.market_anchors
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Final

import orjson

from agents.negotiation.machine import (
    BuyerPolicy,
    Commit,
    Moment,
    Say,
    SellerPolicy,
    buyer_move,
    seller_move,
)
from agents.negotiation.mandate import Mandate
from agents.negotiation.talk import Talk, hear
from agents.strategies import make_strategy
from benchmarks.rows import Row, row
from broker.knowledge.forecast import PriceView
from rahba.envelope import Signer
from rahba.messages import Cfp, Counter, Issues, Mode, Quote
from rahba.money import wire_fals

DEALS: Final = 500
ROUNDS: Final = 6
MOST_SELLERS: Final = 6
PAST: Final = 20
SEED: Final = 1_123
SKILL: Final = "bench.job"
NOW_MS: Final = 1_700_000_000_000
LATER_MS: Final = NOW_MS + 60_000
STRATEGIES: Final = ("best", "boulware", "linear", "conceder")
BUYER, SELLER = (Signer(bytes(31) + bytes([number])).did for number in (1, 2))


def run(deals: int = DEALS) -> list[Row]:
    """Measure; takes some ten seconds."""
    plain = [bargain(number, informed=False) for number in range(deals)]
    told = [bargain(number, informed=True) for number in range(deals)]
    both = [(a, b) for a, b in zip(plain, told, strict=True) if a is not None and b is not None]
    agreed = fmean(price is not None for price in told)
    usual = [tender(number, informed=0) for number in range(deals)]
    one = [tender(number, informed=1) for number in range(deals)]
    everybody = [tender(number, informed=MOST_SELLERS) for number in range(deals)]
    return [
        row(
            "anchors: price paid by a buyer that knows the market, beside one that does not",
            fmean(told for _, told in both),
            "fals",
            reference=fmean(plain for plain, _ in both),
            target=1.0,
            at_most=True,
        ),
        row(
            "anchors: bargains that end in a deal, beside those of one that does not know it",
            agreed,
            "",
            reference=fmean(price is not None for price in plain),
            target=0.98,
        ),
        row(
            "anchors: profit of a quoting seller that knows the market, beside one that does not",
            fmean(first.earned for first in one),
            "fals",
            reference=fmean(first.earned for first in usual),
            target=1.0,
        ),
        row(
            "anchors: price of a tender if all sellers know the market, beside none",
            fmean(each.price for each in everybody),
            "fals",
            reference=fmean(each.price for each in usual),
            target=1.05,
            at_most=True,
        ),
        row(
            "anchors: cost of who wins a tender if all sellers know the market, beside none",
            fmean(each.cost for each in everybody),
            "fals",
            reference=fmean(each.cost for each in usual),
            target=1.01,
            at_most=True,
        ),
    ]


@dataclass(frozen=True, slots=True)
class Tendered:
    """A tender's winning quote, what the job costs its maker, what the first seller earns."""

    price: int
    cost: int
    earned: int


def bargain(number: int, *, informed: bool) -> int | None:
    """Bargain once; returns the price agreed on, in fals."""
    rng = random.Random(SEED + number)
    market = rng.randint(200_000, 2_000_000)
    posted = round(market * rng.uniform(1.0, 4.0))
    floor = min(round(market * rng.uniform(0.6, 1.1)), posted)
    limit = round(market * rng.uniform(1.2, 4.0))
    seller = _seller(posted, floor, rng.choice(STRATEGIES), seed=number)
    buyer = BuyerPolicy(
        Mandate(BUYER, BUYER, "buy", SKILL, wire_fals(limit), LATER_MS, "5a17"),
        make_strategy("best"),
        prices=_view(market) if informed else None,
    )
    talk, moment = _opened("bargain", ROUNDS), Moment(NOW_MS, "5a17")
    for _ in range(2 * ROUNDS + 1):
        match seller_move(talk, seller, moment):
            case Say(Quote() | Counter() as body):
                talk = hear(talk, "seller", body)
            case Commit(offer):
                return offer.issues.price_fals
            case _:
                return None
        match buyer_move(talk, buyer, moment):
            case Say(Counter() as body):
                talk = hear(talk, "buyer", body)
            case Commit(offer):
                return offer.issues.price_fals
            case _:
                return None
    return None


def tender(number: int, *, informed: int) -> Tendered:
    """Hold one sealed tender; the first ``informed`` sellers know what such tenders end at."""
    rng = random.Random(SEED + number)
    level, count = rng.randint(200_000, 2_000_000), rng.randint(2, MOST_SELLERS)
    ends = [min(_quotes(level, count, rng, None, 0))[0] for _ in range(PAST)]
    price, winner, cost = min(_quotes(level, count, rng, round(median(ends)), informed))
    return Tendered(price, cost, price - cost if winner == 0 else 0)


def _quotes(
    level: int, count: int, rng: random.Random, market: int | None, informed: int
) -> list[tuple[int, int, int]]:
    """Return each seller's quote, its place and its cost."""
    quotes = []
    for place in range(count):
        cost = round(level * rng.uniform(0.4, 0.95))
        seller = _seller(round(cost * rng.uniform(1.1, 2.5)), cost, "best", seed=place)
        if market is not None and place < informed:
            seller = replace(seller, prices=_view(market))
        match seller_move(_opened("tender", 1), seller, Moment(NOW_MS, "5a17")):
            case Say(Quote(offer=offer)):
                quotes.append((offer.issues.price_fals, place, cost))
            case _:
                raise AssertionError("a seller quotes")
    return quotes


def _view(market: int) -> PriceView:
    """Return what is told of a market: its price within some ten per cent."""
    low, high = round(market * 0.9), round(market * 1.1)
    return PriceView(SKILL, 500, market, market, market, low, high, market, "naive", 60_000)


def _seller(posted: int, floor: int, strategy: str, *, seed: int) -> SellerPolicy:
    mandate = Mandate(SELLER, SELLER, "sell", SKILL, wire_fals(floor), LATER_MS, "5a17")
    return SellerPolicy(mandate, Issues(wire_fals(posted)), make_strategy(strategy, seed=seed))


def _opened(mode: Mode, rounds: int) -> Talk:
    call = Cfp("b" * 32, SKILL, mode, "0" * 64, 1, LATER_MS, rounds)
    return hear(Talk("a" * 32, BUYER, SELLER), "buyer", call)


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
