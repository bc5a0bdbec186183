"""What the agents' room needs of others: somebody who buys for a job, work queues, deployments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from broker.knowledge.forecast import PriceView
from broker.knowledge.outcomes import Evidence
from broker.ports import Standing
from rahba.errors import RahbaError
from rahba.messages import Mode
from wallet.ports import Answer, HoldView, Ledger
from wallet.transactions import Bail, Challenge, Recourse


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
    """How a purchase ended: an output or the error, and what is paid or may yet be (fals).

    The rest tells of the deal, where there was one: with whom, how, and what was asked at first.
    """

    paid_fals: int
    output: Any = None
    error: RahbaError | None = None
    seller: str | None = None
    mode: Mode | None = None
    rounds: int = 0
    asked_fals: int = 0
    agreed_fals: int = 0
    agreement: str | None = None


class Payer(Protocol):
    """A wallet, as far as a buyer needs one."""

    @property
    def account(self) -> str:
        """Return the account that pays."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Return the ledger that the account is on."""
        ...

    async def hold(
        self,
        payee: str,
        amount: int,
        expires_ms: int,
        agreement: str,
        *,
        bail: Bail | None = None,
        recourse: Recourse | None = None,
    ) -> Answer:
        """Hold ``amount`` for ``payee``, with what it put up; raises if the ledger refuses."""
        ...

    async def do(self, form: type[Challenge], *, hold: str) -> Answer:
        """Challenge what was captured of a hold; raises if the ledger refuses."""
        ...


class Purchaser(Protocol):
    """Buys on behalf of a job, within what the job allows."""

    async def purchase(self, errand: Errand) -> Bought:
        """Buy; never pays more than the errand's budget, never raises an error of the market."""
        ...


class DeploymentStore(Protocol):
    """Small records by id, shared by the processes of a market."""

    async def put(self, key: str, raw: bytes) -> None:
        """Write a record."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return a record."""
        ...

    async def all(self) -> list[bytes]:
        """Return every record."""
        ...

    async def count(self) -> int:
        """Return how many there are."""
        ...

    async def remove(self, key: str) -> None:
        """Forget a record."""
        ...

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` only where ``old`` still stands; say whether it did."""
        ...


class WorkMarks(Protocol):
    """Who works on which heavy job, and what came of it; see :class:`agents.stores.redis`."""

    @property
    def lease_ms(self) -> int:
        """Return how long a lease lasts unless it is renewed."""
        ...

    async def take(self, agreement: str, holder: str) -> bool:
        """Take an order under a lease; false while another holder's lease lasts."""
        ...

    async def renew(self, agreement: str, holder: str) -> bool:
        """Extend one's own lease; false if it was lost."""
        ...

    async def leave(self, agreement: str, holder: str) -> None:
        """End one's own lease: the work is over."""
        ...

    async def taken(self, agreement: str) -> bool:
        """Say whether somebody works on the order now."""
        ...

    async def keep(self, agreement: str, result: bytes) -> None:
        """Keep a result to send it again when asked."""
        ...

    async def kept(self, agreement: str) -> bytes | None:
        """Return a kept result."""
        ...


class Observations(Protocol):
    """What is known of the market at this moment, from its own feed; answered at once."""

    def prices(self, skill: str) -> PriceView | None:
        """Return what a skill costs and is going to; ``None`` if it was never traded."""
        ...

    def evidence(self, skill: str, seller: str) -> Evidence:
        """Return how a seller's jobs of a skill ended lately."""
        ...


class Standings(Standing, Protocol):
    """What agents have earned, by the ledger's log; asked in memory, kept up with beside."""

    async def run(self) -> None:
        """Keep up with the ledger until cancelled, over whatever outage of it."""
        ...

    async def save(self) -> None:
        """Keep what was read, so that the next process need not read it again."""
        ...


class TaskQueue(Protocol):
    """Hands sealed tasks to the workers; sending one twice does no harm."""

    async def send(self, agreement: str, sealed: str, *, limit_s: float) -> None:
        """Queue a task that may take ``limit_s`` seconds before it is killed."""
        ...


class Vital(Protocol):
    """What must be alive elsewhere for an agent to be on the market: a bridge's other end."""

    @property
    def every_s(self) -> float:
        """Return how often it is to be looked at, in seconds; a lease lasts three times that."""
        ...

    @property
    def reaches_private(self) -> bool:
        """Say whether it may be on this machine or in a private network."""
        ...

    async def check(self) -> int:
        """Look at it; return how long it took to answer, in milliseconds.

        Raises:
            RahbaError: it is not there, or no longer what it was; retryable if that may pass.
        """
        ...


class Till(Protocol):
    """A seller's way to its money. Every call may be repeated: it takes effect once."""

    async def look(self, hold: str) -> HoldView | None:
        """Return a hold as the ledger has it."""
        ...

    async def capture(self, hold: str, amount: int, receipt: str, *, until_ms: int) -> str:
        """Take ``amount`` fals of a hold for a receipt, no later than ``until_ms``.

        Returns:
            The id of the transaction.

        Raises:
            PaymentRefusedError: the ledger will never give it.
        """
        ...

    async def deliver(self, hold: HoldView, shown: str, parts: Sequence[str | None]) -> None:
        """Log what was delivered for a challenged hold: receipt and sealed output, as base64.

        Or, with ``None`` for the one part, the message by which its buyer left.

        Raises:
            PaymentRefusedError: the ledger will not take it.
        """
        ...

    async def release(self, hold: HoldView, *, forfeit: int = 0) -> None:
        """Give a hold back to its payer; one that is no longer open is left alone.

        ``forfeit`` fals of the own bail in it go along.
        """
        ...

    async def chain(self) -> str:
        """Return the id of the ledger's chain, which pledges name."""
        ...
