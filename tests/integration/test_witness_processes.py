"""`rahba ledger` and `rahba witness --audit` as processes: a backup put back by hand is not run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from api.auditor import prepare_auditor
from api.settings import Settings
from rahba.clock import SystemClock
from rahba.errors import RahbaError
from rahba.ids import RandomIds
from rahba.policy import read_policy
from tests.fixtures.serving import free_port
from tests.fixtures.wallet import did, signer_of
from wallet.account import Wallet
from wallet.transports.http import HttpLedger

ROOT = Path(__file__).parents[2]


@dataclass
class Place:
    """A data folder and the addresses of its processes."""

    folder: Path
    env: dict[str, str]

    @contextlib.asynccontextmanager
    async def process(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "api.cli", *words),
            cwd=ROOT,
            env=self.env,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield started
        finally:
            if started.returncode is None:
                started.send_signal(signal.SIGTERM)
            await started.communicate()

    async def pay(self, ledger: HttpLedger, amount: int) -> None:
        """Pay, and wait until the auditor has cosigned it."""
        amina = Wallet(ledger, signer_of("amina"), clock=SystemClock(), ids=RandomIds())
        await amina.faucet(10_000)
        paid = await amina.transfer(did("brahim"), amount)
        async with asyncio.timeout(20):
            while (await ledger.status(paid.id)).finality != "witnessed":  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def place_at(folder: Path) -> tuple[Place, str, str]:
    names = ("RAHBA_LEDGER", "RAHBA_WITNESS")
    ours = {"RAHBA_DATA": str(folder)} | {name: f"127.0.0.1:{free_port()}" for name in names}
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("RAHBA_")}
    settings = Settings.read(ours)
    return Place(folder, inherited | ours), settings.ledger_url, prepare_auditor(settings)


@pytest.mark.long
async def test_an_auditor_cosigns_a_ledger_which_then_cannot_be_set_back(tmp_path: Path) -> None:
    place, url, operator = place_at(tmp_path / "data")
    old = tmp_path / "old"
    async with place.process("witness", "--audit", "--operator", operator):
        for amount in (5, 6):
            async with place.process("ledger"), HttpLedger(url, patience_s=30) as ledger:
                await place.pay(ledger, amount)
                async with (
                    aiohttp.ClientSession() as web,
                    web.get(f"{url}/v1/log/policy") as reply,
                ):
                    policy = read_policy(await reply.text())
                note = await ledger.witnessed()
                assert note is not None
                believed = policy.believes(note)
                assert believed is not None
            if not old.exists():
                shutil.copytree(place.folder, old)
        assert policy.witnesses["auditor"].url is None, "an address is nobody's business"
        for file in place.folder.glob("ledger.sqlite*"):
            file.unlink()
        for file in old.glob("ledger.sqlite*"):
            shutil.copy(file, place.folder)
        async with place.process("ledger") as process, asyncio.timeout(30):
            assert process.stderr is not None
            said = (await process.stderr.read()).decode()
            assert await process.wait() == 1
        assert f"witness auditor has seen size {believed.size}, the store has" in said
        kept = list((place.folder / "evidence").iterdir())
        assert [file.suffix for file in kept] == [".note"]
        assert policy.believes(kept[0].read_text("utf-8")) == believed


async def test_a_ledger_without_a_policy_says_so(tmp_path: Path) -> None:
    place, url, _ = place_at(tmp_path / "data")
    (place.folder / "policy").unlink()
    async with place.process("ledger"), HttpLedger(url, patience_s=30) as ledger:
        with contextlib.suppress(RahbaError):
            assert await ledger.witnessed() is None
        async with aiohttp.ClientSession() as web, web.get(f"{url}/v1/log/policy") as reply:
            assert reply.status == 404
