"""Nothing that runs in the sandbox outlives it, takes us along, or says half a thing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from agents import sandbox, sandbox_child
from agents.sandbox import Limits
from rahba.errors import TooLargeError
from tests.fixtures.hostile_work import OddInputError

ROOT = Path(__file__).parents[2]
QUICK = Limits(wall_s=15, cpu_s=5)


async def work(function: str, limits: Limits = QUICK, **arguments: Any) -> Any:
    return await sandbox.call(
        f"tests.fixtures.hostile_work:{function}", arguments, limits, errors=(OddInputError,)
    )


class Started:
    """The processes that a test has started: those of other tests do not count."""

    def __init__(self) -> None:
        self._before = set(self._all())

    def now(self) -> set[psutil.Process]:
        return set(self._all()) - self._before

    @staticmethod
    def _all() -> list[psutil.Process]:
        return psutil.Process().children(recursive=True)


@pytest.fixture(autouse=True)
def started() -> Iterator[Started]:
    """Tell what a test has started, and see to it that nothing of it is left running."""
    processes = Started()
    yield processes
    deadline = time.monotonic() + 3
    while children := processes.now():
        assert time.monotonic() < deadline, children
        time.sleep(0.02)


async def test_json_goes_in_and_comes_back_whatever_the_work_prints() -> None:
    value = {"text": "سوق", "numbers": [1, 2.5, None], "deep": {"a": [True]}}
    assert await work("echo", **value) == value


async def test_the_work_sees_an_empty_folder_a_clean_environment_and_no_inherited_files() -> None:
    os.environ["RAHBA_SECRET_OF_THE_PARENT"] = "x"
    with (ROOT / "LICENSE").open() as inherited:
        os.set_inheritable(inherited.fileno(), True)
        seen = await work("where")
    del os.environ["RAHBA_SECRET_OF_THE_PARENT"]
    assert seen["files"] == []
    assert seen["environment"] == ["HOME", "LANG", "PATH", "TMPDIR"]
    assert len(seen["descriptors"]) <= 5
    assert seen["session"] is True
    assert list(Path(tempfile.gettempdir()).glob(seen["folder"])) == []  # noqa: ASYNC240


async def test_a_refusal_keeps_its_class_and_facts() -> None:
    with pytest.raises(OddInputError, match="odd numbers") as refused:
        await work("refuse_odd", number=3)
    assert refused.value.facts == {"number": 3}
    with pytest.raises(TooLargeError):
        await work("refuse_large")


async def test_a_refusal_of_an_unlisted_class_is_a_crash_with_its_code_as_reason() -> None:
    with pytest.raises(sandbox.SandboxCrashedError) as crashed:
        await sandbox.call("tests.fixtures.hostile_work:refuse_odd", {"number": 1}, QUICK)
    assert crashed.value.facts["reason"] == "odd_input"


async def test_an_endless_loop_is_stopped_by_its_cpu_limit() -> None:
    started = time.monotonic()
    with pytest.raises(sandbox.SandboxTimeoutError, match="CPU"):
        await work("spin", Limits(wall_s=20, cpu_s=1))
    assert time.monotonic() - started < 15


async def test_work_that_waits_for_ever_is_stopped_by_its_wall_time() -> None:
    with pytest.raises(sandbox.SandboxTimeoutError, match="too long"):
        await work("doze", Limits(wall_s=0.5))


async def test_a_memory_hog_is_refused_its_memory() -> None:
    with pytest.raises(sandbox.SandboxMemoryError):
        await work("swell")


@pytest.mark.parametrize("function", ["flood", "long_answer"])
async def test_a_flood_of_output_is_cut_off(function: str) -> None:
    with pytest.raises(sandbox.SandboxOutputError):
        await work(function, Limits(output_bytes=1_000_000))


async def test_a_result_that_is_no_json_is_no_result() -> None:
    with pytest.raises(sandbox.SandboxCrashedError, match="set"):
        await work("no_json")


@pytest.mark.parametrize(
    ("function", "says"), [("crash", "SIGSEGV"), ("stumble", "KeyError"), ("sink", "nested")]
)
async def test_a_crash_is_an_error_and_not_ours(function: str, says: str) -> None:
    with pytest.raises(sandbox.SandboxCrashedError, match=says):
        await work(function)


@pytest.mark.long
async def test_a_child_of_the_work_dies_with_it(started: Started) -> None:
    task = asyncio.create_task(work("leave_child_behind", Limits(wall_s=3)))
    seen: set[psutil.Process] = set()
    while len(seen) < 2 and not task.done():
        seen |= started.now()
        await asyncio.sleep(0.005)
    with pytest.raises(sandbox.SandboxTimeoutError):
        await task
    assert len(seen) == 2
    assert psutil.wait_procs(seen, timeout=3)[1] == []


async def test_files_are_limited_and_by_default_forbidden() -> None:
    assert await work("write_file", Limits(file_bytes=1000), size_bytes=1000) == 1000
    with pytest.raises(sandbox.SandboxCrashedError, match="File too large"):
        await work("write_file", size_bytes=10_000_000)


async def test_too_large_an_input_is_refused_before_anything_starts() -> None:
    with pytest.raises(TooLargeError):
        await work("echo", Limits(input_bytes=1000), text="x" * 1001)


async def test_an_unknown_module_or_function_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ModuleNotFoundError):
        await sandbox.call("agents.no_such_module:work", {}, QUICK)
    with pytest.raises(sandbox.SandboxCrashedError, match="AttributeError"):
        await work("no_such_function")


async def test_a_cancelled_call_leaves_no_process(started: Started) -> None:
    task = asyncio.create_task(work("doze"))
    await asyncio.sleep(0.3)
    assert len(started.now()) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert started.now() == set()


async def test_calls_run_side_by_side() -> None:
    answers = await asyncio.gather(*(work("echo", number=number) for number in range(4)))
    assert [answer["number"] for answer in answers] == [0, 1, 2, 3]


async def test_a_program_runs_under_the_same_limits() -> None:
    outcome = await sandbox.run([sys.executable, "-c", "print(input()[::-1])"], b"rahba", QUICK)
    assert (outcome.exit_code, outcome.stdout) == (0, b"abhar\n")
    outcome = await sandbox.run([sys.executable, "-c", "raise SystemExit(3)"], b"", QUICK)
    assert outcome.exit_code == 3
    with pytest.raises(sandbox.SandboxTimeoutError):
        await sandbox.run([sys.executable, "-c", "while 1: pass"], b"", Limits(cpu_s=1))
    with pytest.raises(sandbox.SandboxCrashedError, match="SIGABRT"):
        await sandbox.run([sys.executable, "-c", "import os; os.abort()"], b"", QUICK)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
async def test_the_work_has_no_network_where_the_kernel_allows_that() -> None:
    probe = [sys.executable, "-c", "from agents.sandbox_child import *; print(leave_network())"]
    able = await asyncio.to_thread(subprocess.check_output, probe, cwd=ROOT)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if able.strip() == b"True":
            with pytest.raises(sandbox.SandboxCrashedError, match=r"unreachable|refused"):
                await work("connect", port=port)
        else:
            assert await work("connect", port=port) == "connected"


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_the_work_dies_with_a_killed_parent() -> None:
    script = (
        "import asyncio\nfrom agents import sandbox\n"
        "asyncio.run(sandbox.call('tests.fixtures.hostile_work:doze', {}, sandbox.Limits()))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    deadline = time.monotonic() + 20
    while not (children := psutil.Process(parent.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert gone
    assert not alive


def test_the_answer_of_the_child_is_whole_even_through_a_small_pipe() -> None:
    reader, writer = os.pipe()
    data = b"x" * 300_000
    child = os.fork()
    if child == 0:
        sandbox_child.write_all(writer, data)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == data
    os.waitpid(child, 0)


def test_the_child_reports_a_refusal_as_data() -> None:
    path = str(ROOT / "tests/fixtures/hostile_work.py")
    request = {"module": "hostile", "path": path, "function": "refuse_odd"}
    raw = sandbox_child.answer({**request, "arguments": {"number": 1}})
    assert orjson.loads(raw) == {
        "ok": False,
        "code": "odd_input",
        "message": "odd numbers are refused",
        "facts": {"number": 1},
    }
    raw = sandbox_child.answer({**request, "arguments": {"number": 2}})
    assert orjson.loads(raw) == {"ok": True, "value": 2}
