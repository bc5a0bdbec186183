"""A whole log as a folder of files: portable, and fit to be served by any HTTP server.

* The layout is that of C2SP ``tlog-tiles``: ``checkpoint``, ``tile/entries/...``, ``tile/0/...``.
  Beside it lie ``log.json`` (which log it is), ``refusals.json`` (what the ledger will go on to
  refuse) and, if there is one, ``witnessed``: the newest checkpoint that a quorum cosigned.
* The checkpoint is written last. A folder without one is no archive yet; when the export is
  repeated, what is there and hashes as it should is kept. So is an older export, which then grows.
* Two exports of one log at one checkpoint are the same files, whoever makes them.
* A checkpoint that is older than the folder's, or of another log, is not written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from rahba.errors import RahbaError
from rahba.merkle import leaf_hash
from wallet.audit import MAX_PROBLEMS, Audit, Problem, Progress, Report
from wallet.book import MAX_INTERVAL
from wallet.errors import StoreError
from wallet.merkle import MerkleLog
from wallet.ports import Entry, Verdict
from wallet.sources import PAGE, Rest, size_of
from wallet.tiles import (
    MAX_ENTRY_BYTES,
    WIDTH,
    Tile,
    hash_tile,
    split_bundle,
    split_hashes,
    tile_path,
    tiles_of,
)
from wallet.transactions import StateLeaf, read

CHECKPOINT: Final = "checkpoint"
WITNESSED: Final = "witnessed"
LOG: Final = "log.json"
REFUSALS: Final = "refusals.json"
_MAX_NOTE_BYTES: Final = 64 * 1024
_MAX_REFUSALS_BYTES: Final = 256 * 1024 * 1024
_MAX_TILE_BYTES: Final = WIDTH * (MAX_ENTRY_BYTES + 2)


class ArchiveError(StoreError):
    """A folder is no archive of a log, is damaged, or holds another log."""

    code = "bad_archive"
    hint = "export into an empty folder"


class Archive:
    """An archive at ``folder``, to read; see :mod:`wallet.export` for how one is made."""

    def __init__(self, folder: Path) -> None:
        """Name the folder."""
        self.folder = folder

    @property
    def complete(self) -> bool:
        """Say whether there is a checkpoint."""
        return (self.folder / CHECKPOINT).is_file()

    def checkpoint(self) -> str:
        """Return the checkpoint."""
        return self._text(CHECKPOINT)

    def rest(self) -> Rest:
        """Return what the ledger kept beside its log."""
        witnessed = self._text(WITNESSED) if (self.folder / WITNESSED).is_file() else None
        if not (self.folder / REFUSALS).is_file():
            return Rest((), witnessed)
        raw = self._bytes(REFUSALS, _MAX_REFUSALS_BYTES)
        try:
            found = msgspec.json.decode(raw, type=list[tuple[str, str, str, int]])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ArchiveError(f"{REFUSALS} is damaged: {error}") from error
        return Rest(tuple(map(Verdict._make, found)), witnessed)

    def bundle(self, index: int, width: int = WIDTH) -> list[Entry]:
        """Return the entries of one bundle with the leaf hashes of its tile, without their times.

        Raises:
            ArchiveError: one of the two files is missing or is none.
        """
        names = [tile_path(Tile(level, index, width)) for level in (None, 0)]
        try:
            raws = split_bundle(self._bytes(names[0], _MAX_TILE_BYTES))
            leaves = split_hashes(self._bytes(names[1], _MAX_TILE_BYTES))
        except ArchiveError:
            raise
        except RahbaError as error:
            raise ArchiveError(f"{names[0]}: {error.message}") from error
        if len(raws) != width or len(leaves) != width:
            raise ArchiveError(f"{names[0]} and {names[1]} do not hold {width} entries")
        pairs = zip(raws, leaves, strict=True)
        return [Entry(index * WIDTH + at, raw, leaf, 0) for at, (raw, leaf) in enumerate(pairs)]

    def entries(self, start: int, size: int) -> Iterator[Entry]:
        """Yield entries ``start`` to ``size``, with the time that their state leaf tells."""
        waiting: list[Entry] = []
        for index in range(start // WIDTH, -(-size // WIDTH)):
            for entry in self.bundle(index, min(WIDTH, size - index * WIDTH)):
                if entry.seq < start:
                    continue
                waiting.append(entry)
                time = _time_of(entry.raw)
                if time is not None or len(waiting) > MAX_INTERVAL:
                    yield from (item._replace(log_time=time or 0) for item in waiting)
                    waiting = []
        yield from waiting

    def wrong_tiles(self, log: MerkleLog, size: int) -> Iterator[tuple[int, str]]:
        """Yield the first entry and the path of each hash tile that is not that of ``log``."""
        for tile in tiles_of(size):
            if tile.level is not None:
                path = tile_path(tile)
                if self._found(path) != hash_tile(log, tile):
                    yield tile.start * WIDTH**tile.level, path

    def kept(self, size: int) -> Iterator[list[Entry]]:
        """Yield the full bundles from the beginning on that hash as their tiles say."""
        for index in range(size // WIDTH):
            try:
                bundle = self.bundle(index)
            except ArchiveError:
                return
            if any(leaf_hash(entry.raw) != entry.leaf for entry in bundle):
                return
            yield bundle

    def _found(self, name: str) -> bytes:
        try:
            return self._bytes(name, _MAX_TILE_BYTES)
        except ArchiveError:
            return b""

    def _text(self, name: str) -> str:
        try:
            return self._bytes(name, _MAX_NOTE_BYTES).decode()
        except UnicodeDecodeError as error:
            raise ArchiveError(f"{name} is no text") from error

    def _bytes(self, name: str, limit: int) -> bytes:
        try:
            with (self.folder / name).open("rb") as file:
                raw = file.read(limit + 1)
        except OSError as error:
            raise ArchiveError(f"{name} cannot be read: {error.strerror}") from error
        if len(raw) > limit:
            raise ArchiveError(f"{name} is too large", limit_bytes=limit)
        return raw


class ArchiveSource:
    """An archive as a source of its log."""

    def __init__(self, archive: Archive) -> None:
        """Read ``archive``.

        Raises:
            ArchiveError: it is not complete.
        """
        self._archive = archive
        self.note = archive.checkpoint()

    async def pages(self, start: int) -> AsyncIterator[list[Entry]]:
        """Yield what is under the checkpoint."""
        page: list[Entry] = []
        for entry in self._archive.entries(start, size_of(self.note)):
            page.append(entry)
            if len(page) == PAGE:
                yield page
                page = []
        if page:
            yield page

    async def rest(self) -> Rest:
        """Return what the ledger kept beside its log."""
        return self._archive.rest()

    async def close(self) -> None:
        """Nothing is open."""


def audit_archive(
    archive: Archive,
    *,
    vkey: str | None = None,
    older: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Audit the log of an archive, and compare all its tiles with what the entries lead to."""
    note = archive.checkpoint()
    size, audit = size_of(note), Audit(progress)
    try:
        for entry in archive.entries(0, size):
            audit.feed(entry)
    except StoreError as error:
        audit.broken(error.message)
    report = audit.report(note, vkey=vkey, older=older)
    if audit.log.size != size:
        return report
    wrong = [
        Problem(seq, "wrong_tile", f"{path} is not what the entries lead to")
        for seq, path in islice(archive.wrong_tiles(audit.log, size), MAX_PROBLEMS)
    ]
    return replace(report, problems=(*report.problems, *wrong)[:MAX_PROBLEMS])


def _time_of(raw: bytes) -> int | None:
    """Return the ledger time of a state leaf; ``None`` of anything else."""
    try:
        record = read(raw).record
    except RahbaError:
        return None
    return record.log_time if isinstance(record, StateLeaf) else None
