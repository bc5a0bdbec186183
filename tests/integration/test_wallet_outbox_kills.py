"""kill -9 of a paying client, and of the ledger beside it: nothing is lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from rahba.clock import SystemClock
from rahba.ids import RandomIds
from rahba.money import FALS_PER_RHB
from tests.fixtures.ledger_server import ROOT, LedgerProcess
from tests.fixtures.paying_client import PAYEE, PAYER, open_outbox
from wallet.account import Wallet
from wallet.transactions import Transfer, read
from wallet.transports.http import HttpLedger


@pytest.fixture
def process(tmp_path: Path) -> Iterator[LedgerProcess]:
    ledger = LedgerProcess(tmp_path / "ledger.db")
    ledger.start()
    yield ledger
    ledger.kill()


async def live_and_die(url: str, outbox: Path, rng: random.Random) -> tuple[int, list[str]]:
    """Let the client pay for a random while and kill it in mid-payment.

    Returns how many payments it found unsettled when it came, and those it said were made.
    """
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fixtures.paying_client",
        url,
        str(outbox),
        str(rng.randint(0, 10**6)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdout is not None
    told: list[str] = []
    try:
        async with asyncio.timeout(30):
            ready = (await client.stdout.readline()).split()
            assert ready[:1] == [b"ready"]
            for _ in range(rng.randint(0, 40)):
                told.append((await client.stdout.readline()).decode())
                assert told[-1].startswith("paid "), "the client died by itself"
            await asyncio.sleep(rng.random() * 0.01)
    finally:
        client.send_signal(signal.SIGKILL)
    said = (await client.stdout.read()).decode()
    said = said[: said.rfind("\n") + 1]  # the last line may be cut off, as its speaker was
    assert await client.wait() == -signal.SIGKILL
    return int(ready[1]), [line.split()[1] for line in told + said.splitlines()]


def letters(path: Path) -> dict[str, tuple[str, int]]:
    """Return the outcome and the amount of every letter of an outbox, read by itself."""
    file = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = {}
    for name, outcome, raw in file.execute("SELECT id, outcome, raw FROM letters"):
        tx = read(raw).record
        assert isinstance(tx, Transfer)
        found[str(name)] = (str(outcome), int(tx.amount))
    file.close()
    return found


async def check(url: str, path: Path, said: list[str]) -> int:
    """Settle what the last kill left; returns the number of payments made."""
    async with HttpLedger(url) as ledger:
        outbox = open_outbox(path, ledger)
        assert (await outbox.resume()).unknown == []
        assert await outbox.unknown() == []
        await outbox.close()
        kept = letters(path)
        logged: list[str] = []
        start = 0
        while page := await ledger.entries(start, 1_000):
            logged += [tx.id for tx in page if tx.payload.get("to") == PAYEE.did]
            start += len(page)
        assert set(Counter(logged).values()) <= {1}, "a payment was logged twice"
        made = {name: amount for name, (outcome, amount) in kept.items() if outcome != "invalid"}
        assert {outcome for outcome, _ in kept.values()} <= {"logged", "exists", "invalid"}
        assert set(logged) == set(made), "outbox and ledger disagree"
        assert set(said) <= set(made), "somebody was told of a payment that is not there"
        payee, supply = await ledger.account(PAYEE.did), await ledger.supply()
        assert payee is not None
        assert payee.posted == sum(made.values())
        assert supply.equal
    return len(made)


async def die_often(process: LedgerProcess, path: Path, kills: int) -> None:
    rng = random.Random(kills)
    async with HttpLedger(process.url) as ledger:
        wallet = Wallet(ledger, PAYER, clock=SystemClock(), ids=RandomIds())
        await wallet.faucet(1_000 * FALS_PER_RHB)
    said: list[str] = []
    left = 0
    for number in range(kills):
        unsettled, told = await live_and_die(process.url, path, rng)
        left += unsettled
        said += told
        if number % 4 == 1:  # the ledger goes, too: neither side knows what the other heard
            process.kill()
            process.start()
    assert await check(process.url, path, said) >= len(said) > 0
    assert left > 0, "no kill came between a payment and its answer"


@pytest.mark.timeout(120)
async def test_a_client_killed_while_it_pays_settles_everything_afterwards(
    process: LedgerProcess, tmp_path: Path
) -> None:
    await die_often(process, tmp_path / "outbox.sqlite", kills=5)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_client_killed_sixty_times_has_paid_what_it_meant_to_and_nothing_twice(
    process: LedgerProcess, tmp_path: Path
) -> None:
    await die_often(process, tmp_path / "outbox.sqlite", kills=60)
