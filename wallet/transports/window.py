"""What a stream of submissions has taken and not answered yet: in order, and bounded.

* The source is asked for more only while there is room: ``MAX_LINES`` and ``MAX_BYTES`` at most
  wait for their answers.
* Lines leave in the order in which they came, as soon as they come. On a new connection all that
  is unanswered leaves again (:meth:`Window.rewind`): the ledger knows the bytes by their id.
* An answer belongs to the oldest line, and must name it. What cannot travel as a line keeps its
  place: a stand-in leaves for it, and the answer is the window's own.

    window = Window(raws)
    async for chunk in window.chunks(): ...   # the body
    answer = window.settle(answer)            # for each line that comes back
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from itertools import islice
from typing import Final, NamedTuple

import aiohttp

from rahba.merkle import leaf_hash
from wallet.ports import Answer
from wallet.transactions import MAX_TX_BYTES
from wallet.wire import LedgerAnswerError

MAX_LINES: Final = 2_000
MAX_BYTES: Final = 1024 * 1024
CHUNK_LINES: Final = 500
MAX_LINE_BYTES: Final = 64 * 1024
STAND_IN: Final = b"?"
_SPACE: Final = b" \t\r"


class _Line(NamedTuple):
    """What travels, and the answer if no ledger can give it."""

    raw: bytes
    own: Answer | None


class Window:
    """The unanswered part of one stream; for the task that reads it and the one that sends it."""

    def __init__(self, raws: AsyncIterable[bytes]) -> None:
        """Begin to take from ``raws``; :meth:`close` ends it."""
        self._lines: deque[_Line] = deque()
        self._bytes = 0
        self._left = 0
        self._ended = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        self._since = 0.0
        self._source = asyncio.create_task(self._take(raws))

    async def close(self) -> None:
        """Take nothing more."""
        self._source.cancel()
        await asyncio.gather(self._source, return_exceptions=True)

    async def abandon(self, error: Exception) -> None:
        """Give up what is unanswered: whoever waits is told ``error``."""
        await self.close()
        self._failure = error
        self._lines.clear()
        self._left = self._bytes = 0
        self._changed.set()

    @property
    def done(self) -> bool:
        """Say whether the source has ended and all is answered."""
        return self._ended and not self._lines

    def __len__(self) -> int:
        """Return how many lines wait for their answers."""
        return len(self._lines)

    def waiting_since(self) -> float | None:
        """Return the loop's time since which the ledger owes the next answer, if it owes one."""
        return self._since if self._lines else None

    async def something(self) -> bool:
        """Wait for a line to send; ``False`` when the source has ended and all is answered.

        Raises:
            Exception: what the source raised, after the answers to what it gave before.
        """
        while not self._lines and not self._ended:
            await self._change()
        if self.done and self._failure is not None:
            raise self._failure
        return bool(self._lines)

    def rewind(self) -> None:
        """Let all that is unanswered leave again."""
        self._left = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield lines as they come, until the source has ended and all are answered."""
        while True:
            fresh = list(islice(self._lines, self._left, self._left + CHUNK_LINES))
            self._left += len(fresh)
            if fresh:
                yield b"".join([line.raw + b"\n" for line in fresh])
            elif self.done:
                return
            else:
                await self._change()

    def settle(self, answer: Answer) -> Answer:
        """Take the ledger's next answer; returns what the caller is to be told.

        Raises:
            LedgerAnswerError: it is not for the oldest line that has left.
        """
        if self.done and self._failure is not None:
            raise self._failure
        if not self._left or answer.id != leaf_hash(self._lines[0].raw).hex():
            raise LedgerAnswerError("an answer to nothing that was asked", id=answer.id)
        line = self._lines.popleft()
        self._left -= 1
        self._bytes -= len(line.raw)
        self._since = asyncio.get_running_loop().time()
        self._changed.set()
        return line.own or answer

    async def _take(self, raws: AsyncIterable[bytes]) -> None:
        try:
            async for raw in raws:
                line = _line(raw)
                while self._full(len(line.raw)):
                    await self._change()
                if not self._lines:
                    self._since = asyncio.get_running_loop().time()
                self._lines.append(line)
                self._bytes += len(line.raw)
                self._changed.set()
        except Exception as error:  # noqa: BLE001  # the source is the caller's: so is its error
            self._failure = error
        finally:
            self._ended = True
            self._changed.set()

    def _full(self, size: int) -> bool:
        return len(self._lines) >= MAX_LINES or self._bytes + size > MAX_BYTES

    async def _change(self) -> None:
        """Wait for the next change; whoever waits has just looked, and looks again."""
        self._changed.clear()
        await self._changed.wait()


async def lines_of(
    content: aiohttp.StreamReader, window: Window, silence_s: float
) -> AsyncIterator[bytes]:
    """Yield line after line until the end; a ledger that owes an answer must not be silent."""
    loop, rest = asyncio.get_running_loop(), b""
    while not content.at_eof():
        began = loop.time()
        try:
            async with asyncio.timeout(silence_s):
                piece = await content.readany()
        except TimeoutError:
            since = window.waiting_since()
            if since is not None and loop.time() - max(since, began) >= silence_s:
                raise
            continue
        except RuntimeError as error:  # aiohttp's word for a connection that is closed already
            raise aiohttp.ClientConnectionError("the connection is closed") from error
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise LedgerAnswerError("the answer is too large")
        for line in lines:
            yield line


def _line(raw: bytes) -> _Line:
    """Take what travels as it is, unless it cannot (no envelope has newlines, or space around)."""
    if not raw or b"\n" in raw or raw.strip(_SPACE) != raw:
        code = "bad_encoding"
    elif len(raw) > MAX_TX_BYTES:
        code = "too_large"
    else:
        return _Line(raw, None)
    return _Line(STAND_IN, Answer("invalid", leaf_hash(raw).hex(), code=code))
