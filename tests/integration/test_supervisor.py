"""The supervisor, with real processes: order, restarts, and what a killed one leaves behind."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from api.supervisor import (
    AlreadyRunningError,
    Service,
    ServiceFailedError,
    Supervisor,
    end_with_parent,
    exclusive,
)

_SLEEPER = "import time, pathlib, sys; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"


def sleeper(name: str, folder: Path, code: str = _SLEEPER) -> Service:
    flag = folder / f"{name}.ready"

    async def ready() -> bool:
        return flag.exists()

    return Service(name, [sys.executable, "-c", code, str(flag)], ready, start_within_s=5)


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            answer = condition()
            if (await answer) if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.02)


async def test_services_start_in_order_and_nothing_is_left_after_stop(tmp_path: Path) -> None:
    first, second = sleeper("first", tmp_path), sleeper("second", tmp_path)
    supervisor = Supervisor(tmp_path, [[first], [second]])
    await supervisor.start()
    pids = supervisor.pids()
    assert list(pids) == ["first", "second"]
    assert (
        psutil.Process(pids["first"]).create_time() < psutil.Process(pids["second"]).create_time()
    )
    await supervisor.stop()
    assert supervisor.pids() == {}
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


async def test_a_killed_service_is_started_again(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, [[sleeper("worker", tmp_path)]])
    await supervisor.start()
    try:
        before = supervisor.pids()["worker"]
        os.kill(before, signal.SIGKILL)
        await until(lambda: supervisor.pids().get("worker", before) != before)
        assert supervisor.restarts == {"worker": 1}
    finally:
        await supervisor.stop()


async def test_a_service_that_never_gets_ready_stops_the_start_and_shows_its_log(
    tmp_path: Path,
) -> None:
    async def never() -> bool:
        return False

    service = Service("broken", [sys.executable, "-c", "print('the reason')"], never, {}, 1.0)
    supervisor = Supervisor(tmp_path, [[service]])
    with pytest.raises(ServiceFailedError, match="the reason"):
        await supervisor.start()
    await supervisor.stop()
    assert supervisor.pids() == {}


async def test_a_service_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _SLEEPER
    stubborn = sleeper("stubborn", tmp_path, code)
    service = Service(stubborn.name, stubborn.argv, stubborn.ready, grace_s=0.3)
    supervisor = Supervisor(tmp_path, [[service]])
    await supervisor.start()
    pid = supervisor.pids()["stubborn"]
    await supervisor.stop()
    assert not psutil.pid_exists(pid)


async def test_the_next_start_ends_what_a_killed_supervisor_left(tmp_path: Path) -> None:
    first = Supervisor(tmp_path, [[sleeper("orphan", tmp_path)]])
    await first.start()
    orphan = psutil.Process(first.pids()["orphan"])
    second = Supervisor(tmp_path, [])
    await second.start()
    await until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
    await first.stop()
    assert not psutil.pid_exists(orphan.pid)


def test_only_one_supervisor_holds_a_data_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(AlreadyRunningError), exclusive(tmp_path):
        raise AssertionError
    with exclusive(tmp_path):
        assert (tmp_path / "up.lock").exists()


def test_a_service_leaves_when_its_parent_is_gone() -> None:
    child = (
        "import os, time\n"
        "from api.supervisor import end_with_parent\n"
        "end_with_parent(os.environ)\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(30)\n"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        "env = dict(os.environ, RAHBA_PARENT_PID=str(os.getpid()))\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], env=env, start_new_session=True)\n"
        "time.sleep(30)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        grandchild = psutil.Process(pid)
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs([grandchild], timeout=5)
    assert not alive


def test_without_a_supervisor_nobody_watches() -> None:
    end_with_parent({})
    assert not any("parent-watch" in thread for thread in _threads())


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]
