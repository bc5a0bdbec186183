"""Two ledger processes on one store: whatever happens to the first, the second goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import orjson
import pytest

from rahba.clock import SystemClock
from rahba.envelope import Signer
from rahba.ids import RandomIds
from tests.fixtures.serving import free_port
from wallet.audit import audit_ledger
from wallet.transactions import EXPIRING_LANE, AnyTx, Faucet, Transfer, seal_transaction
from wallet.transports.http import HttpLedger

ROOT = Path(__file__).parents[2]
ALICE, BOB = Signer(bytes([2]) * 32), Signer(bytes([3]) * 32)
CLOCK, IDS = SystemClock(), RandomIds()
SENDERS = 4


class Node:
    """One process of the ledger, as the command line starts it."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self.log = folder / f"{address.rpartition(':')[2]}.log"
        self.env = env | {"RAHBA_LEDGER": address}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "api.cli", "ledger", "--standby"]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=log)

    def again(self) -> None:
        self.process = self._start()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 20)

    async def says(self, status: int) -> None:
        """Wait until its health check has this status."""
        async with aiohttp.ClientSession() as web, asyncio.timeout(30):
            while True:
                assert self.process.poll() is None, self.log.read_text()
                with suppress(aiohttp.ClientError):
                    async with web.get(f"{self.url}/healthz") as reply:
                        if reply.status == status:
                            body = await reply.json(content_type=None)
                            assert status == 200 or body["code"] == "standby"
                            return
                await asyncio.sleep(0.05)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(params=["sqlite", "postgres"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Node]]:
    """Return a function that starts one more process of the same ledger."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAHBA")}
    env["RAHBA_DATA"] = str(tmp_path / "data")
    if request.param == "postgres":
        env["RAHBA_LEDGER_STORE"] = request.getfixturevalue("postgres_url")
    nodes: list[Node] = []

    def make() -> Node:
        nodes.append(Node(env, tmp_path))
        return nodes[-1]

    yield make
    for each in nodes:
        each.close()


class Traffic:
    """Payments of one fal, sent until they are answered; ``paid`` names those that were."""

    def __init__(self, ledger: HttpLedger) -> None:
        self._ledger = ledger
        self._chain = ""
        self._tasks: list[asyncio.Task[None]] = []
        self.paid: list[str] = []

    async def start(self) -> None:
        self._chain = await self._ledger.chain()
        if not self.paid:
            faucet = Faucet(**self._common(), amount=str(10**9))
            assert (await self._ledger.submit(seal_transaction(faucet, ALICE))).ok
        self._tasks = [asyncio.create_task(self._send()) for _ in range(SENDERS)]

    async def more(self, count: int) -> None:
        """Wait until so many more are paid."""
        wanted = len(self.paid) + count
        async with asyncio.timeout(40):
            while len(self.paid) < wanted:
                for task in self._tasks:
                    assert not task.done(), task.exception()
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Let each sender finish what it is sending."""
        self._tasks, tasks = [], self._tasks
        await asyncio.gather(*tasks)

    async def _send(self) -> None:
        me = asyncio.current_task()
        while me in self._tasks:
            tx: AnyTx = Transfer(**self._common(), to=BOB.did, amount="1")
            answer = await self._ledger.submit(seal_transaction(tx, ALICE))
            assert answer.ok, answer
            self.paid.append(answer.id)

    def _common(self) -> dict[str, object]:
        return {
            "account": ALICE.did,
            "chain": self._chain,
            "fee": "1000",
            "fee_payer": None,
            "lane": EXPIRING_LANE,
            "seq": IDS.salt(),
            "valid_until": CLOCK.now_ms() + 120_000,
        }


async def check(url: str, paid: list[str]) -> None:
    """Every payment that was answered is there, once, and the log adds up."""
    async with HttpLedger(url) as ledger:
        bob = await ledger.account(BOB.did)
        assert bob is not None
        assert bob.posted == len(paid) == len(set(paid))
        for tx_id in paid[:: len(paid) // 20]:
            assert await ledger.transaction(tx_id) is not None
        assert (await ledger.supply()).equal
        report = await audit_ledger(ledger)
        assert report.ok, report.problems


async def covered(ledger: HttpLedger, tx_id: str) -> None:
    """Wait until a checkpoint covers it: then nothing is being written."""
    async with asyncio.timeout(5):
        while await ledger.inclusion(tx_id) is None:  # noqa: ASYNC110  # it is far away
            await asyncio.sleep(0.05)


def client(first: Node, second: Node) -> HttpLedger:
    return HttpLedger(f"{first.url}, {second.url}", patience_s=30, attempt_s=1)


async def verified(env: dict[str, str]) -> None:
    """``rahba ledger verify`` looks at the database by itself."""
    command = [sys.executable, "-m", "api.cli", "ledger", "verify", "--json"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=env, capture_output=True, timeout=60
    )
    report = orjson.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), report
    assert report["transactions"] > 300


@pytest.mark.long
async def test_a_standby_takes_over_from_a_killed_ledger_and_back(
    node: Callable[[], Node], request: pytest.FixtureRequest
) -> None:
    first = node()
    await first.says(200)
    second = node()
    await second.says(503)
    async with client(first, second) as ledger:
        traffic = Traffic(ledger)
        await traffic.start()
        await traffic.more(100)
        first.send(signal.SIGKILL)
        await first.ended()
        await traffic.more(100)
        await second.says(200)
        first.again()
        await first.says(503)
        second.send(signal.SIGTERM)
        assert await second.ended() == 0
        await traffic.more(100)
        await traffic.stop()
        await check(first.url, traffic.paid)
    if "postgres" in request.node.name:
        await verified(first.env)


@pytest.mark.long
async def test_a_frozen_ledger_is_overtaken_and_fenced_when_it_wakes_up(
    node: Callable[[], Node], request: pytest.FixtureRequest
) -> None:
    first = node()
    await first.says(200)
    second = node()
    await second.says(503)
    async with client(first, second) as ledger:
        traffic = Traffic(ledger)
        await traffic.start()
        await traffic.more(100)
        if "sqlite" in request.node.name:  # amid a write nobody could take its place
            await traffic.stop()
            await covered(ledger, traffic.paid[-1])
        first.send(signal.SIGSTOP)
        if "sqlite" in request.node.name:
            await second.says(200)
            await traffic.start()
        await traffic.more(100)
        first.send(signal.SIGCONT)
        assert await first.ended() != 0
        assert "a newer writer has the store" in first.log.read_text()
        await traffic.more(50)
        await traffic.stop()
        await check(second.url, traffic.paid)


async def test_a_standby_that_is_told_to_stop_does(node: Callable[[], Node]) -> None:
    first = node()
    await first.says(200)
    second = node()
    await second.says(503)
    second.send(signal.SIGTERM)
    assert await second.ended() == 0
    await first.says(200)
