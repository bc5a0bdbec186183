"""What can be asked of a running ledger: accounts, holds, entries, proofs, its checkpoints.

* Views wait for the group being written: what they show is on disk.
* The sequencer (:mod:`wallet.service`) is what changes the book; here it is only read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from rahba.balance import AccountProof
from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.errors import BadInputError, TooLargeError
from rahba.ids import check_digest
from rahba.merkle import OutOfRangeError
from rahba.note import verifier_key
from rahba.proof import InclusionProof
from wallet.book import Book
from wallet.errors import LedgerUnavailableError
from wallet.links import concerns, previous
from wallet.merkle import MerkleLog
from wallet.ports import AccountView, Entry, HoldView, Store, SupplyView, TxView
from wallet.snapshot import archive_key, archived
from wallet.state import SYSTEM, Escrow
from wallet.stores.tiles import TileDirectory
from wallet.tail import Shown, Tail
from wallet.transactions import Genesis

MAX_ENTRIES: Final = 1_000
MAX_HISTORY: Final = 1_000
MAX_HOLDS: Final = 1_000
MAX_TILES: Final = 16
RETRY_S: Final = 1.0
T = TypeVar("T")

logger = logging.getLogger("rahba.ledger")


class LedgerViews:
    """The reading half of :class:`wallet.service.Sequencer`, over its book and its store."""

    def __init__(self, store: Store, book: Book, note: str, operator: Signer) -> None:
        """Read ``book`` and ``store``; ``note`` is the checkpoint that covers both."""
        self._store = store
        self._book = book
        self._operator = operator
        self._checkpoint = note
        self._checkpoint_size = book.log.size
        self._witnessed = store.witnessed()
        self._witnessed_size = _size_of(self._witnessed)
        self._news = asyncio.Event()
        self._tail = Tail()
        self._shown = Shown(self._tail, store)
        self._reader = ThreadPoolExecutor(1, "ledger-read")
        self._durable = asyncio.Event()
        self._durable.set()
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def genesis(self) -> Genesis:
        """Return the rules of this ledger."""
        return self._book.genesis

    @property
    def log(self) -> MerkleLog:
        """Return the log's hashes; beyond the latest checkpoint they may not be durable."""
        return self._book.log

    async def chain(self) -> str:
        """Return the chain id that transactions must name."""
        return self._book.state.chain

    async def account(self, account_id: str) -> AccountView | None:
        """Return an account, or ``None`` if the ledger never saw it."""
        await self._settled()
        state = self._book.state
        found = state.accounts.get(account_id)
        if found is None:
            return None
        keys, threshold = found.policy_at(state.log_time)
        return AccountView(
            found.id,
            found.posted,
            found.held,
            dict(found.lanes),
            found.position,
            found.staked,
            keys if account_id not in SYSTEM else (),
            threshold,
        )

    async def hold(self, hold_id: str) -> HoldView | None:
        """Return a hold by the id of its transaction."""
        return (await self.holds([hold_id]))[0]

    async def holds(self, hold_ids: Sequence[str]) -> list[HoldView | None]:
        """Return several holds in the order of their ids.

        Raises:
            TooLargeError: more than ``MAX_HOLDS`` at once.
        """
        if len(hold_ids) > MAX_HOLDS:
            raise TooLargeError("too many holds at once", limit=MAX_HOLDS)
        for each in hold_ids:
            check_digest(each)
        await self._settled()
        known = self._book.state.holds
        # What is live changes in place with the next group: it is shown as it is now, not later.
        found = {each: _hold_view(known.get(each)) for each in hold_ids}
        ended = [each for each, hold in found.items() if hold is None]
        if ended:
            keys = [archive_key(each) for each in ended]
            rows = await self._read(lambda: [self._store.row(key) for key in keys])
            some = zip(ended, rows, strict=True)
            found |= {each: _hold_view(archived(row)) for each, row in some if row is not None}
        return [found[each] for each in hold_ids]

    async def account_proof(self, account_id: str) -> AccountProof | None:
        """Prove an account under the latest checkpoint; ``None`` while none covers it."""
        await self._settled()  # the tree is as of that checkpoint, until the next group
        book, size, note = self._book, self._checkpoint_size, self._checkpoint
        account = book.state.accounts.get(account_id)
        if account is None or account.position >= len(book.tree):
            return None
        found = book.tree.proof(account.position)
        path = tuple(step.hex() for step in book.log.inclusion(size - 1, size))
        leaf = book.log.node(0, size - 1).hex()
        (state,) = await self._read(lambda: self._shown.read(size - 1, 1))
        return AccountProof(
            id=account_id,
            balance=found.leaf.balance,
            nonces=found.leaf.nonces.hex(),
            tip=found.leaf.tip.hex(),
            position=found.position,
            accounts=found.accounts,
            path=tuple(record.hex() for record in found.path),
            state=b64(state.raw),
            inclusion=InclusionProof(size - 1, leaf, path, note),
        )

    async def history(
        self, account_id: str, *, before: int | None = None, limit: int = 100
    ) -> list[TxView]:
        """Return an account's transactions, newest first, at a cost that is theirs alone."""
        if account_id in SYSTEM:
            raise BadInputError("everything concerns this account: read the log")
        await self._settled()
        account = self._book.state.accounts.get(account_id)
        if account is None:
            return []
        position, last = account.position, account.last

        def walk() -> list[Entry]:
            at, found = last, list[Entry]()
            if before is not None:
                at = _after(self._shown.read(before, 1), position)
            while at and len(found) < min(limit, MAX_HISTORY):
                (entry,) = self._shown.read(at - 1, 1)
                found.append(entry)
                at = previous(entry.links, position)
            return found

        return [_view(entry) for entry in await self._read(walk)]

    async def transaction(self, tx_id: str) -> TxView | None:
        """Return a logged transaction, or ``None`` ("unknown": it may be sent again)."""
        entry = await self._find(tx_id)
        return _view(entry) if entry is not None else None

    async def entries(self, start: int, limit: int) -> list[TxView]:
        """Return log entries from ``start`` on (at most 1000), ``state`` leaves included."""
        if start < 0 or limit < 0:
            raise BadInputError("start and limit are not negative")
        limit = min(limit, MAX_ENTRIES)
        self._check_running()
        found = self._tail.read(start, limit)
        if not found:
            found = await self._read(lambda: self._store.read(start, limit))
        return [_view(entry) for entry in found]

    async def supply(self) -> SupplyView:
        """Return the supply equation."""
        await self._settled()
        state = self._book.state
        return SupplyView(state.issued, state.total, state.held, state.open_holds)

    async def checkpoint(self) -> str:
        """Return the latest signed checkpoint (a signed note)."""
        return self._checkpoint

    async def publish(self, folder: Path) -> None:
        """Keep the log's static files in ``folder`` in step, until the ledger stops."""
        tiles, shown = TileDirectory(folder, self._shown, self._book.log), 0
        while not self._stopped.done():
            try:
                note, size = await self.next_checkpoint(shown)
                await self._read(partial(tiles.start, size))
                while work := tiles.take(MAX_TILES):  # between them, others have their turn
                    await self._read(partial(tiles.write, work))
                await self._read(partial(tiles.finish, note))
                shown = size
            except LedgerUnavailableError:
                return
            except OSError as error:  # a copy: the ledger goes on without it
                logger.warning("the log's files in %s are behind: %s", folder, error)
                await asyncio.sleep(RETRY_S)

    async def next_checkpoint(self, after: int) -> tuple[str, int]:
        """Wait for a durable checkpoint of more than ``after`` entries; returns it and its size."""
        while self._checkpoint_size <= after:
            self._check_running()
            await self._news.wait()
        return self._checkpoint, self._checkpoint_size

    def _publish(self, note: str, size: int) -> None:
        self._checkpoint, self._checkpoint_size = note, size
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def witnessed(self) -> str | None:
        """Return the latest checkpoint that a quorum of witnesses cosigned."""
        return self._witnessed

    async def verifier_key(self) -> str:
        """Return the log's C2SP verifier key."""
        return verifier_key(self._book.genesis.origin, self._operator)

    async def inclusion(self, tx_id: str, *, witnessed: bool = False) -> InclusionProof | None:
        """Prove a transaction under the latest checkpoint, or the latest cosigned one."""
        entry = await self._find(tx_id)
        size, note = self._checkpoint_size, self._checkpoint
        if witnessed:
            size, note = self._witnessed_size, self._witnessed or ""
        if entry is None or entry.seq >= size:
            return None
        path = tuple(step.hex() for step in self._book.log.inclusion(entry.seq, size))
        return InclusionProof(entry.seq, entry.leaf.hex(), path, note)

    async def consistency(self, old_size: int, new_size: int) -> list[str]:
        """Return the consistency proof between two sizes up to the latest checkpoint."""
        if new_size > self._checkpoint_size:
            raise OutOfRangeError("no checkpoint covers that size", size=self._checkpoint_size)
        return [step.hex() for step in self._book.log.consistency(old_size, new_size)]

    async def _settled(self) -> None:
        """Wait for the group being written: the state is ahead of the disk meanwhile.

        What is asked of the state next must be asked without waiting in between.
        """
        while not (self._durable.is_set() or self._stopped.done()):
            await self._durable.wait()
        self._check_running()

    def _check_running(self) -> None:
        if self._stopped.done():
            raise LedgerUnavailableError("the ledger has stopped")

    async def _read(self, ask: Callable[[], T]) -> T:
        self._check_running()
        return await asyncio.get_running_loop().run_in_executor(self._reader, ask)

    async def _find(self, tx_id: str) -> Entry | None:
        check_digest(tx_id)
        return (await self._read(lambda: self._store.find([tx_id]))).get(tx_id)


def _view(entry: Entry) -> TxView:
    return TxView(entry.leaf.hex(), entry.seq, entry.raw, entry.log_time)


def _hold_view(found: Escrow | None) -> HoldView | None:
    if found is None:
        return None
    return HoldView(
        found.id,
        found.payer,
        found.payee,
        found.amount,
        found.captured,
        found.expires,
        found.agreement,
        found.status,
        found.arbitration.arbiter if found.arbitration is not None else None,
        found.deadline or None,
        found.bail,
        found.recourse,
        found.part,
    )


def _after(entries: list[Entry], position: int) -> int:
    """Return where the history goes on from the entry that was shown last."""
    if not entries or not concerns(entries[0].links, position):
        raise OutOfRangeError("no entry of this account is there")
    return previous(entries[0].links, position)


def _size_of(note: str | None) -> int:
    """Return the size that a checkpoint of our own store names."""
    return int(note.split("\n", 2)[1]) if note else 0
