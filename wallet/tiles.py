"""The log as static files: C2SP ``tlog-tiles`` paths and bytes.

* A hash tile holds up to 256 node hashes of level 8*L; the last one of a level may be partial
  (``.p/W``). An entry bundle holds up to 256 entries, each after its length as uint16.
* What a path names never changes: a partial tile has its width in its name. So every file may be
  cached for ever. Nothing is served beyond the size that is asked for (a signed checkpoint).

    >>> tile_path(Tile(0, 1_234_067)), tile_path(Tile(None, 3, 17))
    ('tile/0/x001/x234/067', 'tile/entries/003.p/17')
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rahba.errors import BadInputError, TooLargeError
from rahba.merkle import HASH_BYTES, OutOfRangeError
from wallet.merkle import MerkleLog

WIDTH: Final = 256
HEIGHT: Final = 8
MAX_LEVEL: Final = 63
MAX_ENTRY_BYTES: Final = 2**16 - 1
_PATH: Final = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?",
    re.ASCII,
)


class BadTileError(BadInputError):
    """A path names no tile, or bytes are no tile."""

    code = "bad_tile"


@dataclass(frozen=True, slots=True)
class Tile:
    """A static file of the log: ``level`` of hashes (``None``: entries), index and width."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def start(self) -> int:
        """Return the index, within its level, of the first node or entry."""
        return self.index * WIDTH


def tile_path(tile: Tile) -> str:
    """Return the path of a tile below the log's prefix."""
    digits = f"{tile.index:d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([*("x" + part for part in parts[:-1]), parts[-1]])
    kind = "entries" if tile.level is None else str(tile.level)
    return f"tile/{kind}/{name}" + ("" if tile.width == WIDTH else f".p/{tile.width}")


def read_tile_path(path: str) -> Tile:
    """Read a tile's path; only the one spelling of each tile is accepted."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise BadTileError("not the path of a tile")
    kind, name, width = match.groups()
    level = None if kind == "entries" else int(kind)
    tile = Tile(level, int(name.replace("x", "").replace("/", "")), int(width or WIDTH))
    if tile_path(tile) != path or (level or 0) > MAX_LEVEL or (width and tile.width >= WIDTH):
        raise BadTileError("not the path of a tile")
    return tile


def check_tile(tile: Tile, size: int) -> None:
    """Refuse a tile that a log of ``size`` leaves does not have yet."""
    level = tile.level or 0
    if tile.start + tile.width > size >> HEIGHT * level:
        raise OutOfRangeError("the log has no such tile yet", size=size)


def tiles_of(size: int) -> Iterator[Tile]:
    """Yield every tile of a log of ``size`` leaves, entry bundles first, then level by level."""
    for level in (None, *range(MAX_LEVEL + 1)):
        nodes = size >> HEIGHT * (level or 0)
        if not nodes:
            return
        full, partial = divmod(nodes, WIDTH)
        for index in range(full):
            yield Tile(level, index)
        if partial:
            yield Tile(level, full, partial)


def hash_tile(log: MerkleLog, tile: Tile) -> bytes:
    """Return the bytes of a hash tile: ``width`` hashes of complete subtrees."""
    if tile.level is None:
        raise BadTileError("an entry bundle has no hashes")
    height = HEIGHT * tile.level
    check_tile(tile, log.size)
    return b"".join(log.node(height, tile.start + at) for at in range(tile.width))


def split_hashes(raw: bytes) -> list[bytes]:
    """Read the hashes of a tile."""
    if not raw or len(raw) % HASH_BYTES or len(raw) > WIDTH * HASH_BYTES:
        raise BadTileError("a tile holds 1 to 256 hashes of 32 bytes")
    return [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Return the bytes of an entry bundle."""
    if not 0 < len(entries) <= WIDTH:
        raise BadTileError("a bundle holds 1 to 256 entries")
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise TooLargeError("an entry exceeds its bundle's limit", limit_bytes=MAX_ENTRY_BYTES)
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def split_bundle(raw: bytes) -> list[bytes]:
    """Read the entries of a bundle."""
    entries: list[bytes] = []
    at = 0
    while at < len(raw) and len(entries) < WIDTH:
        end = at + 2 + int.from_bytes(raw[at : at + 2], "big")
        entries.append(raw[at + 2 : end])
        at = end
    if at != len(raw) or not entries:
        raise BadTileError("not an entry bundle")
    return entries
