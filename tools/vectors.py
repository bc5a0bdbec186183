"""Writes the vectors that every verifier of the log must agree on: ``tests/vectors/log.json``.

* A small ledger is run from fixed keys at a fixed time, so the file is the same on every machine.
* A case is what a verifier is given (``input``) and whether it holds (``valid``); what holds also
  ``says`` something. Of everything that holds there are changed copies that do not.
* Kinds: checkpoint (signed-note, tlog-checkpoint), inclusion and consistency (RFC 6962), receipt
  (tlog-proof), balance and history (``rahba.balance``).

    python -m tools.vectors
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from rahba.cosignature import cosign
from rahba.encoding import b64
from rahba.merkle import EMPTY_ROOT, leaf_hash
from rahba.note import sign_checkpoint, verifier_key
from rahba.proof import write_proof
from tools.vector_accounts import balances, histories
from tools.vector_shop import (
    AMINA,
    OPERATOR,
    START_MS,
    Case,
    Shop,
    case,
    flip,
    flip_hex,
    shop,
    signer,
)
from wallet.merkle import MerkleLog

ROOT: Final = Path(__file__).parents[1]
FILE: Final = ROOT / "tests/vectors/log.json"
SMALL_KEY: Final = bytes([1]) + bytes(31)


def checkpoints(made: Shop) -> list[Case]:
    """Signed notes: whole, cosigned, and touched in every line."""
    note, origin, vkey = made.notes[-1], made.genesis.origin, made.vkey
    size, log = made.sizes[-1], made.book.log
    body, line = note.split("\n\n")
    says = {"size": size, "root": b64(log.root())}
    twice = made.notes[-2].split("\n\n")[1]
    cosigned = note + cosign(note, "witness.test/w", signer("witness"), START_MS // 1000)
    extended = _note(f"{body}\nan extension\n", origin)
    good = [
        ("as it was signed", note),
        ("with a witness's line, which is ignored", cosigned),
        ("with an extension line", extended),
    ]
    bad = {
        "another size": note.replace(f"\n{size}\n", f"\n{size + 1}\n", 1),
        "another root": note.replace(b64(log.root()), b64(log.root_at(size - 1)), 1),
        "another log": note.replace(origin, "elsewhere.test/log"),
        "a flipped bit in the signature": flip(note, len(note) - 20),
        "the signature of another checkpoint": f"{body}\n\n{twice}",
        "one good and one bad signature by the key": note + twice,
        "the signature of another key of that name": sign_checkpoint(
            origin, size, log.root(), AMINA
        ),
        "no signature": f"{body}\n\n",
        "no newline at the end": note[:-1],
        "no empty line": f"{body}\n{line}",
        "a size with a leading zero": _note(f"{origin}\n0{size}\n{b64(log.root())}\n", origin),
        "a negative size": _note(f"{origin}\n-1\n{b64(log.root())}\n", origin),
        "a root of 31 bytes": _note(f"{origin}\n{size}\n{b64(log.root()[1:])}\n", origin),
        "base64 that is not canonical": _loosen(note),
        "a checkpoint of another origin, signed by this key": _note(
            f"elsewhere.test/log\n{size}\n{b64(log.root())}\n", origin
        ),
        "a carriage return": note.replace("\n\n", "\r\n\n", 1),
        "a control character, signed": _note(f"{body}\nan\x7fextension\n", origin),
        "a line that is no signature": note + "nobody\n",
        "a line with no more than a key's hash": note + "\u2014 witness.test/w AAAAAA==\n",
        "two lines only": _note(f"{origin}\n{size}\n", origin),
        "nothing": "",
    }
    return [
        *(case("checkpoint", n, {"note": given, "vkey": vkey}, says) for n, given in good),
        *(case("checkpoint", n, {"note": given, "vkey": vkey}) for n, given in bad.items()),
        *(case("checkpoint", n, {"note": g, "vkey": k}) for n, (g, k) in _wrong_keys(made).items()),
    ]


def _wrong_keys(made: Shop) -> dict[str, tuple[str, str]]:
    """Return notes beside verifier keys under which nothing holds."""
    note, origin, vkey = made.notes[-1], made.genesis.origin, made.vkey
    body, other = note.split("\n\n")[0], verifier_key(origin, AMINA)
    name, mark, key = vkey.split("+", 2)
    small = f"{origin}+{_mark(origin, SMALL_KEY)}+{b64(bytes([1]) + SMALL_KEY)}"
    forged = bytes.fromhex(_mark(origin, SMALL_KEY)) + SMALL_KEY + bytes(32)
    unfit = b64(bytes(4) + OPERATOR.sign_raw(f"{body}\n".encode()))
    return {
        "pinned to another key": (note, other),
        "pinned to a key whose hash does not fit": (
            f"{body}\n\n\u2014 {name} {unfit}\n",
            f"{name}+00000000+{key}",
        ),
        "pinned to a key of small order, for which everything is signed": (
            f"{body}\n\n\u2014 {name} {b64(forged)}\n",
            small,
        ),
        "pinned to a key of another kind": (note, f"{name}+{mark}+{b64(bytes([2, *bytes(32)]))}"),
        "pinned to no key": (note, ""),
    }


def inclusions(made: Shop) -> list[Case]:
    """Every leaf of logs of some sizes, and one proof changed in all ways."""
    log, found = made.book.log, []
    for size in (1, 2, 7, log.size):
        for index in range(size):
            given = _inclusion(log, index, size)
            found.append(case("inclusion", f"leaf {index} of {size}", given, {}))
    good = _inclusion(log, 9, log.size)
    path = good["path"]
    changes: dict[str, dict[str, Any]] = {
        "another index": {"index": 8},
        "an index between two leaves": {"index": 8.5},
        "another size": {"size": 5},
        "an index beyond the log": {"index": log.size},
        "a negative index": {"index": -1},
        "another leaf": {"leaf": log.node(0, 8).hex()},
        "another root": {"root": b64(log.root_at(log.size - 1))},
        "a step too few": {"path": path[:-1]},
        "a step too many": {"path": [*path, path[0]]},
        "no steps": {"path": []},
        "two steps swapped": {"path": [path[1], path[0], *path[2:]]},
        "a flipped bit in a step": {"path": [flip_hex(path[0]), *path[1:]]},
        "a step of 31 bytes": {"path": [path[0][2:], *path[1:]]},
        "a step that is no hex": {"path": ["zz" * 32, *path[1:]]},
        "an inner node as a leaf": {"leaf": log.node(1, 4).hex(), "index": 4, "path": path[1:]},
    }
    return found + [case("inclusion", n, good | change) for n, change in changes.items()]


def consistencies(made: Shop) -> list[Case]:
    """Every pair of some sizes, and one proof changed in all ways."""
    log, found = made.book.log, []
    sizes = (0, 1, 2, 3, 4, 6, 7, 8, 13, 16, log.size)
    for at, old in enumerate(sizes):
        for new in sizes[at:]:
            given = _consistency(log, old, new)
            found.append(case("consistency", f"{old} to {new}", given, {}))
    good = _consistency(log, 6, log.size)
    path = good["path"]
    fork = MerkleLog(log.node(0, at) for at in range(5))
    fork.extend([leaf_hash(b"another sixth"), *(log.node(0, at) for at in range(6, log.size))])
    forked = b64(fork.root())
    changes: dict[str, dict[str, Any]] = {
        "a fork": {"new_root": forked},
        "a fork with its own proof": {
            "new_root": forked,
            "path": [step.hex() for step in fork.consistency(6, log.size)],
        },
        "two roots of one size": {"old": log.size, "old_root": forked, "path": []},
        "a log that shrinks": {"old": log.size, "new": 6},
        "another old size": {"old": 5},
        "another old root": {"old_root": b64(log.root_at(5))},
        "a step too few": {"path": path[:-1]},
        "a step too many": {"path": [*path, path[0]]},
        "no steps": {"path": []},
        "a flipped bit in a step": {"path": [*path[:-1], flip_hex(path[-1])]},
        "a step of 31 bytes": {"path": [path[0][2:], *path[1:]]},
        "steps where none are needed": {
            "old": log.size,
            "old_root": good["new_root"],
            "path": path,
        },
        "an empty log with another root": {"old": 0, "path": []},
        "an empty log with steps": {"old": 0, "old_root": b64(EMPTY_ROOT)},
        "two roots of an empty log": {
            "old": 0,
            "new": 0,
            "old_root": b64(EMPTY_ROOT),
            "path": [],
        },
        "an empty log with a root, twice": {
            "old": 0,
            "new": 0,
            "old_root": good["new_root"],
            "path": [],
        },
    }
    return found + [case("consistency", n, good | change) for n, change in changes.items()]


def receipts(made: Shop) -> list[Case]:
    """A payment's file, whole and touched in every line."""
    index = 7
    proof, entry = made.proof(index), made.entries[index]
    text = write_proof(proof, entry)
    extra = "extra " + b64(entry)
    says = {"index": index, "entry": b64(entry), "size": made.sizes[-1]}
    first = b64(bytes.fromhex(proof.path[0]))
    bad = {
        "another entry": text.replace(extra, "extra " + b64(made.entries[6])),
        "an altered entry": text.replace(extra, "extra " + b64(entry[:-1] + b" ")),
        "another index": text.replace(f"index {index}", f"index {index - 1}"),
        "an index with a leading zero": text.replace(f"index {index}", f"index 0{index}"),
        "no index": text.replace(f"index {index}\n", ""),
        "another format": text.replace("tlog-proof@v1", "tlog-proof@v2"),
        "a step too few": text.replace(first + "\n", "", 1),
        "a step that is no base64": text.replace(first, "*" * len(first), 1),
        "the checkpoint of an older log": text.replace(proof.checkpoint, made.notes[-2]),
        "no checkpoint": text.split("\n\n")[0] + "\n\n",
        "a flipped bit in the signature": flip(text, len(text) - 20),
        "nothing": "",
    }
    vkey = made.vkey
    return [
        case("receipt", "a payment", {"text": text, "vkey": vkey}, says),
        *(case("receipt", n, {"text": given, "vkey": vkey}) for n, given in bad.items()),
        case(
            "receipt",
            "pinned to another key",
            {"text": text, "vkey": verifier_key(made.genesis.origin, AMINA)},
        ),
    ]


def vectors() -> bytes:
    """Return the whole file."""
    made = shop()
    parts = (checkpoints, inclusions, consistencies, receipts, balances, histories)
    cases = [found for part in parts for found in part(made)]
    about = "Made by tools/vectors.py; `valid` says what every verifier must find."
    lines = b",\n".join(orjson.dumps(found) for found in cases)
    return b'{"about":%s,"cases":[\n%s\n]}\n' % (orjson.dumps(about), lines)


def _inclusion(log: MerkleLog, index: int, size: int) -> dict[str, Any]:
    return {
        "leaf": log.node(0, index).hex(),
        "index": index,
        "size": size,
        "path": [step.hex() for step in log.inclusion(index, size)],
        "root": b64(log.root_at(size)),
    }


def _consistency(log: MerkleLog, old: int, new: int) -> dict[str, Any]:
    return {
        "old": old,
        "new": new,
        "old_root": b64(log.root_at(old)),
        "new_root": b64(log.root_at(new)),
        "path": [step.hex() for step in log.consistency(old, new)],
    }


def _note(text: str, name: str) -> str:
    """Sign any text as the operator would sign a checkpoint."""
    raw = bytes.fromhex(_mark(name, OPERATOR.public_key)) + OPERATOR.sign_raw(text.encode())
    return f"{text}\n\u2014 {name} {b64(raw)}\n"


def _mark(name: str, key: bytes) -> str:
    return sha256(name.encode() + b"\n\x01" + key).hexdigest()[:8]


def _loosen(note: str) -> str:
    """Spell the same signature in a way that only lenient decoders accept."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    end = note.rindex("=\n")
    while note[end - 1] == "=":
        end -= 1
    return note[: end - 1] + digits[digits.index(note[end - 1]) + 1] + note[end:]


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(vectors())
    print(f"{FILE.relative_to(ROOT)}: {len(orjson.loads(FILE.read_bytes())['cases'])} cases")
