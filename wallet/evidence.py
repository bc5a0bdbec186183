"""Evidence against the operator of a log, that anybody can check offline.

A bundle is one JSON document. What convicts is always the operator's own signature:

* ``fork``: two checkpoints that cannot be of one log. Of one size, with two roots; or of two sizes,
  where the larger one extends another root (``proof`` from ``old_root``) than the smaller one says.
* ``rollback``: a fork of what a witness had cosigned: the log was set back, by a backup or on
  purpose, and went on from there. Being shown a small checkpoint proves nothing, it may be old.
* ``entry``: an entry under a signed checkpoint that no rule allows, whatever the state: a forged
  signature, a wrong form.
* ``state``: an entry that the rules refuse at its place (money from nowhere, a wrong balance). Who
  checks it replays the log, so it needs the log's entries.
* ``dropped``: the operator promised a transaction a place, and signed a log without it there.

:func:`verify_evidence` raises unless the bundle proves what it says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from rahba.cosignature import cosigned_at
from rahba.encoding import b64, unb64
from rahba.errors import BadEncodingError, RahbaError, RemoteError, TooLargeError
from rahba.ids import did_of
from rahba.merkle import leaf_hash, verify_consistency, verify_inclusion
from rahba.note import Checkpoint, open_checkpoint, read_verifier_key
from rahba.promise import open_promise
from wallet.audit import audit_entries
from wallet.forms import check_form, check_signatures
from wallet.ports import Entry
from wallet.transactions import AnyTx, read

MAX_BYTES: Final = 512 * 1024
# What an audit finds wrong with a copy of the log: no signature stands for it.
UNSIGNED: Final = frozenset({"missing_entry", "unreadable", "wrong_leaf", "wrong_time"})
Hashes = Annotated[tuple[str, ...], msgspec.Meta(max_length=63)]


class NotEvidenceError(RemoteError):
    """A bundle does not prove what it says."""

    code = "not_evidence"


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all have: ``vkey`` is the log's verifier key, hashes are base64."""

    vkey: str


class Fork(Bundle, frozen=True, tag="fork"):
    """Two checkpoints; ``proof`` leads from ``old_root`` to the larger if their sizes differ."""

    first: str
    second: str
    old_root: str | None = None
    proof: Hashes = ()


class Rollback(Bundle, frozen=True, tag="rollback"):
    """A checkpoint that ``witness`` (a verifier key) cosigned, and one that contradicts it."""

    witness: str
    cosigned: str
    later: str
    old_root: str | None = None
    proof: Hashes = ()


class BadEntry(Bundle, frozen=True, tag="entry"):
    """An entry (base64) with its inclusion under a checkpoint."""

    checkpoint: str
    index: int
    path: Hashes
    entry: str


class BadState(Bundle, frozen=True, tag="state"):
    """The first entry that the rules refuse, under a checkpoint that covers it."""

    checkpoint: str
    seq: int
    code: str


class Dropped(Bundle, frozen=True, tag="dropped"):
    """A promise, and what is at its place instead (a leaf hash) under a checkpoint."""

    promise: str
    checkpoint: str
    leaf: str
    path: Hashes


AnyBundle = Fork | Rollback | BadEntry | BadState | Dropped


@dataclass(frozen=True, slots=True)
class Finding:
    """What a bundle proves, in words; ``operator`` is the DID of whom it convicts."""

    kind: str
    operator: str
    detail: str


def write_evidence(bundle: AnyBundle) -> str:
    """Return the bundle's document."""
    return msgspec.json.format(msgspec.json.encode(bundle), indent=2).decode() + "\n"


def read_evidence(text: str) -> AnyBundle:
    """Read a bundle without judging it.

    Raises:
        BadEncodingError, TooLargeError: it is none.
    """
    if len(text) > MAX_BYTES:
        raise TooLargeError("evidence too large", limit=MAX_BYTES)
    try:
        bundle: AnyBundle = msgspec.json.decode(text, type=AnyBundle)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadEncodingError(f"not a bundle of evidence: {error}") from error
    return bundle


def verify_evidence(bundle: AnyBundle, entries: Iterable[Entry] = ()) -> Finding:
    """Check a bundle; ``entries`` of the log are needed for ``state`` alone.

    Raises:
        NotEvidenceError: it does not prove what it says.
    """
    try:
        operator = did_of(read_verifier_key(bundle.vkey).public_key)
        detail = _JUDGES[type(bundle)](bundle, operator, entries)
    except NotEvidenceError:
        raise
    except RahbaError as error:
        raise NotEvidenceError(f"it proves nothing: {error.message}", reason=error.code) from error
    return Finding(str(bundle.__struct_config__.tag), operator, detail)


def _fork(bundle: Fork, _operator: str, _entries: Iterable[Entry]) -> str:
    first = open_checkpoint(bundle.first, bundle.vkey)
    second = open_checkpoint(bundle.second, bundle.vkey)
    return _contradiction(first, second, bundle)


def _rollback(bundle: Rollback, _operator: str, _entries: Iterable[Entry]) -> str:
    seen = open_checkpoint(bundle.cosigned, bundle.vkey)
    later = open_checkpoint(bundle.later, bundle.vkey)
    time_s = cosigned_at(bundle.cosigned, bundle.witness)
    _require(time_s is not None, "the witness did not cosign it")
    said = _contradiction(seen, later, bundle)
    return f"size {seen.size} was cosigned at {time_s}, then set back: {said}"


def _contradiction(one: Checkpoint, other: Checkpoint, bundle: Fork | Rollback) -> str:
    """Say how two checkpoints contradict each other; not to be one another's past is not enough."""
    small, large = sorted((one, other), key=lambda checkpoint: checkpoint.size)
    if small.size == large.size:
        _require(small.root != large.root, "both checkpoints say the same")
        return f"two roots for size {small.size}"
    _require(bundle.old_root is not None, "no proof joins them: the smaller one may just be older")
    old_root = unb64(bundle.old_root or "")
    _require(old_root != small.root, "the larger checkpoint extends the smaller one")
    proof = [unb64(step) for step in bundle.proof]
    verify_consistency(small.size, large.size, old_root, large.root, proof)
    return f"size {large.size} extends another log than the one signed at size {small.size}"


def _entry(bundle: BadEntry, operator: str, _entries: Iterable[Entry]) -> str:
    checkpoint = open_checkpoint(bundle.checkpoint, bundle.vkey)
    raw = unb64(bundle.entry)
    path = [unb64(step) for step in bundle.path]
    verify_inclusion(leaf_hash(raw), bundle.index, checkpoint.size, path, checkpoint.root)
    wrong = fault_of_entry(raw, checkpoint, operator)
    _require(wrong is not None, "nothing is wrong with the entry by itself")
    return f"entry {bundle.index}: {wrong}"


def fault_of_entry(raw: bytes, checkpoint: Checkpoint, operator: str) -> str | None:
    """Return what is wrong with an entry whatever the state; ``None``: nothing."""
    try:
        signed = read(raw)
        check_signatures(signed)
        if isinstance(signed.record, AnyTx):
            check_form(signed, checkpoint.origin.rpartition("/")[2])
        elif signed.signers != (operator,):
            return "a record of the ledger that the operator did not sign"
    except RahbaError as error:
        return f"{error.code}: {error.message}"
    return None


def _state(bundle: BadState, _operator: str, entries: Iterable[Entry]) -> str:
    checkpoint = open_checkpoint(bundle.checkpoint, bundle.vkey)
    _require(bundle.seq < checkpoint.size, "the checkpoint does not cover the entry")
    _require(bundle.code not in UNSIGNED, "how entries are stored is nobody's signed word")
    report = audit_entries(entries, bundle.checkpoint, vkey=bundle.vkey)
    _require(report.checkpoint_ok, "the entries are not those of the checkpoint")
    found = [problem for problem in report.problems if problem.seq == bundle.seq]
    _require(any(problem.code == bundle.code for problem in found), "the replay finds nothing")
    return f"entry {bundle.seq}: {found[0].detail}"


def _dropped(bundle: Dropped, operator: str, _entries: Iterable[Entry]) -> str:
    promise = open_promise(bundle.promise, operator)
    checkpoint = open_checkpoint(bundle.checkpoint, bundle.vkey)
    _require(checkpoint.origin.endswith(f"/{promise.chain}"), "the promise is of another chain")
    _require(checkpoint.size >= promise.by_size, "its time has not come")
    leaf, path = unb64(bundle.leaf), [unb64(step) for step in bundle.path]
    verify_inclusion(leaf, promise.seq, checkpoint.size, path, checkpoint.root)
    _require(leaf.hex() != promise.id, "the promise was kept")
    return f"transaction {promise.id} was promised place {promise.seq}, where another one is"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotEvidenceError(otherwise)


def hashes(path: Iterable[bytes]) -> tuple[str, ...]:
    """Write hashes as a bundle does."""
    return tuple(b64(step) for step in path)


_JUDGES: Final[dict[type[Any], Any]] = {
    Fork: _fork,
    Rollback: _rollback,
    BadEntry: _entry,
    BadState: _state,
    Dropped: _dropped,
}
