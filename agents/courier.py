"""Carries messages from the mailboxes of one process to whoever waits for them.

* One reader for all owners of the process. Each message is verified for its owner first; one that
  does not verify is buried among the dead letters and nobody sees it.
* A letter goes to whoever attends its thread (a buyer), else to the owner's handler (a seller),
  else nobody wants it any more and it is dropped.
* A handler returns when its effects are durable: then the letter is acknowledged. If it raises,
  the letter is handled again after a pause (``retryable``), or is buried. Handlers run
  ``concurrency`` at a time, one at a time for a thread, and their leases are kept up meanwhile.
  Word that somebody leaves waits for neither: it may end the very work that it would wait for.
  What cannot be done for a long time is let go, and comes again once its lease is over.
* What is done is acknowledged together, some milliseconds later.
* Those who attend are never kept waiting by handlers: a seller's job may itself buy.
* A broker that goes away is asked again until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

from agents.attendance import Attendance, Letter
from broker.errors import LeaseLostError
from broker.ports import Delivery, Mailbox
from rahba.clock import Clock
from rahba.errors import RahbaError
from rahba.messages import open_message

_log: Final = logging.getLogger(__name__)
MAX_IDLE_OWNERS: Final = 512
GATHER_S: Final = 0.02
BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
AGAIN_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)


Handler = Callable[[Letter], Awaitable[None]]
Chained = tuple[str, str, bool]
URGENT: Final = frozenset({"decommit"})


class Courier:
    """The mail of one process. Everybody in the process shares it; nobody else reads for it."""

    def __init__(
        self,
        mailbox: Mailbox,
        clock: Clock,
        *,
        consumer: str,
        concurrency: int = 64,
        backlog: int = 1_024,
        lease_ms: int = 15_000,
        wait_ms: int = 500,
    ) -> None:
        """Read as ``consumer``; nothing is read before :meth:`start`."""
        self._reader = mailbox.receive([], consumer=consumer)
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._backlog = backlog
        self._lease_s = lease_ms / 1_000
        self._wait_ms = wait_ms
        self._handlers: dict[str, Handler] = {}
        self._attending: dict[tuple[str, str], Attendance] = {}
        self._owners: dict[str, int] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._anybody = asyncio.Event()
        self._chains: dict[Chained, deque[tuple[Delivery, Letter]]] = {}
        self._at_work: set[Delivery] = set()
        self._finished: list[Delivery] = []
        self._graves: list[tuple[Delivery, str]] = []
        self._to_acknowledge = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self.dropped = 0
        self.buried = 0

    # Who reads what.

    def serve(self, owner: str, handler: Handler) -> None:
        """Hand every letter of ``owner`` that nobody attends to ``handler``."""
        if owner not in self._handlers:
            self._join(owner)
        self._handlers[owner] = handler

    def dismiss(self, owner: str) -> None:
        """Stop handling an owner's letters; they stay in its mailbox."""
        if self._handlers.pop(owner, None) is not None:
            self._part(owner, linger=False)

    @contextlib.contextmanager
    def attend(self, owner: str, thread: str) -> Iterator[Attendance]:
        """Receive the letters of one thread for as long as the context lasts."""
        key = (owner, thread)
        if key in self._attending:
            raise ValueError("somebody attends this thread already")
        attendance = self._attending[key] = Attendance()
        self._join(owner)
        try:
            yield attendance
        finally:
            del self._attending[key]
            self._part(owner, linger=True)

    # Life.

    async def start(self) -> None:
        """Begin to read."""
        if not self._loops:
            steps = (self._read, self._acknowledge, self._keep_leases)
            self._loops = [asyncio.create_task(_supervised(step)) for step in steps]

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop reading, let handlers finish for ``grace_s``, give back what is left."""
        if not self._loops:
            await self._reader.close()
            return
        self._loops[0].cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in [*self._tasks, *self._loops]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._loops, return_exceptions=True)
        self._loops = []
        with contextlib.suppress(RahbaError):
            await self._let_go(self._finished, self._graves)
        await self._reader.close()

    # Reading.

    async def _read(self) -> None:
        await self._anybody.wait()
        for delivery in await self._reader.next(wait_ms=self._wait_ms):
            try:
                letter = self._open(delivery)
            except RahbaError as error:
                self._bury(delivery, error.code)
                continue
            self._hand_over(delivery, letter)

    def _open(self, delivery: Delivery) -> Letter:
        message = open_message(delivery.raw, me=delivery.owner, now_ms=self._clock.now_ms())
        return Letter(delivery.owner, message, delivery.raw, delivery.token)

    def _hand_over(self, delivery: Delivery, letter: Letter) -> None:
        attendance = self._attending.get((letter.owner, letter.message.thread))
        if attendance is not None:
            if attendance.give(letter):
                self._done(delivery)
        elif letter.owner not in self._handlers:
            self.dropped += 1
            self._done(delivery)
        elif len(self._at_work) < self._backlog:
            self._at_work.add(delivery)
            key = (letter.owner, letter.message.thread, letter.message.type in URGENT)
            chain = self._chains.get(key)
            if chain is not None:
                chain.append((delivery, letter))
                return
            self._chains[key] = deque([(delivery, letter)])
            task = asyncio.create_task(self._work_off(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # Beyond the backlog a letter is let go: its lease runs out and it comes again.

    async def _work_off(self, key: Chained) -> None:
        chain = self._chains[key]
        try:
            while chain:
                delivery, letter = chain.popleft()
                try:
                    await self._insist(delivery, letter)
                finally:
                    self._at_work.discard(delivery)
        finally:
            del self._chains[key]
            self._at_work.difference_update(delivery for delivery, _ in chain)

    async def _insist(self, delivery: Delivery, letter: Letter) -> None:
        """Handle a letter, again and again while broker or ledger are away: money may wait."""
        for pause_s in (*AGAIN_S, None):
            urgent = letter.message.type in URGENT
            async with contextlib.nullcontext() if urgent else self._slots:
                if await self._handle(delivery, letter) or pause_s is None:
                    return
            await asyncio.sleep(pause_s)

    async def _handle(self, delivery: Delivery, letter: Letter) -> bool:
        """Hand a letter to its handler; false if that is to be done again."""
        handler = self._handlers.get(letter.owner)
        if handler is None:
            return True
        try:
            await handler(letter)
        except RahbaError as error:
            if error.retryable:
                _log.warning("a %s will be handled again: %s", letter.message.type, error)
                return False
            self._bury(delivery, error.code)
        except Exception:  # noqa: BLE001  # the supervised boundary: one bad letter stops nobody else's
            _log.exception("handling a %s failed", letter.message.type)
        else:
            self._done(delivery)
        return True

    # Acknowledging.

    def _done(self, delivery: Delivery) -> None:
        self._finished.append(delivery)
        self._to_acknowledge.set()

    def _bury(self, delivery: Delivery, reason: str) -> None:
        """Have it buried soon; a flood of garbage must not keep the mail of others waiting."""
        self.buried += 1
        self._graves.append((delivery, reason))
        self._to_acknowledge.set()

    async def _acknowledge(self) -> None:
        await self._to_acknowledge.wait()
        await asyncio.sleep(GATHER_S)
        self._to_acknowledge.clear()
        batch, self._finished = self._finished, []
        graves, self._graves = self._graves, []
        try:
            await self._let_go(batch, graves)
        except BaseException:  # what was done already is done again without effect
            self._finished = [*batch, *self._finished]
            self._graves = [*graves, *self._graves]
            self._to_acknowledge.set()
            raise

    async def _let_go(self, batch: list[Delivery], graves: list[tuple[Delivery, str]]) -> None:
        async def quietly(call: Callable[[], Awaitable[None]]) -> None:
            try:
                await call()
            except LeaseLostError:
                _log.info("somebody else took letters over before they were acknowledged")

        bury, done = self._reader.bury, self._reader.done
        burying = [quietly(partial(bury, one, reason)) for one, reason in graves]
        await asyncio.gather(quietly(partial(done, batch)), *burying)

    async def _keep_leases(self) -> None:
        await asyncio.sleep(self._lease_s / 3)
        if self._at_work:
            with contextlib.suppress(LeaseLostError):
                await self._reader.extend(list(self._at_work))

    def _join(self, owner: str) -> None:
        self._owners[owner] = self._owners.get(owner, 0) + 1
        if self._owners[owner] == 1:
            self._idle.pop(owner, None)
            self._reader.add(owner)
            self._anybody.set()

    def _part(self, owner: str, *, linger: bool) -> None:
        """Stop reading for ``owner`` once nobody needs it.

        Who attended may soon attend again, and a mailbox costs more to open than to keep open.
        """
        self._owners[owner] -= 1
        if self._owners[owner]:
            return
        del self._owners[owner]
        if linger:
            self._idle[owner] = None
        else:
            self._reader.discard(owner)
        if len(self._idle) > MAX_IDLE_OWNERS:
            self._reader.discard(self._idle.popitem(last=False)[0])
        if not self._owners and not self._idle:
            self._anybody.clear()


async def _supervised(step: Callable[[], Awaitable[None]]) -> None:
    """Repeat ``step`` for ever; wait longer after each failure in a row."""
    failures = 0
    while True:
        try:
            await step()
            failures = 0
        except RahbaError as error:
            _log.warning("the mail stands still: %s", error)
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1
        except Exception:  # noqa: BLE001  # the supervised boundary: the mail must go on
            _log.exception("the mail stands still")
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1
