"""The Merkle tree of the log (RFC 6962, section 2.1): roots and proofs for every size it ever had.

* ``MerkleLog`` keeps the hash of every complete subtree, 32 bytes each, level by level. A leaf
  costs one hash on average; a root or proof for any past size costs O(log n).
* The verifiers are plain functions over bytes, so that a client needs no tree to check a proof.
* Nothing here knows what a leaf means, signs anything or touches a disk.

    >>> log = MerkleLog()
    >>> leaves = [leaf_hash(word) for word in (b"a", b"b", b"c")]
    >>> log.extend(leaves)
    >>> verify_inclusion(leaves[1], 1, 3, log.inclusion(1, 3), log.root())
    >>> verify_consistency(2, 3, log.root_at(2), log.root(), log.consistency(2, 3))
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, Self

from rahba.errors import BadInputError
from rahba.merkle import EMPTY_ROOT, HASH_BYTES, OutOfRangeError, node_hash

_PAIR: Final = 2 * HASH_BYTES


class MerkleLog:
    """An append-only Merkle tree in memory; ``levels[k]`` holds complete subtrees of 2^k leaves.

    Leaves are gathered and hashed together when a root or a proof is asked for: half the cost of
    hashing one by one. Other threads may ask for a size whose root was asked for before, at any
    time: what is there already is only read.
    """

    __slots__ = ("_grown", "_levels")

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        """Start with ``leaf_hashes``."""
        self._levels: list[bytearray] = [bytearray()]
        self._grown = 0
        self.extend(leaf_hashes)

    @classmethod
    def load(cls, hashes: bytes) -> Self:
        """Make the tree of many leaves at once: their hashes, one after another."""
        if len(hashes) % HASH_BYTES:
            raise BadInputError("a leaf hash has 32 bytes")
        log = cls()
        log._levels[0] += hashes
        return log

    @property
    def size(self) -> int:
        """Return the number of leaves."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf_hash: bytes) -> int:
        """Add one leaf by its hash; returns its index."""
        if len(leaf_hash) != HASH_BYTES:
            raise BadInputError("a leaf hash has 32 bytes")
        leaves = self._levels[0]
        index = len(leaves) // HASH_BYTES
        leaves += leaf_hash
        return index

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add several leaves in order."""
        for item in leaf_hashes:
            self.append(item)

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of the complete subtree of 2^level leaves that is ``index``-th."""
        found = self._node(level, index)
        if not found and self._grown != len(self._levels[0]):
            self._grow()
            found = self._node(level, index)
        if not found:
            raise OutOfRangeError("beyond the log", level=level, index=index)
        return found

    def root(self) -> bytes:
        """Return the root over all leaves."""
        return self.root_at(self.size)

    def root_at(self, size: int) -> bytes:
        """Return the root as it was when the log had ``size`` leaves."""
        self._check(0, size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the path that proves leaf ``index`` in the first ``size`` leaves."""
        self._check(index + 1, size)
        if index < 0:
            raise OutOfRangeError("negative index", index=index)
        low, high = 0, size
        path = []
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        return path[::-1]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the path that proves the first ``old`` leaves a prefix of the first ``new``."""
        self._check(old, new)
        if old in {0, new}:
            return []
        low, high = 0, new
        path = []
        while old != high:
            middle = low + _split(high - low)
            if old <= middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        if low:  # at 0 it is the old root itself, which the verifier has
            path.append(self._range(low, high))
        return path[::-1]

    def _node(self, level: int, index: int) -> bytes:
        """Return a hash that is there already; nothing if it is not."""
        if index < 0 or not 0 <= level < len(self._levels):
            return b""
        return bytes(self._levels[level][index * HASH_BYTES : (index + 1) * HASH_BYTES])

    def _grow(self) -> None:
        """Hash the parents that appended leaves completed, level by level."""
        levels, depth = self._levels, 0
        while len(levels[depth]) >= _PAIR:
            if depth + 1 == len(levels):
                levels.append(bytearray())
            above = levels[depth + 1]
            first, end = 2 * len(above), len(levels[depth]) // _PAIR * _PAIR
            new = bytes(levels[depth][first:end])
            above += b"".join(
                [
                    sha256(b"\x01" + new[at : at + _PAIR]).digest()
                    for at in range(0, len(new), _PAIR)
                ]
            )
            depth += 1
        self._grown = len(levels[0])

    def _check(self, inner: int, outer: int) -> None:
        if not 0 <= inner <= outer <= self.size:
            raise OutOfRangeError("beyond the log", size=self.size, asked=outer)

    def _range(self, low: int, high: int) -> bytes:
        """Hash leaves [low, high), where low is a multiple of the smallest 2^k >= high - low."""
        found = b""
        while low < high:  # from the right: the lowest bit of ``high`` names a complete subtree
            width = min(high & -high, 1 << (high - low).bit_length() - 1)
            high -= width
            level = width.bit_length() - 1
            peak = self.node(level, high >> level)
            found = node_hash(peak, found) if found else peak
        return found


def _split(width: int) -> int:
    """Return the largest power of two below ``width`` (> 1)."""
    return 1 << (width - 1).bit_length() - 1
