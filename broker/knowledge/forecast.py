"""What a skill will cost next, beside what the naive forecasts say; pure and deterministic.

Three methods are tried on the same series, and shown beside each other whatever comes of it:

* ``naive``: as the last price seen;
* ``seasonal``: as at the same place of the last season (Hyndman & Athanasopoulos 2021, ch. 5.2);
* ``smoothing``: :mod:`broker.knowledge.smoothing`, of the logarithms where all prices are above 0:
  prices rise by factors, and seasons grow with them (ch. 3.1; additive in logarithms is the
  multiplicative model in prices). Intervals are made on the same scale.

The smoothing learns its parameters on the first part of the history alone. Over the rest the origin
rolls on, and each method is asked for the next ``ahead`` steps (ch. 5.10); what counts is the mean
absolute error. The smoothing is used only if it beats both others there by ``MARGIN``: on a random
walk nothing beats the naive forecast, and so nothing else is used. What is used is then fitted to
the whole history. The interval is meant to hold 80 % of what comes.

    >>> forecast([100.0, 100.0, 100.0, 104.0], period=0, ahead=1).method
    'naive'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from broker.knowledge.history import Course, History
from broker.knowledge.smoothing import Series, begin, choose, fit

Method = Literal["naive", "seasonal", "smoothing"]

AHEAD: Final = 6
MARGIN: Final = 0.02
MIN_SEEN: Final = 12
TRAINED_SHARE: Final = 2 / 3
INTERVAL: Final = 0.8
_Z: Final = 1.2816  # 80 % of a normal distribution lie within so many deviations
_MOST: Final = 64.0  # e^64 fals are more than there will ever be
_SEASONS: Final = {60_000: 60, 3_600_000: 24}


@dataclass(frozen=True, slots=True)
class Forecast:
    """The next steps by the ``method`` in use, and by the ``naive`` one.

    ``errors`` are the mean absolute errors on the rolling origin, by method; empty where the
    history is too short to tell. ``low`` and ``high`` bound the interval of each step.
    """

    method: Method
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    naive: tuple[float, ...]
    errors: dict[Method, float]


@dataclass(frozen=True, slots=True)
class PriceView:
    """What is known of a skill's price, as strategies are offered it (fals).

    ``median`` is that of the newest bucket with deals; ``forecast`` is for the step under way,
    and it lies from ``low`` to ``high`` in four cases of five. A step takes ``width_ms``.
    """

    skill: str
    deals: int
    last: int
    median: int
    forecast: int
    low: int
    high: int
    naive: int
    method: Method
    width_ms: int


def forecast(series: Series, *, period: int, ahead: int = AHEAD) -> Forecast | None:
    """Forecast ``ahead`` steps after ``series``; ``None`` if nothing was ever seen.

    ``period`` is the length of a season in steps, 0 for none. A season that the series does not
    hold twice over is left out.
    """
    seen = [value for value in series if value is not None]
    if not seen:
        return None
    if len(series) < 2 * period + 2 or len(seen) < period:
        period = 0
    errors, season = tried(series, period=period, ahead=ahead)
    method = _best(errors)
    scale = Scale.of(series)
    scaled = scale.up(series)
    if method == "smoothing":
        fitted = fit(scaled, period=season)
        values, deviations = fitted.ahead(ahead), fitted.deviations(ahead)
    elif method == "seasonal":
        values = seasonal(scaled, ahead, period)
        sigma = _deviation(scaled, period)
        deviations = [sigma * math.sqrt(step // period + 1) for step in range(ahead)]
    else:
        values, sigma = naive(scaled, ahead), _deviation(scaled, 1)
        deviations = [sigma * math.sqrt(step) for step in range(1, ahead + 1)]
    pairs = list(zip(values, deviations, strict=True))
    low = tuple(scale.down(value - _Z * spread) for value, spread in pairs)
    high = tuple(scale.down(value + _Z * spread) for value, spread in pairs)
    middle = tuple(scale.down(value) for value in values)
    return Forecast(method, middle, low, high, tuple(naive(series, ahead)), errors)


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale on which prices are smoothed: logarithms, unless something was free."""

    logs: bool

    @classmethod
    def of(cls, series: Series) -> Scale:
        """Return the scale for these prices."""
        return cls(all(value is None or value > 0 for value in series))

    def up(self, series: Series) -> list[float | None]:
        """Return prices on the scale."""
        if not self.logs:
            return list(series)
        return [None if value is None else math.log(value) for value in series]

    def down(self, value: float) -> float:
        """Return a price; none is below 0, nor beyond anything that could be paid."""
        return math.exp(min(value, _MOST)) if self.logs else max(value, 0.0)


def naive(series: Series, ahead: int) -> list[float]:
    """Return the last value seen, so many times."""
    last = next((value for value in reversed(series) if value is not None), 0.0)
    return [last] * ahead


def seasonal(series: Series, ahead: int, period: int) -> list[float]:
    """Return what the same places of the season had last; the last value where none had."""
    flat = naive(series, 1)[0]
    found = []
    for step in range(ahead):
        same = range(len(series) - period + step % period, -1, -period)
        values = (series[place] for place in same if series[place] is not None)
        found.append(next((value for value in values if value is not None), flat))
    return found


def tried(series: Series, *, period: int, ahead: int) -> tuple[dict[Method, float], int]:
    """Return the error of each method, and the period with which the smoothing had its own.

    A season costs the smoothing as many parameters as it has places: it is used if it pays.
    """
    if sum(1 for value in series if value is not None) < MIN_SEEN:
        return {}, 0
    plain = rolling_errors(series, period=0, ahead=ahead)
    if period <= 1 or not plain:
        return plain, 0
    errors = rolling_errors(series, period=period, ahead=ahead)
    if errors["smoothing"] <= plain["smoothing"]:
        return errors, period
    return errors | {"smoothing": plain["smoothing"]}, 0


def rolling_errors(series: Series, *, period: int, ahead: int) -> dict[Method, float]:
    """Return the mean absolute error of each method over the last third of ``series``.

    The smoothing's parameters come from what is before it; its state learns as the origin rolls.
    """
    cut = int(len(series) * TRAINED_SHARE)
    scale = Scale.of(series)
    scaled = scale.up(series)
    weights, _ = choose(scaled[:cut], period=period)
    state = begin(scaled[:cut], period)
    for value in scaled[:cut]:
        state.learn(value, weights)
    totals: dict[Method, float] = {"naive": 0.0, "smoothing": 0.0}
    if period > 1:
        totals["seasonal"] = 0.0
    counted = 0
    for origin in range(cut, len(series)):
        coming = series[origin : origin + ahead]
        past = series[:origin]
        said: dict[Method, list[float]] = {
            "naive": naive(past, len(coming)),
            "smoothing": [scale.down(each) for each in state.ahead(len(coming), weights.phi)],
        }
        if period > 1:
            said["seasonal"] = seasonal(past, len(coming), period)
        for step, value in enumerate(coming):
            if value is not None:
                counted += 1
                for method, values in said.items():
                    totals[method] += abs(values[step] - value)
        state.learn(scaled[origin], weights)
    return {method: total / counted for method, total in totals.items()} if counted else {}


def price_view(
    skill: str, history: History, *, now_ms: int, found: Forecast | None = None
) -> PriceView | None:
    """Return what is known of a skill's price; ``None`` before its first deal.

    ``found`` is its :func:`outlook`, where that is known already.
    """
    found = found or outlook(history, now_ms=now_ms)
    if found is None:
        return None
    course = course_for(history)
    return PriceView(
        skill=skill,
        deals=history.deals,
        last=history.last,
        median=course.buckets()[-1].median,
        forecast=round(found.values[0]),
        low=round(found.low[0]),
        high=round(found.high[0]),
        naive=round(found.naive[0]),
        method=found.method,
        width_ms=course.width_ms,
    )


def outlook(history: History, *, now_ms: int) -> Forecast | None:
    """Forecast the step under way and those after it; ``None`` before the first deal.

    It is the same until the next step begins: only what is over is learnt from. Before the first
    step is over, the price is taken to stay as it is.
    """
    if not history.deals:
        return None
    course = course_for(history)
    found = forecast(course.series(until_ms=now_ms), period=season_of(course))
    if found is not None:
        return found
    flat = (float(course.buckets()[-1].median),) * AHEAD
    return Forecast("naive", flat, flat, flat, flat, {})


def course_for(history: History) -> Course:
    """Return the hours once enough of them are known to forecast by, else the minutes."""
    return history.hours if history.hours.steps > MIN_SEEN else history.minutes


def season_of(course: Course) -> int:
    """Return how many steps of a course make a season: an hour of minutes, a day of hours."""
    return _SEASONS[course.width_ms]


def _best(errors: dict[Method, float]) -> Method:
    if not errors:
        return "naive"
    simple = min((name for name in errors if name != "smoothing"), key=lambda name: errors[name])
    return "smoothing" if errors["smoothing"] < errors[simple] * (1 - MARGIN) else simple


def _deviation(series: Series, lag: int) -> float:
    """Return the root of the mean square of what changed over ``lag`` steps."""
    filled = _filled(series)
    steps = list(pairwise(filled)) if lag == 1 else list(zip(filled, filled[lag:], strict=False))
    if not steps:
        return 0.0
    return math.sqrt(sum((after - before) ** 2 for before, after in steps) / len(steps))


def _filled(series: Series) -> Sequence[float]:
    """Return the series with each gap filled by what was before it; leading gaps are dropped."""
    found: list[float] = []
    for value in series:
        if value is not None:
            found.append(value)
        elif found:
            found.append(found[-1])
    return found
