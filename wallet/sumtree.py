"""The Merkle-sum tree over all accounts: one root that fixes every balance and their total.

* An account keeps the position of its registration; position 0 is ``issuance``, the only account
  that may owe. Every node is a record of 48 bytes: sum (16, signed) + hash (32).
* leaf hash = SHA-256(0x00 + id length + id + balance + nonces + tip); inner hash = SHA-256(0x01 +
  left record + right record): both child sums are hashed, each for itself, so no one can shift
  value between brothers. A node without a brother moves up as it is (the shape of RFC 6962).
* root = SHA-256(0x02 + number of accounts + top record).
* ``update`` only marks; ``root`` recomputes what was touched, shared parents once.

    >>> tree = SumTree()
    >>> tree.update(0, AccountLeaf("issuance", -5, bytes(32), bytes(32)))
    >>> tree.update(1, AccountLeaf("fees", 5, bytes(32), bytes(32)))
    >>> tree.total, verify_balance(tree.proof(1), tree.root())
    (0, 5)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from rahba.errors import BadInputError
from wallet.merkle import EMPTY_ROOT, BadProofError, OutOfRangeError

ISSUANCE: Final = "issuance"
SUM_BYTES: Final = 16
RECORD_BYTES: Final = SUM_BYTES + 32
MAX_ID_BYTES: Final = 255
MAX_STEPS: Final = 63
_LIMIT: Final = 1 << 8 * SUM_BYTES - 1


class AccountLeaf(NamedTuple):
    """What the root says of one account.

    ``balance`` is what is posted, in fals; ``nonces`` the digest of its lanes; ``tip`` the hash
    chain over its own transactions (both 32 bytes).
    """

    id: str
    balance: int
    nonces: bytes
    tip: bytes


@dataclass(frozen=True, slots=True)
class BalanceProof:
    """One account and the records beside its way to the root, from the leaf up."""

    leaf: AccountLeaf
    position: int
    accounts: int
    path: tuple[bytes, ...]


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
        record = _leaf_record(leaf, position)
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
        return _sum_of(self._levels[-1]) if self._leaves else 0

    def root(self) -> bytes:
        """Return the root over all accounts as they are now."""
        self._refresh()
        return _seal(len(self._leaves), bytes(self._levels[-1])) if self._leaves else EMPTY_ROOT

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
            above[start : start + RECORD_BYTES] = _join(
                below[2 * start : 2 * (start + RECORD_BYTES)]
            )


def verify_balance(proof: BalanceProof, root: bytes) -> int:
    """Check one account against a root; returns its balance in fals.

    1. The position is within the number of accounts, and every record is well formed.
    2. Only a subtree that holds position 0, the issuance, may have a negative sum.
    3. The records lead to the root, which fixes the number of accounts, too.

    Raises:
        BadProofError: any of these fails.
    """
    if not 0 <= proof.position < proof.accounts or len(proof.path) > MAX_STEPS:  # 1
        raise BadProofError("no such position", position=proof.position)
    if any(len(record) != RECORD_BYTES for record in proof.path):
        raise BadProofError("a record has 48 bytes")
    try:
        found = _leaf_record(proof.leaf, proof.position)
        found = _climb(found, proof)
    except BadInputError as error:
        raise BadProofError(f"malformed balance proof: {error}") from error
    if _seal(proof.accounts, found) != root:  # 3
        raise BadProofError("the balance proof does not lead to the root", account=proof.leaf.id)
    return proof.leaf.balance


def _climb(found: bytes, proof: BalanceProof) -> bytes:
    node, last = proof.position, proof.accounts - 1
    steps = iter(proof.path)
    while last:
        if node & 1:
            left = _take(steps)
            _check_sum(left, issues=node == 1)  # 2
            found = _join(left + found)
        elif node < last:
            right = _take(steps)
            _check_sum(right, issues=False)
            found = _join(found + right)
        node >>= 1
        last >>= 1
    if next(steps, None) is not None:
        raise BadProofError("the balance proof is too long")
    return found


def _take(steps: Iterator[bytes]) -> bytes:
    step = next(steps, None)
    if step is None:
        raise BadProofError("the balance proof is too short")
    return step


def _check_sum(record: bytes, *, issues: bool) -> None:
    if not issues and _sum_of(record) < 0:
        raise BadProofError("a subtree without the issuance has a negative sum")


def _leaf_record(leaf: AccountLeaf, position: int) -> bytes:
    name = leaf.id.encode()
    if not 0 < len(name) <= MAX_ID_BYTES or len(leaf.nonces) != 32 or len(leaf.tip) != 32:
        raise BadInputError("malformed account leaf", position=position)
    if (leaf.id == ISSUANCE) != (position == 0):
        raise BadInputError("the issuance, and nothing else, is at position 0", position=position)
    if leaf.balance < 0 and position:
        raise BadInputError("only the issuance may be below zero", account=leaf.id)
    total = _sum_bytes(leaf.balance)
    body = b"\x00%c%s%s%s%s" % (len(name), name, total, leaf.nonces, leaf.tip)
    return total + sha256(body).digest()


def _join(pair: bytes | bytearray) -> bytes:
    """Return the parent's record of one record or two."""
    if len(pair) == RECORD_BYTES:
        return bytes(pair)
    total = _sum_of(pair) + _sum_of(pair[RECORD_BYTES:])
    return _sum_bytes(total) + sha256(b"\x01" + pair).digest()


def _sum_of(record: bytes | bytearray) -> int:
    return int.from_bytes(record[:SUM_BYTES], "big", signed=True)


def _sum_bytes(total: int) -> bytes:
    if not -_LIMIT <= total < _LIMIT:
        raise BadInputError("a sum exceeds 127 bits")
    return total.to_bytes(SUM_BYTES, "big", signed=True)


def _seal(accounts: int, top: bytes) -> bytes:
    return sha256(b"\x02" + accounts.to_bytes(8, "big") + top).digest()
