"""Time as an argument: the one place that reads the machine's clock.

Everything else takes a :class:`Clock`; tests pass a :class:`ManualClock`.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in milliseconds since the Unix epoch."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        """Start at ``start_ms``."""
        self._now_ms = start_ms

    def now_ms(self) -> int:
        """Return the time that was set last."""
        return self._now_ms

    def advance(self, by_ms: int) -> None:
        """Move on by ``by_ms`` milliseconds (never backwards)."""
        if by_ms < 0:
            raise ValueError("time does not run backwards")
        self._now_ms += by_ms
