"""The Merkle-sum tree over all accounts: one root that fixes every balance and their total.

What its records are and how a proof is checked is :mod:`rahba.balance`'s; here is the tree that
makes them. ``update`` only marks; ``root`` recomputes what was touched, shared parents once.

    >>> from rahba.balance import verify_balance
    >>> tree = SumTree()
    >>> tree.update(0, AccountLeaf("issuance", -5, bytes(32), bytes(32)))
    >>> tree.update(1, AccountLeaf("fees", 5, bytes(32), bytes(32)))
    >>> tree.total, verify_balance(tree.proof(1), tree.root())
    (0, 5)
"""

from __future__ import annotations

from rahba.balance import (
    RECORD_BYTES,
    AccountLeaf,
    BalanceProof,
    join_records,
    leaf_record,
    seal_root,
    sum_of,
)
from rahba.errors import BadInputError
from rahba.merkle import EMPTY_ROOT, OutOfRangeError


class SumTree:
    """All accounts by position; ``levels[k][i]`` is the record over accounts [i*2^k, (i+1)*2^k)."""

    __slots__ = ("_dirty", "_leaves", "_levels")

    def __init__(self) -> None:
        """Start without accounts."""
        self._leaves: list[AccountLeaf] = []
        self._levels: list[bytearray] = [bytearray()]
        self._dirty: set[int] = set()

    def __len__(self) -> int:
        """Return the number of accounts."""
        return len(self._leaves)

    def update(self, position: int, leaf: AccountLeaf) -> None:
        """Set the account at ``position``; the next free position registers it.

        Raises:
            BadInputError: a balance below zero that is not the issuance's, or malformed fields.
            OutOfRangeError: a gap would be left.
        """
        if not 0 <= position <= len(self._leaves):
            raise OutOfRangeError("accounts register without gaps", position=position)
        record = leaf_record(leaf, position)
        if position == len(self._leaves):
            self._leaves.append(leaf)
            self._levels[0] += record
        else:
            if self._leaves[position].id != leaf.id:
                raise BadInputError("a position belongs to one account for ever", position=position)
            self._leaves[position] = leaf
            self._levels[0][position * RECORD_BYTES : (position + 1) * RECORD_BYTES] = record
        self._dirty.add(position)

    @property
    def total(self) -> int:
        """Return the sum of all balances (0 when what was issued is what is owned)."""
        self._refresh()
        return sum_of(self._levels[-1]) if self._leaves else 0

    def root(self) -> bytes:
        """Return the root over all accounts as they are now."""
        self._refresh()
        return seal_root(len(self._leaves), bytes(self._levels[-1])) if self._leaves else EMPTY_ROOT

    def proof(self, position: int) -> BalanceProof:
        """Prove the account at ``position`` under the present root."""
        if not 0 <= position < len(self._leaves):
            raise OutOfRangeError("no account at that position", position=position)
        self._refresh()
        path = []
        node = position
        for level in self._levels[:-1]:
            start = (node ^ 1) * RECORD_BYTES
            if start < len(level):
                path.append(bytes(level[start : start + RECORD_BYTES]))
            node >>= 1
        return BalanceProof(self._leaves[position], position, len(self._leaves), tuple(path))

    def _refresh(self) -> None:
        if not self._dirty:
            return
        dirty = self._dirty
        depth = 0
        while len(self._levels[depth]) > RECORD_BYTES:
            if depth + 1 == len(self._levels):
                # A new level: its other node was never made, whoever was touched since.
                self._levels.append(bytearray())
                dirty = {*dirty, 0}
            dirty = {node >> 1 for node in dirty}
            self._raise_level(depth, dirty)
            depth += 1
        self._dirty = set()

    def _raise_level(self, depth: int, parents: set[int]) -> None:
        below, above = self._levels[depth], self._levels[depth + 1]
        for parent in sorted(parents):  # in order, so that new parents are appended without gaps
            start = parent * RECORD_BYTES
            above[start : start + RECORD_BYTES] = join_records(
                below[2 * start : 2 * (start + RECORD_BYTES)]
            )
