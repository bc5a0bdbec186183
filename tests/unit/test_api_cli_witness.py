"""`rahba witness`: usage, and evidence judged offline."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from api.cli.witness import witness
from tests.fixtures.wallet import did
from tests.fixtures.witnesses import PlainLog, words
from wallet.evidence import Fork, write_evidence

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


def test_an_address_that_is_none_is_refused() -> None:
    for command in ("vkey", "evidence"):
        done = CliRunner().invoke(witness, [command, "ftp://nowhere", "--json"])
        assert done.exit_code == 1
        assert json.loads(done.output)["error"]["code"] == "bad_input"
