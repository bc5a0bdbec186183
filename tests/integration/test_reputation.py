"""Reputations as people get them: from a gateway, and from any copy of the log by themselves."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from api.cli.main import main
from api.http.problems import KINDS
from api.http.standings import StandingDocument
from api.standings import standing_document
from rahba.clock import ManualClock
from rahba.ids import RandomIds
from rahba.standing import ReputationBook
from tests.fixtures.gateway import Site
from tests.fixtures.wallet import START_MS, did, signer_of
from wallet.account import Wallet
from wallet.keys import agent_signer
from wallet.reputation import Basis, recompute
from wallet.service import Sequencer
from wallet.sources import LedgerSource
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import dev_genesis

MILLION = 1_000_000


async def trade(folder: Path) -> None:
    """Write a ledger in which amina was good to five buyers and bad to one of them."""
    clock, ids = ManualClock(START_MS), RandomIds()
    operator = agent_signer(folder / "operator.key")
    genesis = dev_genesis(operator.did, START_MS)
    words: dict[str, Any] = {"operator": operator, "clock": clock, "ids": ids}
    store = SqliteStore(folder / "ledger.sqlite")
    async with await Sequencer.open(store, genesis=genesis, **words) as ledger:

        def wallet(name: str) -> Wallet:
            return Wallet(ledger, signer_of(name), clock=clock, ids=ids)

        amina = wallet("amina")
        await amina.faucet(MILLION)
        for number in range(5):
            buyer = wallet(f"buyer-{number}")
            await buyer.faucet(MILLION)
            hold = await buyer.hold(did("amina"), 5_000, clock.now_ms() + 60_000, "d" * 64)
            await amina.capture(hold.id, 5_000, "e" * 64)
        hold = await wallet("buyer-0").hold(did("amina"), 5_000, clock.now_ms() + 60_000, "f" * 64)
        clock.advance(30_000)
        await asyncio.sleep(0.3)  # an interval is closed
        await amina.release(hold.id)
        await ledger.next_checkpoint(ledger.log.size - 1)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    for name in ("RAHBA_LEDGER_STORE", "RAHBA_POLICY", "RAHBA_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAHBA_DATA", str(folder))
    asyncio.run(trade(folder))
    return folder


def ask(*words: object) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(main, ["reputation", *map(str, words), "--json"])
    return done.exit_code, orjson.loads(done.stdout)


def test_a_reputation_is_recomputed_from_any_copy_of_the_log_to_the_last_digit(
    data: Path, tmp_path: Path
) -> None:
    status, first = ask(did("amina"), "--for", did("buyer-1"))
    assert status == 0
    digest = first.pop("digest")
    StandingDocument.model_validate(first)
    assert (first["deals"], first["failures"], first["counterparties"]) == (5, 1, 5)
    assert first["rate"]["low"] > 50
    assert first["personal"]["own_deals"] == 1
    exported = CliRunner().invoke(main, ["ledger", "export", str(tmp_path / "out"), "--json"])
    assert exported.exit_code == 0
    assert orjson.loads(exported.stdout)["root"] == first["log"]["root"]
    for place in (data, data / "ledger.sqlite", tmp_path / "out"):
        status, again = ask(did("amina"), "--for", did("buyer-1"), "--from", place)
        assert (status, again.pop("digest")) == (0, digest)
        assert again == first


def test_figures_of_an_earlier_size_are_found_again(data: Path) -> None:
    last = ask(did("amina"))[1]
    size = last["log"]["size"]
    earlier = None
    for at in range(size - 1, 0, -1):
        status, found = ask(did("amina"), "--at", at)
        if status == 0:
            earlier = found
            break
        assert found["error"]["code"] == "ledger_corrupt"
    assert earlier is not None
    assert earlier["failures"] == 0
    assert earlier["rate"]["low"] >= last["rate"]["low"]
    assert ask(did("amina"), "--at", size + 1)[0] == 1


def test_the_best_are_listed_first_and_people_are_told_why(data: Path) -> None:
    status, found = ask("--limit", 3)
    assert status == 0
    assert [one["agent"] for one in found["agents"]] == [did("amina")]
    table = CliRunner().invoke(main, ["reputation"])
    assert table.exit_code == 0
    assert "entries that verify" in table.output
    assert did("amina")[-8:] in table.output
    prose = CliRunner().invoke(main, ["reputation", did("amina"), "--for", did("buyer-2")])
    assert "5 settled deals with 5 counterparties" in prose.output
    assert "your own deals with it: 1 settled, 0 failed" in prose.output
    assert "what anybody new is given" in CliRunner().invoke(main, ["reputation", did("x")]).output


def test_no_figure_is_told_of_a_log_that_does_not_verify(data: Path) -> None:
    with sqlite3.connect(data / "ledger.sqlite") as base:
        (name,) = base.execute(
            "select name from sqlite_master where type = 'table' and name like '%entr%'"
        ).fetchone()
        raw = base.execute(f"select raw from {name} where seq = 3").fetchone()[0]
        forged = bytes(raw).replace(b'"sig":"', b'"sig":"AAAA', 1)
        base.execute(f"update {name} set raw = ? where seq = 3", (forged,))
    base.close()
    status, refused = ask(did("amina"))
    assert (status, refused["error"]["code"]) == (1, "ledger_corrupt")
    assert refused["error"]["facts"]["seq"] == 3


def test_names_that_are_none_are_refused(data: Path) -> None:
    assert ask("amina")[1]["error"]["code"] == "bad_id"
    assert ask(did("amina"), "--for", "me")[1]["error"]["code"] == "bad_id"


async def test_a_gateway_tells_what_anybody_recomputes_from_the_log_at_the_same_size(
    stall: Site,
) -> None:
    call = (await stall.call()).json
    assert call["state"] == "settled"
    seller, owner = call["seller"], stall.owner.account
    path = f"/v1/agents/{seller}/reputation?for={owner}"
    told: dict[str, Any] = {}
    for _ in range(50):
        answer = await stall.ask("GET", path)
        assert answer.status == 200
        told = answer.json
        if told["deals"]:
            break
        await asyncio.sleep(0.1)
    document = StandingDocument.model_validate(told)
    assert document.deals == 1
    assert document.paid_fals == call["paid_fals"]
    assert document.personal is not None
    assert document.personal.own_deals == 1
    assert document.personal.rate.low > document.rate.low
    source = LedgerSource(stall.ledger, await stall.ledger.checkpoint())
    report, read = await recompute(source, at=document.log.size)
    assert report.ok
    basis = Basis(read.size, read.frontier.root().hex(), read.log_time)
    book = ReputationBook(read.dealings, read.log_time)
    assert standing_document(book.standing(seller, owner), basis) == told


async def test_a_gateway_answers_for_strangers_and_refuses_names_that_are_none(site: Site) -> None:
    stranger = (await site.ask("GET", f"/v1/agents/{did('nobody')}/reputation")).json
    assert stranger["rate"] == {"mean": 500, "low": 50, "high": 950}
    assert stranger["personal"] is None
    for path in ("/v1/agents/me/reputation", f"/v1/agents/{did('x')}/reputation?for=me"):
        answer = await site.ask("GET", path)
        assert (answer.status, answer.json["code"]) == (KINDS["bad_id"].status, "bad_id")
