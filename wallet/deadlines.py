"""What ends by itself, and when: the times of holds, disputes and stakes on their way back.

A subject may be listed more than once; what counts is the time that it has now, which whoever made
this is asked for. So nothing is ever searched for in the list.

    >>> times = {"a": 20, "b": 10}
    >>> deadlines = Deadlines(times.get)
    >>> for subject, due in times.items():
    ...     deadlines.watch(subject, due)
    >>> deadlines.next(), deadlines.pop(15, 10), deadlines.pop(15, 10)
    (10, ['b'], [])
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Deadlines:
    """A heap of times; each operation costs O(log n), amortised."""

    __slots__ = ("_due", "_heap")

    def __init__(self, due: Callable[[str], int | None]) -> None:
        """Ask ``due`` when the time of a subject is over; ``None``: it has ended."""
        self._due = due
        self._heap: list[tuple[int, str]] = []

    def watch(self, subject: str, due: int) -> None:
        """Keep in mind that the time of ``subject`` is over at ``due``."""
        heapq.heappush(self._heap, (due, subject))

    def next(self) -> int | None:
        """Return when the next time is over."""
        heap = self._heap
        while heap and self._due(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop(self, now: int, limit: int) -> list[str]:
        """Take up to ``limit`` subjects past their time off the list, oldest first."""
        found: dict[str, None] = {}  # one may be listed twice for one time
        while len(found) < limit:
            due = self.next()
            if due is None or due > now:
                break
            found[heapq.heappop(self._heap)[1]] = None
        return list(found)
