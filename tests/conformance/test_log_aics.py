"""Somebody else's verifier and witness (`aics-tlog`, `aics-witness`), in their own environment.

They want Python >= 3.12; `make oracles` sets them up where there is one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import ORACLES
from tests.fixtures.serving import free_port
from tests.fixtures.wallet import LedgerRig
from tests.fixtures.witnesses import ORIGIN, PlainLog, same_rulings, words

READER = Path(__file__).parents[1] / "fixtures" / "aics_reader.py"
LOG = PlainLog(*words(20))


async def read(url: str, vkey: str) -> dict[str, Any]:
    done = await asyncio.to_thread(
        subprocess.run,
        [ORACLES / "python", READER, url, vkey],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_it_verifies_every_tile_and_every_entry_of_our_log_over_http(
    served: str, sqlite_rig: LedgerRig
) -> None:
    found = await read(served, await sqlite_rig.ledger.verifier_key())
    log = sqlite_rig.ledger.log
    assert found == {"ok": True, "size": log.size, "root": log.root().hex()}


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/001", "tile/entries/001", "checkpoint"])
async def test_it_refuses_a_flipped_byte_a_forged_tile_and_a_forged_checkpoint(
    served: str, folder: Path, sqlite_rig: LedgerRig, name: str
) -> None:
    path = folder / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    assert (await read(served, await sqlite_rig.ledger.verifier_key()))["ok"] is False


async def test_it_refuses_a_fork(served: str, folder: Path, sqlite_rig: LedgerRig) -> None:
    log, vkey = sqlite_rig.ledger.log, await sqlite_rig.ledger.verifier_key()
    fork = PlainLog(*words(log.size), origin=sqlite_rig.genesis.origin)
    (folder / "checkpoint").write_text(fork.note(), "utf-8")
    found = await read(served, vkey)
    assert found["ok"] is False
    assert "Tile" in found["error"]


@pytest.fixture
async def foreign(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """Run their witness for our log; returns its address and its key."""
    address = f"127.0.0.1:{free_port()}"
    program = ORACLES / "aics-witness"
    config = ["--config", str(tmp_path / "witness.json")]
    for command in (
        ["init", *config, "--name", "w.test/theirs", "--listen", address],
        ["add-log", *config, "--origin", ORIGIN, "--vkey", LOG.vkey],
    ):
        done = await asyncio.to_thread(
            subprocess.run, [program, *command], capture_output=True, text=True, check=True
        )
        if command[0] == "init":
            (vkey,) = [word for word in done.stdout.split() if word.startswith("w.test/theirs+")]
    server = await asyncio.create_subprocess_exec(
        program, "serve", *config, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            while not _listens(address):  # noqa: ASYNC110  # it cannot call us
                await asyncio.sleep(0.05)
        yield f"http://{address}", vkey
    finally:
        server.terminate()
        await server.wait()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


async def test_their_witness_rules_on_our_log_as_ours_does(
    foreign: tuple[str, str], tmp_path: Path
) -> None:
    url, vkey = foreign
    async with aiohttp.ClientSession() as web:

        async def theirs(body: bytes) -> tuple[int, str]:
            async with web.post(f"{url}/add-checkpoint", data=body) as reply:
                return reply.status, await reply.text()

        await same_rulings(LOG, theirs, vkey, tmp_path)
