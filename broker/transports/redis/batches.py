"""What is asked of one script within a tick of the loop goes out together, in one call.

What is asked while a call is under way gathers for the next: each call costs the server a write to
its log that is synced, which is worth more than all else about a message. Who asks alone waits for
nobody. A batch holds at most ``MAX_TOGETHER`` requests and ``MAX_TOGETHER_BYTES``: others wait for
the server meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.errors import BrokerUnreachableError
from broker.transports.redis.wire import Argument, Reply, Script, Wire

MARKET: Final = "{market}"
MAX_TOGETHER: Final = 64
_CLOSED: Final = BrokerUnreachableError("the broker was closed")
MAX_TOGETHER_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class _Batch:
    """Requests, and who waits for what becomes of each."""

    told: list[Argument] = field(default_factory=list)
    waiting: list[asyncio.Future[Reply]] = field(default_factory=list)
    size_bytes: int = 0

    def takes(self, size_bytes: int) -> bool:
        """Say whether one more request of this size fits."""
        return (
            len(self.waiting) < MAX_TOGETHER and self.size_bytes + size_bytes <= MAX_TOGETHER_BYTES
        )


class Batches:
    """Calls of one script that answers the server's time or 0, then one answer a request."""

    def __init__(self, wire: Wire, script: Script, limits: Callable[[], Sequence[int]]) -> None:
        """Call ``script`` over ``wire``; ``limits`` are asked for each time and come first."""
        self._wire = wire
        self._script = script
        self._limits = limits
        self._batches: deque[_Batch] = deque()
        self._carrying: asyncio.Task[None] | None = None

    def put(self, *told: Argument, size_bytes: int) -> asyncio.Future[Reply]:
        """Ask with this tick's others; the future holds the server's time (ms) and the answer."""
        if not self._batches or not self._batches[-1].takes(size_bytes):
            self._batches.append(_Batch())
        batch = self._batches[-1]
        batch.told += told
        batch.size_bytes += size_bytes
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        batch.waiting.append(answer)
        if self._carrying is None or self._carrying.done():
            self._carrying = asyncio.create_task(self._carry_all())
        return answer

    async def _carry_all(self) -> None:
        try:
            while self._batches:
                await self._carry(self._batches.popleft())
        except BaseException:  # cancelled: nobody is to wait for ever
            while self._batches:
                _fail(self._batches.popleft(), _CLOSED)
            raise

    async def _carry(self, batch: _Batch) -> None:
        try:
            limits = self._limits()
            at_ms, *answers = await self._wire.run(
                self._script, [MARKET], len(limits), *limits, *batch.told
            )
            for waiting, answer in zip(batch.waiting, answers, strict=True):
                if not waiting.done():  # its caller may have gone
                    waiting.set_result((at_ms, answer))
        except Exception as error:  # noqa: BLE001  # whoever waits is to hear of it
            _fail(batch, error)
        except BaseException:
            _fail(batch, _CLOSED)
            raise


def _fail(batch: _Batch, error: Exception) -> None:
    for waiting in batch.waiting:
        if not waiting.done():
            waiting.set_exception(error)
