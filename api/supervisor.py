"""The supervisor: starts the market's processes in order, restarts what dies, stops all in order.

* Each service runs in a session of its own, so Ctrl-C reaches the supervisor alone and the order
  of shutdown is ours: last started, first stopped; SIGTERM, then SIGKILL after its grace.
* A service that dies is started again, after 0.1 s at first and up to 2 s when it keeps dying;
  one that never becomes ready within its time stops the start with its last log lines.
* What runs is written to ``processes.json``. After the supervisor was killed, the next start ends
  what that file still names (same pid *and* same start time) before it starts anything; services
  also watch their parent (:func:`end_with_parent`) and leave by themselves.
* One supervisor a data folder, by an advisory lock.

It knows nothing of what the services do.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import psutil

from rahba.errors import LocalError, RahbaError

log = logging.getLogger(__name__)

PARENT_VARIABLE: Final = "RAHBA_PARENT_PID"
LOG_LIMIT_BYTES: Final = 16 * 1024 * 1024
_SLOWEST_RESTART_S: Final = 2.0
_SETTLED_S: Final = 10.0
_POLL_S: Final = 0.05


class AlreadyRunningError(LocalError):
    """Another supervisor holds this data folder."""

    code = "already_running"
    hint = "stop the other `rahba up`, or choose another folder with RAHBA_DATA"


class ServiceFailedError(RahbaError):
    """A service did not become ready in its time."""

    code = "service_failed"
    hint = "read its log with `rahba logs NAME`"


@dataclass(frozen=True, slots=True)
class Service:
    """One process: how to start it, how to know that it is ready, how long it may take to stop."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)
    start_within_s: float = 30.0
    grace_s: float = 8.0


class Supervisor:
    """Runs groups of services; the services of one group start at the same time."""

    def __init__(self, data_dir: Path, groups: Sequence[Sequence[Service]]) -> None:
        """Keep state in ``data_dir``: ``up.lock``, ``processes.json``, ``logs/NAME.log``."""
        self._dir = data_dir
        self._groups = groups
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._stopping = False
        self.restarts: dict[str, int] = {}

    async def start(self, before_spawning: Callable[[], None] = lambda: None) -> None:
        """End what a killed supervisor left, then start every group and wait until it is ready.

        ``before_spawning`` is called in between: it may look whether ports are free, and raise.
        """
        _end_leftovers(self._dir / "processes.json")
        before_spawning()
        for group in self._groups:
            results = await asyncio.gather(
                *(self._bring_up(service) for service in group), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def stop(self) -> None:
        """Stop all services, last group first; nothing is left running."""
        self._stopping = True
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for group in reversed(self._groups):
            await asyncio.gather(*(self._end(service) for service in group))
        self._write()

    def pids(self) -> dict[str, int]:
        """Return the pid of each service that runs now."""
        return {
            name: process.pid
            for name, process in self._running.items()
            if process.returncode is None
        }

    async def _bring_up(self, service: Service) -> None:
        await self._spawn(service)
        self._watchers.append(asyncio.create_task(self._watch(service), name=service.name))
        try:
            async with asyncio.timeout(service.start_within_s):
                while not await service.ready():  # noqa: ASYNC110  # the service cannot call us
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            tail = _last_lines(self._dir / "logs" / f"{service.name}.log")
            raise ServiceFailedError(
                f"{service.name} was not ready within {service.start_within_s:.0f} s.\n{tail}",
                service=service.name,
            ) from None

    async def _spawn(self, service: Service) -> None:
        with _log_file(self._dir / "logs" / f"{service.name}.log") as output:
            process = await asyncio.create_subprocess_exec(
                *service.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **service.env, PARENT_VARIABLE: str(os.getpid())},
                start_new_session=True,
            )
        self._running[service.name] = process
        self._write()

    async def _watch(self, service: Service) -> None:
        pause_s = 0.1
        while True:
            started = time.monotonic()
            code = await self._running[service.name].wait()
            if self._stopping:
                return
            pause_s = 0.1 if time.monotonic() - started > _SETTLED_S else pause_s
            log.warning(
                "%s ended with %s, starting it again in %.1f s", service.name, code, pause_s
            )
            self.restarts[service.name] = self.restarts.get(service.name, 0) + 1
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _SLOWEST_RESTART_S)
            await self._spawn(service)

    async def _end(self, service: Service) -> None:
        process = self._running.pop(service.name, None)
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), service.grace_s)
        except TimeoutError:
            log.warning("%s did not stop within %.0f s: killed", service.name, service.grace_s)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _write(self) -> None:
        records = []
        for name, pid in self.pids().items():
            with contextlib.suppress(psutil.NoSuchProcess):
                records.append(
                    {"name": name, "pid": pid, "born": psutil.Process(pid).create_time()}
                )
        path = self._dir / "processes.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(records), encoding="ascii")  # noqa: TID251  # read by us alone
        fresh.replace(path)


@contextlib.contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for one supervisor.

    Raises:
        AlreadyRunningError: another one holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "up.lock").open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(f"a market is already running in {data_dir}") from error
        yield


def end_with_parent(env: Mapping[str, str], by: signal.Signals = signal.SIGTERM) -> None:
    """Send this process the signal ``by`` once the supervisor that started it is gone."""
    parent = env.get(PARENT_VARIABLE)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.25)
        os.kill(os.getpid(), by)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _end_leftovers(path: Path) -> None:
    """End what a killed supervisor left running: same pid and same birth, nothing else."""
    try:
        records = json.loads(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return
    left = []
    for record in records:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(record["pid"])
            if abs(process.create_time() - record["born"]) < 0.01:
                left += [process, *process.children(recursive=True)]
    for process in left:
        log.warning("ending process %s left over from before", process.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=5)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)


def _log_file(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _last_lines(path: Path, count: int = 15) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8_192))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])
