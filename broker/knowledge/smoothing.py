"""Additive Holt-Winters with a damped trend, over series with gaps; pure and deterministic.

The model is ETS(A,Ad,A) in its error-correction form, after Hyndman & Athanasopoulos,
"Forecasting: Principles and Practice", 3rd ed. (2021), ch. 8.3 (the method), 8.5 (the state-space
form) and 8.7 (the variance of its forecasts); Gardner & McKenzie (1985) for the damping:

    forecast of h steps   l + (phi + ... + phi^h) b + s(of that place in the season)
    error                 e = y - forecast of one step
    level                 l <- l + phi b + alpha e
    trend                 b <- phi b + alpha beta e
    season                s <- s + gamma e

Where nothing was observed e is 0: the state goes on by itself and learns nothing. Parameters come
from a small grid by the squared one-step errors after a warm-up; ``period`` 0 has no season.

    >>> fitted = fit([5.0, 6.0] * 12, period=2)
    >>> [round(value) for value in fitted.ahead(3)]
    [5, 6, 5]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Final

Series = Sequence[float | None]

ALPHAS: Final = (0.05, 0.15, 0.3, 0.5, 0.75, 0.95)
BETAS: Final = (0.0, 0.1, 0.3)
GAMMAS: Final = (0.0, 0.1, 0.3)
PHIS: Final = (0.8, 0.9, 0.98)
WARM_UP: Final = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """How fast level, trend and season follow, and how the trend is damped."""

    alpha: float
    beta: float
    gamma: float
    phi: float


@dataclass(slots=True)
class State:
    """Level, trend and season after some steps; ``at`` is the next step's place in the season."""

    level: float
    trend: float
    season: list[float]
    at: int = 0

    def ahead(self, steps: int, phi: float) -> list[float]:
        """Return the forecasts of the next ``steps`` steps."""
        found, reach, damped = [], 0.0, 1.0
        for step in range(steps):
            damped *= phi
            reach += damped
            season = self.season[(self.at + step) % len(self.season)]
            found.append(self.level + reach * self.trend + season)
        return found

    def learn(self, seen: float | None, weights: Weights) -> float | None:
        """Go one step on; returns the error of the forecast, ``None`` in a gap."""
        drift = weights.phi * self.trend
        error = None if seen is None else seen - (self.level + drift + self.season[self.at])
        learnt = error or 0.0
        self.level += drift + weights.alpha * learnt
        self.trend = drift + weights.alpha * weights.beta * learnt
        self.season[self.at] += weights.gamma * learnt
        self.at = (self.at + 1) % len(self.season)
        return error


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model at the end of its series; ``sigma`` is the deviation of its one-step errors."""

    weights: Weights
    state: State
    sigma: float

    def ahead(self, steps: int) -> list[float]:
        """Return the forecasts of the next ``steps`` steps."""
        return self.state.ahead(steps, self.weights.phi)

    def deviations(self, steps: int) -> list[float]:
        """Return the standard deviation of each of these forecasts."""
        weights, period = self.weights, len(self.state.season)
        found, variance, reach, damped = [], 1.0, 0.0, 1.0
        for step in range(1, steps + 1):
            found.append(self.sigma * math.sqrt(variance))
            damped *= weights.phi
            reach += damped
            effect = weights.alpha + weights.alpha * weights.beta * reach
            if period > 1 and step % period == 0:
                effect += weights.gamma
            variance += effect * effect
        return found


def begin(series: Series, period: int) -> State:
    """Return a first state from the first two seasons (without a season: the first values)."""
    reach = 2 * period if period > 1 else 2 * WARM_UP
    known = [value for value in series[:reach] if value is not None]
    level = fmean(known) if known else 0.0
    if period <= 1:
        return State(known[0] if known else 0.0, 0.0, [0.0])
    season = []
    for place in range(period):
        values = [value for value in series[place:reach:period] if value is not None]
        season.append(fmean(values) - level if values else 0.0)
    return State(level, 0.0, season)


def fit(series: Series, *, period: int) -> Fitted:
    """Return the model of the grid with the least squared one-step error on ``series``."""
    chosen, least = choose(series, period=period)
    state = begin(series, period)
    for seen in series:
        state.learn(seen, chosen)
    counted = sum(1 for seen in series[_warm(period) :] if seen is not None)
    return Fitted(chosen, state, math.sqrt(least / counted) if counted else 0.0)


def choose(series: Series, *, period: int) -> tuple[Weights, float]:
    """Return the weights with the least squared one-step error, and that sum."""
    start = begin(series, period)
    gammas = GAMMAS if period > 1 else (0.0,)
    chosen, least = Weights(ALPHAS[2], 0.0, 0.0, PHIS[0]), math.inf
    for alpha, beta, gamma in product(ALPHAS, BETAS, gammas):
        for phi in PHIS if beta else PHIS[:1]:  # without a trend there is nothing to damp
            weights = Weights(alpha, beta, gamma, phi)
            total = _squares(series, start, weights, _warm(period), least)
            if total < least:
                chosen, least = weights, total
    return chosen, least


def _warm(period: int) -> int:
    return max(WARM_UP, period)


def _squares(series: Series, start: State, weights: Weights, warm: int, least: float) -> float:
    """Return the sum of squared one-step errors after ``warm`` steps, or infinity once it loses."""
    state, total = State(start.level, start.trend, list(start.season)), 0.0
    for step, seen in enumerate(series):
        error = state.learn(seen, weights)
        if error is not None and step >= warm:
            total += error * error
            if total >= least:
                return math.inf
    return total
