"""Strategies that answer what the other side does, whatever the time is.

* Tit-for-tat gives as much as it was given, in its own utility; after the behaviour-dependent
  tactics of Faratin, Sierra & Jennings, "Negotiation decision functions for autonomous agents"
  (1998).
* MiCRO concedes by one outcome for each new one that it is offered, and knows nothing of the other
  side but that; after de Jonge, "An Analysis of the Linear Bilateral ANAC Domains Using the MiCRO
  Benchmark Strategy" (IJCAI 2022).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from agents.strategies.view import Bid, Decision, Take, View, last_word, standing


@dataclass(frozen=True, slots=True)
class TitForTat:
    """Comes down from its best outcome by ``share`` of what the other side has come up."""

    share: float = 1.0

    def propose(self, view: View) -> Decision:
        """Return the next bid, or take the standing one if it is at least as good."""
        if view.bids_left == 0:
            return last_word(view)
        worth, outcome = view.preferences.at_least(view.preferences.best - self._owed(view))[-1]
        return Take() if standing(view) >= worth else Bid(outcome)

    def _owed(self, view: View) -> float:
        worths = [view.preferences.worth(bid) for bid in view.theirs]
        return max(max(worths) - worths[0], 0.0) * self.share if worths else 0.0


@dataclass(frozen=True, slots=True)
class Micro:
    """Goes down its list as long as the other side goes down its own; repeats itself otherwise.

    Which of its earlier bids it repeats is drawn from ``seed``.
    """

    seed: int = 0

    def propose(self, view: View) -> Decision:
        """Return the next new bid or an earlier one, or take what is as good as its worst."""
        if view.bids_left == 0:
            return last_word(view)
        ranked = view.preferences.ranked
        made = min(len(set(view.mine)), len(ranked))
        concedes = made <= len(set(view.theirs)) and made < len(ranked)
        if standing(view) >= ranked[made if concedes else max(made - 1, 0)][0]:
            return Take()
        if concedes or not made:
            return Bid(ranked[made if concedes else 0][1])
        drawn = hashlib.sha256(f"{self.seed}:{len(view.mine)}".encode()).digest()
        return Bid(ranked[int.from_bytes(drawn[:8], "big") % made][1])
