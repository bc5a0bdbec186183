"""Writing a log into a store anew: what an import and a restore end with.

* What is written was audited before; here it is only carried out, to find the links between the
  entries of each account and the state that a snapshot keeps.
* The checkpoint is written with the last entries. A store whose writing was cut off has none: it
  is not started from (:mod:`wallet.recovery`), and the same import goes on where it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from rahba.merkle import HASH_BYTES
from rahba.note import open_checkpoint, verifier_key_of
from wallet.audit import Progress
from wallet.errors import LedgerCorruptError, StoreError
from wallet.ports import Entry, Store
from wallet.recovery import replayed
from wallet.replay import Replay
from wallet.sources import Source, size_of

GROUP: Final = 1_000


class NotEmptyError(StoreError):
    """The store that is to be written has a ledger, or part of another one."""

    code = "not_empty"
    hint = "name an empty place; a ledger is never written over"


@dataclass(slots=True)
class _Pen:
    """Collects entries as they are carried out, and writes them in groups."""

    store: Store
    written: int
    group: list[Entry] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        if entry.seq >= self.written:
            self.group.append(entry)

    def flush(self) -> None:
        """Write all but the last entry: that comes with the checkpoint."""
        while len(self.group) > GROUP:
            self.store.append(self.group[:GROUP], [], None)
            self.written += GROUP
            del self.group[:GROUP]


async def write_log(source: Source, store: Store, progress: Progress | None = None) -> int:
    """Write the source's log into an empty store, or go on doing so; returns its size.

    Raises:
        NotEmptyError: the store has a ledger, or the beginning of another log.
        LedgerCorruptError: the entries do not lead to the checkpoint's root.
    """
    await asyncio.to_thread(store.acquire)
    if store.checkpoint() is not None:
        raise NotEmptyError("there is a ledger already", size=store.size())
    await _compare(source, store)
    return await _write(source, store, Replay(verify=False), progress)


async def append_log(source: Source, store: Store, progress: Progress | None = None) -> int:
    """Append to a store what the source has beyond it; returns the size."""
    await asyncio.to_thread(store.acquire)
    replay, _ = await asyncio.to_thread(replayed, store)
    return await _write(source, store, replay, progress)


async def _compare(source: Source, store: Store) -> None:
    """Refuse a store whose entries are not the first ones of the source."""
    size = store.size()
    if size > size_of(source.note):
        raise NotEmptyError("there is a longer log already", size=size)
    at = 0
    async for page in source.pages(0):
        if at >= size:
            return
        there = store.leaves(at, min(len(page), size - at))
        if b"".join(entry.leaf for entry in page[: size - at]) != there:
            raise NotEmptyError("there is another log already", size=size)
        at += len(there) // HASH_BYTES


async def _write(source: Source, store: Store, replay: Replay, progress: Progress | None) -> int:
    pen = _Pen(store, store.size())
    replay.taken = pen.take
    size = size_of(source.note)
    async for page in source.pages(replay.size):
        await asyncio.to_thread(_carry_out, replay, pen, page, size)
        if progress is not None:
            progress(replay.size)
        if replay.size == size:
            break
    book = replay.book
    genesis = book.genesis
    signed = open_checkpoint(source.note, verifier_key_of(genesis.origin, genesis.operator))
    if (signed.size, signed.root) != (book.log.size, book.log.root()):
        raise LedgerCorruptError("the entries do not lead to the checkpoint", seq=book.log.size)
    rest = await source.rest()
    await asyncio.to_thread(store.append, pen.group, rest.verdicts, source.note, book.snapshot())
    if rest.witnessed is not None:
        await asyncio.to_thread(store.save_witnessed, rest.witnessed)
    return size


def _carry_out(replay: Replay, pen: _Pen, page: Iterable[Entry], size: int) -> None:
    for entry in page:
        if entry.seq < size:
            replay.feed(entry.raw)
    pen.flush()
