"""The log as a folder of static files (C2SP ``tlog-tiles``), for any file server to show.

* Tiles come first, the checkpoint that covers them last, by a rename: whoever reads the checkpoint
  finds all that it promises. What a path names never changes.
* The folder is a copy: what is missing or half written after a crash is written again. Partial
  tiles that a later checkpoint has outgrown are removed after a while, since readers of the older
  checkpoint may still ask for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wallet.merkle import MerkleLog
from wallet.ports import Store
from wallet.tiles import (
    HEIGHT,
    MAX_LEVEL,
    WIDTH,
    Tile,
    entry_bundle,
    hash_tile,
    tile_path,
    tiles_of,
)

GRACE: Final = 64  # checkpoints for which outgrown partial tiles stay


class TileDirectory:
    """Keeps ``folder`` in step with a log; for one thread at a time."""

    def __init__(self, folder: Path, store: Store, log: MerkleLog) -> None:
        """Write there what ``store`` and ``log`` have."""
        self._folder = folder
        self._store = store
        self._log = log
        self._size = 0
        self._partial: deque[list[Path]] = deque()

    @property
    def folder(self) -> Path:
        """Return where the files are."""
        return self._folder

    def publish(self, note: str, size: int) -> None:
        """Write every tile of a log of ``size`` leaves that is not there, then the checkpoint."""
        partial = []
        for tile in _new_tiles(self._size, size):
            path = self._folder / tile_path(tile)
            if not path.exists():
                _write(path, self._bytes(tile))
            if tile.width < WIDTH:
                partial.append(path)
        _write(self._folder / "checkpoint", note.encode())
        self._size = size
        self._partial.append(partial)
        while len(self._partial) > GRACE:
            for path in self._partial.popleft():
                if not any(path in later for later in self._partial):
                    path.unlink(missing_ok=True)

    def _bytes(self, tile: Tile) -> bytes:
        if tile.level is not None:
            return hash_tile(self._log, tile)
        return entry_bundle([entry.raw for entry in self._store.read(tile.start, tile.width)])


def _new_tiles(old: int, size: int) -> Iterator[Tile]:
    """Yield the tiles of a log of ``size`` leaves that one of ``old`` leaves did not have."""
    if not old:
        yield from tiles_of(size)
        return
    for level in (None, *range(MAX_LEVEL + 1)):
        height = HEIGHT * (level or 0)
        nodes = size >> height
        if not nodes:
            return
        full, partial = divmod(nodes, WIDTH)
        for index in range((old >> height) // WIDTH, full):
            yield Tile(level, index)
        if partial:
            yield Tile(level, full, partial)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content)
    draft.replace(path)
