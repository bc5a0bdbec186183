"""The newest entries of the log, in memory: who follows a log asks for what was just written.

* Only what is on disk is added, each after the one before it; what is shown is what was written.
* Bounded by entries and by bytes: the oldest go first, half of the room at a time.
* It says nothing of what it does not have: that is read from the store (:class:`Shown`).
* One thread adds, any may read.

    >>> tail = Tail()
    >>> tail.add([Entry(7, b"raw", b"leaf", 1), Entry(8, b"raw", b"leaf", 1)])
    >>> [entry.seq for entry in tail.read(8, 10)], tail.read(6, 10), tail.read(9, 10)
    ([8], [], [])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from wallet.ports import Entry

MAX_ENTRIES: Final = 4_096
MAX_BYTES: Final = 8 * 1024 * 1024


class Tail:
    """Holds consecutive entries up to the newest one."""

    __slots__ = ("_bytes", "_entries")

    def __init__(self) -> None:
        """Begin empty."""
        self._entries: list[Entry] = []
        self._bytes = 0

    def add(self, entries: Sequence[Entry]) -> None:
        """Take what has just been written; after a gap, begin anew."""
        if not entries:
            return
        if self._entries and entries[0].seq != self._entries[-1].seq + 1:
            self._entries, self._bytes = [], 0
        self._entries += entries
        self._bytes += sum([len(entry.raw) for entry in entries])
        while len(self._entries) > MAX_ENTRIES or self._bytes > MAX_BYTES:
            half = (len(self._entries) + 1) // 2
            self._bytes -= sum([len(entry.raw) for entry in self._entries[:half]])
            self._entries = self._entries[half:]  # another list: one may be being read

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on; none if ``start`` is not held."""
        entries = self._entries
        at = start - entries[0].seq if entries else -1
        return entries[at : at + limit] if at >= 0 else []


class Reading(Protocol):
    """What entries can be read from, such as a store."""

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        ...


class Shown:
    """Entries of a store, the newest of them from memory; what is read was written."""

    __slots__ = ("_store", "_tail")

    def __init__(self, tail: Tail, store: Reading) -> None:
        """Read ``store`` where ``tail`` has nothing."""
        self._tail = tail
        self._store = store

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on; from memory, it may be fewer."""
        return self._tail.read(start, limit) or self._store.read(start, limit)
