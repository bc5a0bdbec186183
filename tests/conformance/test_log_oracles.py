"""Other people's verifiers, given our proofs and our files: honest ones, and with lies in them.

The log of an operator who forks: both sides are signed by his key, and each looks whole alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from pymerkle import InmemoryTree, InvalidProof
from pymerkle import verify_inclusion as pymerkle_verify_inclusion
from tlog_scales.backend import HttpBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey
from tlog_scales.tlog import (
    Checkpoint,
    ConsistencyProof,
    ConsistencyProofInvalid,
    InclusionProof,
    InclusionProofInvalid,
)

from rahba.envelope import Signer
from rahba.merkle import leaf_hash
from rahba.note import sign_checkpoint, verifier_key
from tests.fixtures.log_files import file_server
from wallet.merkle import MerkleLog
from wallet.ports import Entry
from wallet.stores.memory import MemoryStore
from wallet.stores.tiles import TileDirectory

ORIGIN = "rahba.test/log"
OPERATOR = Signer(b"\1" * 32)
VKEY = verifier_key(ORIGIN, OPERATOR)
MOST = 2_000
FORKED_AT = 900
SIZES = (1_500, MOST)

Forge = Callable[[Path], None]


class Log:
    """A log of entries with its folder of files as they were written at both sizes."""

    def __init__(self, entries: list[bytes]) -> None:
        self.entries = entries
        self.tree = MerkleLog(leaf_hash(entry) for entry in entries)

    def note(self, size: int) -> str:
        return sign_checkpoint(ORIGIN, size, self.tree.root_at(size), OPERATOR)

    def write(self, folder: Path) -> Path:
        store = MemoryStore()
        store.acquire()
        rows = [Entry(seq, raw, leaf_hash(raw), 0) for seq, raw in enumerate(self.entries)]
        store.append(rows, [], None)
        tiles = TileDirectory(folder, store, self.tree)
        for size in SIZES:
            tiles.publish(self.note(size), size)
        return folder


HONEST = Log([b"entry %d" % number for number in range(MOST)])
FORK = Log([*HONEST.entries[:FORKED_AT], *(b"other %d" % n for n in range(FORKED_AT, MOST))])


def flipped(raw: bytes, at: int = 0) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def forged(name: str, at: int) -> Forge:
    def forge(folder: Path) -> None:
        (folder / name).write_bytes(flipped((folder / name).read_bytes(), at))

    return forge


def from_fork(*names: str) -> Forge:
    """Show files of the other side under this side's checkpoint."""

    def forge(folder: Path) -> None:
        other = FORK.write(folder.with_name("fork"))
        for name in names:
            (folder / name).write_bytes((other / name).read_bytes())

    return forge


LIES: dict[str, Forge] = {
    "a flipped byte in an entry": forged("tile/entries/003", 40),
    "a flipped byte in the last entries": forged("tile/entries/007.p/208", 40),
    "a flipped byte in a full tile": forged("tile/0/003", 100),
    "a flipped byte in a partial tile": forged("tile/0/007.p/208", 100),
    "a flipped byte in an upper tile": forged("tile/1/000.p/7", 100),
    "entries of the fork": from_fork("tile/entries/005"),
    "entries and hashes of the fork": from_fork("tile/entries/005", "tile/0/005"),
    "all of the fork but its checkpoint": from_fork(
        *(f"tile/{kind}/00{n}" for kind in ("0", "entries") for n in range(3, 7)),
        *(f"tile/{kind}/007.p/208" for kind in ("0", "entries")),
        "tile/1/000.p/7",
    ),
}


# -- pymerkle: roots and paths ----------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle() -> Any:
    tree = InmemoryTree(algorithm="sha256")
    for entry in HONEST.entries:
        tree.append_entry(entry)
    return tree


def test_pymerkle_finds_our_root_of_every_size_up_to_2000(oracle: Any) -> None:
    assert [HONEST.tree.root_at(size) for size in range(1, MOST + 1)] == [
        oracle.get_root(size) for size in range(1, MOST + 1)
    ]


def test_pymerkle_finds_another_root_when_any_byte_of_an_entry_is_flipped(oracle: Any) -> None:
    draw = random.Random(5)
    for at in draw.sample(range(MOST), 5):
        tree = InmemoryTree(algorithm="sha256")
        for number, entry in enumerate(HONEST.entries):
            changed = flipped(entry, draw.randrange(len(entry))) if number == at else entry
            tree.append_entry(changed)
        sizes = range(1, MOST + 1, 97)
        same = [tree.get_root(size) == HONEST.tree.root_at(size) for size in sizes]
        assert same == [size <= at for size in sizes]


def test_pymerkle_accepts_our_paths_and_refuses_them_altered(oracle: Any) -> None:
    draw = random.Random(6)
    for _ in range(300):
        size = draw.randint(2, MOST)
        index = draw.randrange(size)
        leaf, root = HONEST.tree.node(0, index), HONEST.tree.root_at(size)
        proof = oracle.prove_inclusion(index + 1, size)
        proof.path = [leaf, *HONEST.tree.inclusion(index, size)]
        pymerkle_verify_inclusion(leaf, root, proof, index=index + 1, size=size)
        at = draw.randrange(1, len(proof.path))
        proof.path[at] = flipped(proof.path[at], draw.randrange(32))
        with pytest.raises(InvalidProof):
            pymerkle_verify_inclusion(leaf, root, proof, index=index + 1, size=size)


# -- tlog-scales: proofs, and the files over HTTP ---------------------------------------------


def test_tlog_scales_accepts_our_proofs_and_refuses_altered_ones() -> None:
    draw, tree = random.Random(7), HONEST.tree
    for _ in range(300):
        new = draw.randint(2, MOST)
        old = draw.randint(1, new - 1)
        path = tree.consistency(old, new)
        ConsistencyProof(old, new, path).check(tree.root_at(old), tree.root_at(new))
        at = draw.randrange(len(path))
        wrong = [*path[:at], flipped(path[at], draw.randrange(32)), *path[at + 1 :]]
        with pytest.raises(ConsistencyProofInvalid):
            ConsistencyProof(old, new, wrong).check(tree.root_at(old), tree.root_at(new))
        leaf, path = tree.node(0, old), tree.inclusion(old, new)
        InclusionProof(old, new, path).check(leaf, tree.root_at(new))
        for bad in (flipped(leaf), tree.node(0, old - 1)):
            with pytest.raises(InclusionProofInvalid):
                InclusionProof(old, new, path).check(bad, tree.root_at(new))


@pytest.mark.parametrize("old", [FORKED_AT + 1, 1_024, 1_500])
def test_tlog_scales_refuses_the_fork_with_either_sides_proof(old: int) -> None:
    seen, shown = HONEST.tree.root_at(old), FORK.tree.root_at(MOST)
    for side in (HONEST, FORK):
        proof = ConsistencyProof(old, MOST, side.tree.consistency(old, MOST))
        with pytest.raises(ConsistencyProofInvalid):
            proof.check(seen, shown)
    before = ConsistencyProof(FORKED_AT, MOST, FORK.tree.consistency(FORKED_AT, MOST))
    before.check(HONEST.tree.root_at(FORKED_AT), shown)  # both sides are one log until then


def scales_audit(url: str) -> bool:
    """Read everything as a client of tlog-scales does; say whether it is as was signed."""
    reader = TilesReader(HttpBackend(url))
    checkpoint = reader.get_checkpoint()
    checkpoint.verify(Vkey.from_string(VKEY))
    size = checkpoint.size
    if reader.calculate_root_hash() != checkpoint.root_hash:
        return False
    if any(leaf_hash(reader.get_entry(at)) != reader.mth(at, at + 1) for at in range(size)):
        return False
    try:
        for index in range(0, size, 97):  # some of each tile: its hashes lead to the root
            proof = reader.get_inclusion_proof(index, size)
            proof.check(leaf_hash(reader.get_entry(index)), checkpoint.root_hash)
    except InclusionProofInvalid:
        return False
    return True


def test_tlog_scales_accepts_the_files_over_http(tmp_path: Path) -> None:
    with file_server(HONEST.write(tmp_path / "log")) as url:
        assert scales_audit(url)


@pytest.mark.parametrize("lie", LIES)
def test_tlog_scales_refuses_forged_files_over_http(tmp_path: Path, lie: str) -> None:
    folder = HONEST.write(tmp_path / "log")
    LIES[lie](folder)
    with file_server(folder) as url:
        assert not scales_audit(url)


def test_tlog_scales_refuses_a_checkpoint_that_the_operator_did_not_sign() -> None:
    key = Vkey.from_string(VKEY)
    honest = Checkpoint.from_text(HONEST.note(MOST))
    honest.verify(key)
    for forgery in (replace(honest, size=MOST - 1), replace(honest, root_hash=bytes(32))):
        with pytest.raises(InvalidSignature):
            forgery.verify(key)
