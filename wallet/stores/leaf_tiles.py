"""Leaf hashes in rows of 256, kept a second time: a start reads them at the speed of the disk.

What fills no tile yet is read from the entries themselves.

    >>> tiles, tail = cut(b"", bytes(32) * 600, 0)
    >>> [number for number, _ in tiles], len(tail) // 32
    ([0, 1], 88)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rahba.merkle import HASH_BYTES
from wallet.errors import StoreError

TILE: Final = 256
_TILE_BYTES: Final = TILE * HASH_BYTES

Tile = tuple[int, bytes]
"""Its number, and the hashes of its 256 leaves."""


def cut(tail: bytes, leaves: bytes, size: int) -> tuple[list[Tile], bytes]:
    """Return the tiles that ``leaves`` fill after the ``tail`` of a log, and what is left over."""
    hashes = tail + leaves
    end = len(hashes) - len(hashes) % _TILE_BYTES
    starts = range(0, end, _TILE_BYTES)
    cuts = [hashes[start : start + _TILE_BYTES] for start in starts]
    return list(enumerate(cuts, size // TILE)), hashes[end:]


def read_leaves(
    start: int,
    limit: int,
    tiles: Callable[[int, int], Sequence[Tile]],
    of_entries: Callable[[int, int], bytes],
) -> bytes:
    """Return ``limit`` leaf hashes from ``start`` on, all of which are there.

    ``tiles`` gives those from one number to another, as far as they are full; ``of_entries`` reads
    the leaf hashes of entries by their start and number.

    Raises:
        StoreError: a tile is missing between others.
    """
    if limit <= 0:
        return b""
    first = start // TILE
    found = tiles(first, (start + limit - 1) // TILE)
    if [number for number, _ in found] != list(range(first, first + len(found))):
        raise StoreError("the store is damaged: a tile is missing", tile=first)
    skipped = (start - first * TILE) * HASH_BYTES
    hashes = b"".join([part for _, part in found])[skipped:][: limit * HASH_BYTES]
    done = len(hashes) // HASH_BYTES
    return hashes + of_entries(start + done, limit - done)
