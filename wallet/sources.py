"""Where a whole log can be read from: a store, a running ledger, an export.

* ``note`` is the latest checkpoint as of when the source was opened; ``pages`` go at least as far
  as it does. What a store holds beyond its checkpoint (an interval that is still open) comes, too.
* A source is not believed: who reads it compares what it gives with the checkpoint
  (:mod:`wallet.audit`), and the checkpoint's signature with a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, NamedTuple, Protocol

from rahba.note import read_checkpoint, split_note
from wallet.errors import StoreError
from wallet.ports import Entry, Ledger, Store, Verdict

PAGE: Final = 768  # three bundles of the archive, and no more than a ledger answers at once


class Rest(NamedTuple):
    """What a ledger keeps beside its log: who was refused, and what the witnesses signed."""

    verdicts: tuple[Verdict, ...] = ()
    witnessed: str | None = None


class Source(Protocol):
    """A whole log, for one reader."""

    @property
    def note(self) -> str:
        """Return the checkpoint."""
        ...

    def pages(self, start: int) -> AsyncIterator[list[Entry]]:
        """Yield the entries from ``start`` on, in order.

        Raises:
            StoreError: what comes next cannot be read.
        """
        ...

    async def rest(self) -> Rest:
        """Return what is kept beside the log."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


class StoreSource:
    """A store, which may be written to meanwhile; closing this closes it."""

    def __init__(self, store: Store) -> None:
        """Read ``store``.

        Raises:
            StoreError: it holds no checkpoint.
        """
        self._store = store
        self.note = store.checkpoint() or ""
        self._size = store.size()
        if not self.note:
            raise StoreError("there is no ledger, or one that was never closed properly")

    async def pages(self, start: int) -> AsyncIterator[list[Entry]]:
        """Yield what the store had when this was made."""
        while start < self._size:
            limit = min(PAGE, self._size - start)
            page = await asyncio.to_thread(self._store.read, start, limit)
            if not page:
                raise StoreError(f"entry {start} is missing", seq=start)
            yield page
            start = page[-1].seq + 1

    async def rest(self) -> Rest:
        """Return remembered refusals and the newest cosigned checkpoint."""
        return Rest(tuple(self._store.verdicts()), self._store.witnessed())

    async def close(self) -> None:
        """Close the store."""
        self._store.close()


class LedgerSource:
    """A running ledger, near or far; its owner closes it."""

    def __init__(self, ledger: Ledger, note: str) -> None:
        """Read ``ledger`` up to its checkpoint ``note``."""
        self._ledger = ledger
        self.note = note

    async def pages(self, start: int) -> AsyncIterator[list[Entry]]:
        """Yield what is under the checkpoint."""
        size = size_of(self.note)
        while start < size:
            wanted = min(PAGE, size - start)
            page = (await self._ledger.entries(start, wanted))[:wanted]
            if not page:
                raise StoreError(f"entry {start} is not shown", seq=start)
            yield [Entry(item.seq, item.raw, _leaf(item.id), item.log_time) for item in page]
            start += len(page)

    async def rest(self) -> Rest:
        """Return the newest cosigned checkpoint; whom a ledger refused it tells nobody."""
        return Rest((), await self._ledger.witnessed())

    async def close(self) -> None:
        """Leave the ledger to its owner."""


class Continued:
    """One source, and what another one has beyond it."""

    def __init__(self, first: Source, size: int, tail: Source) -> None:
        """Read ``size`` entries of ``first``, then ``tail``; it closes neither."""
        self._first, self._size, self._tail = first, size, tail

    @property
    def note(self) -> str:
        """Return the checkpoint of the tail."""
        return self._tail.note

    async def pages(self, start: int) -> AsyncIterator[list[Entry]]:
        """Yield from the one, then from the other."""
        async for page in self._first.pages(start):
            yield page
        async for page in self._tail.pages(max(start, self._size)):
            yield page

    async def rest(self) -> Rest:
        """Return the refusals of the first; what the tail's witnesses signed is the newer."""
        first, tail = await self._first.rest(), await self._tail.rest()
        return Rest(first.verdicts, tail.witnessed or first.witnessed)

    async def close(self) -> None:
        """Leave both to their owners."""


def size_of(note: str) -> int:
    """Return how many entries a checkpoint says that it covers; nobody has checked its signature.

    Raises:
        BadNoteError: it is no checkpoint.
    """
    return read_checkpoint(split_note(note)[0]).size


def _leaf(tx_id: str) -> bytes:
    try:
        return bytes.fromhex(tx_id)
    except ValueError:
        return b""  # equal to no leaf hash: the audit names the entry
