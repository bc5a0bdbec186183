"""Named wallets from the command line: made, paid from, proven, rotated, moved to another place."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from api.cli import counter, keys, wallet, wallet_history, wallet_keys
from api.cli.main import COMMANDS
from rahba.balance import AccountProof, verify_account
from rahba.ids import key_of
from rahba.proof import open_receipt
from tests.fixtures.market import RunningMarket, market_env, running_market

pytestmark = pytest.mark.timeout(180)
STRANGER = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
PASSPHRASE = "étoile du marché"


class Shell:
    """The command line of somebody who has a market and a file with a passphrase."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "passphrase"
        if not self.secret.exists():
            self.secret.write_text(PASSPHRASE + "\n", "utf-8")
            self.secret.chmod(0o600)
        self.env = env | {"RAHBA_PASSPHRASE_FILE": str(self.secret)}

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        return str(path)

    def run(self, *words: str, typed: str = "", json: bool = True) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", "wallet", *words, *(["--json"] if json else [])],
            env=self.env,
            input=typed.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def __call__(self, *words: str, typed: str = "") -> Any:
        code, out, err = self.run(*words, typed=typed)
        assert code == 0, (out, err)
        return orjson.loads(out)

    def refused(self, *words: str, typed: str = "") -> str:
        code, out, err = self.run(*words, typed=typed)
        assert code == 1, (code, out, err)
        return str(orjson.loads(out)["error"]["code"])


@pytest.fixture
def shell(market: RunningMarket, tmp_path: Path) -> Shell:
    return Shell(market.env, tmp_path)


@pytest.fixture
def elsewhere(market: RunningMarket, tmp_path: Path) -> Shell:
    """Another machine that only knows where the ledger is."""
    env = market_env(tmp_path / "elsewhere")
    ledger = f"http://{market.env['RAHBA_LEDGER']}"
    return Shell(env | {"RAHBA_LEDGER_URL": ledger}, tmp_path)


def fresh(shell: Shell, name: str) -> dict[str, Any]:
    """Make a wallet that has ten RHB."""
    made: dict[str, Any] = shell("new", name)
    shell("faucet", "10", "--wallet", name)
    return made


def test_a_new_wallet_shows_its_phrase_once_and_pays(shell: Shell, market: RunningMarket) -> None:
    made = fresh(shell, "first")
    assert len(made["phrase"].split()) == 24
    key_of(made["account"])
    assert made["path"] == "m/44'/5392450'/0'/0'/0'"
    listed = next(each for each in shell("ls") if each["name"] == "first")
    assert listed["account"] == made["account"]
    assert "phrase" not in listed
    sent = shell("send", STRANGER, "1.5", "--wallet", "first")
    assert (sent["outcome"], sent["finality"]) in {("logged", "durable"), ("logged", "witnessed")}
    assert isinstance(sent["seq"], int)
    balance = shell("balance", "--wallet", "first")
    assert int(balance["available_fals"]) == 8_500_000_000 - 2_000
    assert balance["keys"] == [made["account"]]
    folder = market.data_dir / "wallets" / "first"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = path.read_bytes()
        assert made["phrase"].encode() not in content
        assert PASSPHRASE.encode() not in content


def test_for_people_the_words_are_numbered_and_asked_to_be_written_down(shell: Shell) -> None:
    code, out, _ = shell.run("new", "words", json=False)
    assert code == 0
    assert "Write these words down" in out
    assert " 1 " in out
    assert "24 " in out
    _, out, _ = shell.run("ls", json=False)
    assert "words" in out
    _, out, _ = shell.run("balance", "--wallet", "words", json=False)


@pytest.mark.long
def test_history_is_proven_complete_and_payments_and_balances_can_be_proven(
    shell: Shell, market: RunningMarket
) -> None:
    made = fresh(shell, "told")
    sent = shell("send", STRANGER, "1", "--wallet", "told")
    paper = shell("proof", sent["tx"]) if settled(shell, sent["tx"]) else {}
    assert paper["seq"] == sent["seq"]
    receipt = open_receipt(paper["receipt"], paper["verifier_key"])
    assert receipt.checkpoint.size > sent["seq"]
    history = shell("history", "--wallet", "told")
    assert [entry["payload"]["type"] for entry in history] == ["transfer", "faucet"]
    assert [entry["proven"] for entry in history] == [True, True]
    assert history[0]["id"] == sent["tx"]
    _, out, said = shell.run("history", "--wallet", "told", "-n", "1", json=False)
    assert "complete: 2 transactions" in said
    assert "transfer" in out
    owned = shell("proof", "--balance", "--wallet", "told")
    proof = msgspec.convert(owned["proof"], AccountProof)
    proven = verify_account(proof, owned["verifier_key"])
    assert (proven.id, proven.balance) == (made["account"], 9_000_000_000 - 2_000)
    assert list((market.data_dir / "wallets" / "told").glob("*.seen"))
    (entry,) = shell("history", "--wallet", "told", "-n", "1", "--unchecked")
    assert (entry["id"], entry["proven"]) == (sent["tx"], False)
    assert shell("new", "empty")["account"]
    assert shell("history", "--wallet", "empty") == []
    assert shell.run("proof")[0] == shell.run("proof", sent["tx"], "--balance")[0] == 2


def settled(shell: Shell, tx: str) -> bool:
    """Wait until a checkpoint covers a transaction."""
    return any(shell.run("proof", tx)[0] == 0 for _ in range(50))


@pytest.mark.long
def test_what_was_seen_of_the_log_is_believed_only_as_it_was_signed(
    shell: Shell, market: RunningMarket
) -> None:
    fresh(shell, "wary")
    shell("history", "--wallet", "wary")
    (seen,) = (market.data_dir / "wallets" / "wary").glob("*.seen")
    origin, _, root, rest = seen.read_text().split("\n", 3)
    forged = f"{origin}\n{10**9}\n{root}\n{rest}"
    seen.write_text(forged)
    assert shell.refused("history", "--wallet", "wary") == "bad_signature"


@pytest.mark.long
def test_a_payment_under_a_key_is_made_once(shell: Shell) -> None:
    fresh(shell, "payer")
    words = ("send", STRANGER, "1", "--wallet", "payer", "--key", "invoice 17")
    first, again = shell(*words), shell(*words)
    assert (first["tx"], first["seq"]) == (again["tx"], again["seq"])
    assert shell.refused("send", STRANGER, "2", *words[3:]) == "payment_key_reused"
    other = shell("send", STRANGER, "1", "--wallet", "payer", "--key", "invoice 18")
    assert other["tx"] != first["tx"]
    assert shell("outbox", "--wallet", "payer") == {"settled": [], "unknown": []}


@pytest.mark.long
def test_a_wallet_comes_back_from_its_words_wherever_its_ledger_is(
    shell: Shell, elsewhere: Shell
) -> None:
    made = fresh(shell, "lost")
    rotated = shell("rotate", "--wallet", "lost")
    assert (rotated["account"], rotated["old"]) == (made["account"], made["account"])
    assert rotated["new"] != rotated["old"]
    assert shell("send", STRANGER, "1", "--wallet", "lost")["outcome"] == "logged"
    phrase = elsewhere.file("phrase", made["phrase"].upper())
    found = elsewhere("import", "found", "--phrase-file", phrase)
    assert found["account"] == made["account"]
    assert found["key"] == rotated["new"], "the key in force was found in the ledger"
    assert elsewhere("send", STRANGER, "1", "--wallet", "found")["outcome"] == "logged"
    typed = elsewhere("import", "typed", "--phrase-file", "-", typed=made["phrase"] + "\n")
    assert typed["key"] == rotated["new"]


@pytest.mark.long
def test_a_wallet_moves_in_a_keystore_with_its_account_and_key(
    shell: Shell, elsewhere: Shell
) -> None:
    made = fresh(shell, "mover")
    shell("rotate", "--wallet", "mover")
    file, other = shell.folder / "moved.json", shell.file("other", "another passphrase")
    shell("export", str(file), "--wallet", "mover", "--new-passphrase-file", other)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made["phrase"].split()[0].encode() + b" " not in file.read_bytes()
    assert elsewhere.refused("import", "moved", "--keystore", str(file)) == "wrong_passphrase"
    elsewhere.env["RAHBA_PASSPHRASE_FILE"] = other
    moved = elsewhere("import", "moved", "--keystore", str(file))
    assert moved["account"] == made["account"]
    assert elsewhere("send", STRANGER, "1", "--wallet", "moved")["outcome"] == "logged"
    assert shell.refused("export", str(file), "--wallet", "mover") == "keystore"
    assert shell("export", "--phrase", "--wallet", "mover")["phrase"] == made["phrase"]


@pytest.mark.long
def test_a_leaked_phrase_is_left_for_another_origin(shell: Shell) -> None:
    made = fresh(shell, "leaked")
    shell("new", "safe")
    file = shell.folder / "safe.json"
    shell("export", str(file), "--wallet", "safe")
    words = ("--to", str(file), "--to-passphrase-file", str(shell.secret))
    done = shell("rotate", "--wallet", "leaked", *words)
    assert done["account"] == made["account"]
    assert shell("send", STRANGER, "1", "--wallet", "leaked")["outcome"] == "logged"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["send", STRANGER, "1", "--wallet", "nobody"], "unknown_wallet"),
        (["balance", "--wallet", "No/Name"], "bad_input"),
        (["new", "owner"], "bad_input"),
        (["import", "one", "--phrase-file", "{phrase}"], "bad_phrase"),
        (["import", "one", "--phrase-file", "{open}"], "open_secret"),
        (["import", "one"], "secret_needed"),
        (["import", "one", "--keystore", "{phrase}"], "keystore"),
        (["export", "--phrase"], "keystore"),
        (["outbox", "--forget", "0"], "outbox_failed"),
    ],
    ids=str,
)
def test_a_mistake_is_answered_with_a_code(shell: Shell, words: list[str], code: str) -> None:
    places = {
        "{phrase}": shell.file("bad", "abandon abandon abandon"),
        "{open}": shell.file("open", "abandon abandon abandon"),
    }
    Path(places["{open}"]).chmod(0o644)
    assert shell.refused(*(places.get(word, word) for word in words)) == code


def test_a_wallet_is_neither_made_twice_nor_opened_without_its_passphrase(shell: Shell) -> None:
    shell("new", "only")
    assert shell.refused("new", "only") == "wallet_exists"
    wrong = shell.file("wrong", "not it")
    words = ("send", STRANGER, "1", "--wallet", "only", "--passphrase-file", wrong)
    assert shell.refused(*words) == "wrong_passphrase"
    del shell.env["RAHBA_PASSPHRASE_FILE"]
    assert shell.refused("faucet", "1", "--wallet", "only") == "secret_needed"


def test_nobody_waits_for_witnesses_that_are_not_there_for_ever(shell: Shell) -> None:
    fresh(shell, "patient")
    words = ("send", STRANGER, "1", "--wallet", "patient", "--wait", "witnessed")
    code, out, _ = shell.run(*words, "--timeout", "0.2")
    said = orjson.loads(out)
    if code:
        assert said["error"]["code"] == "not_witnessed"
        assert said["error"]["facts"]["finality"] == "durable"
    else:
        assert said["finality"] == "witnessed"


@pytest.mark.long
def test_a_lost_payment_is_not_made_again_by_the_same_command(
    shell: Shell, market: RunningMarket
) -> None:
    fresh(shell, "cut")
    leave_unknown(market, shell)
    words = ("send", STRANGER, "1", "--wallet", "cut")
    assert shell.refused(*words) == "paid_meanwhile"
    assert shell("outbox", "--wallet", "cut") == {"settled": [], "unknown": []}
    assert shell(*words)["outcome"] == "logged"
    assert int(shell("balance", "--wallet", "cut")["available_fals"]) == 8_000_000_000 - 3_000
    leave_unknown(market, shell)
    (settled,) = shell("outbox", "--wallet", "cut")["settled"]
    assert settled["outcome"] == "logged"


def leave_unknown(market: RunningMarket, shell: Shell) -> None:
    """Sign a payment and write it down, as a command that is killed before it sends."""
    code = f"""
import asyncio
from pathlib import Path
from rahba.clock import SystemClock
from rahba.ids import RandomIds
from wallet.account import Wallet
from wallet.outbox import Keep, Letter
from wallet.purse import Purse
from wallet.stores.outbox import SqliteOutbox
from wallet.transactions import transaction_id
from wallet.transports.http import HttpLedger

async def main():
    purse = Purse.named(Path({str(market.data_dir)!r}), "cut")
    async with HttpLedger("http://{market.env["RAHBA_LEDGER"]}") as ledger:
        wallet = Wallet(ledger, purse.signer({PASSPHRASE!r}), clock=SystemClock(), ids=RandomIds())
        raw = await wallet.sign_transfer({STRANGER!r}, 10**9)
        SqliteOutbox(purse.outbox).write([Keep(Letter(transaction_id(raw), raw, None, 1))])

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], env=shell.env, check=True, timeout=30)


@pytest.mark.long
def test_the_owners_key_is_rotated_and_the_market_goes_on(tmp_path: Path) -> None:
    with running_market(tmp_path / "data") as market:
        shell = Shell(market.env, tmp_path)
        account, old_token = shell("balance")["account"], market.api_key
        done = shell("rotate")
        assert (done["account"], done["old"]) == (account, account)
        assert shell("balance")["keys"] == [done["new"]]
        assert market.api_key != old_token, "the owner's API key ended, and was renewed"
        assert shell("send", STRANGER, "1")["outcome"] == "logged"
        market.rahba("deploy", "sentiment", "--name", "mood", "--price", "0.002")
        call = ("call", "text.sentiment", "--arg", "text=fine")
        assert market.rahba(*call)["output"]["label"]
        file = tmp_path / "owner.json"
        shell("export", str(file))
        assert shell("import", "copy", "--keystore", str(file))["account"] == account
        assert shell("send", STRANGER, "1", "--wallet", "copy")["outcome"] == "logged"
    with running_market(tmp_path / "data", market.env) as market:
        assert shell("balance")["account"] == account
        assert market.rahba("keys", "new", "--budget", "1")["api_key"]


def test_the_commands_lie_where_their_table_says() -> None:
    modules = {module for module, _, _ in COMMANDS.values()}
    assert {wallet.__name__, keys.__name__} <= modules
    names = {"new", "import", "export", "ls", "balance", "send", "faucet", "outbox"}
    assert set(wallet.wallet.commands) == names | {"history", "proof", "rotate"}
    parts = {wallet_history.history: "history", wallet_keys.rotate: "rotate"}
    assert all(wallet.wallet.commands[name] is part for part, name in parts.items())
    assert counter.find_purse
