"""Flipped bits in what a ledger has stored: it says which entry is wrong, and does not start.

The same damage is done to a SQLite file and to a PostgreSQL database.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import apsw
import psycopg
import pytest

from rahba.note import sign_checkpoint
from tests.fixtures.wallet import DEAL, START_MS, LedgerRig, ManualClock, did
from wallet.errors import LedgerCorruptError, StoreError
from wallet.ports import Entry
from wallet.service import Sequencer
from wallet.stores.blocks import pack, unpack
from wallet.stores.postgres import PostgresStore
from wallet.stores.sqlite import SqliteStore

FLIPS = 120


@dataclass
class Stored:
    """A closed ledger, and a way to its rows that no ledger would take."""

    rig: LedgerRig
    execute: Callable[..., list[Any]]
    put: Callable[[int, Entry | None], None]
    size: int
    root: bytes

    def flip(self, seq: int, field: str) -> None:
        """Flip one bit in the middle of a stored entry's field; twice is as before."""
        store = self.rig.make_store()
        (entry,) = store.read(seq, 1)
        store.close()
        value = getattr(entry, field)
        changed = value ^ 128 if isinstance(value, int) else flipped(value)
        self.put(seq, entry._replace(**{field: changed}))

    async def refused_at(self) -> object:
        with pytest.raises(LedgerCorruptError) as caught:
            await self.rig.open()
        return caught.value.facts.get("seq")


async def write(rig: LedgerRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a ledger with a snapshot amid all kinds of rows, and three payments at its end."""
    monkeypatch.setattr("wallet.service.INTERVAL_S", 0.005)
    monkeypatch.setattr("wallet.service.SNAPSHOT_EVERY", 20)
    ledger = await rig.open()
    amina = await rig.funded("amina", 10_000_000)
    await amina.hold(did("brahim"), 900, rig.clock.now_ms() + 60_000, DEAL)
    raw = await amina.sign_transfer(did("brahim"), 10**15)
    assert (await ledger.submit(raw)).code == "insufficient_funds"
    for number in range(40):
        await amina.transfer(did(f"payee {number % 7}"), 5)
        rig.clock.advance(1)
    await settled(ledger)
    monkeypatch.setattr("wallet.service.SNAPSHOT_EVERY", 10**9)
    for _ in range(3):
        await amina.transfer(did("late"), 5)
        await settled(ledger)
        rig.clock.advance(1)
    await ledger.submit_many([await amina.sign_transfer(did("later"), 5) for _ in range(3)])
    await ledger.close()


async def settled(ledger: Sequencer) -> None:
    """Wait until a checkpoint covers everything."""
    await ledger.next_checkpoint(ledger.log.size - 1)


def flipped(value: bytes) -> bytes:
    middle = len(value) // 2
    return value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]


async def in_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    path = tmp_path / "ledger.db"
    rig = LedgerRig(lambda: SqliteStore(path), ManualClock(START_MS))
    await write(rig, monkeypatch)

    def execute(question: str, values: tuple[Any, ...] = ()) -> list[Any]:
        file = apsw.Connection(str(path))
        try:
            return file.execute(question, values).fetchall()
        finally:
            file.close()

    def put(seq: int, entry: Entry | None) -> None:
        execute("DELETE FROM entries WHERE seq = ?", (seq,))
        if entry is not None:
            execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", entry)

    return stored(rig, execute, put)


async def in_database(url: str, monkeypatch: pytest.MonkeyPatch) -> Stored:
    rig = LedgerRig(lambda: PostgresStore(url), ManualClock(START_MS))
    await write(rig, monkeypatch)

    def execute(question: LiteralString, values: tuple[Any, ...] = ()) -> list[Any]:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET search_path TO rahba_ledger")
            done = connection.execute(question.replace("?", "%s"), values, binary=True)
            return done.fetchall() if done.description else []

    def put(seq: int, entry: Entry | None) -> None:
        block = "SELECT first, body FROM blocks WHERE first <= ? ORDER BY first DESC LIMIT 1"
        ((first, body),) = execute(block, (seq,))
        there = list(unpack(first, body))
        there[seq - first : seq - first + 1] = [entry] if entry is not None else []
        execute("DELETE FROM blocks WHERE first = ?", (first,))
        for block_of, packed in pack(there):
            values = (first, len(block_of), [], packed)
            execute("INSERT INTO blocks VALUES (?, ?, ?, ?)", values)

    return stored(rig, execute, put)


def stored(rig: LedgerRig, execute: Callable[..., list[Any]], put: Any) -> Stored:
    ledger = rig.ledger
    return Stored(rig, execute, put, ledger.log.size, ledger._book.tree.root())


@pytest.fixture(params=["sqlite", "postgres"])
async def ledger(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stored]:
    if request.param == "sqlite":
        found = await in_file(tmp_path, monkeypatch)
    else:
        found = await in_database(request.getfixturevalue("postgres_url"), monkeypatch)
    yield found
    await found.rig.ledger.close()


def covered(ledger: Stored) -> int:
    (row,) = ledger.execute("SELECT value FROM counters WHERE name = 'covered'")
    return int(row[0])


async def test_a_ledger_that_nobody_touched_starts(ledger: Stored) -> None:
    assert 20 < covered(ledger) < ledger.size - 4
    opened = await ledger.rig.open()
    assert opened._book.tree.root() == ledger.root
    assert opened.log.size == ledger.size


@pytest.mark.parametrize("field", ["raw", "leaf"])
async def test_a_flipped_bit_after_the_snapshot_names_its_entry(ledger: Stored, field: str) -> None:
    for seq in (covered(ledger) + 1, ledger.size - 2):
        ledger.flip(seq, field)
        assert await ledger.refused_at() == seq
        ledger.flip(seq, field)
    await ledger.rig.open()


async def test_a_flipped_bit_in_a_time_names_its_entry(ledger: Stored) -> None:
    first = covered(ledger)
    for seq in (first, first + 1, ledger.size - 1):
        ledger.flip(seq, "log_time")
        assert await ledger.refused_at() == seq
        ledger.flip(seq, "log_time")
    await ledger.rig.open()


async def test_a_flipped_bit_in_the_time_of_an_open_interval_names_its_entry(
    ledger: Stored,
) -> None:
    """A crash left three payments without a state leaf, and the second has another time."""
    rig, closed = ledger.rig, ledger.size - 4
    root = rig.ledger.log.root_at(closed)
    note = sign_checkpoint(rig.genesis.origin, closed, root, rig.operator)
    ledger.put(ledger.size - 1, None)
    assert await ledger.refused_at() == ledger.size - 1, "the checkpoint covers what is gone"
    ledger.execute("UPDATE notes SET note = ? WHERE name = 'checkpoint'", (note,))
    ledger.flip(closed + 1, "log_time")
    assert await ledger.refused_at() == closed + 1
    ledger.flip(closed + 1, "log_time")
    opened = await rig.open()
    assert opened.log.size == ledger.size, "the interval was closed again"


async def test_a_flipped_bit_in_the_checkpoint_names_the_entry_that_it_covers(
    ledger: Stored,
) -> None:
    ((note,),) = ledger.execute("SELECT note FROM notes WHERE name = 'checkpoint'")
    for at in range(3, len(note) - 1, 17):
        changed = note[:at] + chr(ord(note[at]) ^ 1) + note[at + 1 :]
        ledger.execute("UPDATE notes SET note = ? WHERE name = 'checkpoint'", (changed,))
        assert await ledger.refused_at() == ledger.size - 1
    ledger.execute("UPDATE notes SET note = ? WHERE name = 'checkpoint'", (note,))
    await ledger.rig.open()


@pytest.mark.parametrize("column", ["code", "id"])
async def test_a_flipped_bit_in_a_remembered_refusal_stops_the_start(
    ledger: Stored, column: str
) -> None:
    """``insufficient_funds`` becomes a word that no ledger says, an id what no id is."""
    ((value,),) = ledger.execute(f"SELECT {column} FROM verdicts")
    changed = chr(ord(value[0]) ^ 0x10) + value[1:]
    ledger.execute(f"UPDATE verdicts SET {column} = ?", (changed,))
    with pytest.raises(LedgerCorruptError, match="a remembered refusal is damaged"):
        await ledger.rig.open()


async def test_a_damaged_snapshot_is_not_believed(
    ledger: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """Every row, one bit each: the log is replayed from its beginning instead."""
    keys = [bytes(key) for (key,) in ledger.execute("SELECT key FROM snapshot ORDER BY key")]
    assert {key[:1] for key in keys} >= {b"a", b"h", b"m"}
    for key in keys:
        ((value,),) = ledger.execute("SELECT value FROM snapshot WHERE key = ?", (key,))
        changed = bytearray(value)
        changed[random.Random(key).randrange(len(changed))] ^= 4
        ledger.execute("UPDATE snapshot SET value = ? WHERE key = ?", (bytes(changed), key))
        caplog.clear()
        opened = await ledger.rig.open()
        assert "is not used" in caplog.text
        assert opened._book.tree.root() == ledger.root
        assert (await opened.supply()).open_holds == 1
        await opened.close()
        ledger.execute("UPDATE snapshot SET value = ? WHERE key = ?", (value, key))


async def test_a_damaged_tile_of_leaf_hashes_is_not_believed(
    ledger: Stored, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.service.SNAPSHOT_EVERY", 20)
    opened = await ledger.rig.open()
    amina = ledger.rig.wallet("amina")
    await opened.submit_many([await amina.sign_transfer(did("late"), 1) for _ in range(300)])
    await opened.close()
    root = opened._book.tree.root()
    assert covered(ledger) > 256
    ((hashes,),) = ledger.execute("SELECT hashes FROM tiles WHERE number = 0")
    ledger.execute("UPDATE tiles SET hashes = ? WHERE number = 0", (flipped(hashes),))
    caplog.clear()
    opened = await ledger.rig.open()
    assert "does not follow from its snapshot" in caplog.text
    assert opened._book.tree.root() == root


async def test_no_flipped_bit_of_the_file_makes_it_another_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Anywhere in the file: it starts as it was, or it does not start and says why."""
    ledger = await in_file(tmp_path, monkeypatch)
    caplog.set_level(logging.CRITICAL + 1, "rahba.ledger")
    raw = (tmp_path / "ledger.db").read_bytes()
    rng, starts = random.Random(1), 0
    for number in range(FLIPS):
        path = tmp_path / str(number) / "ledger.db"
        path.parent.mkdir()
        changed = bytearray(raw)
        changed[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        opened = await start(ledger.rig, path)
        if opened is not None:
            starts += 1
            assert opened._book.tree.root() == ledger.root
            assert opened.log.size == ledger.size
            await opened.close()
        shutil.rmtree(path.parent)
    assert 0 < starts < FLIPS


async def start(rig: LedgerRig, path: Path) -> Sequencer | None:
    try:
        return await Sequencer.open(
            SqliteStore(path),
            genesis=rig.genesis,
            operator=rig.operator,
            clock=rig.clock,
            ids=rig.ids,
        )
    except (LedgerCorruptError, StoreError):
        return None
