"""Flags: how often an honest market is flagged, and how often a forged deal or a ring is.

Feeds of synthetic markets, folded as an observer folds them. Honest: six skills, tiers of sellers,
some of which buy themselves, prices that drift, swing by day and are bargained over, now and then
somebody in a hurry. Forged: one deal far above the price of its skill, or two to four keys that pay
each other among the honest deals.

    python -m benchmarks.market_anomalies
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Final

import orjson

from benchmarks.rows import Row, row
from broker.knowledge.fold import Knowledge, Notice
from rahba.messages import Event

MARKETS: Final = 8
DEALS: Final = 3_000
FORGED_AFTER: Final = 400
SEED: Final = 902
SKILL: Final = "skill.a"

Told = tuple[str, Event]


def run(markets: int = MARKETS, deals: int = DEALS) -> list[Row]:
    """Measure; takes some five seconds."""
    seeds = range(SEED, SEED + markets)
    false = fmean(_false_flags(seed, deals) for seed in seeds)
    rows = [row("anomalies: flags a deal in honest markets", false, "", target=0.01, at_most=True)]
    for times in (3, 10, 30):
        caught = fmean(_is_caught(seed, times) for seed in range(SEED, SEED + 5 * markets))
        label = f"anomalies: deals at {times} times the last price that are flagged"
        rows.append(row(label, caught, ""))
    rings = [_ring_deals(seed, size) for seed in seeds for size in (2, 3, 4)]
    found = [deals for deals in rings if deals is not None]
    share = len(found) / len(rings)
    rows.append(
        row("anomalies: rings of two to four keys that are flagged", share, "", target=0.95)
    )
    rows.append(row("anomalies: deals of a ring until it is flagged", fmean(found), "deals"))
    return rows


class Teller:
    """Numbers events as the feed does, by the server's time."""

    def __init__(self) -> None:
        """Begin at some time."""
        self.now_ms = 1_700_000_000_000
        self._count = 0

    def event(self, kind: str, **data: object) -> Told:
        """Return the next event."""
        self._count += 1
        return f"{self.now_ms}-{self._count}", Event(kind=kind, ts=self.now_ms, data=data)

    def job(
        self,
        buyer: str,
        seller: str,
        price: int,
        *,
        skill: str = "text.upper",
        end: str = "settled",
        after_ms: int = 1_000,
    ) -> list[Told]:
        """Tell of one deal from its agreement to its end."""
        self.now_ms += after_ms
        self._count += 1
        thread = f"{self._count:032x}"
        about = {"skill": skill, "buyer": buyer, "seller": seller}
        agreement, hold = f"{self._count:064x}", f"{self._count:015x}".ljust(64, "0")
        events = [
            self.event("accepted", thread=thread, agreement=agreement, price=str(price), **about),
            self.event("held", thread=thread, hold=hold, amount=str(price)),
        ]
        if end == "settled":
            told = {"thread": thread, "agreement": agreement, "paid": str(price), "hold": hold}
            return [*events, self.event("settled", **told, **about, tx="")]
        return [*events, self.event(end, thread=thread, code="")]


def fold(knowledge: Knowledge, events: list[Told]) -> list[Notice]:
    """Fold events as if the ledger bore out what they tell; returns all notices."""
    notices = []
    for event in events:
        knowledge.note(*event)
        notices += knowledge.count([True] * len(knowledge.waiting))
    return notices


def honest_market(teller: Teller, *, deals: int, seed: int) -> Iterator[list[Told]]:
    """Tell of a market without tricks, job by job."""
    rng = random.Random(seed)
    skills = {f"skill.{name}": rng.uniform(1e5, 1e7) for name in "abcdef"}
    sellers = {
        skill: [(f"seller {skill} {n}", rng.choice([0.7, 1.0, 1.0, 1.2, 2.5])) for n in range(5)]
        for skill in skills
    }
    everybody = [name for some in sellers.values() for name, _ in some]
    buyers = [f"buyer {n}" for n in range(25)] + rng.sample(everybody, 10)
    for number in range(deals):
        skill = rng.choice(list(skills))
        seller, tier = rng.choice(sellers[skill])
        buyer = rng.choice([name for name in buyers if name != seller])
        skills[skill] *= math.exp(rng.gauss(0, 0.002))
        swing = 1 + 0.2 * math.sin(math.tau * number / 800)
        hurry = rng.uniform(1.5, 3) if rng.random() < 0.01 else 1.0
        price = skills[skill] * tier * swing * hurry * math.exp(rng.gauss(0, 0.12))
        end = "settled" if rng.random() < 0.95 else "failed"
        yield teller.job(buyer, seller, round(price), skill=skill, end=end, after_ms=30_000)


def _false_flags(seed: int, deals: int) -> float:
    teller, knowledge = Teller(), Knowledge()
    for job in honest_market(teller, deals=deals, seed=seed):
        fold(knowledge, job)
    return sum(flag.times for flag in knowledge.board.flags.values()) / deals


def _is_caught(seed: int, times: int) -> bool:
    teller, knowledge = Teller(), Knowledge()
    for job in honest_market(teller, deals=FORGED_AFTER, seed=seed):
        fold(knowledge, job)
    price = times * knowledge.skills[SKILL].history.last
    return bool(fold(knowledge, teller.job("forger", "friend", price, skill=SKILL)))


def _ring_deals(seed: int, size: int) -> int | None:
    """Return after how many deals of its own a ring is flagged, ``None`` if never."""
    teller, knowledge, rng = Teller(), Knowledge(), random.Random(seed)
    for number, job in enumerate(honest_market(teller, deals=FORGED_AFTER, seed=seed)):
        fold(knowledge, job)
        if number % 4 == 0:
            washed, price = number // 4, rng.randint(500_000, 1_500_000)
            pair = f"washer {washed % size}", f"washer {(washed + 1) % size}"
            notices = fold(knowledge, teller.job(*pair, price, skill=SKILL))
            if any(notice.kind == "anomaly.ring" for notice in notices):
                return washed + 1
    return None


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
