"""A payment that its operator signed for and left out, from the wallet's command to the judge."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from api.ledger_http import serve
from rahba.clock import SystemClock
from rahba.ids import RandomIds
from tests.fixtures.attacks import OPERATOR, Operator, newest
from tests.fixtures.serving import serving
from tests.fixtures.wallet import did
from wallet.account import Wallet
from wallet.outbox import Outbox
from wallet.purse import Purse
from wallet.stores.outbox import SqliteOutbox
from wallet.transports.http import HttpLedger


async def rahba(*words: str, **env: str) -> tuple[int | None, str]:
    """Run a command; returns its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api.cli", *words),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.mark.long
async def test_the_wallet_proves_that_its_payment_was_dropped(tmp_path: Path) -> None:
    clock = SystemClock()
    operator, purse = Operator(tmp_path, clock), Purse.owner(tmp_path)
    env = {"RAHBA_DATA": str(tmp_path)}
    honest = await operator.open("a")
    async with serving(partial(serve, honest, "127.0.0.1", 0)) as url, HttpLedger(url) as ledger:
        outbox = Outbox(SqliteOutbox(purse.outbox), ledger, clock=clock)
        signer = purse.signer(None)
        wallet = Wallet(ledger, signer, clock=clock, ids=RandomIds(), outbox=outbox)
        await wallet.faucet(9_000)
        paid = await wallet.transfer(did("brahim"), 5)
        await newest(honest)
        await outbox.close()
        words = ("wallet", "proof", paid.id, "--dropped", "--json")
        code, said = await rahba(*words, **env, RAHBA_LEDGER_URL=url)
        assert (code, "it is in the log, where it was promised" in said) == (1, True)
    await honest.close()
    other = await operator.open("b")
    async with serving(partial(serve, other, "127.0.0.1", 0)) as url:
        for name in ("thief", "friend", "cousin"):
            await operator.wallet(other, name).faucet(9_000)
        await newest(other)
        code, bundle = await rahba(*words, **env, RAHBA_LEDGER_URL=url)
    await other.close()
    assert code == 0
    file = tmp_path / "dropped.json"
    file.write_text(bundle, "utf-8")
    code, said = await rahba("witness", "judge", str(file))
    assert (code, said.splitlines()[-1]) == (0, f"convicts {OPERATOR.did}")
