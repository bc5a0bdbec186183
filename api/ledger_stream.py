"""Submissions without end: one transaction a line comes in, one answer a line goes out, in order.

* ``POST /v1/transactions`` whose body and whose accepted answer are both NDJSON is such a stream.
  Answers go out while the body still comes in, so neither side keeps more than a window.
* What waits is bounded: lines and bytes of one group, groups that the ledger has, bytes of one
  line. When a bound is reached nothing more is read, and TCP makes the sender wait. Who neither
  sends nor reads for ``IDLE_S`` loses the stream.
* A broken line is answered like any other, and its neighbours do not notice. When the ledger stops,
  the last line is ``{"error": …}`` and the stream ends there, although the body may not have: what
  was not answered before it may be sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

import msgspec

from api.door import HungUpError, Receive, Send
from rahba.errors import RahbaError
from wallet.ports import Answer, Ledger
from wallet.transactions import MAX_TX_BYTES

NDJSON: Final = "application/x-ndjson"
MAX_GROUP: Final = 500
MAX_GROUP_BYTES: Final = 256 * 1024
MAX_GROUPS: Final = 4
MAX_LINE_BYTES: Final = MAX_TX_BYTES
IDLE_S: Final = 60.0
_ENCODER: Final = msgspec.json.Encoder()
_TOO_LONG: Final = Answer("invalid", "", code="too_large", detail="the line is too long")

logger = logging.getLogger("rahba.ledger.http")


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
Groups = asyncio.Queue[Group | RahbaError | None]


async def answer_stream(
    ledger: Ledger, receive: Receive, send: Send, *, receipt: bool, idle_s: float = IDLE_S
) -> None:
    """Answer a request line by line, until the body ends or the caller is gone.

    A problem ends the stream at once, whatever of the body is still to come. ``idle_s`` is how
    long nothing may come, and how long nobody may read.
    """
    headers = [(b"content-type", NDJSON.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    groups = Groups(MAX_GROUPS)
    reading = asyncio.create_task(_read(ledger, receive, groups, receipt=receipt, idle_s=idle_s))
    try:
        whole = await _write(groups, send, idle_s)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    if whole:
        await send({"type": "http.response.body", "body": b""})


async def _read(
    ledger: Ledger, receive: Receive, groups: Groups, *, receipt: bool, idle_s: float
) -> None:
    """Submit the lines in groups: what came in one piece goes together."""
    end: RahbaError | None = None
    try:
        async for lines in _arriving(receive, idle_s):
            for group in _grouped(lines):
                raws = [line for line in group if line is not None]
                task = asyncio.create_task(_submit(ledger, raws, receipt))
                task.add_done_callback(_forget)  # at the end nobody may wait for it any more
                await groups.put((group, task))
    except TimeoutError:
        end = StreamIdleError(f"no line came for {idle_s:g} s")
    except HungUpError:
        pass  # what came before is submitted; sending answers to nobody does no harm
    except Exception:  # a supervised boundary: whoever writes must not wait for ever
        logger.exception("a stream could not be read")
        end = StreamBrokenError("the ledger could not read on; its own log says why")
    await groups.put(end)


def _grouped(lines: list[bytes | None]) -> Iterator[list[bytes | None]]:
    group: list[bytes | None] = []
    size = 0
    for line in lines:
        length = len(line or b"")
        if group and (len(group) == MAX_GROUP or size + length > MAX_GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(line)
        size += length
    if group:
        yield group


async def _submit(ledger: Ledger, raws: list[bytes], receipt: bool) -> list[Answer]:
    return await ledger.submit_many(raws, receipt=receipt) if raws else []


async def _arriving(receive: Receive, idle_s: float) -> AsyncIterator[list[bytes | None]]:
    lines, more = Lines(), True
    while more:
        async with asyncio.timeout(idle_s):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise HungUpError
        more = message.get("more_body", False)
        found = lines.feed(message.get("body", b""))
        if not more:
            found += lines.end()
        if found:
            yield found


async def _write(groups: Groups, send: Send, idle_s: float) -> bool:
    """Send the answers in their order; says whether the caller has read to the end."""
    try:
        while (group := await groups.get()) is not None:
            told, go_on = await _told(group)
            async with asyncio.timeout(idle_s):
                await _send(send, told)
            if not go_on:
                break
    except TimeoutError:
        return False  # nobody reads: the door closes the connection
    return True


async def _told(group: Group | RahbaError) -> tuple[Sequence[object], bool]:
    """Return what is to be said of a group, and whether there is anything to say after it."""
    if isinstance(group, RahbaError):
        return [_problem(group)], False
    lines, task = group
    try:
        answers = iter(await task)
    except RahbaError as error:
        return [_problem(error)], False
    except Exception:  # a supervised boundary: the caller is told that the answers end here
        logger.exception("a group of a stream could not be submitted")
        broken = StreamBrokenError("the ledger could not answer; its own log says why")
        return [_problem(broken)], False
    return [next(answers) if line is not None else _TOO_LONG for line in lines], True


async def _send(send: Send, told: Sequence[object]) -> None:
    body = _ENCODER.encode_lines(told)
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


class StreamBrokenError(RahbaError):
    """A defect ended a stream: what was not answered may be in the log, or not."""

    code = "stream_broken"
    retryable = True
    hint = "send what was not answered again, on a new stream"


class StreamIdleError(RahbaError):
    """Nothing came on an open stream for too long."""

    code = "stream_idle"
    retryable = True
    hint = "send what was not answered again, on a new stream"
