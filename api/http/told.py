"""What was told of calls that have ended, for those who come back to hear the rest.

Events hold outputs, so what is kept is bounded by bytes: the oldest calls are forgotten first, and
whoever asks for them is told their end from the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

MAX_TOLD_BYTES: Final = 32 * 1024 * 1024
MAX_TOLD_CALLS: Final = 1_024


class Told:
    """The events of calls that ended lately."""

    def __init__(self, *, max_bytes: int = MAX_TOLD_BYTES, max_calls: int = MAX_TOLD_CALLS) -> None:
        """Keep at most so many calls and bytes of events."""
        self._max_bytes, self._max_calls = max_bytes, max_calls
        self._events: OrderedDict[str, tuple[bytes, ...]] = OrderedDict()
        self.size_bytes = 0

    def keep(self, call_id: str, events: Sequence[bytes]) -> None:
        """Keep the events of a call, and forget the oldest ones that are too much."""
        self._forget(call_id)
        self._events[call_id] = tuple(events)
        self.size_bytes += sum(map(len, events))
        while self.size_bytes > self._max_bytes or len(self._events) > self._max_calls:
            self._forget(next(iter(self._events)))

    def of(self, call_id: str) -> tuple[bytes, ...] | None:
        """Return all events of a call, if they are still known."""
        return self._events.get(call_id)

    def _forget(self, call_id: str) -> None:
        self.size_bytes -= sum(map(len, self._events.pop(call_id, ())))
