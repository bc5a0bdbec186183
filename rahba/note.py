"""Signed notes and checkpoints (C2SP ``signed-note`` and ``tlog-checkpoint``), Ed25519 keys only.

* A note is text, an empty line, then signature lines ``— <name> <base64(key hash + signature)>``.
* A checkpoint is a note of three lines: origin, size, base64 root. The log's key bears the
  origin as its name.
* A log signs with a key of kind ``ED25519``, a witness with one of kind ``COSIGNATURE``
  (:mod:`rahba.cosignature`): the kind is part of the key hash.
* Signatures by keys we do not know are ignored, as the format asks; one by a key we know must
  verify. Everything is limited before it is parsed.

    >>> from rahba.envelope import Signer
    >>> signer = Signer(bytes(32))
    >>> note = sign_checkpoint("rahba.test/log", 0, bytes(32), signer)
    >>> open_checkpoint(note, verifier_key("rahba.test/log", signer)).size
    0
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from rahba.encoding import b64, unb64
from rahba.envelope import Signer, verify_raw
from rahba.errors import BadEncodingError, BadInputError, BadSignatureError, TooLargeError
from rahba.ids import did_of, key_of
from rahba.merkle import HASH_BYTES, MAX_SIZE

MAX_NOTE_CHARS: Final = 64 * 1024
MAX_SIGNATURES: Final = 100
_KEY_HASH_BYTES: Final = 4
ED25519: Final = b"\x01"
COSIGNATURE: Final = b"\x04"
_NAME: Final = re.compile(r"[^\s+\ud800-\udfff]{1,255}")
_VERIFIER: Final = re.compile(
    r"([^\s+\ud800-\udfff]{1,255})\+([0-9a-f]{8})\+([A-Za-z0-9+/=]{1,128})"
)
_SIGNATURE: Final = re.compile(r"— ([^\s+\ud800-\udfff]{1,255}) ([A-Za-z0-9+/=]{1,8192})")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]")


class BadNoteError(BadEncodingError):
    """A text is no signed note, or no checkpoint."""

    code = "bad_note"
    hint = "see C2SP signed-note and tlog-checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to: its origin, how many leaves it has, and their Merkle root."""

    origin: str
    size: int
    root: bytes


class SignatureLine(NamedTuple):
    """One line below a note: whose it claims to be, and the rest of its bytes."""

    name: str
    key_hash: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named Ed25519 key; ``key_hash`` ties the name to the key."""

    name: str
    key_hash: bytes
    public_key: bytes


def key_hash(name: str, public_key: bytes, kind: bytes = ED25519) -> bytes:
    """Return SHA-256(name + newline + kind + key), cut to four bytes."""
    return sha256(name.encode() + b"\n" + kind + public_key).digest()[:_KEY_HASH_BYTES]


def verifier_key(name: str, signer: Signer) -> str:
    """Return the verifier key of ``signer`` under ``name``: ``name+hash+base64``."""
    return verifier_key_of(name, signer.did)


def verifier_key_of(name: str, did: str, kind: bytes = ED25519) -> str:
    """Return the verifier key of the key ``did`` under ``name``."""
    if _NAME.fullmatch(name) is None:
        raise BadInputError("a key name has no spaces and no plus", name=name[:64])
    key = key_of(did)
    return f"{name}+{key_hash(name, key, kind).hex()}+{b64(kind + key)}"


def read_verifier_key(text: str, kind: bytes = ED25519) -> VerifierKey:
    """Read ``name+hash+base64`` of a key of that kind and check that the hash fits."""
    match = _VERIFIER.fullmatch(text)
    if match is None:
        raise BadNoteError("not a verifier key")
    name, hash_hex, encoded = match.groups()
    raw = unb64(encoded)
    if len(raw) != 33 or raw[:1] != kind:
        raise BadNoteError("not an Ed25519 verifier key of that kind")
    key = key_of(did_of(raw[1:]))
    if key_hash(name, key, kind).hex() != hash_hex:
        raise BadNoteError("the verifier key's hash does not fit its name and key")
    return VerifierKey(name, bytes.fromhex(hash_hex), key)


def sign_note(text: str, name: str, signer: Signer) -> str:
    """Sign ``text`` (ends with a newline) under the key name ``name``."""
    if not text.endswith("\n") or _CONTROL.search(text) or _NAME.fullmatch(name) is None:
        raise BadInputError("a note is text without control characters that ends with a newline")
    signature = key_hash(name, signer.public_key) + signer.sign_raw(text.encode())
    return f"{text}\n— {name} {b64(signature)}\n"


def split_note(note: str) -> tuple[str, list[SignatureLine]]:
    """Take a note apart without judging its signatures.

    Raises:
        BadNoteError, TooLargeError: it is beyond the limits or malformed.
    """
    if len(note) > MAX_NOTE_CHARS:
        raise TooLargeError("note too large", limit=MAX_NOTE_CHARS)
    head, empty_line, tail = note.rpartition("\n\n")
    if not empty_line or not tail.endswith("\n") or _CONTROL.search(note):
        raise BadNoteError("not a signed note")
    text = head + "\n"
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise TooLargeError("too many signatures", limit=MAX_SIGNATURES)
    return text, [_read_signature(line) for line in lines]


def open_note(note: str, key: VerifierKey) -> str:
    """Return the text of a note that ``key`` signed.

    1. The note is within limits and well formed.
    2. At least one signature line names the key; each that does verifies.

    Raises:
        BadNoteError, TooLargeError: 1 fails.
        BadSignatureError: 2 fails.
    """
    text, signatures = split_note(note)  # 1
    mine = [line.signature for line in signatures if line[:2] == (key.name, key.key_hash)]
    if not mine:  # 2
        raise BadSignatureError("the note is not signed by that key", name=key.name)
    for signature in mine:
        verify_raw(key.public_key, text.encode(), signature)
    return text


def signed_by(note: str, key: VerifierKey) -> str:
    """Return the note with the signature lines of ``key`` alone, unverified."""
    text, lines = split_note(note)
    mine = [line for line in lines if line[:2] == (key.name, key.key_hash)]
    shown = [f"— {key.name} {b64(key.key_hash + line.signature)}\n" for line in mine]
    return f"{text}\n{''.join(shown)}"


def sign_checkpoint(origin: str, size: int, root: bytes, signer: Signer) -> str:
    """Return the signed checkpoint of a log of ``size`` leaves under ``root``."""
    if not 0 <= size <= MAX_SIZE or len(root) != HASH_BYTES:
        raise BadInputError("a checkpoint needs a size and a root of 32 bytes")
    return sign_note(f"{origin}\n{size}\n{b64(root)}\n", origin, signer)


def open_checkpoint(note: str, vkey: str) -> Checkpoint:
    """Verify a checkpoint's signature by ``vkey`` and return what it commits to.

    Raises:
        BadNoteError, BadEncodingError, TooLargeError: not a checkpoint, or another log's.
        BadSignatureError: not signed by that key.
    """
    key = read_verifier_key(vkey)
    checkpoint = read_checkpoint(open_note(note, key))
    if checkpoint.origin != key.name:
        raise BadNoteError("the checkpoint is of another log", origin=checkpoint.origin[:64])
    return checkpoint


def read_checkpoint(text: str) -> Checkpoint:
    """Read a note's text as a checkpoint; who signed it was checked before."""
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines) or _SIZE.fullmatch(lines[1]) is None:
        raise BadNoteError("not a checkpoint")
    origin, size, root = lines[:3]  # further lines are extensions, which we do not use
    raw = unb64(root)
    if len(raw) != HASH_BYTES or int(size) > MAX_SIZE:
        raise BadNoteError("not a checkpoint")
    return Checkpoint(origin, int(size), raw)


def _read_signature(line: str) -> SignatureLine:
    match = _SIGNATURE.fullmatch(line)
    if match is None:
        raise BadNoteError("not a signature line")
    raw = unb64(match.group(2))
    if len(raw) <= _KEY_HASH_BYTES:
        raise BadNoteError("a signature is longer than its key hash")
    return SignatureLine(match.group(1), raw[:_KEY_HASH_BYTES], raw[_KEY_HASH_BYTES:])
