"""Heavy jobs: offers with ``runs="worker"`` leave the host and come back sealed.

* A task names the deal, how to make the agent again, the skill and the arguments. It travels as
  one sealed box under the work key, which hosts and workers share and brokers never see.
* The result comes back through the host's own mailbox, sealed likewise and signed by a key derived
  from the work key. Anything else that arrives there is dropped.
* A worker takes an order under a lease and keeps its result, so a task may be queued any number of
  times: it is worked on by one worker at a time, and asked again it answers the same.
* The host waits until the deadline. It queues the task again when the lease of a worker that had
  begun is gone (it was killed), and now and then while no worker has begun at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random as random_bytes

from agents.agent import Agent
from agents.job import Job, Terms
from agents.patience import patiently
from agents.perform import (
    Done,
    InputRefusedError,
    JobDeadlineError,
    JobFailedError,
    UnknownOfferError,
    Workbench,
)
from agents.ports import TaskQueue, WorkMarks
from agents.schema import ArgumentsError
from agents.source import Source
from broker.errors import BrokerUnreachableError
from broker.ports import Mailbox
from rahba.clock import Clock
from rahba.encoding import b64, unb64
from rahba.envelope import Signer, verify
from rahba.errors import BadInputError, BadSignatureError, RahbaError, TooLargeError
from rahba.ids import Ids
from rahba.messages import Issues, Usage

WORK_TYPE: Final = "application/vnd.rahba.work"
KEY_FILE: Final = "work.key"
KEY_BYTES: Final = 32
MAX_TASK_BYTES: Final = 2 * 1024 * 1024
PATIENCE_MS: Final = 30_000
GRACE_S: Final = 5.0
_POLL_S: Final = 0.5

T = TypeVar("T")
_log: Final = logging.getLogger(__name__)


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One heavy job as workers get it; its result goes to the mailbox of ``reply_to``."""

    agreement: str
    source: Source
    skill: str
    args: Any
    buyer: str
    deadline: int
    depth: int
    reply_to: str
    issues: Issues | None = None


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of a task: the output (JSON text), or the code and the reason of a failure.

    ``refused`` says that the input is to blame.
    """

    agreement: str
    output: str | None = None
    usage: Usage = Usage()
    code: str | None = None
    text: str = ""
    refused: bool = False


class WorkKey:
    """The key hosts and workers share: seals tasks and outcomes, and signs outcomes."""

    def __init__(self, key: bytes) -> None:
        """Use a 32-byte key."""
        if len(key) != KEY_BYTES:
            raise BadInputError("a work key has 32 bytes")
        self._box = SecretBox(key)
        self._signer = Signer(hmac.digest(key, b"rahba work signer", hashlib.sha256))

    @classmethod
    def at(cls, folder: Path) -> WorkKey:
        """Read the key of a data folder, making it (for its owner's eyes only) the first time."""
        path = folder / KEY_FILE
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{KEY_FILE}.{os.getpid()}")
        if not path.exists():
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(random_bytes(KEY_BYTES))
            try:
                os.link(fresh, path)  # the first of several starting processes wins
            except FileExistsError:
                _log.debug("another process made the work key")
            finally:
                fresh.unlink()
        return cls(path.read_bytes())

    def seal_task(self, task: Task) -> str:
        """Return the sealed task as base64 text."""
        raw = msgspec.json.encode(task)
        if len(raw) > MAX_TASK_BYTES:
            raise TooLargeError("task too large", size_bytes=len(raw), limit=MAX_TASK_BYTES)
        return b64(bytes(self._box.encrypt(raw)))

    def open_task(self, sealed: str) -> Task:
        """Open a task; raises :class:`BadSignatureError` for whatever was not sealed by us."""
        return self._opened(unb64(sealed), Task)

    def seal_outcome(self, outcome: Outcome) -> bytes:
        """Return the sealed and signed outcome."""
        sealed = bytes(self._box.encrypt(msgspec.json.encode(outcome)))
        signature = self._signer.sign(WORK_TYPE, sealed)
        return msgspec.json.encode({"sealed": b64(sealed), "sig": signature})

    def open_outcome(self, raw: bytes) -> Outcome:
        """Verify and open an outcome."""
        if len(raw) > 2 * MAX_TASK_BYTES:
            raise TooLargeError("outcome too large", size_bytes=len(raw))
        try:
            parts = msgspec.json.decode(raw, type=dict[str, str])
            sealed, signature = unb64(parts["sealed"]), parts["sig"]
        except (msgspec.DecodeError, KeyError, UnicodeDecodeError) as error:
            raise BadInputError("not the outcome of a task") from error
        verify(self._signer.did, WORK_TYPE, sealed, signature)
        return self._opened(sealed, Outcome)

    def _opened(self, sealed: bytes, form: type[T]) -> T:
        try:
            return msgspec.json.decode(self._box.decrypt(sealed), type=form)
        except (CryptoError, ValueError, TypeError) as error:
            raise BadSignatureError("not sealed under this work key") from error


class WorkDesk:
    """The host's side: sends heavy jobs out and waits for what comes back."""

    def __init__(
        self,
        key: WorkKey,
        queue: TaskQueue,
        marks: WorkMarks,
        clock: Clock,
        *,
        reply_to: str,
    ) -> None:
        """Send through ``queue``; results come to the mailbox of ``reply_to``."""
        self._key = key
        self._queue = queue
        self._marks = marks
        self._clock = clock
        self._reply_to = reply_to
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}

    async def do(self, source: Source, agent: Agent, args: Any, job: Job) -> Done:
        """Have one job done by a worker; the same errors as :meth:`Workbench.do`."""
        spec = agent.offers[job.terms.skill]
        _ = spec.signature.parse(args)
        terms = job.terms
        deadline = min(terms.deadline, self._clock.now_ms() + int(spec.timeout_s * 1_000))
        sealed = self._key.seal_task(
            Task(
                agreement=terms.agreement,
                source=source,
                skill=terms.skill,
                args=args,
                buyer=terms.buyer,
                deadline=deadline,
                depth=terms.depth,
                issues=terms.issues,
                reply_to=self._reply_to,
            )
        )
        waiting = self._waiting.setdefault(
            terms.agreement, asyncio.get_running_loop().create_future()
        )
        try:
            outcome = await self._fetch(terms.agreement, sealed, deadline, waiting)
        finally:
            self._waiting.pop(terms.agreement, None)
        return _done(outcome)

    def arrived(self, raw: bytes) -> bool:
        """Take what came to the mailbox; says whether a job here was waiting for it."""
        try:
            outcome = self._key.open_outcome(raw)
        except RahbaError as error:
            _log.warning("dropped what is no outcome of ours: %s", error)
            return False
        waiting = self._waiting.get(outcome.agreement)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(outcome)
        return True

    async def _fetch(
        self, agreement: str, sealed: str, deadline: int, waiting: asyncio.Future[Outcome]
    ) -> Outcome:
        begun, sent_ms = False, None
        while (now := self._clock.now_ms()) < deadline:
            taken = await self._marks.taken(agreement)
            lost = begun and not taken
            if sent_ms is None or lost or (not taken and now - sent_ms > PATIENCE_MS):
                sent_ms = await self._send(agreement, sealed, deadline, now)
            begun = taken
            done, _ = await asyncio.wait({waiting}, timeout=min(_POLL_S, (deadline - now) / 1_000))
            if done:
                return waiting.result()
        raise JobDeadlineError("no worker finished the job in time")

    async def _send(self, agreement: str, sealed: str, deadline: int, now: int) -> int | None:
        try:
            await self._queue.send(agreement, sealed, limit_s=(deadline - now) / 1_000 + GRACE_S)
        except BrokerUnreachableError as error:
            _log.warning("order %s is not queued yet: %s", agreement[:8], error)
            return None
        return now


def _done(outcome: Outcome) -> Done:
    if outcome.output is not None:
        return Done(outcome.output.encode(), outcome.usage)
    otherwise = InputRefusedError if outcome.refused else JobFailedError
    raise _FAILURES.get(outcome.code or "", otherwise)(outcome.text)


_FAILURES: Final[dict[str, type[RahbaError]]] = {
    kind.code: kind for kind in (JobDeadlineError, ArgumentsError, UnknownOfferError, TooLargeError)
}


class Workshop:
    """The worker's side: opens a task, does it once, sends the outcome."""

    def __init__(
        self,
        key: WorkKey,
        marks: WorkMarks,
        mailbox: Mailbox,
        clock: Clock,
        ids: Ids,
        *,
        load: Callable[[Source], Agent],
    ) -> None:
        """Make agents by ``load``; answer through ``mailbox``."""
        self._key = key
        self._marks = marks
        self._mailbox = mailbox
        self._clock = clock
        self._ids = ids
        self._load = load

    async def run(self, agreement: str, sealed: str) -> str:
        """Work on one task; returns what was done about it, for the log.

        1. The task is ours, for the order it is queued under, and not too late.
        2. A kept result is sent again.
        3. Somebody else's lease is respected: they will answer.
        4. The work is done under a lease, its outcome kept, then sent.
        """
        task = self._key.open_task(sealed)  # 1
        if task.agreement != agreement:
            raise BadSignatureError("the task is for another order")
        if task.deadline <= self._clock.now_ms():
            return "late"
        kept = await self._marks.kept(agreement)  # 2
        if kept is not None:
            await self._mailbox.send(task.reply_to, kept, room="owed")
            return "sent again"
        holder = self._ids.new()
        if not await self._marks.take(agreement, holder):  # 3
            return "taken"
        bench = Workbench(1, 0, self._clock)  # 4
        renewing = asyncio.create_task(self._renew(agreement, holder))
        try:
            result = self._key.seal_outcome(await self._attempt(task, bench))
            await patiently(lambda: self._marks.keep(agreement, result))
        finally:
            renewing.cancel()
        await patiently(lambda: self._mailbox.send(task.reply_to, result, room="owed"))
        await self._marks.leave(agreement, holder)
        await bench.idle()  # work that hangs ends with its process, by the task's hard limit
        return "done"

    async def _attempt(self, task: Task, bench: Workbench) -> Outcome:
        terms = Terms(
            task.agreement,
            task.skill,
            task.buyer,
            task.deadline,
            task.depth,
            issues=task.issues,
        )
        try:
            agent = self._load(task.source)
            spec = agent.offers.get(task.skill)
            if spec is None:
                raise UnknownOfferError(f"{agent.name} does not sell {task.skill}")
            done = await bench.do(spec, task.args, Job(terms, clock=self._clock))
        except RahbaError as error:
            refused = isinstance(error, BadInputError)
            text = error.message[:300]
            return Outcome(task.agreement, code=error.code, text=text, refused=refused)
        return Outcome(task.agreement, output=done.output.decode(), usage=done.usage)

    async def _renew(self, agreement: str, holder: str) -> None:
        while True:
            await asyncio.sleep(self._marks.lease_ms / 4_000)
            with contextlib.suppress(BrokerUnreachableError):
                _ = await self._marks.renew(agreement, holder)
