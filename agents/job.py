"""The job a seller's function is doing: its deadline, its purse, and a way to buy from others.

* A function gets a ``Job`` by annotating an argument with it.
* ``await job.call("skill", text=..., budget="0.002")`` buys inside what is left of the purse, one
  level deeper than the job itself, and never past the job's deadline.
* The purse and the depth are enforced here, outside any model: what might still be paid stays
  reserved, so that concurrent calls together cannot overspend either.
* ``progress`` and ``emit`` may be called from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from agents.ports import Bought, Errand, Progress, Purchaser
from rahba.clock import Clock
from rahba.errors import LocalError, TooLargeError
from rahba.messages import Issues, Mode
from rahba.money import format_rhb, parse_rhb

MAX_DEPTH: Final = 4
MAX_CHUNKS: Final = 10_000
MAX_CHUNK_CHARS: Final = 1024 * 1024
HANDOVER_MS: Final = 250


class JobBudgetError(LocalError):
    """A job may not spend more than is left of its purse."""

    code = "job_budget_exceeded"
    hint = "pass a smaller budget, or give the offer a larger one"


class DepthExceededError(LocalError):
    """A job is already as many purchases deep as the market allows."""

    code = "depth_exceeded"


class CannotBuyError(LocalError):
    """This job has no way to buy: it runs on a worker, or outside the market."""

    code = "cannot_buy"
    hint = 'offers that buy from others run inline: runs="inline"'


class Purse:
    """What a job may spend, in fals. Reserve first; give back what certainly was not paid."""

    def __init__(self, total: int) -> None:
        """Start with ``total`` fals."""
        self.total = total
        self.remaining = total

    @property
    def spent(self) -> int:
        """Return what was paid or may yet be paid."""
        return self.total - self.remaining

    def reserve(self, amount: int) -> None:
        """Set ``amount`` aside, or raise and set nothing aside."""
        if not 0 <= amount <= self.remaining:
            raise JobBudgetError(
                f"the job has {format_rhb(self.remaining)} RHB left to spend",
                wanted_fals=str(amount),
                remaining_fals=str(self.remaining),
            )
        self.remaining -= amount

    def give_back(self, amount: int) -> None:
        """Return a reserved amount that was not paid."""
        self.remaining += amount


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed about a job: the deal id, who pays, when it must be done (ms), how deep.

    ``issues`` are the terms that were bought: which tier, if the offer has several.
    """

    agreement: str
    skill: str
    buyer: str
    deadline: int
    depth: int = 0
    price_fals: int = 0
    issues: Issues | None = None


class Job:
    """One order being worked on: made by the runtime, used by the offer's function."""

    def __init__(
        self,
        terms: Terms,
        *,
        clock: Clock,
        purse: Purse | None = None,
        purchaser: Purchaser | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Tie the job to its terms, its purse and whoever buys for it."""
        self.terms = terms
        self.purse = purse or Purse(0)
        self.chunks: list[str] = []
        self._chars = 0
        self._clock = clock
        self._purchaser = purchaser
        self._on_progress = on_progress
        self._loop = _running_loop()

    @property
    def deadline(self) -> int:
        """Return when the job must be done, in milliseconds since the Unix epoch."""
        return self.terms.deadline

    @property
    def remaining_ms(self) -> int:
        """Return how long there is left."""
        return max(0, self.terms.deadline - self._clock.now_ms())

    async def call(
        self,
        skill: str,
        args: dict[str, Any] | None = None,
        /,
        *,
        budget: str | int | None = None,
        mode: Mode | None = None,
        agent: str | None = None,
        **fields: Any,
    ) -> Any:
        """Buy ``skill`` from another agent and return its output.

        Arguments come as one dict or by name. ``budget`` is a price in RHB ("0.002") or an integer
        of fals; without it, all that is left of the purse may be spent.

        Raises:
            CannotBuyError: the job runs where nothing can be bought.
            DepthExceededError: the purchase would be over ``MAX_DEPTH`` deep.
            JobBudgetError: the purse does not hold ``budget``.
            RahbaError: whatever the purchase itself fails with.
        """
        bought = await self.buy(
            skill, {**(args or {}), **fields}, budget=budget, mode=mode, agent=agent
        )
        if bought.error is not None:
            raise bought.error
        return bought.output

    async def buy(
        self,
        skill: str,
        args: dict[str, Any],
        *,
        budget: str | int | None = None,
        mode: Mode | None = None,
        agent: str | None = None,
    ) -> Bought:
        """Buy as :meth:`call` does, and tell of the deal: with whom, for how much, or why not.

        Raises:
            CannotBuyError: the job runs where nothing can be bought.
            DepthExceededError: the purchase would be over ``MAX_DEPTH`` deep.
            JobBudgetError: the purse does not hold ``budget``.
        """
        if self._purchaser is None:
            raise CannotBuyError("this job cannot buy")
        depth = self.terms.depth + 1
        if depth > MAX_DEPTH:
            raise DepthExceededError("too many purchases deep", depth=depth, limit=MAX_DEPTH)
        cap = self.purse.remaining if budget is None else _fals(budget)
        self.purse.reserve(cap)
        bought = await self._purchaser.purchase(
            Errand(
                skill=skill,
                args=args,
                budget_fals=cap,
                deadline_ms=max(0, self.deadline - HANDOVER_MS),
                depth=depth,
                parent=self.terms.agreement,
                mode=mode,
                agent=agent,
            )
        )
        self.purse.give_back(cap - bought.paid_fals)
        return bought

    def progress(self, done: float) -> None:
        """Tell how much is done, from 0 to 1."""
        self._tell("progress", f"{min(max(done, 0.0), 1.0):.3f}")

    def emit(self, chunk: str) -> None:
        """Pass on a piece of the result; what was emitted is the result if nothing is returned."""
        self._chars += len(chunk)
        if len(self.chunks) >= MAX_CHUNKS or self._chars > MAX_CHUNK_CHARS:
            raise TooLargeError("too much emitted", limit_chars=MAX_CHUNK_CHARS)
        self.chunks.append(chunk)
        self._tell("chunk", chunk)

    def _tell(self, kind: Literal["progress", "chunk"], text: str) -> None:
        if self._on_progress is None:
            return
        news = Progress(self.terms.agreement, kind, text)
        if self._loop is None or self._loop is _running_loop():
            self._on_progress(news)
        else:
            self._loop.call_soon_threadsafe(self._on_progress, news)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _fals(budget: str | int) -> int:
    return parse_rhb(budget) if isinstance(budget, str) else budget
