"""Submissions without end: one transaction a line comes in, one answer a line goes out, in order.

* ``POST /v1/transactions`` whose body and whose accepted answer are both NDJSON is such a stream.
  Answers go out while the body still comes in, so neither side keeps more than a window.
* What waits is bounded: lines of one group, groups that the ledger has, bytes of one line. When a
  bound is reached nothing more is read, and TCP makes the sender wait.
* A broken line is answered like any other, and its neighbours do not notice. When the ledger stops,
  the last line is a problem document: what was not answered before it may be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import orjson

from api.door import HungUpError, Receive, Send
from rahba.errors import RahbaError
from wallet.ports import Answer, Ledger
from wallet.transactions import MAX_TX_BYTES

NDJSON: Final = "application/x-ndjson"
MAX_GROUP: Final = 500
MAX_GROUPS: Final = 4
MAX_LINE_BYTES: Final = MAX_TX_BYTES
IDLE_S: Final = 60.0
_TOO_LONG: Final = Answer("invalid", "", code="too_large", detail="the line is too long")


class Lines:
    """Cuts a body into lines as it arrives; ``None`` stands for one that is too long."""

    def __init__(self) -> None:
        """Begin before the first byte."""
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """Take more of the body; returns the lines that it completed."""
        *whole, last = chunk.split(b"\n")
        found: list[bytes | None] = []
        for piece in whole:
            self._add(piece)
            found += self.end()
        self._add(last)
        return found

    def end(self) -> list[bytes | None]:
        """Return what is left as the last line, if anything is."""
        line = None if self._skipping else bytes(self._rest).strip(b" \r\t")
        self._rest.clear()
        self._skipping = False
        return [line] if line is None or line else []

    def _add(self, piece: bytes) -> None:
        if len(self._rest) + len(piece) > MAX_LINE_BYTES:
            self._skipping = True
            self._rest.clear()
        elif not self._skipping:
            self._rest += piece


Group = tuple[list[bytes | None], asyncio.Task[list[Answer]]]


async def answer_stream(ledger: Ledger, receive: Receive, send: Send, *, receipt: bool) -> None:
    """Answer a request line by line, until the body ends or the caller is gone."""
    headers = [(b"content-type", NDJSON.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    groups: asyncio.Queue[Group | RahbaError | None] = asyncio.Queue(MAX_GROUPS)
    reading = asyncio.create_task(_read(ledger, receive, groups, receipt=receipt))
    try:
        await _write(groups, send)
        with contextlib.suppress(HungUpError):
            await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        while not groups.empty():
            left = groups.get_nowait()
            if isinstance(left, tuple):  # it is submitted: nobody waits for the answers any more
                left[1].add_done_callback(_forget)
    await send({"type": "http.response.body", "body": b""})


async def _read(
    ledger: Ledger,
    receive: Receive,
    groups: asyncio.Queue[Group | RahbaError | None],
    *,
    receipt: bool,
) -> None:
    """Submit the lines in groups: what came in one piece goes together."""
    try:
        async for lines in _arriving(receive):
            for at in range(0, len(lines), MAX_GROUP):
                group = lines[at : at + MAX_GROUP]
                raws = [line for line in group if line is not None]
                await groups.put((group, asyncio.create_task(_submit(ledger, raws, receipt))))
    except TimeoutError:
        await groups.put(StreamIdleError(f"no line came for {IDLE_S:.0f} s"))
        return
    except HungUpError:
        await groups.put(None)
        raise
    await groups.put(None)


async def _submit(ledger: Ledger, raws: list[bytes], receipt: bool) -> list[Answer]:
    return await ledger.submit_many(raws, receipt=receipt) if raws else []


async def _arriving(receive: Receive) -> AsyncIterator[list[bytes | None]]:
    lines, more = Lines(), True
    while more:
        async with asyncio.timeout(IDLE_S):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUpError
        more = message.get("more_body", False)
        found = lines.feed(message.get("body", b""))
        if not more:
            found += lines.end()
        if found:
            yield found


async def _write(groups: asyncio.Queue[Group | RahbaError | None], send: Send) -> None:
    while (group := await groups.get()) is not None:
        if isinstance(group, RahbaError):
            await _send(send, [_problem(group)])
            return
        lines, task = group
        try:
            answers = iter(await task)
        except RahbaError as error:
            await _send(send, [_problem(error)])
            return
        told = [next(answers) if line is not None else _TOO_LONG for line in lines]
        await _send(send, told)


async def _send(send: Send, told: Sequence[object]) -> None:
    body = b"".join([orjson.dumps(item) + b"\n" for item in told])
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _problem(error: RahbaError) -> dict[str, object]:
    return {
        "error": {
            "code": error.code,
            "detail": error.message,
            "hint": error.hint,
            "retryable": error.retryable,
        }
    }


def _forget(task: asyncio.Task[list[Answer]]) -> None:
    if not task.cancelled():
        task.exception()


class StreamIdleError(RahbaError):
    """Nothing came on an open stream for too long."""

    code = "stream_idle"
    retryable = True
    hint = "send what was not answered again, on a new stream"
