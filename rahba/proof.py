"""Receipts that need no ledger: an entry, its inclusion proof and the signed checkpoint, verified.

* ``verify_proof`` checks a proof against the log's verifier key and nothing else; no connection.
* A receipt file is C2SP ``tlog-proof``; its ``extra`` line carries the entry itself, so that one
  file says what was paid and proves it. ``extra`` is never trusted: it must hash to the leaf.

    proof = await ledger.inclusion(tx_id)
    text = write_proof(proof, entry)
    receipt = open_receipt(text, vkey)      # raises unless everything holds
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rahba.encoding import b64, unb64
from rahba.errors import BadEncodingError, BadInputError, TooLargeError
from rahba.merkle import BadProofError, leaf_hash, unhex, verify_inclusion
from rahba.note import Checkpoint, open_checkpoint

MAX_STEPS: Final = 63
MAX_FILE_CHARS: Final = 512 * 1024
_MAGIC: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)
_EXTRA: Final = "extra "


class BadReceiptError(BadEncodingError):
    """A text is no ``tlog-proof`` file."""

    code = "bad_receipt"
    hint = "see C2SP tlog-proof"


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """A self-contained RFC 6962 proof that ``leaf_hash`` is at ``index`` under ``checkpoint``.

    ``checkpoint`` is the signed note (C2SP tlog-checkpoint); ``path`` holds 32-byte hashes as hex.
    """

    index: int
    leaf_hash: str
    path: tuple[str, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """A verified receipt: ``entry`` is leaf ``index`` of the log that ``checkpoint`` commits to."""

    entry: bytes
    index: int
    checkpoint: Checkpoint


def verify_proof(proof: InclusionProof, vkey: str) -> Checkpoint:
    """Check a proof offline; returns the checkpoint that holds the leaf.

    1. The checkpoint is signed by the log's key.
    2. The path leads from the leaf to the checkpoint's root.

    Raises:
        BadSignatureError, BadEncodingError: 1 fails.
        BadProofError: 2 fails.
    """
    checkpoint = open_checkpoint(proof.checkpoint, vkey)  # 1
    leaf = unhex(proof.leaf_hash)
    if len(proof.path) > MAX_STEPS:
        raise BadProofError("the proof is too long")
    path = [unhex(step) for step in proof.path]
    verify_inclusion(leaf, proof.index, checkpoint.size, path, checkpoint.root)  # 2
    return checkpoint


def write_proof(proof: InclusionProof, entry: bytes) -> str:
    """Return the ``tlog-proof`` file of ``entry``, the exact bytes of the leaf."""
    if leaf_hash(entry) != unhex(proof.leaf_hash):
        raise BadInputError("the proof is of another entry")
    lines = [_MAGIC, _EXTRA + b64(entry), f"index {proof.index}"]
    lines += [b64(unhex(step)) for step in proof.path]
    return "\n".join(lines) + "\n\n" + proof.checkpoint


def read_proof(text: str, entry: bytes | None = None) -> tuple[InclusionProof, bytes]:
    """Read a ``tlog-proof`` file without judging it; returns the proof and the entry.

    ``entry`` is needed when the file does not carry it; given both, they must be equal.

    Raises:
        BadReceiptError, BadEncodingError: malformed.
        TooLargeError: larger or longer than any proof.
    """
    if len(text) > MAX_FILE_CHARS:
        raise TooLargeError("receipt too large", limit=MAX_FILE_CHARS)
    head, empty_line, checkpoint = text.partition("\n\n")
    magic, *lines = head.split("\n")
    if magic != _MAGIC or not empty_line or not lines:
        raise BadReceiptError("not a tlog-proof file")
    if lines[0].startswith(_EXTRA):
        carried = unb64(lines.pop(0).removeprefix(_EXTRA))
        if entry not in {None, carried}:
            raise BadReceiptError("the receipt carries another entry")
        entry = carried
    if entry is None:
        raise BadReceiptError("the receipt does not carry its entry: give it beside")
    match = _INDEX.fullmatch(lines[0]) if lines else None
    if match is None:
        raise BadReceiptError("the receipt lacks its index")
    if len(lines) > MAX_STEPS + 1:
        raise TooLargeError("the proof is too long", limit=MAX_STEPS)
    path = tuple(unb64(line).hex() for line in lines[1:])
    leaf = leaf_hash(entry).hex()
    return InclusionProof(int(match.group(1)), leaf, path, checkpoint), entry


def open_receipt(text: str, vkey: str, entry: bytes | None = None) -> Receipt:
    """Read a ``tlog-proof`` file and check all of it; see :func:`verify_proof`."""
    proof, found = read_proof(text, entry)
    return Receipt(found, proof.index, verify_proof(proof, vkey))
