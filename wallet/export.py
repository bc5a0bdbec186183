"""Making an archive of a log (:mod:`wallet.archive`), or going on with one.

1. Full bundles that are there and hash as their tiles say are kept; the others are read from the
   source and written.
2. The entries lead to the root of the checkpoint, which the operator of the genesis signed.
3. An earlier checkpoint of the folder is one of this log, and no newer.
4. All that the checkpoint covers is on disk before it takes the earlier one's place.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from rahba.merkle import leaf_hash
from rahba.note import Checkpoint, open_checkpoint, verifier_key_of
from wallet.archive import CHECKPOINT, LOG, REFUSALS, WITNESSED, Archive, ArchiveError
from wallet.audit import Progress
from wallet.errors import WrongGenesisError
from wallet.merkle import MerkleLog
from wallet.ports import Entry
from wallet.private_files import sync_folder
from wallet.sources import Rest, Source, size_of
from wallet.tiles import WIDTH, Tile, entry_bundle, hash_tile, tile_path, tiles_of
from wallet.transactions import Genesis, read

FORMAT: Final = "rahba-log/1"


class LogName(msgspec.Struct, frozen=True):
    """Which log an archive holds; all of it follows from the log, so nobody need believe it."""

    format: str
    network: str
    chain: str
    origin: str
    vkey: str


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did: entries in the archive, and how many of them were there already."""

    log: LogName
    size: int
    root: str
    kept: int


async def export_log(
    source: Source, folder: Path, *, vkey: str | None = None, progress: Progress | None = None
) -> Exported:
    """Write the source's log, up to its checkpoint, into ``folder``.

    ``vkey`` is the verifier key that the caller trusts; without it the genesis is believed. An
    error leaves what was there usable, and what was written to be gone on with.

    Raises:
        ArchiveError: the folder holds another log, or a newer state of this one.
        WrongGenesisError: the log is not signed by ``vkey``.
        StoreError: the source cannot be read.
    """
    archive, writing = Archive(folder), _Writing(folder)
    size = size_of(source.note)
    log = MerkleLog()
    for bundle in archive.kept(size):  # 1
        log.extend(entry.leaf for entry in bundle)
    kept = log.size
    async for bundle in _bundles(source, kept, size):
        await asyncio.to_thread(writing.bundle, log, bundle)
        if progress is not None:
            progress(log.size)
    if log.size < size:
        raise ArchiveError(f"entry {log.size} is missing", seq=log.size)
    name, checkpoint = _identify(archive, source.note, size, vkey)  # 2
    if log.root() != checkpoint.root:
        raise ArchiveError("the entries do not lead to the root of the checkpoint")
    earlier = _earlier(archive, log, name.vkey)  # 3
    writing.rest(log, name, await source.rest())
    writing.finish(source.note)  # 4
    _remove_partial(folder, earlier, size)
    return Exported(name, size, checkpoint.root.hex(), kept)


async def _bundles(source: Source, start: int, size: int) -> AsyncIterator[list[Entry]]:
    waiting: list[Entry] = []
    async for page in source.pages(start):
        waiting += [entry for entry in page if entry.seq < size]
        while len(waiting) >= WIDTH:
            yield waiting[:WIDTH]
            waiting = waiting[WIDTH:]
        if page[-1].seq + 1 >= size:
            break
    if waiting:
        yield waiting


def _identify(
    archive: Archive, note: str, size: int, vkey: str | None
) -> tuple[LogName, Checkpoint]:
    name = name_of(archive.bundle(0, min(size, WIDTH))[0].raw)
    if vkey is not None and vkey != name.vkey:
        raise WrongGenesisError("the genesis names another operator", vkey=name.vkey)
    return name, open_checkpoint(note, name.vkey)


def name_of(first: bytes) -> LogName:
    """Return which log begins with the entry ``first``.

    Raises:
        ArchiveError: none does.
    """
    genesis = read(first).record
    if not isinstance(genesis, Genesis):
        raise ArchiveError("the log does not begin with a genesis", seq=0)
    key = verifier_key_of(genesis.origin, genesis.operator)
    return LogName(FORMAT, genesis.network, genesis.chain, genesis.origin, key)


def _earlier(archive: Archive, log: MerkleLog, vkey: str) -> int:
    """Return how many entries the folder's checkpoint covers."""
    if not archive.complete:
        return 0
    earlier = open_checkpoint(archive.checkpoint(), vkey)
    if earlier.size > log.size:
        raise ArchiveError(
            "the folder holds a newer state of this log", archived=earlier.size, found=log.size
        )
    if log.root_at(earlier.size) != earlier.root:
        raise ArchiveError("the folder holds another log, signed by the same operator")
    return earlier.size


class _Writing:
    """Writes files durably; the checkpoint last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._touched: set[Path] = set()

    def bundle(self, log: MerkleLog, entries: list[Entry]) -> None:
        """Write a bundle and its tile, and take its leaves into the log."""
        index = log.size // WIDTH
        for entry in entries:
            log.append(leaf_hash(entry.raw))
        raw = entry_bundle([entry.raw for entry in entries])
        self._put(tile_path(Tile(None, index, len(entries))), raw)
        tile = Tile(0, index, len(entries))
        self._put(tile_path(tile), hash_tile(log, tile))

    def rest(self, log: MerkleLog, name: LogName, rest: Rest) -> None:
        """Write the higher tiles and what lies beside the log."""
        for tile in tiles_of(log.size):
            if tile.level:
                self._put(tile_path(tile), hash_tile(log, tile))
        self._put(LOG, msgspec.json.format(msgspec.json.encode(name)) + b"\n")
        verdicts = [tuple(verdict) for verdict in sorted(rest.verdicts)]
        self._put(REFUSALS, msgspec.json.encode(verdicts))
        if rest.witnessed is not None:
            self._put(WITNESSED, rest.witnessed.encode())

    def finish(self, note: str) -> None:
        """Wait for the disk, then put the checkpoint in its place."""
        for folder in sorted(self._touched, reverse=True):
            sync_folder(folder)
        self._put(CHECKPOINT, note.encode())
        sync_folder(self._folder)

    def _put(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".draft")
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        self._touched.update({path.parent, *path.parent.parents} - set(self._folder.parents))


def _remove_partial(folder: Path, earlier: int, size: int) -> None:
    """Remove the partial tiles of an earlier checkpoint: what took their place holds more."""
    gone = {tile_path(tile) for tile in tiles_of(earlier) if tile.width < WIDTH}
    for path in gone - {tile_path(tile) for tile in tiles_of(size)}:
        (folder / path).unlink(missing_ok=True)
        if not any((folder / path).parent.iterdir()):
            (folder / path).parent.rmdir()
