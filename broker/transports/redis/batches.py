"""What is asked of one script within a tick of the loop goes out together, in one call.

A batch holds at most ``MAX_TOGETHER`` requests and ``MAX_TOGETHER_BYTES``: others wait for the
server meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hiredis import ReplyError

from broker.errors import BrokerUnreachableError
from broker.transports.redis.wire import Argument, Reply, Script, Wire

MARKET: Final = "{market}"
MAX_TOGETHER: Final = 64
MAX_TOGETHER_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class _Batch:
    """Requests, and who waits for what becomes of each."""

    told: list[Argument] = field(default_factory=list)
    waiting: list[asyncio.Future[Reply]] = field(default_factory=list)
    size_bytes: int = 0


class Batches:
    """Calls of one script that answers the server's time, then one answer a request."""

    def __init__(self, wire: Wire, script: Script, limits: Callable[[], Sequence[int]]) -> None:
        """Call ``script`` over ``wire``; ``limits`` are asked for each time and come first."""
        self._wire = wire
        self._script = script
        self._limits = limits
        self._batch = _Batch()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, *told: Argument, size_bytes: int) -> asyncio.Future[Reply]:
        """Ask with this tick's others; the future holds the server's time (ms) and the answer."""
        loop = asyncio.get_running_loop()
        batch = self._batch
        full = batch.size_bytes + size_bytes > MAX_TOGETHER_BYTES
        if batch.waiting and (full or len(batch.waiting) >= MAX_TOGETHER):
            self._flush()
            batch = self._batch
        if not batch.waiting:
            loop.call_soon(self._flush)
        batch.told += told
        batch.size_bytes += size_bytes
        answer: asyncio.Future[Reply] = loop.create_future()
        batch.waiting.append(answer)
        return answer

    def _flush(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if batch.waiting:
            task = asyncio.create_task(self._carry(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, batch: _Batch) -> None:
        limits = self._limits()
        try:
            at_ms, *answers = await self._wire.run(
                self._script, [MARKET], len(limits), *limits, *batch.told
            )
        except (BrokerUnreachableError, ReplyError) as error:
            for waiting in batch.waiting:
                if not waiting.done():  # its caller may have gone
                    waiting.set_exception(error)
            return
        for waiting, answer in zip(batch.waiting, answers, strict=True):
            if not waiting.done():
                waiting.set_result((at_ms, answer))
