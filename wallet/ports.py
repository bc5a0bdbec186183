"""What the rest of the market needs of a ledger, and what the ledger needs of a store.

Every submission ends in exactly one :class:`Answer`. Views are snapshots taken after a commit:
what they show is durable.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from rahba.balance import AccountProof
from rahba.proof import InclusionProof
from wallet.transactions import Recourse, payload_of

Outcome = Literal["logged", "exists", "conflict", "retry", "invalid", "refused", "unknown"]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The one answer to a submission.

    ``id`` is the transaction id (RFC 6962 leaf hash of the exact envelope bytes, hex). ``seq`` is
    its index in the log when ``logged`` or ``exists``; ``code`` is the stable reason otherwise
    (``nonce_gap`` and ``busy`` with ``retry``; see the table of transactions for the rest).
    ``unknown`` is no answer to a submission but to a question: the ledger neither logged nor
    remembers refusing it. ``receipt`` is the operator's signed promise, if one was asked for
    (:class:`rahba.promise.Promise` in a DSSE envelope). ``finality`` says how final a transaction
    in the log is: on the operator's disk, or under a checkpoint that a quorum of witnesses signed.
    """

    outcome: Outcome
    id: str
    seq: int | None = None
    code: str | None = None
    detail: str = ""
    receipt: str | None = None
    finality: Literal["durable", "witnessed"] | None = None

    @property
    def ok(self) -> bool:
        """Say whether the transaction is in the log."""
        return self.outcome in {"logged", "exists"}


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account: ``available`` = posted - held, all in fals; ``lanes`` maps lane to last seq.

    ``held`` is what is aside: in holds and bonds, and of captures while they may be challenged.
    ``staked`` is its bond, part of what is held; any ``threshold`` of ``keys`` act for it.
    """

    id: str
    posted: int
    held: int
    lanes: dict[int, int] = field(default_factory=dict)
    position: int = 0
    staked: int = 0
    keys: tuple[str, ...] = ()
    threshold: int = 1

    @property
    def available(self) -> int:
        """Return what can be spent, in fals."""
        return self.posted - self.held


class HoldView(msgspec.Struct, frozen=True, gc=False):
    """An escrow; ``id`` is the id of the hold's transaction.

    ``arbiter`` may be asked if it names one; a disputed hold waits for it until ``deadline_ms``.
    ``bail`` (fals) is what the payee forfeits to the payer if it lets the hold expire untouched.
    With a ``recourse`` a captured one may be challenged until ``deadline_ms``, and a challenged one
    must be delivered until then: the payee has logged ``delivered`` parts.
    """

    id: str
    payer: str
    payee: str
    amount: int
    captured: int
    expires_ms: int
    agreement: str
    status: Literal["open", "disputed", "captured", "challenged", "released"]
    arbiter: str | None = None
    deadline_ms: int | None = None
    bail: int = 0
    recourse: Recourse | None = None
    delivered: int = 0


@dataclass(frozen=True, slots=True)
class SupplyView:
    """The supply equation: ``issued`` (minus the issuance account) must equal ``total``."""

    issued: int
    total: int
    held: int
    open_holds: int

    @property
    def equal(self) -> bool:
        """Say whether what was issued is exactly what accounts own."""
        return self.issued == self.total


class TxView(msgspec.Struct, frozen=True, gc=False):
    """A logged transaction: its place and its exact envelope bytes."""

    id: str
    seq: int
    raw: bytes
    log_time: int

    @property
    def payload(self) -> dict[str, object]:
        """Return what the bytes say, decoded anew each time; most who follow a log need only them.

        Raises:
            BadEncodingError: they are no envelope.
        """
        return payload_of(self.raw)


class Ledger(Protocol):
    """The ledger as its users see it, in process or over HTTP."""

    async def submit(self, raw: bytes, *, receipt: bool = False) -> Answer:
        """Submit one signed transaction; answers after it is durable, with a receipt if asked."""
        ...

    async def submit_many(self, raws: list[bytes], *, receipt: bool = False) -> list[Answer]:
        """Submit several, in order; each gets its own answer."""
        ...

    async def status(self, tx_id: str) -> Answer:
        """Return what became of a transaction: ``logged``, ``refused`` or ``unknown``."""
        ...

    async def chain(self) -> str:
        """Return the chain id (prefix of the genesis digest) that transactions must name."""
        ...

    async def account(self, account_id: str) -> AccountView | None:
        """Return an account, or ``None`` if the ledger never saw it."""
        ...

    async def account_proof(self, account_id: str) -> AccountProof | None:
        """Prove an account under the latest checkpoint; ``None`` while none covers it."""
        ...

    async def history(
        self, account_id: str, *, before: int | None = None, limit: int = 100
    ) -> list[TxView]:
        """Return an account's transactions, newest first; ``before`` is the last one's ``seq``."""
        ...

    async def hold(self, hold_id: str) -> HoldView | None:
        """Return a hold by the id of its transaction."""
        ...

    async def holds(self, hold_ids: Sequence[str]) -> list[HoldView | None]:
        """Return several holds (at most 1000) in the order of their ids; ``None``: no such hold."""
        ...

    async def transaction(self, tx_id: str) -> TxView | None:
        """Return a logged transaction, or ``None`` ("unknown": it may be sent again)."""
        ...

    async def entries(self, start: int, limit: int) -> list[TxView]:
        """Return log entries from ``start`` on (at most 1000), ``state`` leaves included."""
        ...

    async def supply(self) -> SupplyView:
        """Return the supply equation."""
        ...

    async def checkpoint(self) -> str:
        """Return the latest signed checkpoint (a signed note)."""
        ...

    async def witnessed(self) -> str | None:
        """Return the latest checkpoint that a quorum of witnesses cosigned, if there is one."""
        ...

    async def verifier_key(self) -> str:
        """Return the log's C2SP verifier key (``name+hash+base64``)."""
        ...

    async def inclusion(self, tx_id: str, *, witnessed: bool = False) -> InclusionProof | None:
        """Prove a transaction under the latest checkpoint; ``None`` while none covers it.

        With ``witnessed`` it is the latest that a quorum of witnesses cosigned.
        """
        ...

    async def consistency(self, old_size: int, new_size: int) -> list[str]:
        """Return the RFC 6962 consistency proof between two sizes, hashes as hex."""
        ...


class Entry(NamedTuple):
    """A leaf of the log as it is stored: its place, exact bytes, RFC 6962 leaf hash and time.

    ``links`` lead to the previous entry of each account that this one concerns
    (:mod:`wallet.links`).
    """

    seq: int
    raw: bytes
    leaf: bytes
    log_time: int
    links: bytes = b""


class Verdict(NamedTuple):
    """A refusal that holds until ``until`` (ledger time), so that a late retry is told the same."""

    id: str
    code: str
    detail: str
    until: int


class Snapshot(NamedTuple):
    """What changed of the state since the last snapshot, as rows; ``None`` deletes one.

    All rows together are the state after the first ``size`` entries. Those whose key is
    ``ARCHIVE`` or above are kept beside it, and are no part of what a start reads.
    """

    size: int
    rows: Mapping[bytes, bytes | None]


ARCHIVE: Final = b"r"
Rows = Generator[tuple[bytes, bytes], None, None]


class Pulse(NamedTuple):
    """Who writes (its fencing token), and how often it has said that it lives."""

    token: int
    beat: int


class Store(Protocol):
    """Keeps the log; all of an ``append`` is on disk when it returns, or nothing is.

    * Reading needs nothing; to write, a store must be acquired.
    * The fencing token is compared within every write, so that a writer that was taken for dead
      and wakes up again writes nothing more.
    * ``append`` and ``acquire`` are called from one thread at a time, the reading methods from
      another one, ``save_witnessed`` and ``beat`` from any.
    """

    def acquire(self, *, steal: bool = False) -> int:
        """Become the one writer; returns the fencing token, larger than every earlier one.

        Who is the writer already keeps its token. ``steal`` takes the place of a writer that is
        there and does not live, as far as its :meth:`pulse` tells; should it live, it is fenced.

        Raises:
            StoreLockedError: somebody else writes, or holds on to what it was writing.
        """
        ...

    def beat(self) -> None:
        """Tell who watches that this writer lives.

        Raises:
            FencedError: somebody acquired the store after it.
        """
        ...

    def pulse(self) -> Pulse:
        """Return the newest writer's token and beats; zeros if there never was one."""
        ...

    def append(
        self,
        entries: Sequence[Entry],
        verdicts: Sequence[Verdict],
        checkpoint: str | None,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Add entries without a gap, remember refusals, replace the checkpoint unless ``None``.

        Verdicts older than the last entry's time are forgotten. A snapshot covers no less than
        the one before it, and no more entries than there are.

        Raises:
            FencedError: somebody acquired the store after this writer; nothing was written.
            StoreError: nothing was written.
        """
        ...

    def save_witnessed(self, note: str) -> None:
        """Keep the newest checkpoint that a quorum of witnesses cosigned."""
        ...

    def size(self) -> int:
        """Return the number of entries."""
        ...

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        ...

    def leaves(self, start: int, limit: int) -> bytes:
        """Return up to ``limit`` leaf hashes from ``start`` on, 32 bytes each."""
        ...

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the entries that have these transaction ids."""
        ...

    def verdicts(self) -> list[Verdict]:
        """Return all remembered refusals."""
        ...

    def checkpoint(self) -> str | None:
        """Return the latest checkpoint."""
        ...

    def witnessed(self) -> str | None:
        """Return the latest checkpoint that a quorum of witnesses cosigned."""
        ...

    def snapshot(self) -> tuple[int, Rows] | None:
        """Return how many entries the snapshot covers and its rows, without the archive.

        Both are of one moment, whatever is appended while the rows are read. Whoever does not
        read them to the end closes them.
        """
        ...

    def row(self, key: bytes) -> bytes | None:
        """Return one row of the snapshot or the archive."""
        ...

    def close(self) -> None:
        """Let go of the files; may be called twice."""
        ...
