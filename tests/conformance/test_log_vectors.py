"""One file of vectors, judged alike by Python and by the dashboard's JavaScript."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from rahba.balance import AccountProof, verify_account, verify_history
from rahba.encoding import b64, shape, unb64
from rahba.errors import RahbaError
from rahba.merkle import verify_consistency, verify_inclusion
from rahba.note import open_checkpoint
from rahba.proof import open_receipt
from tools.vectors import FILE, vectors
from wallet.wire import read

Case = dict[str, Any]
Facts = dict[str, Any]

CASES: list[Case] = orjson.loads(FILE.read_bytes())["cases"]


def node() -> str:
    """Return the machine's Node, or the one that the project installed for itself."""
    own = Path(sys.executable).with_name("node")
    found = shutil.which("node") or (str(own) if own.exists() else None)
    assert found is not None, "the dashboard's verifier runs in Node: install it (`make dashboard`)"
    return found


def checkpoint(given: Facts) -> Facts:
    found = open_checkpoint(given["note"], given["vkey"])
    return {"size": found.size, "root": b64(found.root)}


def inclusion(given: Facts) -> Facts:
    path = [bytes.fromhex(step) for step in given["path"]]
    leaf, root = bytes.fromhex(given["leaf"]), unb64(given["root"])
    index, size = shape([given["index"], given["size"]], tuple[int, int])
    verify_inclusion(leaf, index, size, path, root)
    return {}


def consistency(given: Facts) -> Facts:
    path = [bytes.fromhex(step) for step in given["path"]]
    old_root, new_root = unb64(given["old_root"]), unb64(given["new_root"])
    verify_consistency(given["old"], given["new"], old_root, new_root, path)
    return {}


def receipt(given: Facts) -> Facts:
    found = open_receipt(given["text"], given["vkey"])
    return {"index": found.index, "entry": b64(found.entry), "size": found.checkpoint.size}


def balance(given: Facts) -> Facts:
    proof = read(orjson.dumps(given["proof"]), AccountProof)
    found = verify_account(proof, given["vkey"])
    return {"balance": str(found.balance), "size": found.size, "tip": found.tip.hex()}


def history(given: Facts) -> Facts:
    verify_history([unb64(entry) for entry in given["entries"]], bytes.fromhex(given["tip"]))
    return {}


JUDGES: dict[str, Callable[[Facts], Facts]] = {
    "checkpoint": checkpoint,
    "inclusion": inclusion,
    "consistency": consistency,
    "receipt": receipt,
    "balance": balance,
    "history": history,
}


@pytest.mark.parametrize("kind", JUDGES)
def test_python_judges_every_vector_as_it_should(kind: str) -> None:
    judge = JUDGES[kind]
    cases = [case for case in CASES if case["kind"] == kind]
    assert {case["valid"] for case in cases} == {True, False}
    for case in cases:
        if case["valid"]:
            assert judge(case["input"]) == case["says"], case["name"]
            continue
        try:
            said = judge(case["input"])
        except (RahbaError, ValueError):
            continue
        pytest.fail(f"{kind}: {case['name']} was accepted: {said}")


def test_the_dashboard_judges_every_vector_as_python_does() -> None:
    done = subprocess.run(
        [node(), FILE.with_name("verify.mjs")],
        capture_output=True,
        check=True,
        timeout=50,
    )
    assert orjson.loads(done.stdout) == {"cases": len(CASES), "wrong": []}


def test_no_two_vectors_have_one_name_and_no_kind_is_without_a_judge() -> None:
    names = Counter((case["kind"], case["name"]) for case in CASES)
    assert [name for name, times in names.items() if times > 1] == []
    assert {case["kind"] for case in CASES} == set(JUDGES)


def test_the_file_is_what_the_tool_writes() -> None:
    assert FILE.read_bytes() == vectors(), "run `python -m tools.vectors` and read what changed"
