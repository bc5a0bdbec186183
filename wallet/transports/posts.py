"""Submissions that travel together: one POST carries what many callers sign.

* When they leave is :mod:`wallet.transports.convoy`'s to say. Those that want the operator's
  receipt travel apart, and no kind waits for the other.
* A POST holds ``MAX_ITEMS`` transactions and ``MAX_POST_BYTES`` at most.
* Whoever gives up takes nothing from those who travel with it: what was sent stays sent.

    posts = Posts(post, lambda: LedgerUnreachableError("the client was closed"))
    answers = await posts.submit([raw])
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from rahba.errors import RahbaError
from wallet.ports import Answer
from wallet.transports.convoy import Convoy

MAX_ITEMS: Final = 1_000
MAX_POST_BYTES: Final = 1_000_000
ENOUGH: Final = 64
SLOW_S: Final = 0.02

Post = Callable[[list[bytes]], Awaitable[list[Answer]]]


@dataclass(slots=True)
class _Job:
    """Submissions that belong together, and who waits for their answers."""

    raws: list[bytes]
    bytes: int
    answers: asyncio.Future[list[Answer]]


class Posts:
    """For any number of tasks of one event loop."""

    def __init__(self, post: Post, closed: Callable[[], RahbaError]) -> None:
        """Send nothing yet.

        Args:
            post: is given what fits into one request, and returns an answer for each.
            closed: makes the error for those who still wait when this is closed.
        """
        self._post = post
        self._closed = closed
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._convoy = Convoy(lambda: self._waiting, self._load, full=ENOUGH, slow_s=SLOW_S)
        self._over = False

    async def submit(self, raws: list[bytes]) -> list[Answer]:
        """Submit what fits into one request; answers after all of it is durable.

        Raises:
            RahbaError: what ``post`` raised, or ``closed`` made.
        """
        if self._over:
            raise self._closed()
        answers: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(raws, sum(map(len, raws)) + len(raws), answers))
        self._waiting += len(raws)
        self._convoy.notice()
        return await answers

    async def close(self) -> None:
        """Give up what is under way: whoever waits is told."""
        self._over = True
        await self._convoy.close()
        while self._jobs:
            _fail(self._jobs.popleft(), self._closed())

    def _load(self) -> Coroutine[None, None, None]:
        jobs: list[_Job] = []
        items = size = 0
        while self._jobs:
            items, size = items + len(self._jobs[0].raws), size + self._jobs[0].bytes
            if jobs and (items > MAX_ITEMS or size > MAX_POST_BYTES):
                break
            jobs.append(self._jobs.popleft())
            self._waiting -= len(jobs[-1].raws)
        return self._send(jobs)

    async def _send(self, jobs: list[_Job]) -> None:
        raws = [raw for job in jobs for raw in job.raws]
        try:
            answers = await self._post(raws)
        except RahbaError as error:
            for job in jobs:
                _fail(job, error)
            return
        except BaseException:  # cancelled, or a defect: nobody must wait for ever
            for job in jobs:
                _fail(job, self._closed())
            raise
        at = 0
        for job in jobs:
            if not job.answers.done():  # its caller may have been cancelled meanwhile
                job.answers.set_result(answers[at : at + len(job.raws)])
            at += len(job.raws)


def _fail(job: _Job, error: RahbaError) -> None:
    if not job.answers.done():
        job.answers.set_exception(error)
