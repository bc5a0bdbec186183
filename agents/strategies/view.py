"""What a strategy is shown, and what it may decide. Nothing else reaches it: no text, no names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agents.strategies.outcomes import Outcome, Preferences
from broker.knowledge.forecast import PriceView


@dataclass(frozen=True, slots=True)
class View:
    """The negotiation as one side sees it when it is its turn.

    ``time`` runs from 0 (first own bid) to 1 (last own bid); ``bids_left`` counts the bids it may
    still make, at 0 it can only take or leave. ``closing`` says that the next bid is the very last
    of both sides: the other can only take or leave it. ``prices`` is what the market's own deals
    say of the skill's price, if anything: a hint, which preferences and reserve do not depend on.
    """

    preferences: Preferences
    mine: tuple[Outcome, ...]
    theirs: tuple[Outcome, ...]
    time: float
    bids_left: int
    closing: bool = False
    prices: PriceView | None = None


@dataclass(frozen=True, slots=True)
class Bid:
    """Offer this outcome."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Take:
    """Accept the other side's last bid."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Walk away."""


Decision = Bid | Take | Leave


class Strategy(Protocol):
    """Decides from the view alone: the same view always gets the same decision."""

    def propose(self, view: View) -> Decision:
        """Return what to do now. Never bids or takes below the reserve."""
        ...


def standing(view: View) -> float:
    """Return what the other side's last bid is worth (minus infinity before its first)."""
    return view.preferences.worth(view.theirs[-1]) if view.theirs else float("-inf")


def last_word(view: View) -> Decision:
    """Answer when no bid is left: anything not worse than no deal is taken."""
    return Take() if standing(view) >= view.preferences.reserve else Leave()
