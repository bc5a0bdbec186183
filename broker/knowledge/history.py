"""What a skill cost, folded from settled deals into buckets of a minute and of an hour; pure.

* A bucket has count, lowest, median and highest price and the volume of one stretch of time. While
  it is open it keeps at most ``MAX_SAMPLE`` prices: when it is full, every second one is dropped
  and only every second one to come is kept (a systematic sample), so the median of a busy minute
  is an estimate, and its count, extremes and volume are exact.
* Times come from the caller and never go back: an earlier one counts as the newest known.
* Memory is bounded: ``MAX_MINUTES`` and ``MAX_HOURS`` buckets a skill.

    >>> history = History()
    >>> for price in (100, 300, 110):
    ...     history.note(60_000, price)
    >>> history.minutes.buckets()[0].median
    110
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
MAX_MINUTES: Final = 240
MAX_HOURS: Final = 24 * 14
MAX_SAMPLE: Final = 128


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """The deals of ``[start_ms, start_ms + width)``; prices and ``volume`` in fals."""

    start_ms: int
    count: int
    low: int
    median: int
    high: int
    volume: int


class Course(msgspec.Struct):
    """Buckets of one width, the newest of them still open. ``sample`` is of the open one."""

    width_ms: int
    most: int
    closed: list[Bucket] = []
    start_ms: int = -1
    count: int = 0
    low: int = 0
    high: int = 0
    volume: int = 0
    stride: int = 1
    sample: list[int] = []

    def note(self, at_ms: int, price: int) -> None:
        """Add a deal at ``price`` fals."""
        start = at_ms // self.width_ms * self.width_ms
        if start > self.start_ms:
            self._close()
            self.start_ms, self.low, self.high = start, price, price
        self.low, self.high = min(self.low, price), max(self.high, price)
        if self.count % self.stride == 0:
            self.sample.append(price)
        self.count += 1
        self.volume += price
        if len(self.sample) >= MAX_SAMPLE:
            self.sample = self.sample[::2]
            self.stride *= 2

    @property
    def steps(self) -> int:
        """Return how many buckets have deals."""
        return len(self.closed) + (self.count > 0)

    def buckets(self) -> list[Bucket]:
        """Return the buckets with deals, oldest first, the open one last."""
        return [*self.closed, self._open()] if self.count else list(self.closed)

    def series(self, *, until_ms: int) -> list[float | None]:
        """Return the medians at equal distances, ``None`` where nothing was traded.

        It ends with the last full bucket before ``until_ms``, and holds ``most`` steps at most.
        """
        end = until_ms // self.width_ms
        medians = {
            bucket.start_ms // self.width_ms: float(bucket.median) for bucket in self.buckets()
        }
        begin = max(min(medians, default=end), end - self.most)
        return [medians.get(step) for step in range(begin, end)]

    def _open(self) -> Bucket:
        middle = middle_of(self.sample)
        return Bucket(self.start_ms, self.count, self.low, middle, self.high, self.volume)

    def _close(self) -> None:
        if self.count:
            self.closed.append(self._open())
            del self.closed[: -(self.most - 1)]
        self.count = self.volume = 0
        self.stride, self.sample = 1, []


class History(msgspec.Struct):
    """Both courses of one skill, and its last price."""

    minutes: Course = msgspec.field(default_factory=lambda: Course(MINUTE_MS, MAX_MINUTES))
    hours: Course = msgspec.field(default_factory=lambda: Course(HOUR_MS, MAX_HOURS))
    last: int = 0
    last_ms: int = 0
    deals: int = 0

    def note(self, at_ms: int, price: int) -> None:
        """Add a deal at ``price`` fals; ``at_ms`` never goes back."""
        at_ms = max(at_ms, self.last_ms)
        self.minutes.note(at_ms, price)
        self.hours.note(at_ms, price)
        self.last, self.last_ms = price, at_ms
        self.deals += 1


def middle_of(prices: Sequence[int]) -> int:
    """Return the median in whole fals (rounded down)."""
    return int(median(prices))
