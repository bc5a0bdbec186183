"""The house's best: hold out, never say a thing twice, and plan the last bids.

1. Open: a Boulware curve (e = 0.10) from the best outcome down to a quarter of the own range; of
   the outcomes on it, one not yet bid, the one that the other side seems to like most (`liking`).
2. Is there none, a new one a little below the curve: who is answered by nothing new has no reason
   to move, and some concede by one outcome for each new one that they see.
3. The last ``HORIZON`` bids are planned (`endgame`): the most for us that is likely to be taken,
   asking for more while there is time, and never above what a lost deal costs.
4. Take anything at least as good as the own next bid. Before the very last bid, take anything no
   worse than no deal, unless a bid that brings more is almost sure to be taken. If there is nothing
   to take and no bid has an even chance, bid what the other side likes most: no deal is worth no
   more.
5. Without a bid left, take whatever is no worse than no deal.

Nothing is drawn and nothing is kept: the same view gets the same decision. Bids are all that
leaves this room; each shows only that the reserve is no higher, though the last one may be it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from agents.strategies.endgame import LOSS, chance, line, plan
from agents.strategies.liking import Liking
from agents.strategies.outcomes import Outcome, Preferences
from agents.strategies.timed import target
from agents.strategies.view import Bid, Decision, Take, View, last_word, standing

HORIZON: Final = 10

EVEN: Final = 0.5
SURE: Final = 0.8

_RECENT: Final = 6  # bids from which the other side's line and its fall are read
_TRUSTED: Final = 0.08  # what was once bid by the other side is surer than its level says


@dataclass(frozen=True, slots=True)
class Frontier:
    """The outcomes that none is both better for us than, and liked more: levels rise, gains fall.

    ``gains`` are shares of the own range, from the reserve (0) to the best outcome (1).
    """

    levels: tuple[float, ...]
    gains: tuple[float, ...]
    outcomes: tuple[Outcome, ...]

    def place(self, level: float) -> int | None:
        """Return where the best outcome for us of at least this level stands."""
        place = bisect_left(self.levels, level)
        return place if place < len(self.levels) else None

    def gain(self, level: float) -> float | None:
        """Return what that outcome brings."""
        place = self.place(level)
        return None if place is None else self.gains[place]


@dataclass(frozen=True, slots=True)
class Steadfast:
    """Boulware with an opponent model and a planned end; deterministic."""

    exponent: float = 0.10
    concede_to: float = 0.25
    newness: float = 0.30

    def propose(self, view: View) -> Decision:
        """Return the next bid, or take the standing one."""
        if view.bids_left == 0:
            return last_word(view)  # 5
        likes = Liking.of(view.theirs, view.preferences) if view.theirs else None
        early = view.bids_left > HORIZON or (len(view.theirs) < 2 and not view.closing)
        if likes is None or early:
            return _unless_as_good(view, self._open(view, likes))
        return self._close(view, likes)

    def _open(self, view: View, likes: Liking | None) -> Outcome:
        """Return the bid of the opening game: on the curve, new, and liked."""
        preferences = view.preferences
        reach = preferences.best - preferences.reserve
        curve = preferences.at_least(
            target(view, self.exponent, preferences.reserve + reach * self.concede_to)
        )
        if likes is None:
            return curve[-1][1]
        said = set(view.mine)
        below = preferences.at_least(preferences.best - reach * self.newness * view.time)
        for choice in (curve, below[: len(said) + 1]):  # 1, 2
            new = [outcome for _, outcome in choice if outcome not in said]
            if new:
                return _most_liked(new, likes)
        return _most_liked([outcome for _, outcome in curve], likes)

    def _close(self, view: View, likes: Liking) -> Decision:
        """Return the bid of the end game, or take the standing bid."""
        frontier = _frontier(view, likes)
        recent = [likes.level(bid) for bid in view.theirs[-_RECENT:]]
        level = (recent[-1] + min(recent[-2:])) / 2
        middle = line(_refused(view, likes))
        planned = plan(
            frontier.gain,
            level=level,
            drop=_fall(recent),
            turns=view.bids_left,
            otherwise=-LOSS if view.closing else _hoped(view),
            middle=middle,
        )
        sure = 0.0 if planned.margin is None else chance(planned.margin, middle)
        if view.closing:
            brings = _share(view.preferences, standing(view))
            least = max(planned.value, 0.0) if sure >= SURE else 0.0
            if brings >= least:  # 4
                return Take()
            if sure < EVEN:
                return Bid(frontier.outcomes[-1])
        place = None if planned.margin is None else frontier.place(level + planned.margin)
        outcome = self._open(view, likes) if place is None else frontier.outcomes[place]
        return _unless_as_good(view, outcome)


def _unless_as_good(view: View, outcome: Outcome) -> Decision:
    """Bid, unless the standing bid is worth as much."""
    return Take() if standing(view) >= view.preferences.worth(outcome) else Bid(outcome)


def _most_liked(outcomes: Sequence[Outcome], likes: Liking) -> Outcome:
    """Return the most liked of outcomes that fall in worth; of equals, the best for us."""
    levels = likes.levels(outcomes)
    return outcomes[max(range(len(levels)), key=levels.__getitem__)]


def _frontier(view: View, likes: Liking) -> Frontier:
    """Return what is left to bid: nothing that was refused before, unless it is the other's own."""
    preferences = view.preferences
    theirs = set(view.theirs)
    refused = set(view.mine) - theirs
    if len(refused) >= len(preferences.ranked):
        refused = set()
    levels = likes.levels(preferences.outcomes)
    best_levels: list[float] = []
    gains: list[float] = []
    outcomes: list[Outcome] = []
    top = float("-inf")
    for level, (worth, outcome) in zip(levels, preferences.ranked, strict=True):
        sure = level + _TRUSTED if outcome in theirs else level
        if sure > top and outcome not in refused:
            top = sure
            best_levels.append(sure)
            gains.append(_share(preferences, worth))
            outcomes.append(outcome)
    return Frontier(tuple(best_levels), tuple(gains), tuple(outcomes))


def _fall(levels: Sequence[float]) -> float:
    """Return by how much the levels of the other side's bids fall from one to the next."""
    if len(levels) < 2:
        return 0.0
    half = len(levels) // 2
    fallen = fmean(levels[:half]) - fmean(levels[-half:])
    return max(fallen / (len(levels) - half), 0.0)


def _refused(view: View, likes: Liking) -> list[float]:
    """Return the margins of the own latest bids over what they were answered with."""
    count = min(_RECENT, len(view.mine), len(view.theirs) - 1)
    pairs = zip(view.mine[::-1][:count], view.theirs[::-1][:count], strict=True)
    return [likes.level(bid) - likes.level(answer) for bid, answer in pairs]


def _hoped(view: View) -> float:
    """Return what the other side's last bid is likely to bring, from its latest ones."""
    preferences = view.preferences
    shares = [_share(preferences, preferences.worth(bid)) for bid in view.theirs[-3:]]
    return fmean(share if share >= 0.0 else -LOSS for share in shares)


def _share(preferences: Preferences, worth: float) -> float:
    span = preferences.best - preferences.reserve
    return (worth - preferences.reserve) / (span or 1.0)
