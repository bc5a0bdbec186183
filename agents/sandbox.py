"""Runs work on untrusted input in a sub-process that can be stopped, and cannot take us along.

What it does: a fresh interpreter (``python -I``) in its own session, with an empty working folder
of its own, a clean environment, no inherited descriptors, no network where the kernel allows that,
and limits on address space, CPU seconds, file size, wall time, input and output. JSON goes in by
standard input, JSON comes back. Past a limit the whole process group is killed.

What it does not: hide the file system. A library that lets its input run code of its own must not
be used here at all; this guards against parsers that loop, swell, crash or flood.

* The function is named ``"package.module:function"``. Its module is loaded by its file, so that the
  packages above it do not run and the child stays small and quick to start.
* It takes keyword arguments and returns JSON. A :class:`RahbaError` that it raises arrives in the
  caller as the same class if that is listed in ``errors`` (or is one of the kernel's).
* Every other end is a :class:`SandboxError`: nothing is ever returned in part.

    >>> await call("agents.templates.crafts.pages:read_pdf", {"content": "JVBERi0…"}, Limits())
    {'pages': 2, 'text': '…'}
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from rahba.errors import BadInputError, Fact, RahbaError, TooLargeError

_CHILD: Final = Path(__file__).with_name("sandbox_child.py")
_CHUNK_BYTES: Final = 64 * 1024
_STDERR_BYTES: Final = 256 * 1024
_REAP_S: Final = 5.0
_KERNEL_ERRORS: Final[tuple[type[RahbaError], ...]] = (BadInputError, TooLargeError)


class SandboxError(BadInputError):
    """The work did not come to an end of its own; the input is the likely cause."""

    code = "sandbox_failed"
    hint = "send a smaller or simpler input"


class SandboxTimeoutError(SandboxError):
    """The work used up its wall time or its CPU seconds."""

    code = "sandbox_timeout"


class SandboxMemoryError(SandboxError):
    """The work asked for more memory than it may have."""

    code = "sandbox_memory"


class SandboxCrashedError(SandboxError):
    """The sub-process died, or raised something that is no refusal."""

    code = "sandbox_crashed"


class SandboxOutputError(SandboxError):
    """The work wrote more than it may, or something that is no result."""

    code = "sandbox_output"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use; past any of these it is killed."""

    wall_s: float = 20.0
    cpu_s: int = 10
    memory_bytes: int = 1024 * 1024 * 1024
    file_bytes: int = 0
    input_bytes: int = 4 * 1024 * 1024
    output_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a sub-process ended by itself, and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


async def call(
    target: str,
    arguments: Mapping[str, Any],
    limits: Limits,
    errors: Sequence[type[RahbaError]] = (),
) -> Any:
    """Run the function named by ``target`` and return its JSON result.

    Raises:
        RahbaError: the function refused its input.
        SandboxError: it ran past a limit, crashed, or returned no JSON.
    """
    module, _, function = target.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {module!r}", name=module)
    request = orjson.dumps(
        {"module": module, "path": spec.origin, "function": function, "arguments": arguments}
    )
    outcome = await _run(["call"], request, limits)
    try:
        answer = orjson.loads(outcome.stdout)
    except orjson.JSONDecodeError:
        raise _died(outcome) from None
    if not isinstance(answer, dict) or "ok" not in answer:
        raise SandboxOutputError("the sub-process answered with something that is no result")
    if answer["ok"] is True:
        return answer["value"]
    raise _refusal(answer, errors)


async def run(command: Sequence[str], stdin: bytes, limits: Limits) -> Outcome:
    """Run a program under the same limits; its exit code is the caller's to judge.

    Raises:
        SandboxError: it ran past a limit or was ended by a signal.
    """
    outcome = await _run(["run", *command], stdin, limits)
    if outcome.exit_code < 0:
        raise _died(outcome)
    return outcome


async def _run(arguments: Sequence[str], stdin: bytes, limits: Limits) -> Outcome:
    """Start the child, feed it, read it, and leave nothing of it behind."""
    if len(stdin) > limits.input_bytes:
        raise TooLargeError(
            "input too large", size_bytes=len(stdin), limit_bytes=limits.input_bytes
        )
    with tempfile.TemporaryDirectory(prefix="rahba-", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-IB",  # no caches written: the file limit would leave half of one behind
            str(_CHILD),
            orjson.dumps(asdict(limits)).decode(),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder},
            start_new_session=True,
        )
        try:
            return await _converse(process, stdin, limits)
        finally:
            await _end(process)


async def _converse(process: asyncio.subprocess.Process, stdin: bytes, limits: Limits) -> Outcome:
    """Feed and read the process at once, within the limits of wall time and output."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    tasks = [
        asyncio.ensure_future(_feed(process.stdin, stdin)),
        asyncio.ensure_future(_read(process.stdout, limits.output_bytes)),
        asyncio.ensure_future(_read(process.stderr, _STDERR_BYTES)),
    ]
    try:
        async with asyncio.timeout(limits.wall_s):
            _, stdout, stderr = await asyncio.gather(*tasks)
            exit_code = await process.wait()
    except TimeoutError:
        raise SandboxTimeoutError("the work took too long", limit_s=str(limits.wall_s)) from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if exit_code == -signal.SIGXCPU:
        raise SandboxTimeoutError("the work used up its CPU time", limit_cpu_s=limits.cpu_s)
    return Outcome(exit_code, stdout or b"", stderr or b"")


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> bytes:
    """Write all of ``data``; a child that died early is noticed by its exit code."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
    stream.close()
    return b""


async def _read(stream: asyncio.StreamReader, limit_bytes: int) -> bytes:
    """Read to the end, or refuse past ``limit_bytes``."""
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(_CHUNK_BYTES):
        size += len(part)
        if size > limit_bytes:
            raise SandboxOutputError("the work wrote too much", limit_bytes=limit_bytes)
        parts.append(part)
    return b"".join(parts)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the whole group, whatever state it is in, and reap the child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    assert process.stderr is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAP_S):
            # A pipe that nobody reads keeps the child from being reaped.
            await asyncio.gather(_drain(process.stdout), _drain(process.stderr), process.wait())


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(_CHUNK_BYTES):
        pass


def _died(outcome: Outcome) -> SandboxError:
    """Name the death of a child that left no result."""
    last = outcome.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
    if last.startswith("MemoryError"):
        return SandboxMemoryError("the work asked for too much memory")
    if outcome.exit_code < 0:
        name = signal.Signals(-outcome.exit_code).name
        return SandboxCrashedError(f"the sub-process was ended by {name}", signal=name)
    return SandboxCrashedError(f"the sub-process failed: {last}", exit_code=outcome.exit_code)


def _refusal(answer: Mapping[str, Any], errors: Sequence[type[RahbaError]]) -> RahbaError:
    """Make the error that the child reported again, on this side."""
    code, message = str(answer.get("code")), str(answer.get("message"))[:500]
    if code == SandboxMemoryError.code:
        return SandboxMemoryError("the work asked for too much memory")
    given = answer.get("facts")
    facts: dict[str, Fact] = given if isinstance(given, dict) else {}
    for kind in (*errors, *_KERNEL_ERRORS):
        if kind.code == code:
            return kind(message, **facts)
    return SandboxCrashedError(message, reason=code)
