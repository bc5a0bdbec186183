"""Cosignatures of checkpoints (C2SP ``tlog-cosignature``, Ed25519 kind 0x04).

* A witness signs, with the time, that the largest consistent tree it has seen of a log has this
  root. The signature line goes below the note beside the log's own.
* The signed message is ``cosignature/v1``, a line with the time, and the whole text of the note.

    >>> from rahba.envelope import Signer
    >>> from rahba.note import sign_checkpoint
    >>> log, witness = Signer(bytes(32)), Signer(bytes([1]) * 32)
    >>> note = sign_checkpoint("rahba.test/log", 0, bytes(32), log)
    >>> note += cosign(note, "witness.test/w", witness, 1_700_000_000)
    >>> cosigned_at(note, cosigner_key("witness.test/w", witness.did))
    1700000000
"""

from __future__ import annotations

from typing import Final

from rahba.encoding import b64
from rahba.envelope import Signer, verify_raw
from rahba.errors import BadInputError, BadSignatureError
from rahba.note import (
    COSIGNATURE,
    VerifierKey,
    key_hash,
    read_verifier_key,
    split_note,
    verifier_key_of,
)

MAX_TIME_S: Final = 2**63 - 1
_TIME_BYTES: Final = 8


def cosigner_key(name: str, did: str) -> str:
    """Return the verifier key of a witness: ``name+hash+base64`` of kind 0x04."""
    return verifier_key_of(name, did, COSIGNATURE)


def cosign(note: str, name: str, witness: Signer, time_s: int) -> str:
    """Return the witness's signature line for ``note``; ``time_s`` is seconds since the epoch."""
    if not 0 <= time_s <= MAX_TIME_S:
        raise BadInputError("a time in seconds since the epoch")
    text, _ = split_note(note)
    mark = key_hash(name, witness.public_key, COSIGNATURE)
    signature = witness.sign_raw(_message(text, time_s))
    return f"\u2014 {name} {b64(mark + time_s.to_bytes(_TIME_BYTES, 'big') + signature)}\n"


def cosigned_at(note: str, vkey: str) -> int | None:
    """Return when the witness ``vkey`` cosigned ``note`` (seconds); ``None`` if it did not.

    Raises:
        BadSignatureError: a line claims to be the witness's and is not.
        BadNoteError, TooLargeError: not a note, or not a witness's key.
    """
    key = read_verifier_key(vkey, COSIGNATURE)
    text, lines = split_note(note)
    mine = [line.signature for line in lines if line[:2] == (key.name, key.key_hash)]
    return max((_verified(text, raw, key) for raw in mine), default=None)


def _verified(text: str, raw: bytes, key: VerifierKey) -> int:
    time_s = int.from_bytes(raw[:_TIME_BYTES], "big")
    if time_s > MAX_TIME_S:
        raise BadSignatureError("the time of a cosignature is out of range")
    verify_raw(key.public_key, _message(text, time_s), raw[_TIME_BYTES:])
    return time_s


def _message(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()
