"""Opening a stored ledger: replay it, compare it with itself, and leave no interval open.

1. An empty store gets its genesis; one that is not keeps its own.
2. The operator's key and the network are those of the genesis.
3. Every stored leaf hash is that of the stored bytes; the log replays; every recorded state root
   and supply is what it leads to.
4. The signed checkpoint is one of this very log: nothing it covered is missing or different.
5. An interval that a crash left open is closed, at the ledger time its entries were stored with.
"""

from __future__ import annotations

from typing import Final

from rahba.envelope import Signer
from rahba.merkle import leaf_hash
from rahba.note import open_checkpoint, sign_checkpoint, verifier_key
from wallet.book import Book
from wallet.errors import LedgerCorruptError, WrongGenesisError
from wallet.ports import Entry, Store
from wallet.replay import Replay
from wallet.transactions import Genesis, read, seal_transaction

_PAGE: Final = 2_000


def recover(store: Store, genesis: Genesis | None, operator: Signer) -> tuple[Book, str]:
    """Return the ledger's book and its latest checkpoint; see the module for what is checked.

    Raises:
        LedgerCorruptError: the log is not what it says; ``facts["seq"]`` is where.
        WrongGenesisError: another operator or network, or an empty store and no genesis.
        StoreError: the store does not read or write.
    """
    if store.size() == 0:  # 1
        _found(store, genesis, operator)
    replay = Replay(verify=False)
    last = _feed(store, replay)  # 3
    book = replay.book
    _check_owner(book.genesis, genesis, operator)  # 2
    replay.finish(last.log_time)
    note = _check_checkpoint(store, book, operator)  # 4
    if book.interval is not None or not note:  # 5
        note = close_interval(store, book, operator)
    return book, note


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


def _feed(store: Store, replay: Replay) -> Entry:
    last: Entry | None = None
    while page := store.read(replay.size, _PAGE):
        for entry in page:
            if entry.seq != replay.size or leaf_hash(entry.raw) != entry.leaf:
                raise LedgerCorruptError(
                    f"entry {replay.size} is not as it was stored", seq=replay.size
                )
            replay.feed(entry.raw)
            last = entry
    if last is None:
        raise LedgerCorruptError("the log is empty", seq=0)
    return last


def _check_owner(stored: Genesis, wanted: Genesis | None, operator: Signer) -> None:
    if stored.operator != operator.did:
        raise WrongGenesisError("the ledger has another operator", operator=stored.operator)
    if wanted is not None and wanted.network != stored.network:
        raise WrongGenesisError("the ledger is another network's", network=stored.network)


def _check_checkpoint(store: Store, book: Book, operator: Signer) -> str:
    note = store.checkpoint()
    if note is None:
        if book.log.size > 1:
            raise LedgerCorruptError("the log has lost its checkpoint", seq=1)
        return ""
    signed = open_checkpoint(note, verifier_key(book.genesis.origin, operator))
    if signed.size > book.log.size:
        raise LedgerCorruptError("entries under the signed checkpoint are gone", seq=book.log.size)
    if book.log.root_at(signed.size) != signed.root:
        raise LedgerCorruptError("the log is not the one that was signed", seq=signed.size - 1)
    return note
