"""The command line as people use it: on a real market, with data, prose and mistakes."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from api.cli import __main__ as module
from api.cli import demo, ledger, market, output, process, wallet
from api.cli.main import COMMANDS, main
from rahba.errors import BadInputError, LocalError
from tests.fixtures.market import RunningMarket, market_env

pytestmark = pytest.mark.timeout(120)
TEXT = "The market opened early. Traders sold salt and dates. Everyone praised the market."
STRANGER = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"


def run(env: dict[str, str], *arguments: str) -> tuple[int, Any, str]:
    """Run a command with --json; returns exit code, data and what it said on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments, "--json"],
        env=env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    data = orjson.loads(done.stdout) if done.stdout else None
    return done.returncode, data, done.stderr.decode()


def say(market: RunningMarket, *arguments: str) -> str:
    """Run a command for people; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments],
        env=market.env,
        capture_output=True,
        timeout=60,
        check=True,
    )
    return done.stdout.decode()


@pytest.fixture(scope="module")
def mood(market: RunningMarket) -> dict[str, Any]:
    """Deploy a sentiment agent; returns its deployment."""
    record: dict[str, Any] = market.rahba(
        "deploy", "sentiment", "--name", "mood", "--price", "0.002"
    )
    return record


def test_templates_are_listed_with_what_they_do(market: RunningMarket) -> None:
    names = {each["name"] for each in market.rahba("templates")}
    assert {"summarise", "keywords", "sentiment", "pdf-text", "web-to-markdown"} <= names
    assert {"data-analyst", "concierge"} <= names
    assert "summarise" in say(market, "templates")


@pytest.mark.long
def test_a_deployed_agent_sells_until_it_is_stopped(
    market: RunningMarket, mood: dict[str, Any]
) -> None:
    assert mood["state"] == "running"
    assert any(each["id"] == mood["agent"] for each in market.rahba("ls", "agents"))
    brief = market.rahba("deploy", "language-detect", "--name", "brief")
    assert "brief" in say(market, "ls", "deployments")
    assert market.rahba("stop", "brief")["state"] in {"stopping", "stopped"}
    for _ in range(50):
        if not any(each["id"] == brief["agent"] for each in market.rahba("ls", "agents")):
            return
    raise AssertionError("a stopped agent is still listed")


def test_an_agent_is_deployed_on_several_terms(market: RunningMarket) -> None:
    tier = "price=0.004,floor=0.003,quality=900,latency_ms=200"
    record = market.rahba("deploy", "keywords", "--name", "weaver", "--tier", tier)
    assert record["state"] == "running"
    (found,) = [each for each in market.rahba("ls", "agents") if each["id"] == record["agent"]]
    (shown,) = found["skills"][0]["tiers"]
    assert (shown["price"], shown["quality"], shown["latency_ms"]) == ("4000000", 900, 200)
    market.rahba("stop", "weaver")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["deploy", "nothing-like-this"], "unknown_template"),
        (["deploy", "sentiment", "--set", "price=much"], "bad_config"),
        (["deploy", "sentiment", "--set", "colour=red"], "bad_config"),
        (["deploy", "sentiment", "--set", "price"], "bad_input"),
        (["deploy", "sentiment", "--tier", "price=0.004"], "bad_config"),
        (["deploy", "sentiment", "--tier", "quality"], "bad_input"),
        (["stop", "nobody"], "bad_input"),
        (["call", "no.such.skill", "--arg", "text=x"], "unknown_skill"),
        (["call", "Bad Skill"], "bad_id"),
        (["call", "text.sentiment", "--arg", "text=x", "--budget", "1,5"], "bad_amount"),
        (["call", "text.sentiment", "--arg", "text:={"], "bad_input"),
        (["call", "text.sentiment", "--arg", "text=@/nowhere"], "bad_input"),
        (["wallet", "balance", STRANGER[:-1] + "1"], "bad_input"),
        (["wallet", "send", "somebody", "1"], "bad_id"),
        (["wallet", "send", STRANGER, "1.0000000001"], "bad_amount"),
        (["wallet", "send", STRANGER, "99999999"], "insufficient_funds"),
        (["wallet", "faucet", "1001"], "cap_exceeded"),
        (["wallet", "proof", "0" * 64], "bad_input"),
        (["wallet", "proof", "x"], "bad_id"),
        (["keys", "revoke", "zz"], "bad_input"),
        (["keys", "new", "--budget", "x"], "bad_amount"),
        (["keys", "new", "--label", "x" * 65], "bad_input"),
    ],
)
def test_a_mistake_is_answered_with_a_code_and_exit_1(
    market: RunningMarket, mood: dict[str, Any], arguments: list[str], code: str
) -> None:
    status, data, _ = run(market.env, *arguments)
    assert (status, data["error"]["code"]) == (1, code)
    assert data["error"]["message"]


def test_without_a_market_the_error_names_the_next_step(tmp_path: Path) -> None:
    status, data, _ = run(market_env(tmp_path), "ls", "agents")
    assert (status, data["error"]["code"]) == (1, "no_market")
    assert "rahba up" in data["error"]["hint"]


def test_a_second_market_in_the_same_folder_is_refused(market: RunningMarket) -> None:
    status, data, _ = run(market.env, "up")
    assert (status, data["error"]["code"]) == (1, "already_running")


def test_a_purchase_is_shown_paid_and_repeated_by_its_key_only_once(
    market: RunningMarket, mood: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("I love this market.", "utf-8")
    call = ["call", "text.sentiment", "--arg", f"text=@{tmp_path}/note.txt", "--key", "only-once"]
    first = market.rahba(*call, "--arg", "by_sentence:=false", "--mode", "bargain")
    assert first["output"]["label"] == "positive"
    assert int(first["paid_fals"]) <= 2_000_000
    again = market.rahba(*call, "--arg", "by_sentence:=false", "--mode", "bargain")
    assert again["capture_tx"] == first["capture_tx"]
    assert [d["agreement"] for d in market.rahba("ls", "deals")].count(first["agreement"]) == 1
    assert "positive" in say(market, *call[:4])
    assert "text.sentiment" in say(market, "ls", "deals")


@pytest.mark.long
def test_what_was_said_is_kept_and_checked_without_the_market(
    market: RunningMarket, mood: dict[str, Any], tmp_path: Path
) -> None:
    words = ("--arg", f"text={TEXT}", "--mode", "bargain", "--agent", mood["agent"])
    call = market.rahba("call", "text.sentiment", *words)
    file = tmp_path / "said.jsonl"
    (kept,) = market.rahba("transcript", "export", call["group"], "--out", str(file))
    assert say(market, "transcript", "export", call["group"]).encode() == file.read_bytes()
    code, (checked,), _ = run(market_env(tmp_path), "transcript", "verify", str(file))
    assert (code, checked) == (0, kept)
    assert (checked["phase"], checked["seller"]) == ("delivered", mood["agent"])
    assert checked["messages"] == len(file.read_bytes().splitlines()) > 3
    assert "bears both signatures" in say(market, "transcript", "verify", str(file))
    code, answer, _ = run(market.env, "transcript", "export", call["group"], "--out", str(file))
    assert (code, answer["error"]["code"]) == (1, "bad_input")  # nothing is written over
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    code, answer, _ = run(market.env, "transcript", "verify", str(file))
    assert (code, answer["error"]["code"]) == (1, "bad_transcript")
    assert answer["error"]["facts"]["line"] == 2


@pytest.mark.long
def test_dead_letters_are_listed_and_delivered_again(
    market: RunningMarket, mood: dict[str, Any]
) -> None:
    assert market.rahba("mail", "dead", mood["agent"]) == []
    assert say(market, "mail", "dead", mood["agent"]) == "no dead letters\n"

    async def bury() -> None:
        from api.bootstrap import linked, located
        from api.settings import Settings

        async with linked(located(Settings.read(market.env))) as links:
            await links.broker.mailbox.send(mood["agent"], b"nonsense")

    def buried() -> list[dict[str, Any]]:
        for _ in range(50):
            if found := market.rahba("mail", "dead", mood["agent"]):
                return list(found)
        return []

    asyncio.run(bury())
    (letter,) = buried()
    assert (letter["reason"], letter["bytes"], letter["type"]) == ("bad_encoding", 8, None)
    assert market.rahba("mail", "replay", mood["agent"])["delivered"] == 1
    assert [each["digest"] for each in buried()] == [letter["digest"]]
    assert run(market.env, "mail", "dead", "no body!")[1]["error"]["code"] == "bad_owner"


@pytest.mark.long
def test_money_is_sent_found_in_the_history_and_proven(market: RunningMarket) -> None:
    before = market.rahba("wallet", "balance")
    sent = market.rahba("wallet", "send", STRANGER, "1.5")
    after = market.rahba("wallet", "balance")
    spent = int(before["available_fals"]) - int(after["available_fals"])
    assert spent == 1_500_000_000 + 1_000, "the amount and the fee"
    history = market.rahba("wallet", "history", "-n", "50")
    assert history[0]["id"] == sent["tx"]
    assert [entry["seq"] for entry in history] == sorted(
        (entry["seq"] for entry in history), reverse=True
    )
    proof = market.rahba("wallet", "proof", sent["tx"])
    assert proof["seq"] == sent["seq"]
    assert proof["receipt"].startswith("c2sp.org/tlog-proof")
    assert "1.5" in say(market, "wallet", "history")
    assert "can be spent" in say(market, "wallet", "balance")
    assert market.rahba("wallet", "faucet", "2")["outcome"] == "logged"


@pytest.mark.long
def test_a_key_spends_within_its_budget_until_it_is_revoked(
    market: RunningMarket, mood: dict[str, Any]
) -> None:
    made = market.rahba("keys", "new", "--budget", "0.0025", "--label", "small")
    env = market.env | {"RAHBA_API_KEY": made["api_key"]}
    call = ("call", "text.sentiment", "--arg", "text=fine", "--mode", "posted")
    assert run(env, *call)[0] == 0
    status, data, _ = run(env, *call)
    assert (status, data["error"]["code"]) == (1, "budget_exceeded")
    (small,) = [key for key in market.rahba("keys", "ls") if key["label"] == "small"]
    assert made["api_key"] not in str(market.rahba("keys", "ls"))
    assert market.rahba("keys", "revoke", small["hash"][:16])["revoked"]
    status, data, _ = run(env, *call)
    assert (status, data["error"]["code"]) == (1, "key_revoked")


def test_the_feed_can_be_watched(market: RunningMarket, mood: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "watch", "-n", "2", "--tail", "2", "--json"],
        env=market.env,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert len([orjson.loads(line)["kind"] for line in done.stdout.splitlines()]) == 2


def test_logs_are_shown(market: RunningMarket) -> None:
    assert any("startup" in line for line in market.rahba("logs", "gateway")["lines"])
    assert say(market, "logs", "redis")


@pytest.mark.long
def test_a_sound_ledger_verifies_and_a_flipped_byte_is_named(
    market: RunningMarket, tmp_path: Path
) -> None:
    market.rahba("wallet", "faucet", "1")
    by_file = market.rahba("ledger", "verify")
    by_url = market.rahba("ledger", "verify", f"http://{market.env['RAHBA_LEDGER']}")
    assert by_file["ok"]
    assert by_url["ok"]
    assert "everything verifies" in say(market, "ledger", "verify")
    for part in ("", "-wal"):
        source = market.data_dir / f"ledger.sqlite{part}"
        if source.exists():
            shutil.copy(source, tmp_path / source.name)
    copy = tmp_path / "ledger.sqlite"
    with sqlite3.connect(copy) as base:
        (raw,) = base.execute("select raw from entries where seq = 3").fetchone()
        changed = raw.replace(b"a", b"b", 1)
        base.execute("update entries set raw = ? where seq = 3", (changed,))
    status, data, _ = run(market.env, "ledger", "verify", str(copy))
    assert status == 1
    assert not data["ok"]
    assert 3 in {problem["seq"] for problem in data["problems"]}


def test_arguments_are_text_json_or_files(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"\xff\xfe")
    pairs = market_pairs("a=1", "b:=[1]", f"c=@{tmp_path}/data.bin", "d=x=y")
    assert pairs == {"a": "1", "b": [1], "c": "//4=", "d": "x=y"}
    with pytest.raises(BadInputError):
        market_pairs("=x")


def market_pairs(*texts: str) -> dict[str, Any]:
    return market._pairs(texts)


def test_errors_are_printed_for_people_with_the_next_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = LocalError("it is closed")
    error.hint = "come back tomorrow"  # type: ignore[misc]
    with pytest.raises(SystemExit) as ended:
        output.fail(error, as_json=False)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "it is closed [local_error]" in said
    assert "come back tomorrow" in said


def test_every_command_of_the_table_exists() -> None:
    modules = {module for module, _, _ in COMMANDS.values()}
    assert {m.__name__ for m in (demo, ledger, market, process, wallet)} <= modules
    assert module.main is main
