"""Whether a price is out of its skill's usual range: a robust z over the last deals; pure.

Prices differ by factors, so the logarithm is what is measured: how far it is from the median, in
deviations estimated from the median absolute deviation (Iglewicz & Hoaglin, "How to Detect and
Handle Outliers", 1993; 1.4826 MAD estimates the deviation of a normal distribution). Median and MAD
stand as long as less than half of the window is forged.

What keeps honest markets quiet:

* below ``MIN_DEALS`` there is no opinion: on a thin history an expensive deal is just a deal;
* the deviation is taken as ``MIN_SPREAD`` at least, so a market of one price may change it;
* a price that a share of ``COMMON`` of the window reaches, too, is another tier and no outlier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Final

import msgspec

WINDOW: Final = 128
MIN_DEALS: Final = 30
MIN_SPREAD: Final = 0.1
THRESHOLD: Final = 5.0
COMMON: Final = 0.03
_MAD_TO_SIGMA: Final = 1.4826


@dataclass(frozen=True, slots=True)
class Outlier:
    """A price far from the ``median`` (fals) of the ``deals`` before it, by the robust ``z``."""

    price: int
    median: int
    z: float
    deals: int


class Window(msgspec.Struct):
    """The last prices paid for one skill."""

    prices: list[int] = []

    def note(self, price: int) -> Outlier | None:
        """Judge a price by those before it, then add it; what is free is not judged."""
        if price <= 0:
            return None
        found = self._judge(price)
        self.prices.append(price)
        del self.prices[:-WINDOW]
        return found

    def _judge(self, price: int) -> Outlier | None:
        if len(self.prices) < MIN_DEALS:
            return None
        middle = _median_log(self.prices)
        distance = math.log(price) - middle
        if abs(distance / MIN_SPREAD) < THRESHOLD:  # nearly all: no spread makes it an outlier
            return None
        logs = [math.log(each) for each in self.prices]
        spread = _MAD_TO_SIGMA * median([abs(each - middle) for each in logs])
        z = distance / max(spread, MIN_SPREAD)
        if abs(z) < THRESHOLD:
            return None
        reach = (each - middle for each in logs)
        alike = sum(1 for each in reach if abs(each) >= abs(distance) and each * distance > 0)
        if alike >= COMMON * len(logs):
            return None
        return Outlier(price, int(median(self.prices)), z, len(self.prices))


def _median_log(prices: list[int]) -> float:
    """Return the median of the logarithms: that of the middle, as they grow with the prices."""
    ranked, half = sorted(prices), len(prices) // 2
    if len(ranked) % 2:
        return math.log(ranked[half])
    return (math.log(ranked[half - 1]) + math.log(ranked[half])) / 2
