"""Receipts: verified with nothing but the log's key, refused when anything in them was touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.errors import BadInputError, RahbaError, TooLargeError
from rahba.merkle import BadProofError, leaf_hash
from rahba.note import sign_checkpoint, verifier_key
from rahba.proof import (
    BadReceiptError,
    InclusionProof,
    open_receipt,
    read_proof,
    verify_proof,
    write_proof,
)
from wallet.merkle import MerkleLog

ORIGIN = "rahba.test/log"
SIGNER = Signer(b"\1" * 32)
VKEY = verifier_key(ORIGIN, SIGNER)
SIZE = 21
ENTRIES = [f'{{"entry":{number}}}'.encode() for number in range(SIZE)]
LOG = MerkleLog(leaf_hash(entry) for entry in ENTRIES)
CHECKPOINT = sign_checkpoint(ORIGIN, SIZE, LOG.root(), SIGNER)


def proof_of(index: int) -> InclusionProof:
    path = tuple(step.hex() for step in LOG.inclusion(index, SIZE))
    return InclusionProof(index, leaf_hash(ENTRIES[index]).hex(), path, CHECKPOINT)


FILE = write_proof(proof_of(13), ENTRIES[13])


def test_every_entry_has_a_receipt_that_verifies_offline() -> None:
    for index, entry in enumerate(ENTRIES):
        receipt = open_receipt(write_proof(proof_of(index), entry), VKEY)
        assert (receipt.entry, receipt.index) == (entry, index)
        assert (receipt.checkpoint.size, receipt.checkpoint.root) == (SIZE, LOG.root())


def test_a_receipt_is_a_tlog_proof_file() -> None:
    head, checkpoint = FILE.split("\n\n", 1)
    magic, extra, index, *path = head.split("\n")
    assert magic == "c2sp.org/tlog-proof@v1"
    assert extra == "extra " + b64(ENTRIES[13])
    assert index == "index 13"
    assert path == [b64(step) for step in LOG.inclusion(13, SIZE)]
    assert checkpoint == CHECKPOINT


def test_a_receipt_without_its_entry_verifies_beside_the_entry() -> None:
    bare = "\n".join(line for line in FILE.split("\n") if not line.startswith("extra "))
    assert open_receipt(bare, VKEY, ENTRIES[13]).index == 13
    with pytest.raises(BadReceiptError):
        open_receipt(bare, VKEY)
    with pytest.raises(BadProofError):
        open_receipt(bare, VKEY, ENTRIES[12])
    with pytest.raises(BadReceiptError):
        open_receipt(FILE, VKEY, ENTRIES[12])


@given(st.integers(0, len(FILE) - 1), st.characters())
def test_an_altered_receipt_is_refused(at: int, char: str) -> None:
    altered = FILE[:at] + char + FILE[at + 1 :]
    if altered == FILE:
        return
    with pytest.raises(RahbaError):
        open_receipt(altered, VKEY)


@given(st.text(max_size=200))
def test_any_other_text_is_refused_with_a_typed_error(text: str) -> None:
    for file in (text, f"c2sp.org/tlog-proof@v1\n{text}", f"c2sp.org/tlog-proof@v1\n{text}\n\n"):
        with pytest.raises(RahbaError):
            open_receipt(file, VKEY)


@pytest.mark.parametrize(
    "change",
    [
        {"index": 12},
        {"index": -1},
        {"index": SIZE},
        {"leaf_hash": "00" * 32},
        {"leaf_hash": "no hex"},
        {"path": ()},
        {"path": ("00" * 32,) * 64},
        {"path": ("short",)},
        {"checkpoint": CHECKPOINT.replace("21", "22")},
        {"checkpoint": sign_checkpoint(ORIGIN, SIZE, bytes(32), SIGNER)},
        {"checkpoint": sign_checkpoint(ORIGIN, SIZE, LOG.root(), Signer(b"\2" * 32))},
    ],
)
def test_an_altered_proof_is_refused(change: dict[str, object]) -> None:
    verify_proof(proof_of(13), VKEY)
    with pytest.raises(RahbaError):
        verify_proof(replace(proof_of(13), **change), VKEY)


def test_a_receipt_has_limits() -> None:
    with pytest.raises(TooLargeError):
        read_proof("x" * 600_000)
    long = FILE.replace("index 13\n", "index 13\n" + (b64(bytes(32)) + "\n") * 64)
    with pytest.raises(TooLargeError):
        read_proof(long)


def test_no_receipt_is_written_for_another_entry() -> None:
    with pytest.raises(BadInputError):
        write_proof(proof_of(13), ENTRIES[12])
