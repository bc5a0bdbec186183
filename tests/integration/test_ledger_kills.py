"""kill -9 of a real ledger process, again and again: nothing that was answered is ever lost."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from rahba.clock import SystemClock
from rahba.ids import RandomIds
from tests.fixtures.ledger_process import HOLD_MS, NAMES
from tests.fixtures.wallet import did, signer_of
from wallet.replay import Replay
from wallet.service import Sequencer
from wallet.stores.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]


async def live_and_die(path: Path, answers: int) -> list[str]:
    """Run the process until it said ``answers`` lines, kill it, return all that it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fixtures.ledger_process",
        str(path),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(30):
            while len(said) < answers:
                line = (await process.stdout.readline()).decode()
                assert line, f"the ledger died by itself after {said[-3:]}"
                said.append(line.strip())
    finally:
        process.send_signal(signal.SIGKILL)
    said += (await process.stdout.read()).decode().splitlines()
    assert await process.wait() == -signal.SIGKILL
    return said


async def check(path: Path, said: list[str]) -> int:
    """Open what the kills left and compare it with what was said; returns the log's size."""
    operator = signer_of("operator")
    words = {"operator": operator, "clock": SystemClock(), "ids": RandomIds()}
    async with await Sequencer.open(SqliteStore(path), genesis=None, **words) as ledger:
        await asyncio.sleep(HOLD_MS / 1000 + 1.0)
        supply = await ledger.supply()
        assert supply.equal
        assert (supply.held, supply.open_holds) == (0, 0), "a hold stayed open past its expiry"
        logged = []
        while page := await ledger.entries(len(logged), 1_000):
            logged += page
        places = Counter(entry.id for entry in logged)
        assert set(places.values()) == {1}
        lost = [line for line in said if line.split()[1] not in places]
        assert not lost, f"answered and lost: {lost[:3]}"
        balances = {name: await ledger.account(did(name)) for name in NAMES}
    replay = Replay(verify=True)
    store = SqliteStore(path)
    for entry in store.read(0, 1_000_000):
        replay.feed(entry.raw)
    store.close()
    for name, account in balances.items():
        found = replay.book.state.accounts.get(did(name))
        assert (found.posted if found else None) == (account.posted if account else None)
    return replay.size


async def die_often(path: Path, kills: int) -> None:
    rng = random.Random(kills)
    said: list[str] = []
    size = 0
    for _ in range(kills):
        lines = await live_and_die(path, rng.randint(2, 600))
        ready = [line for line in lines if line.startswith("ready")]
        assert int(ready[0].split()[1]) >= size
        size = int(ready[0].split()[1])
        said += [line for line in lines if not line.startswith("ready")]
    assert await check(path, said) > len(said) > kills


async def test_nothing_answered_is_lost_when_the_ledger_is_killed(tmp_path: Path) -> None:
    await die_often(tmp_path / "ledger.db", kills=5)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_nothing_answered_is_lost_in_sixty_kills(tmp_path: Path) -> None:
    await die_often(tmp_path / "ledger.db", kills=60)
