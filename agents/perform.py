"""Doing the work of an offer: bounded in number and in time, metered, every failure typed.

* Coroutines run on the event loop, plain functions in a thread of their own.
* What raises ends as :class:`JobFailedError`; what overruns as :class:`JobDeadlineError`. A plain
  function cannot be stopped: its slot stays taken until it really ends, so that hanging work shows
  as a busy agent and never as a growing pile of threads.
* At most ``capacity`` jobs run and ``backlog`` wait; beyond that :class:`BusyError`. What was
  promised takes its room from then on, so that every promise can be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from agents.agent import Agent, OfferSpec
from agents.job import Job, Terms
from agents.promises import Promises
from rahba.clock import Clock, SystemClock
from rahba.errors import BadInputError, RahbaError, RemoteError
from rahba.messages import Usage

_log: Final = logging.getLogger(__name__)
_TRIAL_MS: Final = 30_000


class JobFailedError(RemoteError):
    """The seller's function raised; nothing is paid. A function may raise a kind of its own."""

    code = "job_failed"


class JobDeadlineError(RemoteError):
    """The work was not done by its deadline; nothing is paid."""

    code = "deadline_exceeded"


class BusyError(RemoteError):
    """The seller has as many jobs as it can take."""

    code = "busy"
    retryable = True
    hint = "ask again in a moment, or ask another seller"


class InputRefusedError(BadInputError):
    """The seller's function cannot work on this input; nothing is paid."""

    code = "input_refused"
    hint = "the seller's text says what is wrong with the input"


class UnknownOfferError(BadInputError):
    """The agent does not sell this skill."""

    code = "unknown_skill"


@dataclass(frozen=True, slots=True)
class Done:
    """Finished work: ``{"output": ...}`` as sorted JSON, and what it took."""

    output: bytes
    usage: Usage


class Workbench:
    """Where one agent's jobs are done, a bounded number at a time."""

    def __init__(self, capacity: int, backlog: int, clock: Clock) -> None:
        """Take ``capacity`` jobs at a time, and let ``backlog`` more wait."""
        self._capacity = capacity
        self._limit = capacity + backlog
        self._clock = clock
        self._slots = asyncio.Semaphore(capacity)
        self._load = 0
        self._promises = Promises(self._limit)
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def free(self) -> bool:
        """Say whether one more job would be taken: neither jobs nor promises fill the room."""
        return self._load + self.promised < self._limit

    @property
    def promised(self) -> int:
        """Return how many jobs are promised and not begun."""
        return self._promises.standing(now_ms=self._clock.now_ms())

    @property
    def promised_threads(self) -> list[str]:
        """Return the threads in which a promise stands."""
        return self._promises.threads

    def promise(self, thread: str, buyer: str, *, until_ms: int) -> bool:
        """Keep room for the job of a thread; false if there is none (left for this buyer).

        Who has a promise in this thread may prolong it.
        """
        if not self._promises.has(thread) and not self.free:
            return False
        now_ms = self._clock.now_ms()
        return self._promises.make(thread, buyer, until_ms, now_ms=now_ms)

    def forget(self, thread: str) -> None:
        """Give the room of a promise to others."""
        self._promises.forget(thread)

    @property
    def load(self) -> int:
        """Return how many jobs run, wait, or hang."""
        return self._load

    async def idle(self) -> None:
        """Wait until nothing runs, waits or hangs any more."""
        await self._idle.wait()

    async def do(
        self, spec: OfferSpec, args: object, job: Job, *, promise: str | None = None
    ) -> Done:
        """Check ``args``, run the function within the deadline, check and encode its result.

        The job of a thread that was promised (``promise``) is taken however busy the agent is.

        Raises:
            ArgumentsError: the arguments do not fit; nothing was run.
            BusyError: there is no room; nothing was run.
            JobFailedError: the function raised, or returned what it does not promise.
            JobDeadlineError: it was not done in time.
        """
        fields = spec.signature.parse(args)
        if spec.signature.job_argument is not None:
            fields[spec.signature.job_argument] = job
        limit_s = min(spec.timeout_s, job.remaining_ms / 1_000)
        self._let_in(promise)
        started_ms = self._clock.now_ms()
        leave = self._leaving()
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                await self._slots.acquire()
                leave = self._leaving(slot=True)
                if spec.is_async:
                    output, cpu_ms = await spec.function(**fields), 0
                else:
                    running = _in_thread(spec.function, fields, spec.skill, leave)
                    leave = _nothing
                    output, cpu_ms = await running
        except (BadInputError, JobFailedError):
            raise
        except Exception as error:  # the supervised boundary: the function is somebody's own code
            if scope.expired():
                raise JobDeadlineError(f"not done within {limit_s:.1f} s") from error
            _log.warning("%s failed", spec.skill, exc_info=error)
            raise JobFailedError(_told(error), cause=type(error).__name__) from error
        finally:
            leave()
        raw = _encoded(spec, output, job)
        return Done(
            raw,
            Usage(
                wall_ms=max(0, self._clock.now_ms() - started_ms),
                cpu_ms=cpu_ms,
                bytes_out=len(raw),
            ),
        )

    async def watch(
        self, work: Callable[[], Awaitable[Done]], job: Job, *, promise: str | None = None
    ) -> Done:
        """Count work that is done elsewhere as one of this agent's jobs; the same errors."""
        self._let_in(promise)
        leave = self._leaving()
        scope = asyncio.timeout(job.remaining_ms / 1_000)
        try:
            async with scope:
                await self._slots.acquire()
                leave = self._leaving(slot=True)
                return await work()
        except TimeoutError as error:
            raise JobDeadlineError("not done by its deadline") from error
        finally:
            leave()

    def _let_in(self, promise: str | None) -> None:
        if promise is not None:
            self._promises.forget(promise)
        elif not self.free:
            raise BusyError("as many jobs as it can take", limit=self._limit)
        self._load += 1
        self._idle.clear()

    def _leaving(self, *, slot: bool = False) -> Callable[[], None]:
        def leave() -> None:
            self._load -= 1
            if self._load == 0:
                self._idle.set()
            if slot:
                self._slots.release()

        return leave


async def try_offer(agent: Agent, skill: str, args: dict[str, Any]) -> bytes:
    """Run one offer outside the market, as a template's self-test does; returns the JSON output."""
    spec = agent.offers.get(skill)
    if spec is None:
        raise UnknownOfferError(f"{agent.name} does not sell {skill[:64]}")
    clock = SystemClock()
    job = Job(Terms("", skill, "", clock.now_ms() + _TRIAL_MS), clock=clock)
    done = await Workbench(1, 0, clock).do(spec, args, job)
    return done.output


def _encoded(spec: OfferSpec, output: object, job: Job) -> bytes:
    if output is None and job.chunks:
        output = "".join(job.chunks)
    try:
        return spec.signature.dump(output)
    except RahbaError as error:
        _log.warning("%s returned what it does not promise: %s", spec.skill, error)
        raise JobFailedError(error.message, cause=error.code) from error


def _told(error: Exception) -> str:
    """Tell the buyer our own words in full, but of foreign exceptions the kind alone."""
    if isinstance(error, RahbaError):
        return f"{error.code}: {error.message}"[:300]
    return f"the function raised {type(error).__name__}"


def _nothing() -> None:
    """Leave nothing: the thread does it when it ends."""


def _in_thread(
    function: Callable[..., Any], fields: dict[str, Any], name: str, leave: Callable[[], None]
) -> asyncio.Future[tuple[Any, int]]:
    """Run ``function`` in a daemon thread: hanging work must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[tuple[Any, int]] = loop.create_future()

    def finish(result: Any, cpu_ms: int, error: BaseException | None) -> None:
        leave()
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result((result, cpu_ms))

    def run() -> None:
        begun = time.thread_time_ns()
        result, failed = None, None
        try:
            result = function(**fields)
        except BaseException as error:  # noqa: BLE001  # handed to the awaiting job as it is
            failed = _awaitable(error)
        spent = (time.thread_time_ns() - begun) // 1_000_000
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, spent, failed)

    threading.Thread(target=run, name=f"offer {name}", daemon=True).start()
    return outcome


def _awaitable(error: BaseException) -> Exception:
    """Keep a thread's ``SystemExit`` or ``StopIteration`` from passing for the event loop's own."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return JobFailedError(f"the function raised {type(error).__name__}")
