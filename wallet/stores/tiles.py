"""The log as a folder of static files (C2SP ``tlog-tiles``), for any file server to show.

* Tiles come first, the checkpoint that covers them last, by a rename: whoever reads the checkpoint
  finds all that it promises. What a path names never changes.
* Partial tiles stay until the full tile is there, and a while longer: readers of an older
  checkpoint may still ask for them.
* The folder is a copy, which is written without waiting for the disk. So at the start the newest
  files (more than a crash can have cut off) are compared with the log, and all of them if the
  folder does not fit the log. What is missing or wrong is written again.

    tiles.start(size)
    while work := tiles.take(64):
        tiles.write(work)
    tiles.finish(note)
"""

from __future__ import annotations

import itertools
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from rahba.errors import RahbaError
from rahba.merkle import leaf_hash
from rahba.note import read_checkpoint, split_note
from wallet.merkle import MerkleLog
from wallet.tail import Reading
from wallet.tiles import (
    HEIGHT,
    MAX_LEVEL,
    WIDTH,
    Tile,
    entry_bundle,
    hash_tile,
    split_bundle,
    tile_path,
    tiles_of,
)

GRACE: Final = 64  # checkpoints for which partial tiles outlive their full tile
DOUBTED: Final = 2_048  # full tiles of a level that are compared at the start


class TileDirectory:
    """Keeps ``folder`` in step with a log; for one thread at a time."""

    def __init__(self, folder: Path, store: Reading, log: MerkleLog) -> None:
        """Write there what ``store`` and ``log`` have."""
        self._folder = folder
        self._store = store
        self._log = log
        self._size = 0  # what the folder covers, as far as this run knows
        self._next = 0
        self._work: Iterator[Tile] = iter(())
        self._fits = False
        self._outgrown: deque[list[Path]] = deque([[]])

    @property
    def folder(self) -> Path:
        """Return where the files are."""
        return self._folder

    def publish(self, note: str, size: int) -> None:
        """Write every tile of a log of ``size`` leaves that is not there, then the checkpoint."""
        self.start(size)
        while work := self.take(WIDTH):
            self.write(work)
        self.finish(note)

    def start(self, size: int) -> None:
        """Begin to bring the folder to a log of ``size`` leaves."""
        self._next = size
        if self._size:
            self._work = _new_tiles(self._size, size)
        else:
            self._fits = self._is_of_this_log()
            self._work = tiles_of(size)

    def take(self, limit: int) -> list[Tile]:
        """Return some of the tiles that are still to be written; none at the end."""
        return list(itertools.islice(self._work, limit))

    def write(self, tiles: Iterable[Tile]) -> None:
        """Write tiles; at the start only those that are not there as they should be."""
        for tile in tiles:
            path = self._folder / tile_path(tile)
            if self._size or not self._is_there(tile, path):
                _write(path, self._bytes(tile))
            if tile.width == WIDTH and (self._size or self._is_doubted(tile)):
                self._outgrown[-1].append(path.with_name(path.name + ".p"))

    def finish(self, note: str) -> None:
        """Show the checkpoint, and remove what nobody asks for any more."""
        _write(self._folder / "checkpoint", note.encode())
        self._size = self._next
        self._outgrown.append([])
        while len(self._outgrown) > GRACE:
            for folder in self._outgrown.popleft():
                shutil.rmtree(folder, ignore_errors=True)

    def _is_of_this_log(self) -> bool:
        """Say whether the folder's checkpoint is one of this log; who signed it is no matter."""
        try:
            note = (self._folder / "checkpoint").read_bytes().decode()
            shown = read_checkpoint(split_note(note)[0])
        except (OSError, UnicodeDecodeError, RahbaError):
            return False
        return shown.size <= self._next and self._log.root_at(shown.size) == shown.root

    def _is_doubted(self, tile: Tile) -> bool:
        full = (self._next >> HEIGHT * (tile.level or 0)) // WIDTH
        return not self._fits or tile.index >= full - DOUBTED

    def _is_there(self, tile: Tile, path: Path) -> bool:
        if not self._is_doubted(tile):
            return path.exists()
        try:
            found = path.read_bytes()
            if tile.level is not None:
                return found == hash_tile(self._log, tile)
            leaves = [leaf_hash(entry) for entry in split_bundle(found)]
        except (OSError, RahbaError):
            return False
        return leaves == [self._log.node(0, tile.start + at) for at in range(tile.width)]

    def _bytes(self, tile: Tile) -> bytes:
        if tile.level is not None:
            return hash_tile(self._log, tile)
        return entry_bundle([entry.raw for entry in self._store.read(tile.start, tile.width)])


def _new_tiles(old: int, size: int) -> Iterator[Tile]:
    """Yield the tiles of a log of ``size`` leaves that one of ``old`` leaves did not have."""
    for level in (None, *range(MAX_LEVEL + 1)):
        height = HEIGHT * (level or 0)
        nodes = size >> height
        if not nodes:
            return
        full, partial = divmod(nodes, WIDTH)
        for index in range((old >> height) // WIDTH, full):
            yield Tile(level, index)
        if partial and nodes != old >> height:
            yield Tile(level, full, partial)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content)
    draft.replace(path)
