"""Threads that meet a form of document for the first time, all at once."""

from __future__ import annotations

import subprocess
import sys

from rahba import encoding

PROGRAM = """
import sys, threading
import msgspec
from rahba.encoding import canonical, shape

sys.setswitchinterval(1e-6)


def document():
    class Inner(msgspec.Struct, frozen=True):
        a: str
        b: str | None = None

    class Middle(msgspec.Struct, frozen=True):
        x: Inner
        y: list[Inner]

    class Outer(msgspec.Struct, frozen=True):
        m: Middle
        n: list[Middle]

    middle = Middle(Inner("a"), [Inner("b", "c")])
    return Outer(middle, [middle])


for _ in range(100):
    value, begin, found = document(), threading.Barrier(4), []

    def one(way):
        begin.wait()
        found.append(way())

    plain = msgspec.to_builtins(value)
    ways = [lambda: canonical(value)] * 2 + [lambda: canonical(shape(plain, type(value)))] * 2
    threads = [threading.Thread(target=one, args=(way,)) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1, found
print("fine")
"""


def test_many_threads_may_meet_a_form_at_once() -> None:
    """Without a lock the process ends by a segmentation fault within a few rounds."""
    assert encoding.canonical({}) == b"{}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr[-500:]
