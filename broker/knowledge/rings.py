"""Money that goes in circles among few keys: cycles of at most four in the last deals; pure.

Trades that only move money round leave everybody where they were, which is how wash trading shows
in records of transfers (Victor & Weintraud, "Detecting and Quantifying Wash Trading on
Decentralized Cryptocurrency Exchanges", 2021). A cycle of payments is called a ring if

* each of its steps was paid ``MIN_ROUNDS`` times or more within the window,
* the money returns: the least step carries at least ``RETURNED`` of what the greatest does,
* it is what its members live on: at least ``SHARE`` of what each pays, and of what each is paid.

Agents that buy from each other now and then, or whose money goes on to others, are no ring. Only
deals are seen: who pays back by a plain transfer is not.

Bounded: the last ``WINDOW`` deals; from each key only its ``BRANCHES`` greatest payees are
followed, at most three steps, so one deal costs some ``BRANCHES`` squared looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import msgspec

WINDOW: Final = 2_048
LONGEST: Final = 4
BRANCHES: Final = 8
MIN_ROUNDS: Final = 4
RETURNED: Final = 0.5
SHARE: Final = 0.6


@dataclass(frozen=True, slots=True)
class Ring:
    """Who pays whom, in order; the last pays the first.

    ``circulated`` (fals) went all the way round; ``share`` is the least part that the ring is of
    any member's payments.
    """

    members: tuple[str, ...]
    deals: int
    circulated: int
    share: float


class Edge(msgspec.Struct, array_like=True):
    """What one key paid another within the window, in fals."""

    deals: int = 0
    amount: int = 0


class Payment(msgspec.Struct, frozen=True, array_like=True):
    """One settled deal."""

    buyer: str
    seller: str
    amount: int


class Flows(msgspec.Struct):
    """The payments of the last deals, by payer and payee, and what each key paid and was paid."""

    window: list[Payment] = []
    edges: dict[str, dict[str, Edge]] = {}
    paid: dict[str, int] = {}
    earned: dict[str, int] = {}

    def note(self, buyer: str, seller: str, amount: int) -> Ring | None:
        """Add a deal; returns the ring that it is part of, if any (the one with most of it)."""
        if amount <= 0 or buyer == seller:
            return None
        self.window.append(Payment(buyer, seller, amount))
        self._add(buyer, seller, amount, 1)
        if len(self.window) > WINDOW:
            old = self.window.pop(0)
            self._add(old.buyer, old.seller, -old.amount, -1)
        if not self._steady(buyer, seller):
            return None
        found = [ring for path in self._paths(buyer, seller) if (ring := self._ring(path))]
        return max(found, key=lambda ring: (ring.share, -len(ring.members)), default=None)

    def _add(self, buyer: str, seller: str, amount: int, deals: int) -> None:
        payees = self.edges.setdefault(buyer, {})
        edge = payees.setdefault(seller, Edge())
        edge.deals += deals
        edge.amount += amount
        if not edge.deals:
            del payees[seller]
        if not payees:
            del self.edges[buyer]
        for totals, who in ((self.paid, buyer), (self.earned, seller)):
            totals[who] = totals.get(who, 0) + amount
            if not totals[who]:
                del totals[who]

    def _steady(self, buyer: str, seller: str) -> bool:
        edge = self.edges.get(buyer, {}).get(seller)
        return edge is not None and edge.deals >= MIN_ROUNDS

    def _paths(self, buyer: str, seller: str) -> Iterator[tuple[str, ...]]:
        """Yield each way (buyer, seller, ...) whose last pays the buyer."""
        ways: list[tuple[str, ...]] = [(buyer, seller)]
        while ways:
            way = ways.pop()
            if self._steady(way[-1], buyer):
                yield way
            if len(way) < LONGEST:
                ways += [(*way, payee) for payee in self._payees(way[-1]) if payee not in way]

    def _payees(self, payer: str) -> list[str]:
        payees = self.edges.get(payer, {})
        steady = [payee for payee, edge in payees.items() if edge.deals >= MIN_ROUNDS]
        return sorted(steady, key=lambda payee: (-payees[payee].amount, payee))[:BRANCHES]

    def _ring(self, members: tuple[str, ...]) -> Ring | None:
        steps = list(pairwise((*members, members[0])))
        edges = [self.edges[payer][payee] for payer, payee in steps]
        amounts = [edge.amount for edge in edges]
        if min(amounts) < RETURNED * max(amounts):
            return None
        shares = [
            min(amount / self.paid[payer], amount / self.earned[payee])
            for (payer, payee), amount in zip(steps, amounts, strict=True)
        ]
        if min(shares) < SHARE:
            return None
        deals = sum(edge.deals for edge in edges)
        return Ring(_from_least(members), deals, min(amounts), min(shares))


def _from_least(members: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same ring begun at its least name, so that each ring has one form."""
    first = members.index(min(members))
    return members[first:] + members[:first]
