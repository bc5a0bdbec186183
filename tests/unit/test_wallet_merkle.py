"""The log's tree against RFC 6962's definition, against pymerkle, and against every alteration."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from rahba.errors import BadInputError
from rahba.merkle import (
    EMPTY_ROOT,
    BadProofError,
    OutOfRangeError,
    extended_root,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from wallet.merkle import MerkleLog

MOST = 200
ENTRIES = [f"entry {number}".encode() for number in range(MOST)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
LOG = MerkleLog(LEAVES)


def defined_root(leaves: list[bytes]) -> bytes:
    """Follow the recursive definition of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(defined_root(leaves[:split]), defined_root(leaves[split:]))


@pytest.fixture(scope="module")
def oracle() -> Any:
    tree = InmemoryTree(algorithm="sha256")
    for entry in ENTRIES:
        tree.append_entry(entry)
    return tree


def test_leaves_and_nodes_are_hashed_in_separate_domains() -> None:
    assert leaf_hash(b"") == bytes.fromhex(
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert (
        bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        == EMPTY_ROOT
    )
    assert node_hash(LEAVES[0], LEAVES[1]) != leaf_hash(LEAVES[0] + LEAVES[1])


def test_every_root_is_the_one_that_the_definition_gives() -> None:
    for size in range(MOST + 1):
        assert LOG.root_at(size) == defined_root(LEAVES[:size])


def test_every_root_is_the_one_that_another_implementation_gives(oracle: Any) -> None:
    for size in range(1, MOST + 1):
        assert LOG.root_at(size) == oracle.get_root(size)


def test_every_inclusion_path_is_the_one_that_another_implementation_gives(oracle: Any) -> None:
    for size in range(1, MOST + 1, 7):
        for index in range(size):
            theirs = oracle.prove_inclusion(index + 1, size).path
            assert [leaf_hash(ENTRIES[index]), *LOG.inclusion(index, size)] == theirs


def test_every_inclusion_proof_verifies() -> None:
    for size in range(1, MOST + 1):
        root = LOG.root_at(size)
        for index in range(0, size, 3):
            verify_inclusion(LEAVES[index], index, size, LOG.inclusion(index, size), root)


def test_every_consistency_proof_verifies() -> None:
    for new in range(MOST + 1):
        for old in range(0, new + 1, 3):
            path = LOG.consistency(old, new)
            verify_consistency(old, new, LOG.root_at(old), LOG.root_at(new), path)


@given(st.data())
def test_an_altered_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, MOST))
    index = data.draw(st.integers(0, size - 1))
    path, root = LOG.inclusion(index, size), LOG.root_at(size)
    target = data.draw(st.sampled_from(["leaf", "index", "path", "short", "long", "root", "size"]))
    if (target in {"path", "short"}) and not path:
        target = "root"
    leaf, place, steps, top, width = LEAVES[index], index, list(path), root, size
    if target == "leaf":
        leaf = flip(data, leaf)
    elif target == "index":
        place = data.draw(st.integers(-2, MOST).filter(lambda other: other != index))
    elif target == "path":
        at = data.draw(st.integers(0, len(path) - 1))
        steps[at] = flip(data, steps[at])
    elif target == "short":
        del steps[data.draw(st.integers(0, len(path) - 1))]
    elif target == "long":
        steps.insert(data.draw(st.integers(0, len(path))), data.draw(st.binary(max_size=33)))
    elif target == "root":
        top = flip(data, top)
    else:  # a size of the same shape for this leaf gives the same path: the root then differs
        width = data.draw(st.integers(0, MOST).filter(lambda other: other != size))
        top = LOG.root_at(width)
    with pytest.raises(BadProofError):
        verify_inclusion(leaf, place, width, steps, top)


@given(st.data())
def test_an_altered_consistency_proof_is_refused(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, MOST))
    old = data.draw(st.integers(1, new - 1))
    path = LOG.consistency(old, new)
    first, second, steps = LOG.root_at(old), LOG.root_at(new), list(path)
    target = data.draw(st.sampled_from(["old root", "new root", "path", "short", "long", "old"]))
    claimed = old
    if target == "old root":
        first = flip(data, first)
    elif target == "new root":
        second = flip(data, second)
    elif target == "path":
        at = data.draw(st.integers(0, len(path) - 1))
        steps[at] = flip(data, steps[at])
    elif target == "short":
        del steps[data.draw(st.integers(0, len(path) - 1))]
    elif target == "long":
        steps.insert(data.draw(st.integers(0, len(path))), data.draw(st.binary(max_size=33)))
    else:
        claimed = data.draw(st.integers(-2, MOST + 9).filter(lambda other: other != old))
    with pytest.raises(BadProofError):
        verify_consistency(claimed, new, first, second, steps)


def test_a_log_that_rewrote_its_past_cannot_prove_consistency() -> None:
    forged = MerkleLog([*LEAVES[:50], leaf_hash(b"forged"), *LEAVES[51:]])
    for old in (51, 64, 100, 199):
        with pytest.raises(BadProofError):
            verify_consistency(
                old, MOST, LOG.root_at(old), forged.root(), forged.consistency(old, MOST)
            )


def test_two_roots_for_one_size_are_inconsistent() -> None:
    with pytest.raises(BadProofError):
        verify_consistency(3, 3, LOG.root_at(3), LOG.root_at(4), [])
    with pytest.raises(BadProofError):
        verify_consistency(0, 3, LOG.root_at(3), LOG.root_at(3), [])


def test_one_by_one_or_all_at_once_makes_no_difference() -> None:
    log = MerkleLog()
    assert [log.append(leaf) for leaf in LEAVES] == list(range(MOST))
    assert (log.size, log.root()) == (LOG.size, LOG.root())


def test_what_lies_beyond_the_log_is_refused() -> None:
    for ask in (
        lambda: LOG.root_at(MOST + 1),
        lambda: LOG.root_at(-1),
        lambda: LOG.inclusion(MOST, MOST),
        lambda: LOG.inclusion(-1, MOST),
        lambda: LOG.inclusion(0, MOST + 1),
        lambda: LOG.consistency(2, MOST + 1),
        lambda: LOG.consistency(3, 2),
        lambda: LOG.consistency(-1, 2),
        lambda: LOG.node(0, MOST),
        lambda: LOG.node(9, 0),
        lambda: LOG.node(0, -1),
    ):
        with pytest.raises(OutOfRangeError):
            ask()
    with pytest.raises(BadInputError):
        MerkleLog().append(b"short")


def flip(data: st.DataObject, value: bytes) -> bytes:
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    altered = bytearray(value)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def test_who_reads_a_size_that_was_asked_for_before_changes_nothing() -> None:
    """Another thread may do so while leaves are appended and hashed."""
    log = MerkleLog(leaf_hash(b"%d" % number) for number in range(300))
    root = log.root()
    log.extend(leaf_hash(b"%d" % number) for number in range(300, 600))
    before = [bytes(level) for level in log._levels]
    assert (log.root_at(300), len(log.inclusion(5, 300))) == (root, 9)
    assert len(log.consistency(7, 300)) > 0
    assert b"".join(log.node(0, at) for at in range(256)) == before[0][: 32 * 256]
    assert log.node(8, 0) == before[8]
    assert [bytes(level) for level in log._levels] == before


def test_a_consistency_proof_tells_which_older_log_is_extended() -> None:
    log = MerkleLog(leaf_hash(b"%d" % number) for number in range(40))
    for new in range(1, 41):
        for old in range(new + 1):
            path = log.consistency(old, new)
            found = extended_root(old, new, log.root_at(new), path)
            told = 0 < old < new and old & (old - 1)
            assert found == (log.root_at(old) if told else None)
            assert extended_root(old, new, log.root_at(new - 1), path) is None
            assert extended_root(old, new, log.root_at(new), path[1:]) is None
