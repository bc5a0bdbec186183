"""How the jobs of each seller ended, the newest counting most; pure.

* Evidence is discounted by what happens, not by the clock: each outcome of a skill makes all older
  ones of that skill count ``DISCOUNT`` times as much (Garivier & Moulines 2011; Raj & Kalyani,
  "Taming Non-stationary Bandits: A Bayesian Approach", 2017). Some hundred outcomes are remembered.
* A job counts once it was ordered and paid for: settled as a success, failed or expired as a
  failure, whatever the seller says was the reason.
* Anybody can order jobs that must fail, and gets the money back. So one buyer's failures with one
  seller count up to ``MAX_STREAK`` in a row, and again only after a deal of theirs has settled.
* Memory is bounded: ``MAX_SELLERS`` pairs of skill and seller, the least lately heard of go first.

    >>> outcomes = Outcomes()
    >>> outcomes.note("text.upper", "s", "b", delivered=True)
    >>> outcomes.evidence("text.upper", "s").successes
    1.0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

DISCOUNT: Final = 0.99
MAX_STREAK: Final = 4
MAX_SELLERS: Final = 4_096
MAX_SKILLS: Final = 1_024
MAX_STREAKS: Final = 8_192


@dataclass(frozen=True, slots=True)
class Evidence:
    """Discounted counts of what one seller delivered, and of what it did not."""

    successes: float = 0.0
    failures: float = 0.0


class Tally(msgspec.Struct, array_like=True):
    """One seller's counts as they were at the skill's outcome number ``at``."""

    successes: float = 0.0
    failures: float = 0.0
    at: int = 0

    def shown(self, now: int, discount: float) -> Evidence:
        """Return the counts as they are at outcome number ``now``."""
        share = discount ** max(now - self.at, 0)  # a skill that was forgotten counts from 1 again
        return Evidence(self.successes * share, self.failures * share)


class Outcomes(msgspec.Struct):
    """The outcomes of a market. ``counts`` numbers the outcomes of each skill."""

    discount: float = DISCOUNT
    counts: dict[str, int] = {}
    tallies: dict[str, Tally] = {}
    streaks: dict[str, int] = {}

    def note(self, skill: str, seller: str, buyer: str, *, delivered: bool) -> None:
        """Count how one ordered job ended."""
        pair = f"{seller} {buyer}"
        streak = 0 if delivered else self.streaks.pop(pair, 0) + 1
        if delivered:
            self.streaks.pop(pair, None)
        else:
            self.streaks[pair] = min(streak, MAX_STREAK + 1)
            _bound(self.streaks, MAX_STREAKS)
        if streak > MAX_STREAK:
            return
        now = self.counts[skill] = self.counts.pop(skill, 0) + 1
        _bound(self.counts, MAX_SKILLS)
        key = f"{skill} {seller}"
        before = self.tallies.pop(key, None)
        known = Evidence() if before is None else before.shown(now, self.discount)
        self.tallies[key] = Tally(
            known.successes + delivered, known.failures + (not delivered), now
        )
        _bound(self.tallies, MAX_SELLERS)

    def evidence(self, skill: str, seller: str) -> Evidence:
        """Return what is known of a seller; nothing, if it is new or long silent."""
        tally = self.tallies.get(f"{skill} {seller}")
        if tally is None:
            return Evidence()
        return tally.shown(self.counts.get(skill, 0), self.discount)


def _bound(kept: dict[str, int] | dict[str, Tally], most: int) -> None:
    if len(kept) > most:
        del kept[next(iter(kept))]
