"""``rahba ledger export | import | backup | restore | verify``, as people type them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from api.cli.main import main
from rahba.clock import SystemClock
from rahba.ids import RandomIds
from tests.fixtures.wallet import did, signer_of
from wallet.account import Wallet
from wallet.keys import agent_signer
from wallet.service import Sequencer
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import dev_genesis

PAYMENTS = 300


async def write_ledger(folder: Path, payments: int) -> None:
    clock, ids = SystemClock(), RandomIds()
    operator = agent_signer(folder / "operator.key")
    words: dict[str, Any] = {"operator": operator, "clock": clock, "ids": ids}
    genesis = dev_genesis(operator.did, clock.now_ms())
    store = SqliteStore(folder / "ledger.sqlite")
    async with await Sequencer.open(store, genesis=genesis, **words) as ledger:
        amina = Wallet(ledger, signer_of("amina"), clock=clock, ids=ids)
        await amina.faucet(10_000_000)
        await asyncio.gather(*(amina.transfer(did("brahim"), 1) for _ in range(payments)))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data folder of a ledger at rest."""
    folder = tmp_path / "data"
    for name in ("RAHBA_LEDGER_STORE", "RAHBA_POLICY", "RAHBA_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAHBA_DATA", str(folder))
    asyncio.run(write_ledger(folder, PAYMENTS))
    return folder


def ledger(*words: object) -> tuple[int, dict[str, Any]]:
    """Run a command with --json; returns its exit code and what it said."""
    done = CliRunner().invoke(main, ["ledger", *map(str, words), "--json"])
    return done.exit_code, orjson.loads(done.stdout)


def say(*words: object) -> str:
    done = CliRunner().invoke(main, ["ledger", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_ledger_goes_out_and_comes_in_again(data: Path, tmp_path: Path) -> None:
    status, out = ledger("export", tmp_path / "out")
    assert (status, out["kept"]) == (0, 0)
    assert out["entries"] > PAYMENTS
    assert ledger("verify", tmp_path / "out")[1]["root"] == out["root"]
    status, found = ledger("import", tmp_path / "out", "--to", tmp_path / "new")
    assert (status, found["root"]) == (0, out["root"])
    assert ledger("verify", tmp_path / "new")[1]["root"] == out["root"]
    assert (tmp_path / "new" / "ledger.sqlite").is_file()
    status, refused = ledger("import", tmp_path / "out", "--to", tmp_path / "new")
    assert (status, refused["error"]["code"]) == (1, "not_empty")
    again = say("export", tmp_path / "out")
    assert "256 of them were there already" in again
    assert out["vkey"] in again


def test_a_backup_comes_back(data: Path, tmp_path: Path) -> None:
    status, made = ledger("backup", tmp_path / "bak")
    assert (status, made["kind"], made["files"]) == (0, "sqlite", 1)
    status, refused = ledger("restore", tmp_path / "bak")
    assert (status, refused["error"]["code"]) == (1, "bad_backup"), "a ledger is there"
    (data / "ledger.sqlite").unlink()
    for left in data.glob("ledger.sqlite-*"):
        left.unlink()
    status, found = ledger("restore", tmp_path / "bak")
    assert (status, found["witnesses_asked"]) == (0, False)
    assert found["root"] == made["root"] == ledger("verify")[1]["root"]
    asyncio.run(write_ledger(data, 3))  # the operator's key is still the ledger's
    assert ledger("verify")[1]["ok"]


def test_people_are_told_what_was_done_and_what_was_not_asked(data: Path, tmp_path: Path) -> None:
    assert "operator's key is not in it" in say("backup", tmp_path / "bak")
    said = say("restore", tmp_path / "bak", "--to", tmp_path / "else.sqlite")
    assert "everything verifies" in said
    assert "no witness was asked" in said
    assert "entries imported" in say("import", data, "--to", tmp_path / "copy.sqlite")


def test_a_backup_that_is_too_old_is_refused_unless_the_tail_is_there(
    data: Path, tmp_path: Path
) -> None:
    assert ledger("backup", tmp_path / "bak")[0] == 0
    asyncio.run(write_ledger(data, 20))
    assert ledger("export", tmp_path / "out")[0] == 0
    newest = tmp_path / "out" / "checkpoint"
    words = ["restore", tmp_path / "bak", "--to", tmp_path / "back", "--older", newest]
    status, refused = ledger(*words)
    assert (status, refused["error"]["code"]) == (1, "rolled_back")
    status, found = ledger(*words, "--tail", tmp_path / "out")
    assert status == 0
    assert found["root"] == ledger("verify", tmp_path / "back")[1]["root"]
    assert found["root"] == ledger("verify")[1]["root"]


def test_a_database_is_exported_imported_backed_up_and_verified(
    data: Path, tmp_path: Path, postgres_url: str
) -> None:
    root = ledger("verify")[1]["root"]
    assert ledger("import", data, "--to", postgres_url)[1]["root"] == root
    assert ledger("verify", postgres_url)[1]["root"] == root
    assert ledger("export", tmp_path / "out", "--from", postgres_url)[1]["root"] == root
    status, made = ledger("backup", tmp_path / "bak", "--from", postgres_url)
    assert (status, made["kind"]) == (0, "archive")
    status, refused = ledger("restore", tmp_path / "bak", "--to", postgres_url)
    assert (status, refused["error"]["code"]) == (1, "not_empty")
    assert ledger("restore", tmp_path / "bak", "--to", tmp_path / "back")[1]["root"] == root


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["export", "{out}", "--from", "{nothing}"], "store_failed"),
        (["verify", "{nothing}"], "store_failed"),
        (["backup", "{out}", "--from", "{nothing}"], "store_failed"),
        (["restore", "{nothing}", "--to", "{out}"], "bad_backup"),
        (["import", "{data}", "--to", "http://127.0.0.1:1"], "bad_place"),
        (["import", "{data}", "--to", "{out}", "--vkey", "x+00000000+AQ=="], "ledger_corrupt"),
    ],
)
def test_a_mistake_is_answered_with_a_code(
    data: Path, tmp_path: Path, words: list[str], code: str
) -> None:
    places = {"out": tmp_path / "out", "nothing": tmp_path / "nothing", "data": data}
    status, said = ledger(*(word.format(**places) for word in words))
    assert (status, said["error"]["code"]) == (1, code)
