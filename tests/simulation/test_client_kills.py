"""Clients, agents and the server are killed amid their deals: no contract is lost or paid twice."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.fixtures.contracts import check_contracts
from tests.fixtures.market import RunningMarket, running_market
from tests.simulation.test_kills import deploy, key_of, victim

pytestmark = [pytest.mark.redis, pytest.mark.long, pytest.mark.timeout(300)]

log = logging.getLogger(__name__)

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = 3
KILLS: Final = 24
VICTIMS: Final = ("client", "client", "client", "host", "redis")


class Client:
    """A buying process that is started again whenever it was killed."""

    def __init__(self, market: RunningMarket, number: int) -> None:
        self._market = market
        self._number = number
        self._running: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.said: Counter[str] = Counter()

    async def start(self) -> None:
        self._running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fixtures.buying_client", str(self._number),
            env=self._market.env, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._running))

    async def kill(self) -> None:
        assert self._running is not None
        assert self._reading is not None
        self._running.kill()
        await self._running.wait()
        await self._reading

    async def _read(self, running: Process) -> None:
        assert running.stdout is not None
        async for line in running.stdout:
            self.said[line.decode().split()[0]] += 1


async def kill_somebody(market: RunningMarket, clients: list[Client], rng: random.Random) -> str:
    name = rng.choice(VICTIMS)
    if name == "client":
        client = rng.choice(clients)
        await client.kill()
        await client.start()
        return name
    async with asyncio.timeout(30):
        while (process := victim(market, name)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    return name


async def test_killed_clients_hosts_and_servers_lose_no_contract_and_pay_none_twice(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))
    rng = random.Random(seed)
    log.warning("SEED=%s", seed)
    with running_market(tmp_path) as market:
        async with aiohttp.ClientSession(market.url, headers=key_of(market)) as gateway:
            for name in ("brief", "terse"):
                await deploy(gateway, "summarise", name)
        clients = [Client(market, number) for number in range(CLIENTS)]
        for client in clients:
            await client.start()
        async with asyncio.timeout(60):
            while sum(client.said["bought"] for client in clients) < CLIENTS:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        killed: Counter[str] = Counter()
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.2, 2.0))
            killed[await kill_somebody(market, clients, rng)] += 1
        assert set(killed) == set(VICTIMS)
        for client in clients:  # in the middle of whatever they do, for good
            await client.kill()
        bought = sum(client.said["bought"] for client in clients)
        settled = await check_contracts(market, within_s=90)
        assert settled >= bought >= CLIENTS
        report = await asyncio.to_thread(market.rahba, "ledger", "verify")
        assert report["problems"] == []
