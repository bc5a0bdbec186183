"""What a ledger costs when it has grown: time a transaction, memory, and the next start.

One payer pays thousands of accounts, entry after entry, through the real parts: bytes are read and
checked, signatures verified, the machine applies, groups of a thousand go to a real SQLite file.
What the last ten thousand of a million cost is compared with what the second ten thousand did, in
CPU time; what signing them cost is not counted.

    python -m benchmarks.ledger_growth
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from benchmarks.rows import Row, row
from rahba.envelope import Signer
from rahba.ids import did_of
from wallet.book import Book
from wallet.forms import check_form, check_signatures
from wallet.ports import Entry
from wallet.recovery import checkpoint, recover
from wallet.state import State
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import (
    Faucet,
    Signed,
    Transfer,
    dev_genesis,
    read,
    seal_transaction,
)

START_MS = 1_700_000_000_000
GROUP = 1_000
SLICE = 10_000
MIB = 1024 * 1024
OPERATOR, PAYER = Signer(bytes([1]) * 32), Signer(bytes([2]) * 32)


@dataclass(slots=True)
class Cost:
    """CPU seconds of ten thousand transactions: all of it, and without the signatures."""

    whole_s: float = 0.0
    rest_s: float = 0.0


class Growth:
    """A ledger that grows, and what its parts cost meanwhile."""

    def __init__(self, folder: Path, accounts: int) -> None:
        """Begin a ledger in ``folder`` that pays so many accounts."""
        self.folder = folder
        self.accounts = accounts
        self.costs: list[Cost] = []
        self.now = START_MS
        self.genesis = dev_genesis(OPERATOR.did, START_MS)
        first = read(seal_transaction(self.genesis, OPERATOR))
        self.book = Book(self.genesis, first.leaf)
        self.store = SqliteStore(self.folder / "ledger.sqlite")
        self.store.acquire()
        self.store.append([Entry(0, first.raw, first.leaf, START_MS)], [], None)
        self.payees = [did_of(_key(number)) for number in range(self.accounts)]
        self.seq = 0

    def grow(self, count: int) -> None:
        """Add ``count`` transactions, a slice at a time."""
        for _ in range(count // SLICE):
            cost = Cost()
            for _ in range(SLICE // GROUP):
                self._group([self._sign() for _ in range(GROUP)], cost)
            self.costs.append(cost)

    def _group(self, raws: list[bytes], cost: Cost) -> None:
        book = self.book
        began = time.process_time()
        signed = [read(raw) for raw in raws]
        for item in signed:
            check_form(item, book.state.chain)
        before = time.process_time()
        for item in signed:
            check_signatures(item)
        verified = time.process_time()
        self._write([self._take(item) for item in signed])
        ended = time.process_time()
        cost.whole_s += ended - began
        cost.rest_s += ended - began - (verified - before)

    def _take(self, signed: Signed) -> Entry:
        seq = self.book.log.size
        outcome = self.book.take(signed, self.now)
        assert outcome.outcome == "logged", outcome
        return Entry(seq, signed.raw, signed.leaf, self.now, self.book.links)

    def _write(self, entries: list[Entry]) -> None:
        """Close the interval with each group, as a busy sequencer does every few groups."""
        book, seq = self.book, self.book.log.size
        state = book.close_interval(OPERATOR)
        entries.append(Entry(seq, state.raw, state.leaf, self.now))
        self.now += 1
        snapshot = book.snapshot() if seq % 20_000 < GROUP else None
        self.store.append(entries, [], checkpoint(book, OPERATOR), snapshot)

    def _sign(self) -> bytes:
        self.seq += 1
        common = {
            "account": PAYER.did,
            "chain": self.genesis.chain,
            "fee": self.genesis.fee,
            "fee_payer": None,
            "lane": 0,
            "seq": self.seq,
            "valid_until": START_MS + 3_600_000,
        }
        if self.seq % 100_000 == 1:  # the money for the next hundred thousand
            return seal_transaction(Faucet(**common, amount=str(10**12)), PAYER)
        to = self.payees[self.seq * 7_919 % self.accounts]
        return seal_transaction(Transfer(**common, to=to, amount="5"), PAYER)


def run(entries: int = 1_000_000, accounts: int = 10_000) -> list[Row]:
    """Measure everything; a million entries take about two minutes."""
    with tempfile.TemporaryDirectory(prefix="rahba-bench-") as folder:
        memory = _resident()
        growth = Growth(Path(folder), accounts)
        for _ in _progress(entries // SLICE):
            growth.grow(SLICE)
        gc.collect()
        grown = _resident() - memory
        rows = list(_cost_rows(growth))
        rows.append(row("ledger: memory a million entries", grown / MIB * 1e6 / entries, "MiB"))
        growth.store.close()
        rows.append(_start(growth, entries))
    rows.append(_memory_an_account())
    return rows


def _cost_rows(growth: Growth) -> Iterator[Row]:
    early, late = growth.costs[1], growth.costs[-1]
    size = f"{growth.book.log.size:,} entries"
    name = f"ledger: CPU a transaction at {size}, beside that at 10,000"
    pairs = [
        (name, late.whole_s, early.whole_s),
        (f"{name}, signatures apart", late.rest_s, early.rest_s),
    ]
    for text, value, reference in pairs:
        us = 1e6 / SLICE
        yield row(text, value * us, "us", reference=reference * us, target=1.2, at_most=True)


def _start(growth: Growth, entries: int) -> Row:
    store = SqliteStore(growth.folder / "ledger.sqlite")
    store.acquire()
    began = time.perf_counter()
    book, _ = asyncio.run(recover(store, None, OPERATOR))
    took = time.perf_counter() - began
    assert book.tree.root() == growth.book.tree.root()
    assert book.log.root() == growth.book.log.root()
    store.close()
    name = f"ledger: start with {entries:,} entries from a snapshot"
    return row(name, took, "s", target=5.0, at_most=True)


def _memory_an_account(count: int = 100_000) -> Row:
    """Accounts that were paid once, in the state and in the tree."""
    genesis = dev_genesis(OPERATOR.did, START_MS)
    first = read(seal_transaction(genesis, OPERATOR))
    names = [did_of(_key(number)) for number in range(count)]
    gc.collect()
    before = _resident()
    book = Book(genesis, first.leaf)
    _pay_all(book.state, names)
    book.summary(START_MS)
    gc.collect()
    return row("ledger: memory an account", (_resident() - before) / count, "bytes")


def _pay_all(state: State, names: list[str]) -> None:
    touched = {name: state.register(name) for name in names}
    state.post([("issuance", name, 5) for name in names], touched)
    state.touch(touched, bytes(32))


def _key(number: int) -> bytes:
    """Return a valid key of nobody: the public half of a seed."""
    return Signer(number.to_bytes(32, "big")).public_key


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _progress(steps: int) -> Iterator[int]:
    for step in range(steps):
        yield step
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{step + 1} of {steps} slices")
    if sys.stderr.isatty():
        sys.stderr.write("\n")


def main() -> None:
    """Print the rows as JSON."""
    print(orjson.dumps([item.plain() for item in run()], option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
