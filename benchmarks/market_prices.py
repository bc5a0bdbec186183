"""The price forecasts beside the naive ones, on series that nothing was tuned on.

Seeded synthetic series of prices: a daily season, a trend, a level under noise with gaps, a random
walk, and a season whose level jumps. Each method sees the history and is asked for the next
``AHEAD`` steps, which it never saw; the figure is the mean absolute error, the reference that of
the naive (or seasonal-naive) forecast of the same steps. On a random walk nothing can be better
than naive, and the target is only not to be much worse. The parameters were looked at on other
seeds than those measured here.

    python -m benchmarks.market_prices
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Final

import orjson

from benchmarks.rows import Row, row
from broker.knowledge.forecast import forecast, seasonal

SERIES: Final = 60
LENGTH: Final = 24 * 10
AHEAD: Final = 6
DAY: Final = 24
SEED: Final = 20_261

Prices = list[float | None]
Maker = Callable[[random.Random], Prices]


def run(count: int = SERIES) -> list[Row]:
    """Measure; takes some ten seconds."""
    rows = []
    inside = steps = 0
    for place, (name, make, against, target) in enumerate(KINDS):
        ours = naives = seasonals = 0.0
        for number in range(count):
            prices = make(random.Random(SEED + 1_000 * place + number))
            history, coming = prices[:-AHEAD], prices[-AHEAD:]
            found = forecast(history, period=DAY, ahead=AHEAD)
            assert found is not None
            for step, seen in enumerate(coming):
                if seen is not None:
                    steps += 1
                    inside += found.low[step] <= seen <= found.high[step]
                    ours += abs(found.values[step] - seen)
                    naives += abs(found.naive[step] - seen)
            again = seasonal(history, AHEAD, DAY)
            seasonals += sum(
                abs(a - b) for a, b in zip(again, coming, strict=True) if b is not None
            )
        errors = {"naive": naives, "seasonal naive": seasonals}
        for other, error in errors.items():
            rows.append(
                row(
                    f"prices: error of the forecast on a {name}, beside {other}",
                    ours / (count * AHEAD),
                    "fals",
                    reference=error / (count * AHEAD),
                    target=target if other == against else None,
                    at_most=True,
                )
            )
    share = inside / steps
    rows.append(row("prices: outcomes inside the 80 % interval", share, "", target=0.7))
    return rows


def _seasonal(rng: random.Random) -> Prices:
    swing, noise, phase = rng.uniform(0.1, 0.5), rng.uniform(0.02, 0.1), rng.randrange(DAY)
    return [
        1_000 * (1 + swing * math.sin(math.tau * (step + phase) / DAY) + rng.gauss(0, noise))
        for step in range(LENGTH + AHEAD)
    ]


def _trend(rng: random.Random) -> Prices:
    slope, noise = rng.choice([-1, 1]) * rng.uniform(0.5, 3), rng.uniform(10, 40)
    return [2_000 + slope * step + rng.gauss(0, noise) for step in range(LENGTH + AHEAD)]


def _noise(rng: random.Random) -> Prices:
    noise = rng.uniform(20, 150)
    return [
        1_000 + rng.gauss(0, noise) if rng.random() > 0.2 else None for _ in range(LENGTH + AHEAD)
    ]


def _walk(rng: random.Random) -> Prices:
    price = 1_000.0
    found: Prices = []
    for _ in range(LENGTH + AHEAD):
        price = max(price * math.exp(rng.gauss(0, 0.03)), 1.0)
        found.append(price)
    return found


def _jump(rng: random.Random) -> Prices:
    when, size = rng.randrange(LENGTH // 2, LENGTH - DAY), rng.choice([0.6, 1.6])
    return [
        price * (size if step >= when else 1.0)
        for step, price in enumerate(_seasonal(rng))
        if price is not None
    ]


#: A kind of series: its name and maker, which baseline is the one to beat, and by how much.
KINDS: Final[tuple[tuple[str, Maker, str, float], ...]] = (
    ("daily season", _seasonal, "seasonal naive", 0.9),
    ("season with a jump", _jump, "naive", 0.9),
    ("trend", _trend, "naive", 0.95),
    ("noisy level with gaps", _noise, "naive", 0.9),
    ("random walk", _walk, "naive", 1.05),
)


def main(show: Callable[[str], None] = print) -> None:
    """Print the rows as JSON."""
    show(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
