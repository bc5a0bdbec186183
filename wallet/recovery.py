"""Opening a stored ledger: replay it, compare it with itself, and leave no interval open.

1. An empty store gets its genesis; one that is not keeps its own.
2. The operator's key and the network are those of the genesis.
3. The state begins with the snapshot, if there is one that fits the state leaf at its end;
   otherwise with the genesis. What comes after is replayed: every stored leaf hash is that of the
   stored bytes, every stored time that of its interval; every recorded state root and supply is
   what the entries lead to.
4. The signed checkpoint is one of this very log: nothing it covered is missing or different. What
   is remembered of refusals could have been written by a ledger.
5. Whoever may know better is asked (``before_signing``: witnesses), before anything is signed.
6. An interval that a crash left open is closed, at the ledger time its entries were stored with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from rahba.envelope import Signer
from rahba.errors import RahbaError
from rahba.ids import is_digest
from rahba.merkle import leaf_hash
from rahba.note import open_checkpoint, sign_checkpoint, verifier_key_of
from wallet.book import Book
from wallet.errors import LedgerCorruptError, WrongGenesisError, is_refusal
from wallet.merkle import MerkleLog
from wallet.ports import Entry, Store
from wallet.replay import Replay
from wallet.snapshot import restore
from wallet.transactions import Genesis, StateLeaf, read, seal_transaction

_PAGE: Final = 2_000
BeforeSigning = Callable[[Book, str], Awaitable[None]]

logger = logging.getLogger("rahba.ledger")


async def recover(
    store: Store,
    genesis: Genesis | None,
    operator: Signer,
    before_signing: BeforeSigning | None = None,
    following: Replay | None = None,
) -> tuple[Book, str]:
    """Return the ledger's book and its latest checkpoint; see the module for what is checked.

    ``following`` is a replay that followed this very log: only what came after is left to do.

    Raises:
        LedgerCorruptError: the log is not what it says; ``facts["seq"]`` is where.
        WrongGenesisError: another operator or network, or an empty store and no genesis.
        StoreError: the store does not read or write.
    """
    if store.size() == 0:  # 1
        await asyncio.to_thread(_found, store, genesis, operator)
    replay, log_time = await asyncio.to_thread(replayed, store, following)  # 3
    book = replay.book
    _check_owner(book.genesis, genesis, operator)  # 2
    replay.finish(log_time)
    note = check_checkpoint(store, book)  # 4
    _check_verdicts(store)
    if before_signing is not None:  # 5
        await before_signing(book, note)
    if book.interval is not None or not note:  # 6
        note = await asyncio.to_thread(close_interval, store, book, operator)
    return book, note


def replayed(store: Store, following: Replay | None = None) -> tuple[Replay, int]:
    """Replay a store; returns the replay and the stored time of the last entry.

    ``following`` has replayed some of it already.

    When what follows from the snapshot is not what was signed, everything is replayed: then it is
    known which entry is wrong.
    """
    if following is not None:
        follow(store, following)
        return following, store.read(following.size - 1, 1)[0].log_time
    book = _from_snapshot(store)
    if book is not None:
        try:
            replay, log_time = _replayed(store, book)
            check_checkpoint(store, replay.book)
        except LedgerCorruptError as error:
            logger.warning("the log does not follow from its snapshot: %s", error)
        else:
            return replay, log_time
    return _replayed(store, None)


def _replayed(store: Store, book: Book | None) -> tuple[Replay, int]:
    replay = Replay(verify=False, book=book)
    last = follow(store, replay)
    if last is None:
        if book is None:
            raise LedgerCorruptError("the log is empty", seq=0)
        return replay, book.state.log_time
    return replay, last.log_time


def follow(store: Store, replay: Replay) -> Entry | None:
    """Feed a replay all entries that it has not seen; returns the last one."""
    last: Entry | None = None
    times: dict[int, int] = {}  # as stored, of entries whose interval is still open
    replay.taken = lambda taken: _check_time(taken, times.pop(taken.seq, taken.log_time))
    while page := store.read(replay.size, _PAGE):
        for entry in page:
            if entry.seq != replay.size or leaf_hash(entry.raw) != entry.leaf:
                raise LedgerCorruptError(
                    f"entry {replay.size} is not as it was stored", seq=replay.size
                )
            times[entry.seq] = entry.log_time
            replay.feed(entry.raw)
            last = entry
    replay.taken = None
    _check_open(times)
    return last


def _check_time(taken: Entry, stored: int) -> None:
    if taken.log_time != stored:
        raise LedgerCorruptError(
            f"entry {taken.seq} is stored under another time than its interval's", seq=taken.seq
        )


def _check_open(times: dict[int, int]) -> None:
    """All entries of an open interval happened at one time, that of the first."""
    first = next(iter(times.values()), 0)
    for seq, time in times.items():
        if time != first:
            raise LedgerCorruptError(
                f"entry {seq} is stored under another time than its interval's", seq=seq
            )


def _from_snapshot(store: Store) -> Book | None:
    found = store.snapshot()
    if found is None:
        return None
    size, rows = found
    try:
        return _resume(store, size, rows)
    except RahbaError as error:
        logger.warning("the snapshot at size %d is not used: %s", size, error)
        return None
    finally:
        rows.close()


def _resume(store: Store, size: int, rows: Iterable[tuple[bytes, bytes]]) -> Book:
    """Make a book of a snapshot, if it is the state that the state leaf at its end tells."""
    ends = [*store.read(0, 1), *store.read(size - 1, 1)]
    if [entry.seq for entry in ends] != [0, size - 1]:
        raise LedgerCorruptError("the log is shorter than its snapshot", seq=size - 1)
    genesis, said = [read(entry.raw).record for entry in ends]
    log = MerkleLog.load(store.leaves(0, size))
    if not isinstance(genesis, Genesis) or not isinstance(said, StateLeaf) or log.size != size:
        raise LedgerCorruptError("a snapshot ends with a state leaf", seq=size - 1)
    book = Book.resume(restore(genesis, rows), log)
    state = book.state
    if (said.root, said.supply) != (book.tree.root().hex(), str(state.issued)):
        raise LedgerCorruptError("the snapshot is not the state that the log tells", seq=size - 1)
    if (said.log_time, log.node(0, size - 1)) != (state.log_time, leaf_hash(ends[1].raw)):
        raise LedgerCorruptError("the snapshot is of another log", seq=size - 1)
    return book


def close_interval(store: Store, book: Book, operator: Signer) -> str:
    """Append the state leaf of the open interval and return the new checkpoint."""
    seq, log_time = book.log.size, book.time(0)
    signed = book.close_interval(operator)
    note = checkpoint(book, operator)
    store.append([Entry(seq, signed.raw, signed.leaf, log_time)], [], note)
    return note


def checkpoint(book: Book, operator: Signer) -> str:
    """Sign the log as it is now."""
    return sign_checkpoint(book.genesis.origin, book.log.size, book.log.root(), operator)


def _found(store: Store, genesis: Genesis | None, operator: Signer) -> None:
    if genesis is None:
        raise WrongGenesisError("an empty store needs a genesis")
    _check_owner(genesis, None, operator)
    signed = read(seal_transaction(genesis, operator))
    store.append([Entry(0, signed.raw, signed.leaf, genesis.created)], [], None)


def _check_owner(stored: Genesis, wanted: Genesis | None, operator: Signer) -> None:
    if stored.operator != operator.did:
        raise WrongGenesisError("the ledger has another operator", operator=stored.operator)
    if wanted is not None and wanted.network != stored.network:
        raise WrongGenesisError("the ledger is another network's", network=stored.network)


def check_checkpoint(store: Store, book: Book) -> str:
    """Return the stored checkpoint, if it is one of this very log."""
    note = store.checkpoint()
    if note is None:
        if book.log.size > 1:
            raise LedgerCorruptError("the log has lost its checkpoint", seq=1)
        return ""
    try:
        signed = open_checkpoint(note, verifier_key_of(book.genesis.origin, book.genesis.operator))
    except RahbaError as error:
        seq = _last_state(store, book.log.size)
        raise LedgerCorruptError(f"the checkpoint of entry {seq} is damaged", seq=seq) from error
    if signed.size > book.log.size:
        raise LedgerCorruptError("entries under the signed checkpoint are gone", seq=book.log.size)
    if book.log.root_at(signed.size) != signed.root:
        raise LedgerCorruptError("the log is not the one that was signed", seq=signed.size - 1)
    return note


def _last_state(store: Store, size: int) -> int:
    """Return the number of the last state leaf among ``size`` entries: a checkpoint covers it."""
    for start in range(max(size - _PAGE, 0), -_PAGE, -_PAGE):
        for entry in reversed(store.read(max(start, 0), _PAGE)):
            if isinstance(read(entry.raw).record, StateLeaf):
                return entry.seq
    return 0


def _check_verdicts(store: Store) -> None:
    for verdict in store.verdicts():
        if not is_refusal(verdict.code) or not is_digest(verdict.id):
            raise LedgerCorruptError(
                "a remembered refusal is damaged",
                refusal=verdict.id[:64],
                refused=verdict.code[:64],
            )
