"""What was signed and sent, kept until its fate is sure: a retry never pays twice, none is lost.

* The exact bytes are on disk before they are sent, and the sure answer before anyone is told.
* What a crash left without an answer is sent again, the same bytes, by :meth:`Outbox.resume`: it
  runs once at most, and says what became of it. Nothing is ever signed anew.
* A ``key`` of the caller's names a payment: asked for again under its key it is not paid again,
  unless the first attempt is known to have failed.
* All that is kept or settled in one turn of the loop goes to disk in one commit. There is room for
  ``MAX_UNKNOWN`` letters without an answer; the newest ``MAX_SETTLED`` others are kept.

    outbox = Outbox(SqliteOutbox(path), ledger, clock=clock)
    answer = await outbox.send(raw, key="invoice 17")
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from rahba.clock import Clock
from rahba.errors import BadInputError, LocalError, RahbaError
from wallet.delivery import deliver, genesis_of
from wallet.errors import LedgerUnavailableError, PaymentUnknownError
from wallet.ports import Answer, Ledger, Outcome
from wallet.transactions import Genesis, read, transaction_id

MAX_UNKNOWN: Final = 10_000
MAX_SETTLED: Final = 10_000
MAX_KEY_CHARS: Final = 255
MAX_GROUP: Final = 1_000
FORGOTTEN: Final = "forgotten"
PATIENCE_S: Final = 35.0
_AT_ONCE: Final = 64
A = TypeVar("A")
T = TypeVar("T")


class OutboxFullError(LocalError):
    """Too many letters are without an answer: no further one is sent before these are settled."""

    code = "outbox_full"
    hint = "`rahba wallet outbox` settles them once the ledger can be reached"


class PaymentKeyReusedError(LocalError):
    """The key names another payment that was made or may have been made."""

    code = "payment_key_reused"
    hint = "take a new key for a new payment"


class OutboxError(LocalError):
    """The outbox's file cannot be read or written."""

    code = "outbox_failed"
    hint = "nothing is sent that could not be written down first: is the disk full?"


class Letter(NamedTuple):
    """Bytes that were or will be sent; ``outcome`` is ``unknown`` until the answer is sure."""

    id: str
    raw: bytes
    key: str | None
    kept_ms: int
    outcome: Outcome = "unknown"
    seq: int | None = None
    code: str | None = None
    detail: str = ""
    receipt: str | None = None
    settled_ms: int | None = None

    @property
    def answer(self) -> Answer | None:
        """Return the sure answer, if there is one."""
        if self.outcome == "unknown":
            return None
        return Answer(self.outcome, self.id, self.seq, self.code, self.detail, self.receipt)


class Keep(NamedTuple):
    """Write a letter down, unless it or its key is there already."""

    letter: Letter


class Settle(NamedTuple):
    """Write the sure answer to a letter down."""

    answer: Answer
    now_ms: int


Change = Keep | Settle


class OutboxStore(Protocol):
    """Keeps letters; all of a ``write`` is on disk when it returns, or nothing is.

    Called from one thread at a time; other processes may use the same file.
    """

    def write(self, changes: Sequence[Change]) -> list[Letter | RahbaError]:
        """Make all changes; returns for each the letter as it now is, or why it was not made.

        A letter to keep whose id is there, or whose key names one that is not known to have
        failed, is not written: the one that is there is returned.
        """
        ...

    def unknown(self, limit: int) -> list[Letter]:
        """Return letters without an answer, oldest first."""
        ...

    def find(self, letter_id: str) -> Letter | None:
        """Return a letter by the id of its transaction."""
        ...

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Resumed:
    """What :meth:`Outbox.resume` found out, and what is still unknown, with the reason."""

    settled: list[Answer]
    unknown: list[tuple[Letter, RahbaError]]


class Outbox:
    """Sends by writing down first. For any number of tasks of one event loop."""

    def __init__(
        self, store: OutboxStore, ledger: Ledger, *, clock: Clock, patience_s: float = PATIENCE_S
    ) -> None:
        """Send to ``ledger``, for ``patience_s`` if nobody answers; ``store`` closes with it."""
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._patience_s = patience_s
        self._genesis: Genesis | None = None
        self._thread = ThreadPoolExecutor(1, "outbox")
        self._waiting: list[tuple[Change, asyncio.Future[Letter]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Finish what is being written and let go of the file."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        self._thread.shutdown()
        self._store.close()

    async def send(self, raw: bytes, *, key: str | None = None) -> Answer:
        """Write ``raw`` down, send it, write the sure answer down; returns that.

        Raises:
            PaymentUnknownError: nobody answered; the letter waits for :meth:`resume`.
            PaymentKeyReusedError: ``key`` names another payment.
            OutboxFullError, OutboxError: nothing was sent.
            PaymentRefusedError, BadSignatureError: no sure answer, see :func:`deliver`.
        """
        if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
            raise BadInputError(f"a payment's key has 1 to {MAX_KEY_CHARS} characters")
        letter = Letter(transaction_id(raw), raw, key, self._clock.now_ms())
        kept = await self._write(Keep(letter))
        if kept.id != letter.id and meaning_of(kept.raw) != meaning_of(raw):
            raise PaymentKeyReusedError("the key names another payment", id=kept.id)
        return kept.answer or await self._deliver(kept)

    async def resume(self) -> Resumed:
        """Find out what became of every letter without an answer, by sending it again."""
        room = asyncio.Semaphore(_AT_ONCE)
        found = Resumed([], [])

        async def settle(letter: Letter) -> None:
            async with room:
                try:
                    found.settled.append(await self._deliver(letter))
                except RahbaError as error:
                    found.unknown.append((letter, error))

        await asyncio.gather(*(settle(letter) for letter in await self.unknown()))
        return found

    async def forget(self, letter_id: str) -> None:
        """Stop asking for a letter whose ledger is gone for good; it counts as not paid."""
        answer = Answer("invalid", letter_id, code=FORGOTTEN)
        await self._write(Settle(answer, self._clock.now_ms()))

    async def unknown(self) -> list[Letter]:
        """Return the letters without an answer, oldest first."""
        return await self._ask(self._store.unknown, MAX_UNKNOWN)

    async def find(self, letter_id: str) -> Letter | None:
        """Return a letter by the id of its transaction."""
        return await self._ask(self._store.find, letter_id)

    async def _deliver(self, letter: Letter) -> Answer:
        try:
            if self._genesis is None:
                self._genesis = await genesis_of(self._ledger)
        except LedgerUnavailableError as error:
            raise PaymentUnknownError("the ledger cannot be reached", id=letter.id) from error
        answer = await deliver(
            self._ledger, letter.raw, patience_s=self._patience_s, receipt_by=self._genesis
        )
        settled = await self._write(Settle(answer, self._clock.now_ms()))
        return settled.answer or answer

    async def _write(self, change: Change) -> Letter:
        done: asyncio.Future[Letter] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._flush(), name="outbox-write")
        return await done

    async def _flush(self) -> None:
        """Write group after group, until nobody waits."""
        while self._waiting:
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            results: Sequence[Letter | RahbaError]
            try:
                results = await self._ask(self._store.write, [change for change, _ in group])
            except RahbaError as error:
                results = [error] * len(group)
            for (_, done), result in zip(group, results, strict=True):
                if done.done():  # whoever waited was cancelled
                    continue
                if isinstance(result, RahbaError):
                    done.set_exception(result)
                else:
                    done.set_result(result)

    async def _ask(self, function: Callable[[A], T], argument: A) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, argument)


def meaning_of(raw: bytes) -> bytes:
    """Return what a transaction does, without what makes each signing of it another one."""
    fields = msgspec.to_builtins(read(raw).record)
    for name in ("chain", "lane", "seq", "valid_until", "fee", "fee_payer"):
        fields.pop(name, None)
    return msgspec.json.encode(fields, order="sorted")
