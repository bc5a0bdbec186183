"""How often a key may ask: one token bucket a key, told in the RateLimit header fields.

A bucket holds ``burst`` requests and refills at ``per_s``. Buckets live in the process (each
gateway counts for itself) and the least used are forgotten first.

    >>> rates = Rates(per_s=1, burst=1, clock=ManualClock())
    >>> rates.take("key")["ratelimit"]
    '"default";r=0;t=1'
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from api.http.errors import RateLimitedError, TooManyCallsError
from rahba.clock import Clock

_MAX_BUCKETS: Final = 10_000


class Rates:
    """Requests a key may make; ``take`` raises when a bucket is empty."""

    def __init__(self, *, per_s: int, burst: int, clock: Clock) -> None:
        """Fill each bucket with ``burst`` requests, refilled at ``per_s``."""
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()
        window_s = max(1, burst // per_s)
        self._policy = f'"default";q={burst};w={window_s}'

    def take(self, key: str, cost: int = 1) -> dict[str, str]:
        """Take ``cost`` requests of ``key`` and return the header fields that say what is left.

        Raises:
            RateLimitedError: not that many are left.
        """
        now_ms = self._clock.now_ms()
        left, at_ms = self._buckets.pop(key, (float(self._burst), now_ms))
        left = min(self._burst, left + max(0, now_ms - at_ms) * self._per_s / 1000)
        short = cost - left
        self._buckets[key] = (left if short > 0 else left - cost, now_ms)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if short > 0:
            wait_s = max(1, -int(-short // self._per_s))
            headers = self._headers(0, wait_s) | {"retry-after": str(wait_s)}
            raise RateLimitedError("too many requests", headers=headers, wait_s=wait_s)
        return self._headers(int(left - cost), 1)

    def _headers(self, left: int, reset_s: int) -> dict[str, str]:
        return {
            "ratelimit": f'"default";r={left};t={reset_s}',
            "ratelimit-policy": self._policy,
        }


class Turnstile:
    """How many calls of one key run at once."""

    def __init__(self, limit: int) -> None:
        """Let ``limit`` calls of a key run."""
        self._limit = limit
        self._inside: dict[str, int] = {}

    def enter(self, key: str) -> None:
        """Count one call in.

        Raises:
            TooManyCallsError: the limit is reached.
        """
        running = self._inside.get(key, 0)
        if running >= self._limit:
            raise TooManyCallsError("too many calls are running", limit=self._limit)
        self._inside[key] = running + 1

    def leave(self, key: str) -> None:
        """Count one call out."""
        left = self._inside[key] - 1
        if left:
            self._inside[key] = left
        else:
            del self._inside[key]
