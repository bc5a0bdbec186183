"""One account's balance under a ledger's state root: records of the Merkle-sum tree, checked.

* An account keeps the position of its registration; position 0 is ``issuance``, the only account
  that may owe. Every node is a record of 48 bytes: sum (16, signed) + hash (32).
* leaf hash = SHA-256(0x00 + id length + id + balance + nonces + tip); inner hash = SHA-256(0x01 +
  left record + right record): both child sums are hashed, each for itself, so no one can shift
  value between brothers. A node without a brother moves up as it is (the shape of RFC 6962).
* root = SHA-256(0x02 + number of accounts + top record). It is in the ``state`` leaf that every
  checkpoint ends with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from rahba.encoding import MAX_INT, decode_as, unb64
from rahba.envelope import open_envelope
from rahba.errors import BadInputError, BadSignatureError
from rahba.ids import did_of
from rahba.merkle import HASH_BYTES, BadProofError, leaf_hash, unhex
from rahba.messages import TX_TYPE
from rahba.note import read_verifier_key
from rahba.proof import InclusionProof, verify_proof

ISSUANCE: Final = "issuance"
SUM_BYTES: Final = 16
RECORD_BYTES: Final = SUM_BYTES + 32
MAX_ID_BYTES: Final = 255
MAX_STEPS: Final = 63
MAX_SEARCH: Final = 1_000
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


@dataclass(frozen=True, slots=True)
class AccountProof:
    """An account under a signed checkpoint, as it travels: hashes and records in hex.

    ``state`` (base64) is the envelope of the state leaf that the checkpoint ends with, and
    ``inclusion`` proves it; the rest leads from the account to the root that the leaf tells.
    """

    id: str
    balance: int
    nonces: str
    tip: str
    position: int
    accounts: int
    path: tuple[str, ...]
    state: str
    inclusion: InclusionProof


@dataclass(frozen=True, slots=True)
class ProvenAccount:
    """What an account proof proves: as of ``size`` entries, at ledger time ``log_time``."""

    id: str
    balance: int
    tip: bytes
    size: int
    log_time: int


class _StateLeaf(msgspec.Struct, frozen=True, tag_field="type", tag="state"):
    log_time: int
    prev_size: int
    root: str
    supply: str


def verify_account(proof: AccountProof, vkey: str) -> ProvenAccount:
    """Check an account against the log's verifier key, offline.

    1. The checkpoint is signed by the key, and the state leaf is its last leaf.
    2. The operator signed the state leaf, for this place in the log.
    3. The account leads to the root that it tells; see :func:`verify_balance`.
    4. All balances together are nothing: what accounts own is what the issuance owes.

    Raises:
        BadProofError, BadSignatureError, BadEncodingError: any of these fails.
    """
    checkpoint = verify_proof(proof.inclusion, vkey)  # 1
    raw = unb64(proof.state)
    if leaf_hash(raw).hex() != proof.inclusion.leaf_hash:
        raise BadProofError("the state leaf is not the one that is included")
    if proof.inclusion.index != checkpoint.size - 1:
        raise BadProofError("the state leaf is not the checkpoint's last", size=checkpoint.size)
    opened = open_envelope(raw, TX_TYPE)  # 2
    if opened.signers != (did_of(read_verifier_key(vkey).public_key),):
        raise BadSignatureError("the state leaf is not signed by the operator")
    state = decode_as(opened.payload, _StateLeaf)
    if state.prev_size != proof.inclusion.index:
        raise BadProofError("the state leaf is of another place", prev_size=state.prev_size)
    leaf = AccountLeaf(proof.id, proof.balance, unhex(proof.nonces), unhex(proof.tip))
    path = tuple(unhex(record) for record in proof.path)
    found = BalanceProof(leaf, proof.position, proof.accounts, path)
    total = _verify_total(found, unhex(state.root))  # 3
    if total:  # 4
        raise BadProofError("the balances do not add up to nothing", total=total)
    return ProvenAccount(proof.id, leaf.balance, leaf.tip, checkpoint.size, state.log_time)


def verify_history(entries: Iterable[bytes], tip: bytes) -> int:
    """Check that ``entries`` (exact bytes, oldest first) are an account's whole history.

    ``tip`` is the account's, from :func:`verify_account`: a hash chain over the leaf hashes of all
    its transactions, so none is missing, foreign or in another order. Returns their number.

    Raises:
        BadProofError: they are not. ``facts["entry"]`` is the foreign one, if one is all that is
            wrong; what is missing nobody can tell from the rest.
    """
    leaves = [leaf_hash(raw) for raw in entries]
    if _tip_of(leaves) == tip:
        return len(leaves)
    at = _foreign(leaves, tip)
    if at is not None:
        raise BadProofError(f"entry {at} is not part of the account's history", entry=at)
    raise BadProofError("the entries are not the account's whole history", entries=len(leaves))


def _tip_of(leaves: Sequence[bytes], start: bytes = bytes(HASH_BYTES)) -> bytes:
    tip = start
    for leaf in leaves:
        tip = sha256(tip + leaf).digest()
    return tip


def _foreign(leaves: Sequence[bytes], tip: bytes) -> int | None:
    """Return the one entry without which the rest is the whole history, if there is one."""
    before = bytes(HASH_BYTES)
    for at, leaf in enumerate(leaves if len(leaves) <= MAX_SEARCH else ()):
        if _tip_of(leaves[at + 1 :], before) == tip:
            return at
        before = sha256(before + leaf).digest()
    return None


def verify_balance(proof: BalanceProof, root: bytes) -> int:
    """Check one account against a root; returns its balance in fals.

    1. The position is within the number of accounts, and every record is well formed.
    2. Only a subtree that holds position 0, the issuance, may have a negative sum.
    3. The records lead to the root, which fixes the number of accounts, too.

    Raises:
        BadProofError: any of these fails.
    """
    _verify_total(proof, root)
    return proof.leaf.balance


def _verify_total(proof: BalanceProof, root: bytes) -> int:
    """Check one account against a root; returns the sum of all accounts."""
    if not 0 <= proof.position < proof.accounts <= MAX_INT or len(proof.path) > MAX_STEPS:  # 1
        raise BadProofError("no such position", position=proof.position)
    if any(len(record) != RECORD_BYTES for record in proof.path):
        raise BadProofError("a record has 48 bytes")
    try:
        found = leaf_record(proof.leaf, proof.position)
        found = _climb(found, proof)
    except BadInputError as error:
        raise BadProofError(f"malformed balance proof: {error}") from error
    if seal_root(proof.accounts, found) != root:  # 3
        raise BadProofError("the balance proof does not lead to the root", account=proof.leaf.id)
    return sum_of(found)


def _climb(found: bytes, proof: BalanceProof) -> bytes:
    node, last = proof.position, proof.accounts - 1
    steps = iter(proof.path)
    while last:
        if node & 1:
            left = _take(steps)
            _check_sum(left, issues=node == 1)  # 2
            found = join_records(left + found)
        elif node < last:
            right = _take(steps)
            _check_sum(right, issues=False)
            found = join_records(found + right)
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
    if not issues and sum_of(record) < 0:
        raise BadProofError("a subtree without the issuance has a negative sum")


def leaf_record(leaf: AccountLeaf, position: int) -> bytes:
    """Return the record of one account; malformed leaves are refused."""
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


def join_records(pair: bytes | bytearray) -> bytes:
    """Return the parent's record of one record or two."""
    if len(pair) == RECORD_BYTES:
        return bytes(pair)
    total = sum_of(pair) + sum_of(pair[RECORD_BYTES:])
    return _sum_bytes(total) + sha256(b"\x01" + pair).digest()


def sum_of(record: bytes | bytearray) -> int:
    """Return the sum that a record carries."""
    return int.from_bytes(record[:SUM_BYTES], "big", signed=True)


def _sum_bytes(total: int) -> bytes:
    if not -_LIMIT <= total < _LIMIT:
        raise BadInputError("a sum exceeds 127 bits")
    return total.to_bytes(SUM_BYTES, "big", signed=True)


def seal_root(accounts: int, top: bytes) -> bytes:
    """Return the root over ``accounts`` accounts under the top record."""
    return sha256(b"\x02" + accounts.to_bytes(8, "big") + top).digest()
