"""A whole market on one machine: which processes it consists of and how they find each other.

The embedded Redis (unless ``REDIS_URL`` is set) lives in this process's care; the others are
services of the supervisor. While it runs, ``market.json`` in the data folder tells the command line
where everything is (mode 0600: it holds the Redis password).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

import aiohttp
import msgspec

from api.auditor import prepare_auditor
from api.embedded_redis import EmbeddedRedis
from api.queue import WITHOUT_WORKERS, find_queue
from api.settings import Address, Settings, next_database
from api.supervisor import Service, Supervisor
from rahba.errors import LocalError, RahbaError

log = logging.getLogger(__name__)

FILE: Final = "market.json"
_LOOK_S: Final = 0.1


class PortTakenError(LocalError):
    """Another program listens where a process of ours should."""

    code = "port_taken"
    hint = "stop it, or choose others with RAHBA_HTTP, RAHBA_LEDGER and RAHBA_WITNESS"


class NoMarketError(LocalError):
    """No market runs in this data folder."""

    code = "no_market"
    hint = "start one with `rahba up`, or name one with RAHBA_URL"


class Whereabouts(msgspec.Struct, frozen=True):
    """Where the processes of a running market are; no queue, no workers."""

    pid: int
    data_dir: str
    redis_url: str
    celery_broker_url: str
    ledger_url: str
    gateway_url: str
    witness_url: str = ""


class LocalMarket:
    """Starts, keeps and stops the processes of one market; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        """Take addresses and folder from ``settings``."""
        self._settings = settings
        self._redis = None if settings.redis_url else EmbeddedRedis(settings.data_dir / "redis")
        self._supervisor: Supervisor | None = None
        self._operator = ""
        self._keeper: asyncio.Task[None] | None = None
        self.where: Whereabouts | None = None

    async def __aenter__(self) -> Self:
        """Start everything and wait until it is ready; a failed start leaves nothing running."""
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        await self._stop()

    @property
    def restarts(self) -> dict[str, int]:
        """Return how often each service had to be started again."""
        return {} if self._supervisor is None else self._supervisor.restarts

    def pids(self) -> dict[str, int]:
        """Return the pids of what runs now, Redis included."""
        own = {"redis": self._redis.pid} if self._redis and self._redis.pid else {}
        return own | (self._supervisor.pids() if self._supervisor else {})

    async def _start(self) -> None:
        settings = self._settings
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.data_dir.chmod(0o700)  # it may have been made as somebody's parent
        redis_url = settings.redis_url or (self._redis.start() if self._redis else "")
        if self._redis is not None:
            self._keeper = asyncio.create_task(_keep(self._redis))
        self.where = Whereabouts(
            pid=os.getpid(),
            data_dir=str(settings.data_dir),
            redis_url=redis_url,
            celery_broker_url=await self._queue(redis_url) or "",
            ledger_url=settings.ledger_url,
            gateway_url=settings.gateway_url,
            witness_url=settings.witness.url,
        )
        self._operator = await asyncio.to_thread(prepare_auditor, settings)
        self._supervisor = Supervisor(settings.data_dir, self._groups(self.where))
        await self._supervisor.start(before_spawning=self._check_ports)
        write_whereabouts(settings.data_dir, self.where)

    async def _queue(self, redis_url: str) -> str | None:
        url = self._settings.celery_broker_url or next_database(redis_url)
        found = await find_queue(redis_url, url)
        if found is None:
            log.warning(WITHOUT_WORKERS)
        return found

    def _check_ports(self) -> None:
        settings = self._settings
        for address in (settings.witness, settings.ledger, settings.http):
            if not is_free(address):
                raise PortTakenError(f"{address.host}:{address.port} is taken", port=address.port)

    def _groups(self, where: Whereabouts) -> list[list[Service]]:
        env = {
            "RAHBA_DATA": where.data_dir,
            "REDIS_URL": where.redis_url,
            "CELERY_BROKER_URL": where.celery_broker_url,
            "RAHBA_LEDGER_STORE": self._settings.ledger_store or "",
            "RAHBA_LEDGER_URL": where.ledger_url,
            "RAHBA_LEDGER": f"{self._settings.ledger.host}:{self._settings.ledger.port}",
            "RAHBA_WITNESS": f"{self._settings.witness.host}:{self._settings.witness.port}",
            "RAHBA_POLICY": str(self._settings.policy),
            "RAHBA_HTTP": f"{self._settings.http.host}:{self._settings.http.port}",
        }

        def service(
            name: str, ready: Callable[[], Awaitable[bool]], words: Sequence[str] = ()
        ) -> Service:
            command = [sys.executable, "-m", "api.cli", *(words or [name])]
            return Service(name, command, ready, env)

        witness = ["witness", "--audit", "--operator", self._operator]
        return [
            [service("witness", _answers(f"{self._settings.witness.url}/healthz"), witness)],
            [service("ledger", _answers(f"{self._settings.ledger.url}/healthz"))],
            [
                service("gateway", _answers(f"{where.gateway_url}/readyz")),
                service("host", _at_once),
                *([service("worker", _at_once)] if where.celery_broker_url else []),
            ],
        ]

    async def _stop(self) -> None:
        (self._settings.data_dir / FILE).unlink(missing_ok=True)
        if self._supervisor is not None:
            await self._supervisor.stop()
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._redis is not None:
            self._redis.stop()


def write_whereabouts(data_dir: Path, where: Whereabouts) -> None:
    """Write ``market.json`` for its owner's eyes only, in one step."""
    fresh = data_dir / f"{FILE}.new"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(where))
    fresh.replace(data_dir / FILE)


def find_market(settings: Settings) -> Whereabouts:
    """Return the market that runs in the data folder, or else the demo's beside it.

    Raises:
        NoMarketError: neither runs.
    """
    for folder in (settings.data_dir, settings.data_dir / "demo"):
        try:
            raw = (folder / FILE).read_bytes()
            where = msgspec.json.decode(raw, type=Whereabouts)
            os.kill(where.pid, 0)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        return where
    raise NoMarketError(f"no market runs in {settings.data_dir}")


def is_free(address: Address) -> bool:
    """Say whether one can listen at ``address`` now."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError:
            return False
    return True


def on_free_ports(settings: Settings) -> Settings:
    """Return ``settings`` with free ports where those of gateway and ledger are taken."""
    http, ledger, witness = map(_freed, (settings.http, settings.ledger, settings.witness))
    return replace(
        settings,
        http=http,
        ledger=ledger,
        witness=witness,
        ledger_url=ledger.url,
        gateway_url=http.url,
    )


def _freed(address: Address) -> Address:
    if is_free(address):
        return address
    with socket.create_server((address.host, 0)) as door:
        return Address(address.host, door.getsockname()[1])


def _answers(url: str) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=2)
            async with aiohttp.ClientSession(timeout=timeout) as web, web.get(url) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    return ready


async def _at_once() -> bool:
    return True


async def _keep(redis: EmbeddedRedis) -> None:
    """Start the embedded server again whenever it is gone."""
    while True:
        await asyncio.sleep(_LOOK_S)
        if not redis.running:
            log.warning("redis ended, starting it again")
            try:
                redis.start()
            except RahbaError:
                log.exception("redis did not start")
                await asyncio.sleep(1)
