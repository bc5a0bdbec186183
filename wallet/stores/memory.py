"""A store in memory: the same contract as the others, and gone with its process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wallet.errors import FencedError, StoreError, StoreLockedError
from wallet.ports import ARCHIVE, Entry, Pulse, Rows, Snapshot, Verdict


@dataclass(slots=True)
class MemoryDisk:
    """What stores of one ledger share: the data, who writes, and the newest fencing token."""

    entries: list[Entry] = field(default_factory=list)
    places: dict[bytes, int] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    covered: int = 0
    fence: int = 0
    writer: int = 0
    beat: int = 0


class MemoryStore:
    """Keeps the log in lists. A ``limit`` of entries stands for a full disk."""

    def __init__(self, limit: int | None = None, *, disk: MemoryDisk | None = None) -> None:
        """Use ``disk``, or an empty one."""
        self._limit = limit
        self._disk = disk or MemoryDisk()
        self._token = 0

    def acquire(self, *, steal: bool = False) -> int:
        """Become the one writer, until it is closed."""
        disk = self._disk
        if self._token:
            return self._token
        if disk.writer and not steal:
            raise StoreLockedError("another one writes")
        disk.fence += 1
        disk.writer = self._token = disk.fence
        return self._token

    def beat(self) -> None:
        """Tell who watches that this writer lives."""
        self._check_writer()
        self._disk.beat += 1

    def pulse(self) -> Pulse:
        """Return the newest writer's token and beats."""
        return Pulse(self._disk.fence, self._disk.beat)

    def append(
        self,
        entries: Sequence[Entry],
        verdicts: Sequence[Verdict],
        checkpoint: str | None,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Add all or nothing."""
        self._check_writer()
        size = len(self._disk.entries)
        if [entry.seq for entry in entries] != list(range(size, size + len(entries))):
            raise StoreError("entries follow each other without a gap", size=size)
        if self._limit is not None and size + len(entries) > self._limit:
            raise StoreError("the store is full", limit=self._limit)
        if snapshot is not None and not self._disk.covered <= snapshot.size <= size + len(entries):
            raise StoreError("a snapshot covers what there is", covers=snapshot.size)
        self._disk.entries += entries
        self._disk.places.update((entry.leaf, entry.seq) for entry in entries)
        if entries:
            now = entries[-1].log_time
            for gone in [item.id for item in self._disk.verdicts.values() if item.until < now]:
                del self._disk.verdicts[gone]
        self._disk.verdicts.update((verdict.id, verdict) for verdict in verdicts)
        if checkpoint is not None:
            self._disk.notes["checkpoint"] = checkpoint
        if snapshot is not None:
            self._disk.covered = snapshot.size
            for key, value in snapshot.rows.items():
                if value is None:
                    self._disk.rows.pop(key, None)
                else:
                    self._disk.rows[key] = value

    def save_witnessed(self, note: str) -> None:
        """Keep the newest cosigned checkpoint."""
        self._check_writer()
        self._disk.notes["witnessed"] = note

    def size(self) -> int:
        """Return the number of entries."""
        return len(self._disk.entries)

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        return self._disk.entries[start : start + limit]

    def leaves(self, start: int, limit: int) -> bytes:
        """Return up to ``limit`` leaf hashes from ``start`` on."""
        return b"".join(entry.leaf for entry in self.read(start, limit))

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the entries that have these transaction ids."""
        found = {name: self._disk.places.get(bytes.fromhex(name)) for name in ids}
        return {name: self._disk.entries[seq] for name, seq in found.items() if seq is not None}

    def verdicts(self) -> list[Verdict]:
        """Return all remembered refusals."""
        return list(self._disk.verdicts.values())

    def checkpoint(self) -> str | None:
        """Return the latest checkpoint."""
        return self._disk.notes.get("checkpoint")

    def witnessed(self) -> str | None:
        """Return the latest cosigned checkpoint."""
        return self._disk.notes.get("witnessed")

    def snapshot(self) -> tuple[int, Rows] | None:
        """Return the snapshot's size and rows."""
        rows = sorted(item for item in self._disk.rows.items() if item[0] < ARCHIVE)
        return (self._disk.covered, (row for row in rows)) if self._disk.covered else None

    def row(self, key: bytes) -> bytes | None:
        """Return one row."""
        return self._disk.rows.get(key)

    def close(self) -> None:
        """Stop writing and keep everything: a test opens the ledger again on the same store."""
        if self._disk.writer == self._token:
            self._disk.writer = 0
        self._token = 0

    def _check_writer(self) -> None:
        if not self._token:
            raise StoreError("the store was not acquired")
        if self._token != self._disk.fence:
            raise FencedError("a newer writer has the store", token=self._token)
