"""Records in memory, for simulations and single-process tests."""

from __future__ import annotations


class MemoryRecords:
    """A ``DeploymentStore`` that lives as long as its process."""

    def __init__(self) -> None:
        """Start empty."""
        self._records: dict[str, bytes] = {}

    async def put(self, key: str, raw: bytes) -> None:
        """Write a record."""
        self._records[key] = raw

    async def get(self, key: str) -> bytes | None:
        """Return a record."""
        return self._records.get(key)

    async def all(self) -> list[bytes]:
        """Return every record."""
        return list(self._records.values())

    async def count(self) -> int:
        """Return how many there are."""
        return len(self._records)

    async def remove(self, key: str) -> None:
        """Forget a record."""
        self._records.pop(key, None)

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` only where ``old`` still stands; say whether it did."""
        if self._records.get(key) != old:
            return False
        self._records[key] = new
        return True
