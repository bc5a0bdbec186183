"""A witness of logs: it cosigns what is consistent with what it cosigned before, and nothing else.

C2SP ``tlog-witness`` (v1.1), the call ``add-checkpoint``, as a pure decision:

1. The request is an old size, at most 63 proof lines, an empty line and a checkpoint (else 400).
2. The checkpoint is of a log that the witness knows (404), signed by its key (403).
3. The old size is not above the checkpoint's (400) and is that of the newest cosigned one (409,
   with that size).
4. The proof leads from the one to the other; of one size, the roots are the same (422).

Whoever calls :func:`rule` keeps :attr:`Ruling.seen` durably *before* a cosignature leaves, and
looks into a :attr:`Ruling.doubt`: two notes that the log signed and that may contradict each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, NamedTuple

from rahba.encoding import unb64
from rahba.errors import BadEncodingError, BadSignatureError, RahbaError, TooLargeError
from rahba.merkle import EMPTY_ROOT, BadProofError, verify_consistency
from rahba.note import (
    Checkpoint,
    open_checkpoint,
    read_verifier_key,
    signed_by,
    split_note,
    verifier_key_of,
)

MAX_BODY_BYTES: Final = 128 * 1024
MAX_PROOF_LINES: Final = 63
SIZE_TYPE: Final = "text/x.tlog.size"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)


class Seen(NamedTuple):
    """The newest checkpoint of a log that the witness cosigned, as a note with both signatures."""

    size: int
    root: bytes
    note: str


class Doubt(NamedTuple):
    """The newest cosigned note and another one of the log; ``proof`` came with the other.

    Of one size they contradict each other. Otherwise it has to be shown what the larger one says
    of the size of the smaller: a proof may as well be wrong by mistake, and a small checkpoint old.
    """

    vkey: str
    seen: str
    other: str
    proof: tuple[bytes, ...]


class Request(NamedTuple):
    """An ``add-checkpoint`` request, taken apart."""

    old: int
    proof: tuple[bytes, ...]
    note: str
    text: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a witness answers; with ``seen`` it may cosign, once that is kept.

    ``before`` is what it was compared with; ``again`` says that this very checkpoint was cosigned
    before. ``vkey`` is the key of the log that signed it.
    """

    status: int
    body: str = ""
    kind: str = TEXT_TYPE
    origin: str = ""
    vkey: str = ""
    before: Seen | None = None
    seen: Seen | None = None
    again: bool = False
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose logs are witnessed: by verifier key, or any log that an operator (DID) signs."""

    logs: Mapping[str, str]
    operators: Collection[str] = ()

    def keys(self, origin: str) -> list[str]:
        """Return the verifier keys that may sign for ``origin``."""
        if origin in self.logs:
            return [self.logs[origin]]
        return [verifier_key_of(origin, did) for did in self.operators]


def rule(body: bytes, trust: Trust, newest: Callable[[str], Seen | None]) -> Ruling:
    """Decide about one request; ``newest`` tells what was cosigned last of a log."""
    try:
        request = read_request(body)  # 1
        origin = request.text.partition("\n")[0]
        keys = trust.keys(origin)
    except RahbaError as error:
        return Ruling(400, error.message)
    if not keys:  # 2
        return Ruling(404, "that log is not known here")
    signed = _signed(request.note, keys)
    if signed is None:
        return Ruling(403, "not signed by a key of that log")
    vkey, checkpoint = signed
    if request.old > checkpoint.size:  # 3
        return Ruling(400, "the old size is above the checkpoint's")
    note = signed_by(request.note, read_verifier_key(vkey))
    now = Seen(checkpoint.size, checkpoint.root, note)
    return replace(_compare(request, now, newest(origin), vkey), origin=origin, vkey=vkey)


def _compare(request: Request, now: Seen, before: Seen | None, vkey: str) -> Ruling:
    seen = before or Seen(0, EMPTY_ROOT, "")
    doubt = Doubt(vkey, seen.note, now.note, request.proof) if before else None
    if request.old != seen.size:
        doubtful = now.size < seen.size or (now.size == seen.size and now.root != seen.root)
        return Ruling(409, f"{seen.size}\n", SIZE_TYPE, doubt=doubt if doubtful else None)
    try:  # 4
        verify_consistency(seen.size, now.size, seen.root, now.root, request.proof)
    except BadProofError as error:
        return Ruling(422, error.message, doubt=doubt)
    again = before is not None and now[:2] == before[:2]
    return Ruling(200, before=before, seen=now, again=again)


def origin_hash(origin: str) -> str:
    """Return the name under which a witness shows its newest checkpoint of a log."""
    return sha256(origin.encode()).hexdigest()


def read_request(body: bytes) -> Request:
    """Read the body of an ``add-checkpoint`` request.

    Raises:
        BadEncodingError, TooLargeError: it is malformed or beyond the limits.
    """
    if len(body) > MAX_BODY_BYTES:
        raise TooLargeError("request too large", limit_bytes=MAX_BODY_BYTES)
    try:
        head, empty_line, note = body.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise BadEncodingError("not text") from error
    first, *lines = head.split("\n")
    match = _OLD.fullmatch(first)
    if match is None or not empty_line:
        raise BadEncodingError("a request is an old size, a proof, an empty line, a checkpoint")
    if len(lines) > MAX_PROOF_LINES:
        raise TooLargeError("the proof is too long", limit=MAX_PROOF_LINES)
    proof = tuple(unb64(line) for line in lines)
    if any(len(step) != 32 for step in proof):
        raise BadEncodingError("a proof consists of 32-byte hashes")
    text, _ = split_note(note)
    return Request(int(match.group(1)), proof, note, text)


def write_request(old: int, proof: list[str], note: str) -> bytes:
    """Return the body of a request; ``proof`` is base64 lines."""
    return "\n".join([f"old {old}", *proof, "", note]).encode()


def _signed(note: str, keys: list[str]) -> tuple[str, Checkpoint] | None:
    for vkey in keys:
        try:
            return vkey, open_checkpoint(note, vkey)
        except BadSignatureError:
            continue
        except RahbaError:
            return None
    return None
