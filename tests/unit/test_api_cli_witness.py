"""`rahba witness`: usage, and evidence judged offline."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from api.cli.witness import witness
from rahba.note import verifier_key_of
from tests.fixtures.attacks import ForgedLog
from tests.fixtures.serving import free_port
from tests.fixtures.wallet import START_MS, did
from tests.fixtures.witnesses import PlainLog, words
from wallet.audit import audit_entries
from wallet.evidence import BadState, Fork, write_evidence
from wallet.stores.memory import MemoryStore
from wallet.stores.sqlite import SqliteStore
from wallet.stores.tiles import TileDirectory
from wallet.transactions import dev_genesis
from wallet.transports.http import HttpLedger

LOG, OTHER = PlainLog(*words(5)), PlainLog(*words(5, "x"))


def test_a_witness_needs_to_know_whose_logs_to_look_at() -> None:
    done = CliRunner().invoke(witness, [])
    assert done.exit_code == 2
    assert "--log" in done.output


def test_evidence_is_judged_offline(tmp_path: Path) -> None:
    file = tmp_path / "fork.json"
    file.write_text(write_evidence(Fork(LOG.vkey, LOG.note(), OTHER.note())), "utf-8")
    done = CliRunner().invoke(witness, ["judge", str(file), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.output) == {
        "proves": True,
        "kind": "fork",
        "operator": did("operator"),
        "detail": "two roots for size 5",
    }
    assert did("operator") in CliRunner().invoke(witness, ["judge", str(file)]).output


def test_what_proves_nothing_is_told_apart_by_the_exit_code(tmp_path: Path) -> None:
    file = tmp_path / "nothing.json"
    file.write_text(write_evidence(Fork(LOG.vkey, LOG.note(), LOG.note())), "utf-8")
    done = CliRunner().invoke(witness, ["judge", str(file), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.output)["proves"] is False


@pytest.mark.parametrize("content", [b"nonsense", b"\xff\xfe", b"[" * 5_000, b"x" * 600_000])
def test_a_file_that_is_no_bundle_is_refused_with_a_code(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bundle.json"
    file.write_bytes(content)
    done = CliRunner().invoke(witness, ["judge", str(file), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.output)["error"]["code"] in {"bad_encoding", "too_large"}


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_wrong_state_is_judged_with_the_log_wherever_it_is(tmp_path: Path, place: str) -> None:
    log = ForgedLog(dev_genesis(did("operator"), START_MS))
    log.fund("amina", 9_000)
    log.book.state.post([("issuance", did("thief"), 10**9)], {})
    log.book.state.touched |= {"issuance", did("thief")}
    log.close()
    ledger = tmp_path / ("ledger.db" if place == "file" else "log")
    store = SqliteStore(ledger) if place == "file" else MemoryStore()
    store.acquire()
    store.append(log.entries, [], log.note)
    if place == "folder":
        TileDirectory(ledger, store, log.book.log).publish(log.note, log.book.log.size)
    store.close()
    vkey = verifier_key_of(log.genesis.origin, did("operator"))
    (problem,) = audit_entries(log.entries, log.note).problems
    assert problem.seq is not None
    file = tmp_path / "state.json"
    file.write_text(write_evidence(BadState(vkey, log.note, problem.seq, problem.code)), "utf-8")
    words = ["judge", str(file), "--json"]
    done = CliRunner().invoke(witness, [*words, "--ledger", str(ledger)])
    assert (done.exit_code, json.loads(done.output)["proves"]) == (0, True), done.output
    assert CliRunner().invoke(witness, words).exit_code == 1


def test_a_log_that_cannot_be_read_says_nothing_about_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.places.HttpLedger", partial(HttpLedger, patience_s=0.2))
    file = tmp_path / "state.json"
    file.write_text(write_evidence(BadState(LOG.vkey, LOG.note(), 1, "wrong_state")), "utf-8")
    place = f"http://127.0.0.1:{free_port()}"
    done = CliRunner().invoke(witness, ["judge", str(file), "--ledger", place, "--json"])
    assert done.exit_code == 1
    assert json.loads(done.output)["error"]["code"] == "ledger_unreachable"


def test_a_witness_that_is_not_there_is_told_with_a_code() -> None:
    for command in ("vkey", "evidence"):
        place = f"http://127.0.0.1:{free_port()}"
        done = CliRunner().invoke(witness, [command, place, "--json"])
        assert done.exit_code == 1
        assert json.loads(done.output)["error"]["code"] == "witness_unreachable"


def test_an_address_that_is_none_is_refused() -> None:
    for command in ("vkey", "evidence"):
        done = CliRunner().invoke(witness, [command, "ftp://nowhere", "--json"])
        assert done.exit_code == 1
        assert json.loads(done.output)["error"]["code"] == "bad_input"
