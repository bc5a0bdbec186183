"""Heavy jobs on a real Celery worker, and a host that is killed: done or given back, paid once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from agents.errors import SellerFailedError
from agents.host import HeavyWork
from agents.stores.redis import RedisMarks
from agents.work import WorkKey
from api.ledger_http import serve
from api.settings import next_database
from api.worker import CeleryQueue, make_app
from broker.ports import Query
from broker.transports.redis.wire import Wire
from tests.fixtures.hosting import Souk, until
from tests.fixtures.serving import free_port

pytestmark = pytest.mark.redis

HEAVY = """
import time
from pathlib import Path
from agents import Agent

LOG = Path({log!r})
agent = Agent("mill")

@agent.offer("text.grind", price="0.002", runs={runs!r}, latency_ms=5_000)
def grind(text: str, nap: float = 0, naps: int = 99) -> str:
    with LOG.open("a") as log:
        log.write("begun\\n")
    if len(LOG.read_text().splitlines()) <= naps:
        time.sleep(nap)
    return text.upper()
"""


class Mill:
    """A file with one heavy offer, and what is known of its runs."""

    def __init__(self, folder: Path, runs: str) -> None:
        self.log = folder / "runs.log"
        self.path = folder / "mill.py"
        self.path.write_text(HEAVY.format(log=str(self.log), runs=runs))

    @property
    def runs(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@contextlib.contextmanager
def process(*argv: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with ``argv`` in a group of its own, and end the whole group afterwards."""
    running = subprocess.Popen(
        [sys.executable, *argv],
        env={**os.environ, **(env or {})},
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        yield running
    finally:
        kill(running)


def kill(running: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait(10)


@pytest_asyncio.fixture
async def heavy_souk(souk: Souk, redis_url: str) -> AsyncIterator[Souk]:
    wire, queue = Wire(redis_url), CeleryQueue(next_database(redis_url))
    souk.heavy = HeavyWork(WorkKey.at(souk.data_dir), queue, RedisMarks(wire))
    yield souk
    queue.close()
    await wire.close()


def worker(souk: Souk, redis_url: str) -> contextlib.AbstractContextManager[object]:
    return process("-m", "api.worker", next_database(redis_url), redis_url, str(souk.data_dir))


async def listed(souk: Souk, skill: str) -> None:
    async with asyncio.timeout(20):
        while not (await souk.broker.directory.find(Query(skill=skill))).listings:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_worker_does_a_heavy_job_and_its_seller_is_paid(
    heavy_souk: Souk, redis_url: str, tmp_path: Path
) -> None:
    mill = Mill(tmp_path, "worker")
    with worker(heavy_souk, redis_url):
        async with heavy_souk.host(mill.path):
            deal = await heavy_souk.buy("text.grind", {"text": "wheat"}, within_ms=20_000)
    assert deal.output == "WHEAT"
    assert await heavy_souk.settled(deal.thread) == "settled"
    assert mill.runs == 1


@pytest.mark.long
async def test_a_worker_killed_mid_job_is_replaced_and_the_job_is_paid_once(
    heavy_souk: Souk, redis_url: str, tmp_path: Path
) -> None:
    mill = Mill(tmp_path, "worker")
    async with heavy_souk.host(mill.path):
        with process(
            "-m", "api.worker", next_database(redis_url), redis_url, str(heavy_souk.data_dir)
        ) as first:
            args = {"text": "rye", "nap": 60, "naps": 1}
            buying = asyncio.create_task(
                heavy_souk.buy("text.grind", args, within_ms=40_000, mode="posted")
            )
            await until(lambda: mill.runs == 1, within_s=20)
            kill(first)
        with worker(heavy_souk, redis_url):
            deal = await buying
    assert deal.output == "RYE"
    assert mill.runs == 2
    assert await heavy_souk.settled(deal.thread) == "settled"
    assert (await heavy_souk.types_logged()).count("capture") == 1


async def test_without_any_worker_a_heavy_job_fails_at_its_deadline_and_the_hold_is_released(
    heavy_souk: Souk, tmp_path: Path
) -> None:
    async with heavy_souk.host(Mill(tmp_path, "worker").path):
        with pytest.raises(SellerFailedError) as caught:
            await heavy_souk.buy("text.grind", {"text": "oats"}, within_ms=2_000)
    assert caught.value.facts["seller_code"] == "deadline_exceeded"
    assert (await heavy_souk.account(heavy_souk.wallet.account)).held == 0
    assert "capture" not in await heavy_souk.types_logged()


@contextlib.asynccontextmanager
async def running_host(
    souk: Souk, redis_url: str, mill: Mill
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run `rahba host` in a process, with the ledger of this one."""
    port = free_port()
    serving = asyncio.create_task(serve(souk.ledger, "127.0.0.1", port, log=souk.ledger.log))
    env = {
        "RAHBA_DATA": str(souk.data_dir),
        "REDIS_URL": redis_url,
        "CELERY_BROKER_URL": next_database(redis_url),
        "RAHBA_LEDGER_URL": f"http://127.0.0.1:{port}",
    }
    try:
        with process("-m", "api.cli", "host", str(mill.path), env=env) as running:
            yield running
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.long
async def test_a_host_killed_mid_job_does_it_again_when_it_is_back_and_is_paid_once(
    souk: Souk, redis_url: str, tmp_path: Path
) -> None:
    mill = Mill(tmp_path, "inline")
    async with running_host(souk, redis_url, mill) as first:
        await listed(souk, "text.grind")
        args = {"text": "corn", "nap": 60, "naps": 1}
        buying = asyncio.create_task(souk.buy("text.grind", args, within_ms=40_000, mode="posted"))
        await until(lambda: mill.runs == 1)
        kill(first)
    async with running_host(souk, redis_url, mill):
        deal = await buying
        assert await souk.settled(deal.thread) == "settled"
    assert deal.output == "CORN"
    assert mill.runs == 2
    assert (await souk.types_logged()).count("capture") == 1


def test_tasks_are_json_and_nothing_is_kept_in_a_result_backend() -> None:
    app = make_app("redis://127.0.0.1:1/0")
    assert list(app.conf.accept_content) == ["json"]
    assert app.conf.result_backend is None
    assert app.conf.task_acks_late
    assert app.conf.worker_prefetch_multiplier == 1


@pytest.mark.long
async def test_a_heavy_job_that_hangs_ends_with_its_process_and_the_worker_goes_on(
    heavy_souk: Souk, redis_url: str, tmp_path: Path
) -> None:
    mill = Mill(tmp_path, "worker")
    with worker(heavy_souk, redis_url):
        async with heavy_souk.host(mill.path):
            with pytest.raises(SellerFailedError) as caught:
                await heavy_souk.buy("text.grind", {"text": "a", "nap": 600}, within_ms=6_000)
            assert caught.value.facts["seller_code"] == "deadline_exceeded"
            deal = await heavy_souk.buy("text.grind", {"text": "b"}, within_ms=30_000)
            assert deal.output == "B"


@pytest.mark.long
async def test_a_host_that_is_asked_to_stop_finishes_its_job_and_leaves_the_market(
    souk: Souk, redis_url: str, tmp_path: Path
) -> None:
    mill = Mill(tmp_path, "inline")
    async with running_host(souk, redis_url, mill) as host:
        await listed(souk, "text.grind")
        buying = asyncio.create_task(
            souk.buy("text.grind", {"text": "corn", "nap": 1}, mode="posted")
        )
        await until(lambda: mill.runs == 1)
        host.send_signal(signal.SIGTERM)
        assert (await buying).output == "CORN"
        assert await asyncio.to_thread(host.wait, 15) == 0
        page = await souk.broker.directory.find(Query(skill="text.grind"))
        assert page.listings == ()


@pytest.mark.long
def test_a_child_whose_worker_died_before_it_could_look_leaves_too() -> None:
    code = (
        "import os, time\n"
        "from celery.signals import beat_embedded_init\n"
        "from agents.work import WorkKey\n"
        "from api.worker import make_worker\n"
        "app = make_worker('redis://127.0.0.1:1/1', 'redis://127.0.0.1:1/0', WorkKey(bytes(32)))\n"
        "worker = os.getpid()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    print(child, flush=True)\n"
        "    os._exit(0)\n"
        "while os.getppid() == worker:\n"
        "    time.sleep(0.01)\n"
        "os.close(1)\n"
        "beat_embedded_init.send(sender=None)\n"
        "time.sleep(30)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20, check=True
    )
    with contextlib.suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(done.stdout))
        _, left = psutil.wait_procs([child], timeout=5)
        assert left == []
