"""What only one of the stores does: its files, its server, its ways of failing."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.fixtures.stores import entry, verdict
from wallet.errors import FencedError, StoreError, StoreLockedError, StoreVersionError
from wallet.ports import Entry, Snapshot
from wallet.stores.blocks import MAX_ENTRIES, pack, unpack
from wallet.stores.lockfile import LockFile, read_beat
from wallet.stores.memory import MemoryStore
from wallet.stores.postgres import PostgresStore
from wallet.stores.sqlite import _EPOCH_BITS, _FIND, SqliteStore


def test_a_full_memory_store_takes_all_or_nothing() -> None:
    store = MemoryStore(limit=2)
    store.acquire()
    store.append([entry(0)], [], None)
    with pytest.raises(StoreError):
        store.append([entry(1), entry(2)], [], "note")
    assert (store.size(), store.checkpoint()) == (1, None)


def test_a_full_disk_takes_all_or_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db", max_pages=60)
    store.acquire()
    done = 0

    def fill() -> None:
        nonlocal done
        while done < 1_000:
            store.append([entry(seq, size=400) for seq in range(done, done + 4)], [], str(done))
            done += 4

    with pytest.raises(StoreError, match="full"):
        fill()
    assert store.size() == done
    store.close()
    store = SqliteStore(tmp_path / "ledger.db")
    store.acquire()
    assert store.size() == done > 0
    assert store.checkpoint() == str(done - 4)
    store.append([entry(done)], [], None)
    assert store.leaves(0, done + 1)[-32:] == entry(done).leaf
    store.close()


def test_a_file_that_is_no_ledger_is_refused_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database, but long enough to look at: " * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot open"):
            SqliteStore(path).acquire()


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    store.acquire()
    assert store._writer is not None
    store._writer.execute("PRAGMA user_version = 1")
    store.close()
    for opened in (SqliteStore, lambda path: SqliteStore(path).acquire()):
        with pytest.raises(StoreVersionError, match="another version: 1"):
            opened(tmp_path / "ledger.db")


def test_a_writer_that_is_frozen_amid_a_transaction_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.stores.sqlite._BUSY_MS", 50)
    frozen, standby = SqliteStore(tmp_path / "ledger.db"), SqliteStore(tmp_path / "ledger.db")
    token = frozen.acquire()
    assert frozen._writer is not None
    frozen._writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLockedError):
        standby.acquire(steal=True)
    frozen._writer.execute("ROLLBACK")
    frozen.append([entry(0)], [], None)
    with pytest.raises(StoreLockedError):
        standby.acquire()
    assert standby.acquire(steal=True) == token + 1
    assert [path.name for path in tmp_path.glob("*.lock*")] == ["ledger.db.lock"]
    frozen.close()
    standby.close()


def test_an_id_is_found_in_whatever_epoch_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    store.acquire()
    count = 2 * 2**_EPOCH_BITS + 5
    entries = [entry(seq, size=1) for seq in range(count)]
    store.append(entries, [], None)
    wanted = [entries[at] for at in (0, 1, 2**_EPOCH_BITS - 1, 2**_EPOCH_BITS, count - 1)]
    found = store.find([each.leaf.hex() for each in wanted] + ["f" * 64])
    assert sorted(found.values()) == wanted
    assert store._reader is not None
    plan = str(store._reader.execute(f"EXPLAIN QUERY PLAN {_FIND}", (b"",)).fetchall())
    assert "entries_by_leaf" in plan
    store.close()


def test_a_lock_file_that_was_replaced_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db.lock"
    first = LockFile(path)
    second = LockFile(path, steal=True)
    second.settle()
    first.close()
    with pytest.raises(StoreLockedError):
        LockFile(path)
    second.beat()
    second.beat()
    assert read_beat(path) == 2
    LockFile(path, steal=True).close()  # never settled: it leaves nothing behind
    assert list(tmp_path.iterdir()) == [path]
    second.close()
    LockFile(path).close()


def test_the_file_is_written_in_the_safest_way(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    store.acquire()
    writer, reader = store._writer, store._reader
    assert writer is not None
    assert reader is not None
    assert list(writer.execute("PRAGMA journal_mode")) == [("wal",)]
    assert list(writer.execute("PRAGMA synchronous")) == [(2,)]
    assert list(reader.execute("PRAGMA wal_autocheckpoint")) == [(0,)]
    store.close()


def test_a_database_waits_for_its_disk_whatever_the_server_says(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    store.acquire()
    assert store._writer is not None
    assert store._writer.execute("SHOW synchronous_commit").fetchone() == ("on",)
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://rahba:hush-hush@127.0.0.1:1/none",
        "hush-hush",
        "postgresql://:hush-hush@127.0.0.1:1/x",
    ],
)
def test_an_unreachable_database_is_an_error_that_keeps_the_password(url: str) -> None:
    with pytest.raises(StoreError, match="cannot reach") as caught:
        PostgresStore(url).acquire()
    assert "hush-hush" not in f"{caught.value}{caught.value.facts}"


def test_a_database_of_another_version_is_refused(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    store.acquire()
    assert store._writer is not None
    store._writer.execute("UPDATE counters SET value = 1 WHERE name = 'version'")
    store.close()
    with pytest.raises(StoreVersionError, match="another version: 1"):
        PostgresStore(postgres_url).acquire()


def test_what_a_database_does_not_take_leaves_nothing_behind(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    store.acquire()
    store.append([entry(0)], [], "first")
    with psycopg.connect(postgres_url) as admin:
        admin.execute("ALTER TABLE rahba_ledger.blocks ADD CHECK (count < 5)")
    with pytest.raises(StoreError, match="violates"):
        store.append([entry(seq) for seq in range(1, 9)], [verdict("a", 9_000)], "second")
    with psycopg.connect(postgres_url) as admin:
        admin.execute("ALTER TABLE rahba_ledger.notes ADD CHECK (note <> 'third')")
    with pytest.raises(StoreError, match="violates"):
        store.append([entry(1)], [verdict("a", 9_000)], "third", Snapshot(2, {b"a": b"b"}))
    assert (store.size(), store.verdicts(), store.checkpoint()) == (1, [], "first")
    assert store.snapshot() is None
    store.append([entry(1)], [], "fourth")
    assert store.leaves(0, 9) == entry(0).leaf + entry(1).leaf
    store.close()


def test_a_session_that_the_server_ends_is_an_error_and_not_a_lost_lock(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    store.acquire()
    with psycopg.connect(postgres_url) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'rahba-ledger'"
        )
    with pytest.raises(StoreError) as caught:
        store.append([entry(0)], [], None)
    assert not isinstance(caught.value, FencedError)
    assert store.size() == 0  # reading opens a session of its own again
    store.close()


def test_entries_are_packed_into_blocks_of_a_bounded_size() -> None:
    entries = [entry(seq, size=40) for seq in range(2 * MAX_ENTRIES + 3)]
    blocks = list(pack(entries))
    assert [len(block) for block, _ in blocks] == [MAX_ENTRIES, MAX_ENTRIES, 3]
    assert [each for block, body in blocks for each in unpack(block[0].seq, body)] == entries
    large = [Entry(seq, bytes(64 * 1024), bytes(32), seq) for seq in range(9)]
    assert [len(block) for block, _ in pack(large)] == [4, 4, 1]
    assert list(pack([])) == []


@pytest.mark.parametrize("cut", [1, 20, 47, 60, 1_000])
def test_a_damaged_block_is_an_error(cut: int) -> None:
    ((_, body),) = pack([entry(0, size=2_000), entry(1)])
    with pytest.raises(StoreError, match="damaged"):
        list(unpack(0, body[:-cut]))
