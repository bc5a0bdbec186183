"""The power is cut at random moments: what was answered is there, and the ledger opens as it is.

A real sequencer on a real SQLite store serves a few users, on a disk that keeps of unsynced writes
what it likes (:mod:`tests.fixtures.power_cut`). Each seed is up to three lives on one disk; a cut
may come while the file is made, amid a commit, a checkpoint of the write-ahead log, a snapshot, or
while the ledger starts again after the cut before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest

from rahba.clock import ManualClock
from rahba.ids import RandomIds
from rahba.note import open_checkpoint, verifier_key
from tests.fixtures.power_cut import PowerIsOffError, power_cut_disk
from tests.fixtures.wallet import DEAL, FEE, START_MS, did, signer_of
from wallet import service
from wallet.book import Book
from wallet.errors import StoreError
from wallet.ports import Answer
from wallet.replay import Replay
from wallet.service import Sequencer
from wallet.stores import sqlite
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import (
    EXPIRING_LANE,
    Capture,
    Faucet,
    Hold,
    Release,
    Transfer,
    dev_genesis,
    seal_transaction,
    transaction_id,
)

NAMES = ("amina", "brahim", "chaima", "driss")
OPERATOR = signer_of("operator")
GENESIS = dev_genesis(OPERATOR.did, START_MS)
LIFETIME_MS = 600_000
SEEDS, FEW, CONTROLS = 1_000, 30, 40
MakeStore = Callable[[Path, str], SqliteStore]


class CarelessStore(SqliteStore):
    """Answers before what it wrote is synced: what a ledger must not do."""

    def acquire(self, *, steal: bool = False) -> int:
        token = super().acquire(steal=steal)
        assert self._writer is not None
        self._writer.execute("PRAGMA synchronous = NORMAL")
        return token


@dataclass
class Told:
    """What the ledger told its users while there was power."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(START_MS))
    logged: dict[bytes, int] = field(default_factory=dict)
    refused: dict[bytes, str | None] = field(default_factory=dict)
    unanswered: set[bytes] = field(default_factory=set)
    notes: set[str] = field(default_factory=set)

    def words(self) -> dict[str, Any]:
        return {
            "genesis": GENESIS,
            "operator": OPERATOR,
            "clock": self.clock,
            "ids": RandomIds(),
        }


class User:
    """Somebody who pays, and writes down what the ledger said."""

    def __init__(self, ledger: Sequencer, name: str, told: Told, rng: random.Random) -> None:
        self.ledger = ledger
        self.name = name
        self.told = told
        self.rng = rng

    def sign(self, form: type[Any], **fields: Any) -> bytes:
        common = {
            "account": did(self.name),
            "chain": GENESIS.chain,
            "fee": str(FEE),
            "fee_payer": None,
            "lane": EXPIRING_LANE,
            "seq": self.rng.randrange(1, 2**53),
            "valid_until": self.told.clock.now_ms() + LIFETIME_MS,
        }
        return seal_transaction(form(**common, **fields), signer_of(self.name))

    async def send(self, *raws: bytes) -> list[Answer]:
        self.told.unanswered.update(raws)
        answers = await self.ledger.submit_many(list(raws))
        for raw, answer in zip(raws, answers, strict=True):
            self.told.unanswered.discard(raw)
            if answer.ok:
                assert answer.seq is not None
                self.told.logged[raw] = answer.seq
            else:
                self.told.refused[raw] = answer.code
        self.told.notes.add(await self.ledger.checkpoint())
        self.told.clock.advance(self.rng.randrange(3))
        return answers

    async def trade(self) -> None:
        await self.send(self.sign(Faucet, amount="1000000"))
        for _ in range(self.rng.randrange(3, 9)):
            other = did(self.rng.choice([name for name in NAMES if name != self.name]))
            await self.rng.choice([self.pay, self.pay, self.escrow, self.overspend])(other)

    async def pay(self, other: str) -> None:
        payments = self.rng.randrange(1, 10)
        await self.send(*(self.sign(Transfer, to=other, amount="7") for _ in range(payments)))

    async def overspend(self, other: str) -> None:
        await self.send(self.sign(Transfer, to=other, amount="2000000000"))

    async def escrow(self, other: str) -> None:
        raw = self.sign(
            Hold,
            payee=other,
            amount="5000",
            expires=self.told.clock.now_ms() + LIFETIME_MS,
            agreement=DEAL,
            arbitration=None,
            bail=None,
        )
        (answer,) = await self.send(raw)
        payee = User(self.ledger, next(n for n in NAMES if did(n) == other), self.told, self.rng)
        if answer.ok and self.rng.random() < 0.5:
            words = {"hold": answer.id, "amount": "4000", "final": True, "receipt": None}
            await payee.send(payee.sign(Capture, **words))
        elif answer.ok:
            await payee.send(payee.sign(Release, hold=answer.id, forfeit="0"))


@dataclass
class Cut:
    """When the power of a life goes, and what the disk of the life before was left with."""

    rng: random.Random
    fuse: int | None
    image: dict[str, bytes]


async def live(home: Path, cut: Cut, make_store: MakeStore, told: Told) -> dict[str, bytes]:
    """Start the ledger and let everybody trade until the power goes; returns what is left."""
    seed = cut.rng.randrange(2**32)
    with power_cut_disk(home, seed, fuse=cut.fuse, image=cut.image) as disk:
        store = make_store(home / "ledger.db", disk.name)
        ledger = None
        with suppress(StoreError, PowerIsOffError):
            ledger = await Sequencer.open(store, **told.words())
            users = [User(ledger, name, told, random.Random(cut.rng.random())) for name in NAMES]
            await asyncio.gather(*(user.trade() for user in users), return_exceptions=True)
        image = disk.cut()
        disk.leave()
        if ledger is not None:
            await ledger.close()
        store.close()
    return image


async def lives(seed: int, folder: Path, make_store: MakeStore) -> tuple[Path, Told]:
    """Live up to three times, each time on what the disk was left with."""
    rng = random.Random(seed)
    told = Told()
    image: dict[str, bytes] = {}
    for life in range(rng.choice([1, 1, 2, 3])):
        fuse = rng.choice([None, *[rng.randrange(2, 60)] * 3, *[rng.randrange(40, 500)] * 8])
        image = await live(folder / str(life), Cut(rng, fuse, image), make_store, told)
    return found(folder, image), told


def found(folder: Path, image: dict[str, bytes]) -> Path:
    """Put what a disk was left with where the system's own VFS reads it."""
    home = folder / "found"
    home.mkdir()
    for name, content in image.items():
        (home / name).write_bytes(content)
    return home / "ledger.db"


async def check(path: Path, told: Told) -> int:
    """Open what is left and ask about everything; returns how many answers were lost."""
    async with await Sequencer.open(SqliteStore(path), **told.words()) as ledger:
        lost = 0
        for raw, seq in told.logged.items():
            found = await ledger.transaction(transaction_id(raw))
            lost += found is None or (found.seq, found.raw) != (seq, raw)
        for note in told.notes:
            seen = open_checkpoint(note, verifier_key(GENESIS.origin, OPERATOR))
            lost += seen.size > ledger.log.size or ledger.log.root_at(seen.size) != seen.root
        if lost:
            return lost
        again = [*told.logged, *told.refused, *told.unanswered]
        answers = dict(zip(again, await ledger.submit_many(again), strict=True))
        for raw, seq in told.logged.items():
            assert (answers[raw].outcome, answers[raw].seq) == ("exists", seq)
        for raw, code in told.refused.items():
            assert (answers[raw].outcome, answers[raw].code) == ("refused", code)
        supply = await ledger.supply()
        assert supply.equal
    check_replay(path, ledger._book)
    return 0


def check_replay(path: Path, book: Book) -> None:
    """The log alone leads to the state that the ledger had when it was closed."""
    store = SqliteStore(path)
    replay = Replay(verify=False)
    for entry in store.read(0, 100_000):
        replay.feed(entry.raw)
    signed = open_checkpoint(store.checkpoint() or "", verifier_key(GENESIS.origin, OPERATOR))
    assert (signed.size, signed.root) == (replay.size, replay.book.log.root())
    assert replay.book.tree.root() == book.tree.root()
    assert replay.book.state.issued == replay.book.state.total == book.state.issued
    assert replay.book.state.holds.keys() == book.state.holds.keys()
    store.close()
    file = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    assert file.pragma("integrity_check") == "ok"
    file.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Intervals, snapshots and checkpoints of the write-ahead log come as often as payments."""
    monkeypatch.setattr(service, "INTERVAL_S", 0.002)
    monkeypatch.setattr(service, "SNAPSHOT_EVERY", 12)
    monkeypatch.setattr(sqlite, "_WAL_PAGES", 15)
    caplog.set_level(logging.CRITICAL + 1, "rahba.ledger")


async def lost_in(seed: int, folder: Path, make_store: MakeStore) -> int:
    home = folder / str(seed)
    path, told = await lives(seed, home, make_store)
    lost = await check(path, told)
    shutil.rmtree(home)  # of a seed that fails it is kept
    return lost


def careful(path: Path, vfs: str) -> SqliteStore:
    return SqliteStore(path, vfs=vfs)


def careless(path: Path, vfs: str) -> SqliteStore:
    return CarelessStore(path, vfs=vfs)


@pytest.mark.usefixtures("hurried")
async def test_nothing_answered_is_lost_when_the_power_is_cut(tmp_path: Path) -> None:
    for seed in range(FEW):
        assert await lost_in(seed, tmp_path, careful) == 0, f"seed {seed}"


@pytest.mark.usefixtures("hurried")
async def test_the_power_may_go_at_any_moment_of_the_first_start(tmp_path: Path) -> None:
    for fuse in range(60):
        told, home = Told(), tmp_path / str(fuse)
        image = await live(home, Cut(random.Random(fuse), fuse, {}), careful, told)
        assert await check(found(home, image), told) == 0, f"change {fuse}"


@pytest.mark.long
@pytest.mark.usefixtures("hurried")
async def test_a_store_that_answers_before_it_syncs_does_lose_payments(tmp_path: Path) -> None:
    """The simulation bites: the same disk, the same load, one setting less."""
    losses = [await lost_in(seed, tmp_path, careless) for seed in range(CONTROLS)]
    assert sum(lost > 0 for lost in losses) > CONTROLS // 10


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("hurried")
async def test_nothing_answered_is_lost_in_a_thousand_power_cuts(tmp_path: Path) -> None:
    for seed in range(FEW, FEW + SEEDS):
        assert await lost_in(seed, tmp_path, careful) == 0, f"seed {seed}"
