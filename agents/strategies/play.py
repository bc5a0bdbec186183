"""Plays two strategies against each other by alternating offers; no clock, no messages.

The first side opens. Each side makes at most ``rounds`` bids; the second makes the last one, which
the first can only take or leave. It is how strategies are measured and tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agents.strategies.outcomes import Outcome, Preferences
from agents.strategies.view import Bid, Leave, Strategy, Take, View


@dataclass(frozen=True, slots=True)
class Played:
    """How a game ended: the outcome (``None`` without a deal) and all bids, in turn."""

    outcome: Outcome | None
    bids: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Player:
    """A strategy with the preferences that it plays for."""

    strategy: Strategy
    preferences: Preferences


def play(first: Player, second: Player, *, rounds: int) -> Played:
    """Play until somebody takes or leaves, or until nobody has a bid left."""
    players = (first, second)
    bids: list[Outcome] = []
    for turn in range(2 * rounds + 1):
        player = players[turn % 2]
        match player.strategy.propose(_view(player, bids, turn, rounds)):
            case Take():
                return Played(bids[-1] if bids else None, tuple(bids))
            case Leave():
                return Played(None, tuple(bids))
            case Bid(outcome):
                bids.append(outcome)
    return Played(None, tuple(bids))


def _view(player: Player, bids: Sequence[Outcome], turn: int, rounds: int) -> View:
    made = turn // 2
    return View(
        preferences=player.preferences,
        mine=tuple(bids[turn % 2 :: 2]),
        theirs=tuple(bids[1 - turn % 2 :: 2]),
        time=min(made / (rounds - 1), 1.0) if rounds > 1 else 1.0,
        bids_left=max(rounds - made, 0),
        closing=turn == 2 * rounds - 1,
    )
