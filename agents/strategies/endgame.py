"""How to spend the last bids: what to ask for, and when, if the other side's line is a guess.

The other side takes a bid that it likes about as much as its own next one. How much ours may fall
short is its *slack*, and unknown: the chance that a bid is taken is a logistic curve of its margin,
the level of the bid less the level of the other side's standing bid. The curve was fitted to
recorded games; bids that were refused move it (``line``).

``plan`` works backwards from the last bid. Asking for more first costs nothing as long as there
are bids left, and the other side's line sinks meanwhile; so a good plan asks for a lot while it
can, and for what will be taken when it must. Losing the deal costs ``LOSS`` on top of its value.

    >>> def most(level):
    ...     return 1.0 - level
    >>> early = plan(most, level=0.8, drop=0.0, turns=3, otherwise=-LOSS)
    >>> late = plan(most, level=0.8, drop=0.0, turns=1, otherwise=-LOSS)
    >>> early.margin < late.margin and early.value > late.value
    True
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Final

LOSS: Final = 0.3
MARGINS: Final = tuple(-0.08 + 0.025 * step for step in range(14))

_LINE: Final = 0.02  # the margin at which every second bid is taken, before anything was refused
_BLUR: Final = 0.05  # the scale of the curve: how well levels are known
_SPREAD: Final = 0.06  # how much the line differs from one counterparty to another
_DEVIATIONS: Final = tuple(-2.0 + 0.5 * step for step in range(11))
_HOPELESS: Final = -0.3  # a refusal this far below the line teaches nothing


@dataclass(frozen=True, slots=True)
class Plan:
    """The margin to bid at now, ``None`` to wait, and what the rest of the game is worth."""

    margin: float | None
    value: float


def chance(margin: float, line: float = _LINE) -> float:
    """Return the chance that a bid is taken."""
    return 1.0 / (1.0 + exp((line - margin) / _BLUR))


def line(refused: Iterable[float]) -> float:
    """Return the margin at which every second bid is taken, given the margins of refused bids."""
    lines = [_LINE + _SPREAD * deviation for deviation in _DEVIATIONS]
    weights = [exp(-0.5 * deviation * deviation) for deviation in _DEVIATIONS]
    for margin in refused:
        if margin > _HOPELESS:
            weights = [
                weight * (1.0 - chance(margin, one))
                for weight, one in zip(weights, lines, strict=True)
            ]
    total = sum(weights)
    return sum(weight * one for weight, one in zip(weights, lines, strict=True)) / total


def plan(
    gain: Callable[[float], float | None],
    *,
    level: float,
    drop: float,
    turns: int,
    otherwise: float,
    middle: float = _LINE,
) -> Plan:
    """Plan the last ``turns`` own bids.

    Args:
        gain: the most that can be gained (0 to 1) by a bid of a level or more; ``None`` if nothing.
        level: the level of the other side's line now.
        drop: by how much it sinks from one turn to the next.
        turns: bids left, this one included.
        otherwise: what it is worth if none is taken.
        middle: the margin at which every second bid is taken (``line``).
    """
    taken = [0.0, *(chance(margin, middle) for margin in MARGINS)]
    values = [(1.0 - share) * otherwise for share in taken]
    choices = list(range(len(taken)))
    for turn in range(turns - 1, -1, -1):
        gains = [gain(level - drop * turn + margin) for margin in MARGINS]
        values, choices = _step(taken, gains, values)
    chosen = choices[0]
    return Plan(MARGINS[chosen - 1] if chosen else None, values[0])


def _step(
    taken: Sequence[float], gains: Sequence[float | None], after: Sequence[float]
) -> tuple[list[float], list[int]]:
    """Return the value and the choice for each margin tried before (0: none), one turn earlier."""
    values, choices = [], []
    for tried in range(len(taken)):
        best, choice = after[tried], tried
        for index in range(tried, len(gains)):
            gained = gains[index]
            if gained is None:
                break
            value = (taken[index + 1] - taken[tried]) * gained + after[index + 1]
            if value > best:
                best, choice = value, index + 1
        values.append(best)
        choices.append(choice)
    return values, choices
