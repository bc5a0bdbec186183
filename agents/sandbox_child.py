"""The inside of :mod:`agents.sandbox`: limits itself first, then runs one function or program.

Started as ``python -I sandbox_child.py LIMITS call`` (the request comes by standard input) or
``… LIMITS run PROGRAM ARGUMENT…``. The order matters: limits, tie to the parent, no network, and
only then anything that was asked for.

* What the work prints goes to standard error; the result alone goes to standard output.
* Leaves by ``os._exit``: no exit handler of a library delays or changes the result.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import orjson

from rahba.errors import RahbaError

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000


def main(argv: list[str]) -> None:
    """Limit this process, then do what ``argv`` asks."""
    limits: dict[str, Any] = orjson.loads(argv[1])
    limit(limits)
    tie_to_parent()
    leave_network()
    if argv[2] == "run":
        os.execvp(argv[3], argv[3:])  # noqa: S606 -- a fixed program, no shell: that is the point
    results = os.dup(1)
    os.dup2(2, 1)
    request: dict[str, Any] = orjson.loads(sys.stdin.buffer.read(limits["input_bytes"] + 1))
    write_all(results, answer(request))
    os._exit(0)


def limit(limits: Mapping[str, Any]) -> None:
    """Set the limits that the kernel enforces; one that this system lacks is left out."""
    cpu_s = int(limits["cpu_s"])
    wanted = (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
    )
    for kind, soft, hard in wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (soft, hard))


def tie_to_parent() -> None:
    """Die when the parent dies, and never gain rights (Linux; elsewhere the CPU limit ends us)."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def leave_network() -> bool:
    """Move to a network namespace of our own, which has no interface; say whether that worked."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return any(
        libc.unshare(flags) == 0 for flags in (_CLONE_NEWUSER | _CLONE_NEWNET, _CLONE_NEWNET)
    )


def answer(request: Mapping[str, Any]) -> bytes:
    """Load the function, call it, and encode its result or its refusal."""
    try:
        spec = importlib.util.spec_from_file_location(request["module"], request["path"])
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load {request['module']}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[request["module"]] = module
        spec.loader.exec_module(module)
        value = getattr(module, request["function"])(**request["arguments"])
        return orjson.dumps({"ok": True, "value": value})
    except RahbaError as error:
        return _report(error.code, error.message, error.facts)
    except MemoryError:
        return _report("sandbox_memory", "out of memory", {})
    except RecursionError:
        return _report("recursion", "the input is nested too deeply", {})


def _report(code: str, message: str, facts: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"ok": False, "code": code, "message": message, "facts": facts})


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; a pipe may take fewer at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main(sys.argv)
