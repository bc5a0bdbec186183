"""How a side concedes: pure strategies over any finite set of outcomes."""

from agents.strategies.catalogue import STRATEGIES, make_strategy
from agents.strategies.outcomes import Outcome, Preferences, price_ladder, rank
from agents.strategies.view import Bid, Decision, Leave, Strategy, Take, View

__all__ = [
    "STRATEGIES",
    "Bid",
    "Decision",
    "Leave",
    "Outcome",
    "Preferences",
    "Strategy",
    "Take",
    "View",
    "make_strategy",
    "price_ladder",
    "rank",
]
