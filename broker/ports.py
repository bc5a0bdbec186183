"""What the market needs of its broker: directory, mailboxes, threads, feed.

The one implementation that matters runs on Redis (``broker/transports/redis.py``); the one in
memory serves simulations. Both pass the same contract kit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from rahba.encoding import Json
from rahba.errors import RahbaError
from rahba.messages import Card, Event, Message


@dataclass(frozen=True, slots=True)
class Listing:
    """A verified card with its lease: ``raw`` is the signed envelope as published."""

    card: Card
    raw: bytes
    digest: str
    lease_until_ms: int


@dataclass(frozen=True, slots=True)
class Weights:
    """What a caller cares about, in shares of any size; they are compared with their sum."""

    price: int = 50
    latency: int = 20
    quality: int = 20
    energy: int = 10


Sort = Literal["best", "relevance", "price", "latency", "quality", "energy"]
Privacy = Literal["sealed", "logged", "public"]


@dataclass(frozen=True, slots=True)
class Query:
    """What a buyer looks for; every given field narrows.

    ``max_price`` in fals, ``max_latency_ms`` in ms, ``min_quality`` in thousandths, ``max_energy``
    in micro-watt-hours; ``data_policy`` is the most open one that will do. Limits hold for what is
    posted; who posts nothing and bargains may come to meet them and is listed. ``meaning``: True
    wants it, False does without, None takes it where there is one.
    """

    skill: str | None = None
    text: str | None = None
    agent: str | None = None
    max_price: int | None = None
    limit: int = 20
    cursor: str | None = None
    tags: tuple[str, ...] = ()
    meaning: bool | None = None
    max_latency_ms: int | None = None
    min_quality: int | None = None
    max_energy: int | None = None
    data_policy: Privacy | None = None
    sort: Sort = "best"
    weights: Weights = Weights()


@dataclass(frozen=True, slots=True)
class Page:
    """Ranked listings with the reasons for their places, and the cursor of the next page.

    ``notes`` say what the search had to do without, such as meaning.
    """

    listings: tuple[Listing, ...]
    reasons: tuple[tuple[str, ...], ...]
    next_cursor: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one card of many: listed, or refused with an error's code and words."""

    place: int
    listing: Listing | None
    code: str | None = None
    detail: str | None = None


class Standing(Protocol):
    """What is known of agents from deals that were settled; asked in memory, for many at once."""

    def lower_bound(self, agent: str) -> int | None:
        """Return the lower bound of the success rate in thousandths; ``None``: nothing known."""
        ...

    def outcomes(self, agent: str) -> tuple[int, int]:
        """Return how many deals went well, and how many did not."""
        ...


class Embedder(Protocol):
    """What turns texts into vectors: the part of LangChain's ``Embeddings`` that is used here."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text; vectors of one embedder have one length."""
        ...

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of what is looked for."""
        ...


class Directory(Protocol):
    """Signed cards as leases: no heartbeat, no listing."""

    async def publish(self, raw: bytes) -> Listing:
        """Verify and list a card for its ``ttl_ms``; an invalid card raises and lists nothing."""
        ...

    async def publish_many(self, raws: Sequence[bytes]) -> list[Published]:
        """Verify and list many cards; one that is refused does not stop the others."""
        ...

    async def heartbeat(self, agents: Sequence[str]) -> list[str]:
        """Extend the leases of ``agents``; returns those no longer listed (publish again)."""
        ...

    async def remove(self, agent: str) -> None:
        """Take an agent off the market at once."""
        ...

    async def find(self, query: Query) -> Page:
        """Return the live listings that match, best first."""
        ...

    async def get(self, agent: str) -> Listing | None:
        """Return one live listing."""
        ...

    def judge_by(self, standing: Standing) -> None:
        """Rank from now on by what agents have earned, as well."""
        ...

    async def count(self) -> int:
        """Return how many agents are listed now."""
        ...

    async def follow(self) -> None:
        """Keep up with who comes and goes, for ever, so that no search waits for it."""
        ...

    async def sweep(self) -> list[str]:
        """Remove the dead and return who they were (each is returned to one caller only)."""
        ...


class Delivery(msgspec.Struct, frozen=True):
    """A message taken from a mailbox under a lease.

    ``token`` is the fencing token (delivery count): after a takeover the older token can no
    longer acknowledge.
    """

    owner: str
    entry: str
    token: int
    raw: bytes
    sender: str = ""


Room = Literal["asked", "owed"]


class Mailbox(Protocol):
    """At-least-once queues, one an owner; effects are made exactly once by message id.

    What a sender has unacknowledged in a mailbox counts towards its quota there, in messages and
    bytes. The sender "" is the market's own processes: they have no quota, only the depth.
    """

    async def send(self, owner: str, raw: bytes, *, sender: str = "", room: Room = "asked") -> None:
        """Append to the owner's mailbox. What is ``owed`` is not refused for want of room.

        Raises:
            MailboxFullError: too many messages wait there (``retry_after_ms``).
            SenderQuotaError: too much of this sender does (``retry_after_ms``).
        """
        ...

    async def send_many(self, items: Sequence[tuple[str, bytes]], *, sender: str = "") -> None:
        """Append several in one round trip."""
        ...

    def receive(self, owners: Sequence[str], *, consumer: str) -> MailboxReader:
        """Read the mailboxes of ``owners`` through one connection, in batches."""
        ...

    async def depth(self, owner: str) -> int:
        """Return how many messages wait unacknowledged."""
        ...

    async def dead(self, owner: str, *, limit: int = 100) -> list[tuple[bytes, str]]:
        """Return the newest dead letters of an owner, each with the reason."""
        ...

    async def revive(self, owner: str, *, limit: int = 100) -> int:
        """Put dead letters back into the mailbox, the oldest first; returns how many.

        As many as there is room for, up to ``limit``. Each starts anew: its deliveries count from
        one, and its effects are made exactly once as ever.
        """
        ...


class MailboxReader(Protocol):
    """One reader for all mailboxes of a process."""

    def add(self, owner: str) -> None:
        """Read this owner's mailbox, too, from the next round on."""
        ...

    def discard(self, owner: str) -> None:
        """Stop reading this owner's mailbox."""
        ...

    async def next(self, *, wait_ms: int) -> list[Delivery]:
        """Return what has arrived, and what other consumers let go stale (their leases over)."""
        ...

    async def done(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge: effects are durable; the messages are deleted."""
        ...

    async def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Renew the lease of messages still being worked on."""
        ...

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Move a message that cannot be handled to the dead letters."""
        ...

    async def close(self) -> None:
        """Stop reading; what is unacknowledged stays."""
        ...


ThreadState = Literal[
    "open", "agreed", "held", "delivered", "settled", "expired", "closed", "failed", "decommitted"
]
Verdict = Literal[
    "OK",
    "DUP",
    "LATE",
    "OUT_OF_ORDER",
    "UNKNOWN_THREAD",
    "NOT_PARTY",
    "OFFER_CHANGED",
    "OFFER_EXPIRED",
    "NO_STANDING_OFFER",
    "CLOSED",
    "ROUND_LIMIT",
    "OUT_OF_TURN",
]


class Ruling(msgspec.Struct, frozen=True):
    """The broker's answer to one message: the verdict, and the thread's state after it.

    ``DUP`` repeats the first verdict in ``first``. Only ``OK`` (or ``DUP`` of an ``OK``) may be
    acted upon. ``at_ms`` is the server's clock.
    """

    verdict: Verdict
    state: ThreadState
    at_ms: int
    first: Verdict | None = None

    @property
    def ok(self) -> bool:
        """Say whether the message stands."""
        return self.verdict == "OK" or (self.verdict == "DUP" and self.first == "OK")


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A thread as the broker has it: header fields and the transcript of raw signed messages.

    ``facts`` holds what later steps need: ``group``, ``skill``, ``mode``, ``agreement``, ``hold``,
    ``deadline``, ``opened_ms``, ``settled_ms``, ``asked`` (first price asked by the seller),
    ``agreed``, ``paid`` (fals, as strings).
    """

    id: str
    buyer: str
    seller: str
    state: ThreadState
    facts: dict[str, str] = field(default_factory=dict)
    transcript: tuple[bytes, ...] = ()


class Threads(Protocol):
    """Where races are decided: one script a thread, judged by the server's clock."""

    async def post(self, raw: bytes) -> Ruling:
        """Verify, rule on, record and deliver one signed message.

        On ``OK`` the message is in the thread's transcript and in the recipient's mailbox. On
        ``DUP`` it is delivered again (the recipient ignores what it has handled).

        Raises:
            MailboxFullError, SenderQuotaError: the recipient has no room (``retry_after_ms``).
            TooManyThreadsError: the two have too many threads open (``retry_after_ms``).
            BadInputError: the message is not in order. ``BadSignatureError``: nor its signature.
        """
        ...

    async def post_all(self, raws: Sequence[bytes]) -> list[Ruling | RahbaError]:
        """Post several at once; answers for each as :meth:`post` does, errors included."""
        ...

    def expect(self, opening: Message) -> None:
        """Take the first message of a thread from whoever has it at hand and will answer it."""
        ...

    async def settlement(self, thread: str, *, wait_ms: int) -> str | None:
        """Wait until a thread is settled; returns the id of the payment, or ``None`` in time."""
        ...

    async def settle(self, thread: str, *, paid: int, tx: str) -> Ruling:
        """Note that the hold was captured: delivered -> settled (idempotent)."""
        ...

    async def close(self, thread: str, state: Literal["failed", "expired"]) -> Ruling:
        """Note that the thread ended without payment (idempotent)."""
        ...

    async def release(self, threads: Sequence[str], code: str) -> None:
        """Note that these threads lead to no deal: open -> closed (idempotent).

        Nobody is sent anything: it is in the thread, and told on the feed.
        """
        ...

    async def states(self, threads: Sequence[str]) -> list[ThreadState | None]:
        """Return how threads stand, ``None`` for unknown ones; a damaged one counts as open."""
        ...

    async def get(self, thread: str) -> ThreadView | None:
        """Return one thread.

        Raises:
            DamagedThreadError: it is there, and nobody can read it.
        """
        ...

    async def group(self, group: str) -> list[ThreadView]:
        """Return the threads of one request as they were opened, without damaged ones."""
        ...

    async def recent(self, *, limit: int, before_ms: int | None = None) -> list[str]:
        """Return group ids, newest first."""
        ...

    async def deal(self, agreement: str) -> ThreadView | None:
        """Return the thread that led to an agreement."""
        ...


class Feed(Protocol):
    """Every public event of the market under an increasing id."""

    async def publish(self, kind: str, data: dict[str, Json]) -> str:
        """Append an event; returns its id."""
        ...

    def subscribe(
        self, *, after: str | None, kinds: frozenset[str] | None = None, every_ms: int = 0
    ) -> AsyncIterator[list[tuple[str, Event]]]:
        """Yield batches of (id, event) after ``after`` (None: from now on), for ever.

        Who need not hear of each at once reads ``every_ms``, and costs the broker less.
        """
        ...

    async def tail(self, limit: int) -> list[tuple[str, Event]]:
        """Return the newest events, oldest first."""
        ...
