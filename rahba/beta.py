"""A Beta distribution's mean and credible interval, in thousandths, the same on every machine.

* Evidence comes in thousandths of a deal: ``kept`` and ``failed``. The prior is uniform, that of
  Beta(1, 1): who has no evidence at all stands at 500, between 50 and 950.
* The interval holds the true rate with a probability of 90 %: 5 % lie below ``low``, 5 % above
  ``high``. Both are rounded away from the middle, so that the interval never says too much.
* No libm: only decimal arithmetic of a fixed precision, whose every operation is rounded as its
  specification says. Two who compute from the same evidence get the same digits. A first guess is
  made with floats; it decides where the search begins, not where it ends.

The distribution function is the continued fraction of the incomplete beta function (DLMF 8.17.22),
evaluated with Lentz's method. What would normalise it (a gamma function) is not needed: the two
tails at the mean add up to the whole.

    >>> interval(18_000, 0)
    Interval(mean=950, low=854, high=998)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from typing import Final, NamedTuple

WHOLE: Final = 1_000
PRIOR: Final = 1_000  # one deal kept and one failed, in thousandths
TAIL: Final = Decimal("0.05")
_UP_TO: Final = TAIL + Decimal("1e-15")  # what is 5 % exactly may come out a digit above it
MAX_EVIDENCE: Final = 1_000_000  # a thousand deals; beyond that the interval is narrow enough
_CONTEXT: Final = Context(prec=30, rounding=ROUND_HALF_EVEN)
_ENOUGH: Final = Decimal("1e-20")
_TINY: Final = Decimal("1e-40")


class Interval(NamedTuple):
    """A success rate in thousandths: what is expected, and the bounds that hold with 90 %."""

    mean: int
    low: int
    high: int


@lru_cache(maxsize=65_536)
def interval(kept: int, failed: int) -> Interval:
    """Return mean and bounds for so much evidence (thousandths of a deal, none below 0).

    More than ``MAX_EVIDENCE`` in all counts as that much in the same proportion.
    """
    if kept < 0 or failed < 0:
        raise ValueError("evidence is never negative")
    total = kept + failed
    if total > MAX_EVIDENCE:
        kept, failed = kept * MAX_EVIDENCE // total, failed * MAX_EVIDENCE // total
    with localcontext(_CONTEXT):
        a, b = Decimal(kept + PRIOR) / WHOLE, Decimal(failed + PRIOR) / WHOLE
        share = _shares(a, b)
        low = _last(lambda at: share(at) <= _UP_TO, _guess(float(a), float(b)))
        high = WHOLE - _last(lambda at: 1 - share(WHOLE - at) <= _UP_TO, _guess(float(b), float(a)))
    whole = kept + failed + 2 * PRIOR
    return Interval((WHOLE * (kept + PRIOR) + whole // 2) // whole, low, high)


def _last(holds: Callable[[int], bool], guess: int) -> int:
    """Return the last of 0..999 for which a property holds that, once lost, does not return."""
    low, high, at, step = 0, WHOLE, guess, 1
    while high - low > 1:
        if low and high < WHOLE:
            at = (low + high) // 2
        at = min(max(at, low + 1), high - 1)
        if holds(at):
            low, at = at, at + step
        else:
            high, at = at, at - step
        step *= 2
    return low


def _guess(a: float, b: float) -> int:
    """Return about where 5 % of Beta(a, b) lie below (Abramowitz and Stegun 26.5.22)."""
    y = 1.6448536269514722
    left, right = 1 / (2 * a - 1), 1 / (2 * b - 1)
    h, rest = 2 / (left + right), (y * y - 3) / 6
    w = y * math.sqrt(h + rest) / h - (right - left) * (rest + 5 / 6 - 2 / (3 * h))
    return int(WHOLE * a / (a + b * math.exp(2 * w)))


def _shares(a: Decimal, b: Decimal) -> Callable[[int], Decimal]:
    """Return the distribution function of Beta(a, b) at thousandths strictly within 0..1000."""
    mean = a / (a + b)
    whole = _tail(mean, a, b) + _tail(1 - mean, b, a)

    def share(at: int) -> Decimal:
        x = Decimal(at) / WHOLE
        return _tail(x, a, b) / whole if x <= mean else 1 - _tail(1 - x, b, a) / whole

    return share


def _tail(x: Decimal, a: Decimal, b: Decimal) -> Decimal:
    """Return the incomplete beta function B(x; a, b), for 0 < x <= the mean (or little above)."""
    front = (a * x.ln() + b * (1 - x).ln()).exp() / a
    return front / _fraction(x, a, b)


def _fraction(x: Decimal, a: Decimal, b: Decimal) -> Decimal:
    """Return 1 + d1/(1 + d2/(1 + ...)): each step of the loop takes the next d of DLMF 8.17.23."""
    value, upper, lower = Decimal(1), Decimal(1), Decimal(0)
    step, change = 1, Decimal(0)
    while abs(change - 1) >= _ENOUGH:
        m = step // 2
        if step % 2:
            factor = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            factor = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / (1 + factor * lower or _TINY)
        upper = 1 + factor / upper or _TINY
        change = upper * lower
        value *= change
        step += 1
    return value
