"""kill -9 of a real ledger process, again and again: nothing that was answered is ever lost."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import pytest

from rahba.clock import SystemClock
from rahba.ids import RandomIds
from tests.fixtures.ledger_process import NAMES, OVER_MS, acquired, store_at
from tests.fixtures.wallet import did, signer_of
from wallet.replay import Replay
from wallet.service import Sequencer

ROOT = Path(__file__).parents[2]
LIFE_S = 60
START_MS = 40


async def live_and_die(place: str, rng: random.Random) -> list[str]:
    """Run the process, kill it at a random moment, return all that it said.

    The moment is amid its traffic, as soon as it is ready, or while it replays.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.fixtures.ledger_process",
        place,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = rng.choice([1, 1, 2, *[rng.randint(3, 500)] * 7])
    said: list[str] = []
    try:
        async with asyncio.timeout(LIFE_S):
            while len(said) < lines:
                line = (await process.stdout.readline()).decode()
                assert line, f"the ledger died by itself after {said[-3:]}"
                said.append(line.strip())
            if lines == 1:  # it is opening
                await asyncio.sleep(rng.uniform(0, START_MS) / 1_000)
    finally:
        process.send_signal(signal.SIGKILL)
    said += (await process.stdout.read()).decode().splitlines()
    assert await process.wait() == -signal.SIGKILL
    return said


async def check(place: str, told: dict[str, int]) -> int:
    """Open what the kills left and compare it with what was said; returns the log's size."""
    words = {"clock": SystemClock(), "ids": RandomIds(), "operator": signer_of("operator")}
    store = await acquired(store_at(place))
    async with await Sequencer.open(store, genesis=None, **words) as ledger:
        await asyncio.sleep(OVER_MS / 1000 + 1.0)
        supply = await ledger.supply()
        assert supply.equal
        assert (supply.held, supply.open_holds) == (0, 0), "a hold stayed open past its expiry"
        places: dict[str, int] = {}
        raws: dict[str, bytes] = {}
        while page := await ledger.entries(len(places), 1_000):
            places |= {entry.id: entry.seq for entry in page}
            raws |= {entry.id: entry.raw for entry in page if entry.id in told}
            assert len(places) == page[-1].seq + 1, "an entry twice"
        lost = {tx_id for tx_id, seq in told.items() if places.get(tx_id) != seq}
        assert not lost, f"answered and lost: {sorted(lost)[:3]}"
        await resend(ledger, raws, told)
        balances = {name: await ledger.account(did(name)) for name in NAMES}
        root = ledger._book.tree.root()
    replay = Replay(verify=True)
    store = store_at(place)
    while page_of := store.read(replay.size, 1_000):
        for entry in page_of:
            replay.feed(entry.raw)
    store.close()
    assert replay.book.tree.root() == root
    for name, account in balances.items():
        found = replay.book.state.accounts.get(did(name))
        assert (found.posted if found else None) == (account.posted if account else None)
    return replay.size


async def resend(ledger: Sequencer, raws: dict[str, bytes], told: dict[str, int]) -> None:
    """The same bytes again, of everything that was answered: they exist, and change nothing."""
    size, names = ledger.log.size, list(raws)
    for at in range(0, len(names), 1_000):
        chunk = names[at : at + 1_000]
        answers = await ledger.submit_many([raws[name] for name in chunk])
        assert [(a.outcome, a.seq) for a in answers] == [("exists", told[n]) for n in chunk]
    assert ledger.log.size == size


async def die_often(place: str, kills: int) -> None:
    rng = random.Random(kills)
    told: dict[str, int] = {}
    size = started = 0
    for _ in range(kills):
        for line in await live_and_die(place, rng):
            words = line.split()
            if words[0] == "ready":
                assert int(words[1]) >= size
                size, started = int(words[1]), started + 1
            elif len(words) == 3:
                told[words[1]] = int(words[2])
    assert 0 < started <= kills
    assert await check(place, told) > len(told) > kills


async def test_nothing_answered_is_lost_when_the_ledger_is_killed(tmp_path: Path) -> None:
    await die_often(str(tmp_path / "ledger.db"), kills=6)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_nothing_answered_is_lost_in_160_kills(tmp_path: Path) -> None:
    await die_often(str(tmp_path / "ledger.db"), kills=160)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_nothing_answered_is_lost_in_20_kills_of_a_ledger_in_a_database(
    postgres_url: str,
) -> None:
    await die_often(postgres_url, kills=20)
