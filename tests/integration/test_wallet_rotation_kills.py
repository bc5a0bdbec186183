"""kill -9 in the middle of rotations: the account always has one key, and the wallet has it."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nacl import pwhash

from rahba.clock import SystemClock
from rahba.ids import RandomIds
from rahba.money import FALS_PER_RHB
from tests.fixtures.ledger_server import ROOT, LedgerProcess
from tests.fixtures.rotating_client import NAME, PASSPHRASE
from tests.fixtures.wallet import did
from wallet.account import Wallet
from wallet.keystore import Origin, save_keystore
from wallet.outbox import Outbox
from wallet.phrase import new_phrase
from wallet.purse import FOLDER, Purse
from wallet.rotation import finish
from wallet.stores.outbox import SqliteOutbox
from wallet.transports.http import HttpLedger


@pytest.fixture
def process(tmp_path: Path) -> Iterator[LedgerProcess]:
    ledger = LedgerProcess(tmp_path / "ledger.db")
    ledger.start()
    yield ledger
    ledger.kill()


async def live_and_die(url: str, folder: Path, rng: random.Random) -> list[str]:
    """Let the wallet rotate for a random while, kill it, return the keys it said were in force."""
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fixtures.rotating_client",
        url,
        str(folder),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdout is not None
    told: list[str] = []
    try:
        async with asyncio.timeout(30):
            for _ in range(rng.randint(1, 3)):
                told.append((await client.stdout.readline()).decode())
                assert told[-1].startswith("rotated "), "the client died by itself"
            await asyncio.sleep(rng.random() * 0.03)
    finally:
        client.send_signal(signal.SIGKILL)
    said = (await client.stdout.read()).decode()
    assert await client.wait() == -signal.SIGKILL
    return [line.split()[1] for line in told + said[: said.rfind("\n") + 1].splitlines()]


async def check(url: str, folder: Path) -> tuple[str, bool]:
    """Settle what the kill left and pay with the key in force.

    Returns that key, and whether a rotation had been cut off after it was sent.
    """
    purse, clock = Purse.named(folder, NAME), SystemClock()
    async with HttpLedger(url) as ledger:
        outbox = Outbox(SqliteOutbox(purse.outbox), ledger, clock=clock)
        finished = await finish(purse, outbox)
        active = purse.record().active
        view = await ledger.account(purse.account)
        assert view is not None
        assert view.keys == (active.did,), "the wallet and the ledger disagree about the key"
        signer = purse.signer(PASSPHRASE)
        wallet = Wallet(ledger, signer, clock=clock, ids=RandomIds(), account=purse.account)
        assert (await wallet.transfer(did("brahim"), 1)).ok
        await outbox.close()
    return active.did, finished is not None


async def die_often(process: LedgerProcess, folder: Path, kills: int) -> int:
    rng, ids = random.Random(kills), RandomIds()
    origin = Origin.from_phrase(new_phrase(ids))
    path = folder / FOLDER / NAME / "keystore.json"
    save_keystore(path, origin, PASSPHRASE, memory=pwhash.argon2id.MEMLIMIT_MIN, passes=1)
    async with HttpLedger(process.url) as ledger:
        wallet = Wallet(ledger, origin.signer(), clock=SystemClock(), ids=ids)
        await wallet.faucet(FALS_PER_RHB)
    cut = 0
    for _ in range(kills):
        said = await live_and_die(process.url, folder, rng)
        active, finished = await check(process.url, folder)
        retired = Purse.named(folder, NAME).record().retired
        assert set(said) <= {active, *(key.did for key in retired)}, "a key in force was forgotten"
        cut += finished
    assert len({key.did for key in retired}) == len(retired) >= kills
    return cut


@pytest.mark.timeout(120)
async def test_a_wallet_killed_while_it_rotates_has_the_key_that_the_ledger_has(
    process: LedgerProcess, tmp_path: Path
) -> None:
    await die_often(process, tmp_path, kills=4)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_wallet_killed_forty_times_has_the_key_that_the_ledger_has(
    process: LedgerProcess, tmp_path: Path
) -> None:
    assert await die_often(process, tmp_path, kills=40) > 0, "no kill came in mid-rotation"
