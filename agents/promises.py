"""What a seller has promised and not begun yet: quotes that may be taken, deals not ordered yet.

Each promise takes the room of one job until it is kept, forgotten or over, so that a seller who
quotes to a thousand buyers at once never owes more work than it can take. One buyer may hold half
of the room at most: whoever asks and never answers keeps nobody else out.

    >>> promises = Promises(room=2)
    >>> promises.make("t1", "ann", until_ms=50, now_ms=0), promises.make("t2", "ann", 50, now_ms=0)
    (True, False)
    >>> promises.standing(now_ms=50), promises.standing(now_ms=51)
    (1, 0)
"""

from __future__ import annotations

import heapq
from collections import Counter


class Promises:
    """The standing promises of one seller, by thread. Lost with the process, unlike the deals."""

    def __init__(self, room: int) -> None:
        """Promise to one buyer at most half of ``room``, and one job in any case."""
        self._share = max(1, room // 2)
        self._made: dict[str, tuple[int, str]] = {}
        self._ends: list[tuple[int, str]] = []
        self._held: Counter[str] = Counter()

    def make(self, thread: str, buyer: str, until_ms: int, *, now_ms: int) -> bool:
        """Promise, or prolong a promise; false if the buyer holds its share already."""
        self._forget_old(now_ms)
        if thread in self._made:
            self.forget(thread)
        elif self._held[buyer] >= self._share:
            return False
        self._made[thread] = until_ms, buyer
        self._held[buyer] += 1
        heapq.heappush(self._ends, (until_ms, thread))
        return True

    @property
    def threads(self) -> list[str]:
        """Return the threads in which a promise was made and not forgotten, oldest first."""
        return list(self._made)

    def has(self, thread: str) -> bool:
        """Say whether a promise stands in this thread."""
        return thread in self._made

    def forget(self, thread: str) -> None:
        """Take a promise off the books: it is being kept, or nobody wants it any more."""
        made = self._made.pop(thread, None)
        if made is not None:
            self._held[made[1]] -= 1
            if not self._held[made[1]]:
                del self._held[made[1]]

    def standing(self, *, now_ms: int) -> int:
        """Return how many promises stand."""
        self._forget_old(now_ms)
        return len(self._made)

    def _forget_old(self, now_ms: int) -> None:
        while self._ends and self._ends[0][0] < now_ms:
            until_ms, thread = heapq.heappop(self._ends)
            if self._made.get(thread, (None,))[0] == until_ms:
                self.forget(thread)
