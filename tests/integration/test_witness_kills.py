"""kill -9 of a real witness process, again and again: it never contradicts what it cosigned."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rahba.cosignature import cosigned_at
from rahba.encoding import b64
from rahba.errors import RahbaError
from rahba.note import open_checkpoint
from tests.fixtures.serving import free_port
from tests.fixtures.witnesses import ORIGIN, PlainLog, words
from wallet.transports.witness import HttpWitness
from wallet.witness import write_request

ROOT = Path(__file__).parents[2]
SIZE = 3_000
# One operator, two histories that part after the third entry.
HONEST = PlainLog(*words(SIZE))
FORKED = PlainLog(*words(3), *words(SIZE, "x"))


@dataclass
class Told:
    """What the witness answered over all its lives."""

    vkey: str = ""
    cosigned: dict[int, bytes] = field(default_factory=dict)
    conflicts: int = 0
    refused: int = 0


async def push(log: PlainLog, url: str, told: Told, rng: random.Random) -> None:
    """Have the log cosigned step by step, until the witness is gone."""
    witness, old = HttpWitness(url), 0
    try:
        while True:
            size = min(old + rng.randint(1, 9), SIZE)
            note = log.note(size)
            path = [b64(step) for step in log.log.consistency(old, size)]
            status, body = await witness.add_checkpoint(write_request(old, path, note))
            if status == 200:
                assert cosigned_at(note + body, told.vkey) is not None
                root = log.log.root_at(size)
                assert told.cosigned.setdefault(size, root) == root, "two roots of one size"
                old = size
            elif status == 409:
                told.conflicts += 1
                old = int(body)
            else:
                assert status == 422, body
                told.refused += 1
                await asyncio.sleep(0.01)  # the other one may go on meanwhile
    except RahbaError:
        return  # it was killed
    finally:
        await witness.close()


async def live_and_die(folder: Path, told: Told, rng: random.Random) -> None:
    """Run the witness under fire from both histories, and kill it at a random moment."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "api.cli", "witness", "--log", HONEST.vkey),
        *("--name", "w.test/killed", "--folder", str(folder)),
        cwd=ROOT,
        env={**os.environ, "RAHBA_WITNESS": address, "RAHBA_DATA": str(folder)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://{address}"
    try:
        await check(url, told)
        pushing = [
            asyncio.create_task(push(log, url, told, rng))
            for log in (HONEST, FORKED, HONEST, FORKED)
        ]
        await asyncio.sleep(rng.uniform(0.02, 0.4))
    finally:
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
    await asyncio.gather(*pushing)


async def check(url: str, told: Told) -> None:
    """Wait until it answers, and compare what it shows with what it said before."""
    witness = HttpWitness(url)
    async with asyncio.timeout(40):
        while True:
            try:
                status, vkey = await witness._ask("GET", "/vkey", None)
                break
            except RahbaError:
                await asyncio.sleep(0.02)
    assert status == 200
    assert told.vkey in {"", vkey.strip()}, "it lost its key"
    told.vkey = vkey.strip()
    note = await witness.checkpoint(ORIGIN)
    if note is None:
        assert not told.cosigned
        await witness.close()
        return
    shown = open_checkpoint(note, HONEST.vkey)
    assert cosigned_at(note, told.vkey) is not None
    assert shown.size >= max(told.cosigned, default=0), "it forgot what it cosigned"
    assert told.cosigned.setdefault(shown.size, shown.root) == shown.root
    for log in (HONEST, FORKED):
        if log.log.root_at(shown.size) != shown.root:
            assert (await witness.add_checkpoint(log.request(shown.size)))[0] == 422
            told.refused += 1
    await witness.close()


async def die_often(folder: Path, kills: int) -> None:
    rng, told = random.Random(kills), Told()
    for _ in range(kills):
        await live_and_die(folder, told, rng)
    assert len(told.cosigned) > 2 * kills
    assert told.conflicts > kills
    assert told.refused >= kills - 1
    sides = [
        {size: log.log.root_at(size) for size in told.cosigned} == told.cosigned
        for log in (HONEST, FORKED)
    ]
    assert any(sides), "both histories were cosigned"


@pytest.mark.long
async def test_a_killed_witness_forgets_nothing_and_cosigns_one_history(tmp_path: Path) -> None:
    await die_often(tmp_path / "witness", 5)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_fifty_kills_of_a_witness(tmp_path: Path) -> None:
    await die_often(tmp_path / "witness", 50)
