"""The time-dependent family: concede along ``1 - time^(1/e)`` from the best outcome to the reserve.

``e`` below 1 holds out (Boulware), 1 is linear, above 1 gives in early (Conceder); after Faratin,
Sierra & Jennings, "Negotiation decision functions for autonomous agents" (1998).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from agents.strategies.view import Bid, Decision, Take, View, last_word, standing


def target(view: View, exponent: float, floor: float) -> float:
    """Return the utility aimed for now; ``floor`` is where the curve ends at time 1."""
    best = view.preferences.best
    share: float = min(max(view.time, 0.0), 1.0) ** (1.0 / exponent)
    return best - (best - floor) * share


@dataclass(frozen=True, slots=True)
class Timed:
    """Bids the outcome nearest above the target; takes what is worth as much as its next bid."""

    exponent: float

    def propose(self, view: View) -> Decision:
        """Return the next bid, or take the standing one if it is at least as good."""
        if view.bids_left == 0:
            return last_word(view)
        aim = target(view, self.exponent, view.preferences.reserve)
        worth, outcome = view.preferences.at_least(aim)[-1]
        return Take() if standing(view) >= worth else Bid(outcome)


@dataclass(frozen=True, slots=True)
class Stochastic:
    """Bids any outcome at or above the target, drawn anew each round from ``seed``."""

    exponent: float
    seed: int

    def propose(self, view: View) -> Decision:
        """Return a drawn bid, or take the standing one if it meets the target."""
        if view.bids_left == 0:
            return last_word(view)
        aim = target(view, self.exponent, view.preferences.reserve)
        band = view.preferences.at_least(aim)
        if standing(view) >= max(min(aim, view.preferences.best), view.preferences.reserve):
            return Take()
        drawn = hashlib.sha256(f"{self.seed}:{len(view.mine)}".encode()).digest()
        return Bid(band[int.from_bytes(drawn[:8], "big") % len(band)][1])
