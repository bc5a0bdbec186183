"""A market for a benchmark: `rahba up` in a folder of its own, and what its processes cost.

Started as a user starts it, on free ports, stopped at the end. Benchmarks speak to it over HTTP
from their own process, whose CPU is not the market's.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil

from rahba.errors import RahbaError

STOP_S = 30.0
ADDRESSES = ("RAHBA_HTTP", "RAHBA_LEDGER", "RAHBA_WITNESS")


class BenchmarkFailedError(RahbaError):
    """What was to be measured did not work, so there is no figure."""

    code = "benchmark_failed"
    hint = "`rahba doctor` checks this machine"


@dataclass(frozen=True, slots=True)
class BenchMarket:
    """A market that runs; ``started`` is when its first process was started (perf_counter)."""

    url: str
    data_dir: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes]
    started: float

    @property
    def headers(self) -> dict[str, str]:
        """Return the header fields of whoever may call and deploy."""
        token = (self.data_dir / "api-key").read_text("ascii").strip()
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def cpu_s(self, *others: subprocess.Popen[bytes]) -> float:
        """Return user and system seconds of every process of the market, and of ``others``."""
        total = 0.0
        for root in (self.process, *others):
            parent = psutil.Process(root.pid)
            for process in [parent, *parent.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    total += times.user + times.system
        return total


@contextmanager
def bench_market() -> Iterator[BenchMarket]:
    """Run a market in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="rahba-bench-") as folder:
        data_dir = Path(folder) / "market"
        ours = ("RAHBA", "REDIS", "CELERY")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        env |= {"RAHBA_DATA": str(data_dir)}
        env |= {name: f"127.0.0.1:{_free_port()}" for name in ADDRESSES}
        started = time.perf_counter()
        command = [sys.executable, "-m", "api.cli", "up", "--json"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
            try:
                url = _read_start(process)["gateway"]
                yield BenchMarket(url, data_dir, env, process, started)
            finally:
                stop(process)


@contextmanager
def bench_host(market: BenchMarket, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Host the agents of ``file`` on a market."""
    command = [sys.executable, "-m", "api.cli", "host", str(file)]
    with (market.data_dir / "bench-host.log").open("wb") as log:  # noqa: SIM117
        with subprocess.Popen(command, env=market.env, stdout=log, stderr=log) as process:
            try:
                yield process
            finally:
                stop(process)


@asynccontextmanager
async def session(market: BenchMarket) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client that may call and deploy."""
    # Shorter than the server keeps an idle connection: none is used while it is being closed.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(
        market.url, headers=market.headers, connector=connector
    ) as web:
        yield web


async def ask(
    web: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Make one request; whatever is no success ends the benchmark."""
    data = None if body is None else orjson.dumps(body)
    async with web.request(method, path, data=data) as reply:
        answer: dict[str, Any] = orjson.loads(await reply.read())
        if not reply.ok:
            code, detail = answer.get("code"), answer.get("detail")
            raise BenchmarkFailedError(f"{method} {path}: {reply.status} {code}: {detail}")
        return answer


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours, by force if it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _read_start(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read the JSON document that `rahba up --json` prints once everything is ready."""
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"\n}\n"):
        line = process.stdout.readline()
        if not line:
            raise BenchmarkFailedError(f"rahba up ended with {process.wait()}")
        said += line
    document: dict[str, Any] = orjson.loads(said)
    return document


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])
