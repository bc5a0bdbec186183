"""Merkle proofs of a transparency log (RFC 6962, section 2.1), checked without any tree.

* Plain functions over bytes: what a client needs to check a proof, and nothing else. The tree that
  makes proofs is the ledger's own (``wallet.merkle``).
* Nothing here knows what a leaf means, signs anything or touches a disk.

    >>> leaf = leaf_hash(b"a")
    >>> verify_inclusion(leaf, 0, 2, [leaf_hash(b"b")], node_hash(leaf, leaf_hash(b"b")))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from rahba.errors import BadInputError, RemoteError

HASH_BYTES: Final = 32
MAX_SIZE: Final = 2**63 - 1
EMPTY_ROOT: Final = sha256(b"").digest()


class BadProofError(RemoteError):
    """A Merkle proof does not lead to the root it was given for."""

    code = "bad_proof"
    hint = "keep both signed checkpoints: they are evidence against whoever signed them"


class OutOfRangeError(BadInputError):
    """An index or size lies beyond the log."""

    code = "out_of_range"


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256(0x00 + data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 + left + right)."""
    return sha256(b"\x01" + left + right).digest()


def unhex(text: str) -> bytes:
    """Read a step of a proof as it travels: hex digits.

    Raises:
        BadProofError: it is written otherwise.
    """
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise BadProofError("a hash is written as hex digits") from error


def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf_hash`` is leaf ``index`` of the tree of ``size`` leaves under ``root``.

    Raises:
        BadProofError: it is not, or the path is too short, too long or malformed.
    """
    if not 0 <= index < size <= MAX_SIZE or len(leaf_hash) != HASH_BYTES:
        raise BadProofError("no such leaf in a tree of that size", index=index, size=size)
    steps = iter(_hashes(path))
    node, last, found = index, size - 1, leaf_hash
    while last:
        if node & 1:
            found = node_hash(_next(steps), found)
        elif node < last:
            found = node_hash(found, _next(steps))
        node >>= 1
        last >>= 1
    _finish(steps)
    if found != root:
        raise BadProofError("the inclusion proof does not lead to the root", index=index, size=size)


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> None:
    """Check that the tree of ``old`` leaves is a prefix of the tree of ``new`` leaves.

    Raises:
        BadProofError: it is not, or the path is too short, too long or malformed.
    """
    if not 0 <= old <= new <= MAX_SIZE:
        raise BadProofError("a log does not shrink", old=old, new=new)
    steps = iter(_hashes(path))
    if old in {0, new}:
        _finish(steps)
        expected = new_root if old else EMPTY_ROOT
        if old_root != expected or (not new and new_root != expected):
            raise BadProofError("two roots for one size", size=old)
        return
    first, second = _climb(old, new, old_root, steps)
    if first != old_root or second != new_root:
        raise BadProofError("the consistency proof does not join the roots", old=old, new=new)


def extended_root(old: int, new: int, new_root: bytes, path: Sequence[bytes]) -> bytes | None:
    """Return the root at size ``old`` of the log under ``new_root``, as a consistency proof has it.

    ``None``: the proof is no proof, or ``old`` is a power of two, whose root no proof repeats.
    """
    if not 0 < old < new <= MAX_SIZE or not old & (old - 1):
        return None
    try:
        first, second = _climb(old, new, b"", iter(_hashes(path)))
    except BadProofError:
        return None
    return first if second == new_root else None


def _climb(old: int, new: int, old_root: bytes, steps: Iterator[bytes]) -> tuple[bytes, bytes]:
    """Return the two roots that a consistency proof leads to; 0 < ``old`` < ``new``."""
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    first = second = _next(steps) if node else old_root
    while last:
        if node & 1:
            sibling = _next(steps)
            first, second = node_hash(sibling, first), node_hash(sibling, second)
        elif node < last:
            second = node_hash(second, _next(steps))
        node >>= 1
        last >>= 1
    _finish(steps)
    return first, second


def _hashes(path: Sequence[bytes]) -> Sequence[bytes]:
    if any(len(step) != HASH_BYTES for step in path):
        raise BadProofError("a proof consists of 32-byte hashes")
    return path


def _next(steps: Iterable[bytes]) -> bytes:
    for step in steps:
        return step
    raise BadProofError("the proof is too short")


def _finish(steps: Iterable[bytes]) -> None:
    for _ in steps:
        raise BadProofError("the proof is too long")
