"""What the agents' room needs of others: somebody who buys for a job, work queues, deployments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rahba.errors import RahbaError
from rahba.messages import Mode


@dataclass(frozen=True, slots=True)
class Progress:
    """News of a running job: how much is done (from "0.000" to "1.000"), or a piece of output."""

    agreement: str
    kind: Literal["progress", "chunk"]
    text: str


@dataclass(frozen=True, slots=True)
class Errand:
    """What a job wants bought: by when (ms), for at most how much (fals), how deep, for whom."""

    skill: str
    args: dict[str, Any]
    budget_fals: int
    deadline_ms: int
    depth: int
    parent: str
    mode: Mode | None = None
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class Bought:
    """How a purchase ended: an output or the error, and what is paid or may yet be (fals)."""

    paid_fals: int
    output: Any = None
    error: RahbaError | None = None


class Purchaser(Protocol):
    """Buys on behalf of a job, within what the job allows."""

    async def purchase(self, errand: Errand) -> Bought:
        """Buy; never pays more than the errand's budget, never raises an error of the market."""
        ...
