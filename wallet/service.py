"""The sequencer: one process puts all payments in order and makes them durable.

verify -> apply -> append -> commit -> answer, in groups: what arrives while one group is being
written is the next group, so that one slow disk write serves one payment or a thousand.

* Every submission gets exactly one of: ``logged``, ``exists`` (same bytes again), ``conflict``,
  ``retry``, ``invalid``, ``refused`` (remembered until ``valid_until``, so that a late retry is
  told the same; :mod:`wallet.refusals` says which are not). An answer is given only after the
  commit.
* Views wait for the group being written: what they show is on disk. They have their turn between
  two groups, also when there is no pause between them.
* While there is traffic a ``state`` leaf and a signed checkpoint close an interval every 200 ms.
  What its time has ended (holds, disputes, stakes) the sequencer ends itself.
* When it starts it replays the log and compares every recorded state; it does not run on a
  mismatch. When a commit fails it stops for good (:meth:`Sequencer.stopped` tells): nobody was
  answered, and the next start finds what the disk has.

    async with await Sequencer.open(store, genesis=dev_genesis(operator.did, now),
                                    operator=operator, clock=clock, ids=ids) as ledger:
        answer = await ledger.submit(raw)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from msgspec.structs import replace

from rahba.clock import Clock
from rahba.envelope import Signer
from rahba.ids import Ids
from rahba.promise import Promise, sign_promise
from wallet.admission import Admission, Item
from wallet.book import Book
from wallet.errors import InvariantError, LedgerUnavailableError
from wallet.holds import free_due
from wallet.ports import Answer, Entry, Snapshot, Store, Verdict
from wallet.recovery import BeforeSigning, recover
from wallet.recovery import checkpoint as sign
from wallet.refusals import Refusals, charged
from wallet.replay import Replay
from wallet.transactions import (
    EXPIRING_LANE,
    Expire,
    Genesis,
    Signed,
    read,
    seal_transaction,
    transaction_id,
)
from wallet.views import LedgerViews

INTERVAL_S: Final = 0.2
SWEEP_S: Final = 0.5
MAX_GROUP: Final = 1_000
SNAPSHOT_EVERY: Final = 20_000
VERIFIERS: Final = 2
EXPIRE_VALIDITY_MS: Final = 60_000
_MAYBE_LOGGED: Final = frozenset({"expired", "nonce_conflict"})

logger = logging.getLogger("rahba.ledger")


@dataclass(slots=True)
class _Group:
    """What one commit writes, and whom it answers afterwards."""

    entries: list[Entry] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    checkpoint: str | None = None
    checkpoint_size: int = 0
    snapshot: Snapshot | None = None
    answers: list[tuple[Item, Answer]] = field(default_factory=list)
    seen: list[tuple[Item, Answer]] = field(default_factory=list)


class Sequencer(LedgerViews):
    """The ledger in process (:class:`wallet.ports.Ledger`); made by :meth:`open`.

    Safe to be used by any number of tasks of one event loop. Whoever has the store has the
    ledger: the store admits one process.
    """

    def __init__(
        self, store: Store, book: Book, note: str, *, operator: Signer, clock: Clock, ids: Ids
    ) -> None:
        """Take over a recovered book; use :meth:`open`."""
        super().__init__(store, book, note, operator)
        self._clock = clock
        self._ids = ids
        self._covered = _covered(store)
        self._refusals = Refusals(store.verdicts())
        self._verifiers = ThreadPoolExecutor(VERIFIERS, "ledger-verify")
        self._writer = ThreadPoolExecutor(1, "ledger-write")
        self._work = asyncio.Event()
        self._admission = Admission(book.genesis.chain, self._verifiers, self._work.set)
        self._interval_over = False
        self._in_hand: list[Item] = []
        self._stopping = False
        self._tasks = [
            asyncio.create_task(self._admission.run(), name="ledger-verify"),
            asyncio.create_task(self._sequence(), name="ledger-sequence"),
            asyncio.create_task(self._sweep(), name="ledger-sweep"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    @classmethod
    async def open(
        cls,
        store: Store,
        *,
        genesis: Genesis | None,
        operator: Signer,
        clock: Clock,
        ids: Ids,
        before_signing: BeforeSigning | None = None,
        replay: Replay | None = None,
    ) -> Self:
        """Acquire the store, replay its log, compare it with what it recorded, and start.

        ``genesis`` opens an empty store; a store that has one keeps its own. ``before_signing``
        is given the book and its latest checkpoint before anything is signed, and may raise. A
        standby hands over the ``replay`` that followed the log (:mod:`wallet.standby`). The
        ledger closes the store in the end, also when it cannot be opened.

        Raises:
            StoreLockedError: another sequencer has the store.
            LedgerCorruptError: the log does not lead to its recorded state; says where.
            WrongGenesisError: the log is another network's or operator's, or there is none.
        """
        try:
            await asyncio.to_thread(store.acquire)
            book, note = await recover(store, genesis, operator, before_signing, replay)
        except BaseException:
            store.close()
            raise
        return cls(store, book, note, operator=operator, clock=clock, ids=ids)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Answer what was submitted, close the interval, let go of the store."""
        self._stopping = True
        self._work.set()
        with contextlib.suppress(LedgerUnavailableError):
            await asyncio.shield(self._stopped)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in (self._verifiers, self._writer, self._reader):
            pool.shutdown()
        self._store.close()

    async def stopped(self) -> None:
        """Wait until the ledger was closed.

        Raises:
            LedgerUnavailableError: it had to stop, because of its cause.
        """
        await asyncio.shield(self._stopped)

    async def submit(self, raw: bytes, *, receipt: bool = False) -> Answer:
        """Submit one signed transaction; answers after it is durable."""
        (answer,) = await self.submit_many([raw], receipt=receipt)
        return answer

    async def submit_many(self, raws: list[bytes], *, receipt: bool = False) -> list[Answer]:
        """Submit several, in order; each gets its own answer.

        With ``receipt`` the operator signs that what is in the log is there (one signature each).

        Raises:
            LedgerUnavailableError: the ledger stopped; what happened to them must be asked.
        """
        if self._stopping or self._stopped.done():
            raise LedgerUnavailableError("the ledger is stopping")
        answers = await self._admission.submit(raws).done if raws else []
        return await asyncio.to_thread(self._promise, answers) if receipt else answers

    async def status(self, tx_id: str) -> Answer:
        """Return what became of a transaction: ``logged``, ``refused`` or ``unknown``."""
        entry = await self._find(tx_id)
        await self._settled()
        if entry is not None:
            witnessed = entry.seq < self._witnessed_size
            finality: Literal["durable", "witnessed"] = "witnessed" if witnessed else "durable"
            return Answer("logged", tx_id, entry.seq, finality=finality)
        verdict = self._refusals.recall(tx_id, self._book.time(self._clock.now_ms()))
        if verdict is not None:
            return Answer("refused", tx_id, code=verdict.code, detail=verdict.detail)
        return Answer("unknown", tx_id, detail="neither logged nor refused: it may be sent again")

    async def save_witnessed(self, note: str, size: int) -> None:
        """Keep a checkpoint of ``size`` entries that a quorum of witnesses cosigned."""
        self._check_running()
        if size > self._witnessed_size:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._writer, self._store.save_witnessed, note)
            self._witnessed, self._witnessed_size = note, size

    def _promise(self, answers: list[Answer]) -> list[Answer]:
        chain = self._book.state.chain
        return [
            replace(answer, receipt=sign_promise(_promised(chain, answer), self._operator))
            if answer.ok
            else answer
            for answer in answers
        ]

    async def _sweep(self) -> None:
        """Wake the sequencer now and then, so that holds expire without traffic."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self._work.set()

    async def _sequence(self) -> None:
        """Write group after group; an error ends the ledger (see ``_ended``)."""
        while True:
            await self._work.wait()
            self._work.clear()
            await self._write_group()
            while self._admission.verified or self._interval_over:
                await self._write_group()
            if self._stopping and self._admission.empty:
                self._interval_over = self._book.interval is not None
                await self._write_group()
                return

    async def _write_group(self) -> None:
        self._in_hand = self._admission.take(MAX_GROUP)
        self._durable.clear()  # from the first change in memory until it is on disk
        group = self._apply(self._in_hand)
        if group.entries or group.verdicts:
            await asyncio.get_running_loop().run_in_executor(
                self._writer,
                self._store.append,
                group.entries,
                group.verdicts,
                group.checkpoint,
                group.snapshot,
            )
            self._check_running()
            self._tail.add(group.entries)
        self._durable.set()
        if group.checkpoint is not None:
            self._publish(group.checkpoint, group.checkpoint_size)
        for item, answer in group.answers:
            item.ticket.settle(item.index, answer)
        if group.seen:
            await self._look_up(group.seen)
        self._in_hand = []
        # An event wakes its waiters at once: they read in this turn, before the next group.
        await asyncio.sleep(0)

    def _apply(self, items: list[Item]) -> _Group:
        """Carry out a group in memory; nothing here waits, so nobody sees it half done."""
        group = _Group()
        now = self._clock.now_ms()
        for item in items:
            self._apply_one(item, now, group)
        self._expire_due(now, group)
        if self._interval_over:
            self._close_interval(group)
        return group

    def _apply_one(self, item: Item, now: int, group: _Group) -> None:
        signed, book = item.signed, self._book
        if signed is None:
            group.answers.append(
                (item, item.invalid or Answer("invalid", transaction_id(item.raw)))
            )
            return
        tx_id = signed.id
        verdict = self._refusals.recall(tx_id, book.time(now))
        if verdict is not None:
            answer = Answer("refused", tx_id, code=verdict.code, detail=verdict.detail)
            group.answers.append((item, answer))
            return
        if book.full:
            self._close_interval(group)
        log_time = book.time(now)
        seq = book.log.size
        outcome = book.take(signed, log_time)
        if outcome.outcome == "logged":
            self._logged(group, Entry(seq, signed.raw, signed.leaf, log_time, book.links))
            group.answers.append((item, Answer("logged", tx_id, seq)))
            return
        answer = Answer(outcome.outcome, tx_id, code=outcome.code, detail=outcome.detail)
        if outcome.code in _MAYBE_LOGGED:
            group.seen.append((item, answer))
            return
        if outcome.outcome == "refused":
            self._remember(group, signed, answer, log_time)
        group.answers.append((item, answer))

    def _logged(self, group: _Group, entry: Entry) -> None:
        if self._book.pending == 1:
            asyncio.get_running_loop().call_later(INTERVAL_S, self._end_interval)
        group.entries.append(entry)

    def _end_interval(self) -> None:
        self._interval_over = self._book.interval is not None
        self._work.set()

    def _remember(self, group: _Group, signed: Signed, answer: Answer, log_time: int) -> None:
        """Keep a refusal while its transaction could come again, if whose it is has a share."""
        account = charged(self._book.state, signed)
        verdict = Verdict(answer.id, answer.code or "", answer.detail, signed.tx.valid_until)
        if account is not None and self._refusals.add(account, verdict, log_time):
            group.verdicts.append(verdict)

    def _expire_due(self, now: int, group: _Group) -> None:
        book = self._book
        log_time = book.time(now)
        free_due(book.state, log_time)  # also without traffic
        for subject in book.state.deadlines.pop(log_time, MAX_GROUP):
            if book.full:
                self._close_interval(group)
            signed = read(seal_transaction(self._expire(subject, log_time), self._operator))
            seq = book.log.size
            outcome = book.take(signed, log_time)
            if outcome.outcome != "logged":
                raise InvariantError("what is due could not be ended", subject=subject)
            self._logged(group, Entry(seq, signed.raw, signed.leaf, log_time, book.links))

    def _expire(self, subject: str, log_time: int) -> Expire:
        return Expire(
            account=self._operator.did,
            chain=self._book.state.chain,
            fee="0",
            fee_payer=None,
            lane=EXPIRING_LANE,
            seq=self._ids.salt(),
            valid_until=log_time + EXPIRE_VALIDITY_MS,
            subject=subject,
        )

    def _close_interval(self, group: _Group) -> None:
        book = self._book
        self._interval_over = False
        if book.interval is None:
            return
        seq, log_time = book.log.size, book.interval
        signed = book.close_interval(self._operator)
        group.entries.append(Entry(seq, signed.raw, signed.leaf, log_time))
        group.checkpoint = sign(book, self._operator)
        group.checkpoint_size = book.log.size
        if book.log.size - self._covered >= SNAPSHOT_EVERY:
            group.snapshot = _merged(group.snapshot, book.snapshot())
            self._covered = book.log.size

    async def _look_up(self, seen: list[tuple[Item, Answer]]) -> None:
        """What cannot be logged now may be logged already: then it exists."""
        names = [answer.id for _, answer in seen]
        found = await self._read(lambda: self._store.find(names))
        for item, answer in seen:
            entry = found.get(answer.id)
            sure = answer if entry is None else Answer("exists", answer.id, entry.seq)
            item.ticket.settle(item.index, sure)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End the ledger when one of its tasks ended: nobody who waits must wait for ever."""
        if self._stopped.done():
            return
        cause = None if task.cancelled() else task.exception()
        gone = LedgerUnavailableError("the ledger has stopped")
        gone.__cause__ = cause
        if cause is not None:
            logger.critical("the ledger stops: %s", cause, exc_info=cause)
            _break(self._stopped, gone)
        else:
            self._stopped.set_result(None)
        self._durable.set()  # whoever waits for it sees that the ledger has stopped
        for item in self._in_hand:
            item.ticket.fail(gone)
        self._admission.abandon(gone)


def _break(future: asyncio.Future[None], error: Exception) -> None:
    """Set an error that nobody has to look at."""
    future.set_exception(error)
    future.exception()


def _covered(store: Store) -> int:
    """Return how many entries the stored snapshot covers."""
    found = store.snapshot()
    if found is None:
        return 0
    size, rows = found
    rows.close()
    return size


def _merged(first: Snapshot | None, second: Snapshot) -> Snapshot:
    """Return what both say; the rows of the second are newer."""
    return second if first is None else Snapshot(second.size, {**first.rows, **second.rows})


def _promised(chain: str, answer: Answer) -> Promise:
    seq = answer.seq or 0
    return Promise(chain=chain, id=answer.id, seq=seq, by_size=seq + 1)
