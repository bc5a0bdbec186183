"""A store in memory: the same contract as the others, and gone with its process."""

from __future__ import annotations

from collections.abc import Sequence

from wallet.errors import StoreError
from wallet.ports import Entry, Verdict


class MemoryStore:
    """Keeps the log in lists. A ``limit`` of entries stands for a full disk."""

    def __init__(self, limit: int | None = None) -> None:
        """Start empty."""
        self._limit = limit
        self._entries: list[Entry] = []
        self._places: dict[bytes, int] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._checkpoint: str | None = None

    def append(
        self, entries: Sequence[Entry], verdicts: Sequence[Verdict], checkpoint: str | None
    ) -> None:
        """Add all or nothing."""
        size = len(self._entries)
        if [entry.seq for entry in entries] != list(range(size, size + len(entries))):
            raise StoreError("entries follow each other without a gap", size=size)
        if self._limit is not None and size + len(entries) > self._limit:
            raise StoreError("the store is full", limit=self._limit)
        self._entries += entries
        self._places.update((entry.leaf, entry.seq) for entry in entries)
        self._verdicts.update((verdict.id, verdict) for verdict in verdicts)
        if entries:
            now = entries[-1].log_time
            for gone in [item.id for item in self._verdicts.values() if item.until < now]:
                del self._verdicts[gone]
        if checkpoint is not None:
            self._checkpoint = checkpoint

    def size(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        return self._entries[start : start + limit]

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the entries that have these transaction ids."""
        found = {name: self._places.get(bytes.fromhex(name)) for name in ids}
        return {name: self._entries[seq] for name, seq in found.items() if seq is not None}

    def verdicts(self) -> list[Verdict]:
        """Return all remembered refusals."""
        return list(self._verdicts.values())

    def checkpoint(self) -> str | None:
        """Return the latest checkpoint."""
        return self._checkpoint

    def close(self) -> None:
        """Keep everything: a test opens the ledger again on the same store."""
