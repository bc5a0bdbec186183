"""What every store of the ledger promises; all run the same tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from rahba.merkle import leaf_hash
from wallet.errors import FencedError, StoreError, StoreLockedError, StoreVersionError
from wallet.ports import Entry, Snapshot, Store, Verdict
from wallet.stores.lockfile import LockFile, read_beat
from wallet.stores.memory import MemoryDisk, MemoryStore
from wallet.stores.postgres import PostgresStore
from wallet.stores.sqlite import _EPOCH_BITS, _FIND, TILE, SqliteStore


def entry(seq: int, log_time: int = 1_000, size: int = 100) -> Entry:
    raw = b"%d" % seq * size
    return Entry(seq, raw, leaf_hash(raw), log_time, b"%d" % seq)


def verdict(name: str, until: int) -> Verdict:
    return Verdict(name * 64, "insufficient_funds", "1 short", until)


@dataclass
class Kit:
    """Stores of one ledger, any number."""

    make: Callable[[], Store]
    opened: list[Store]

    def reader(self) -> Store:
        self.opened.append(self.make())
        return self.opened[-1]

    def writer(self, *, steal: bool = False) -> Store:
        store = self.reader()
        store.acquire(steal=steal)
        return store

    def again(self) -> Store:
        """Close everything, as the end of a process does, and open it again."""
        for store in self.opened:
            store.close()
        return self.writer()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    make: Callable[[], Store]
    disk = MemoryDisk()

    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        make = lambda: PostgresStore(url)  # noqa: E731
    elif request.param == "sqlite":
        make = lambda: SqliteStore(tmp_path / "deep" / "ledger.db")  # noqa: E731
    else:
        make = lambda: MemoryStore(disk=disk)  # noqa: E731
    found = Kit(make, [])
    yield found
    for store in found.opened:
        store.close()


def test_a_new_store_is_empty_whoever_looks(kit: Kit) -> None:
    for store in (kit.reader(), kit.writer()):
        assert (store.size(), store.read(0, 10), store.leaves(0, 10)) == (0, [], b"")
        assert (store.verdicts(), store.checkpoint(), store.witnessed()) == ([], None, None)
        assert (store.snapshot(), store.row(b"a"), store.find(["0" * 64])) == (None, None, {})


def test_what_was_appended_is_read_after_it_is_opened_again(kit: Kit) -> None:
    entries = [entry(seq) for seq in range(5)]
    kit.writer().append(entries[:2], [verdict("a", 2_000)], "first")
    kit.again().append(entries[2:], [], "second")
    store = kit.again()
    assert store.size() == 5
    assert store.read(0, 10) == entries
    assert store.read(3, 1) == [entries[3]]
    assert store.read(5, 1) == []
    assert store.verdicts() == [verdict("a", 2_000)]
    assert store.checkpoint() == "second"


def test_an_append_without_a_checkpoint_keeps_the_old_one(kit: Kit) -> None:
    store = kit.writer()
    store.append([entry(0)], [], "first")
    store.append([entry(1)], [], None)
    assert store.checkpoint() == "first"


def test_a_witnessed_checkpoint_is_kept_beside_the_newest(kit: Kit) -> None:
    store = kit.writer()
    store.append([entry(0)], [], "newest")
    store.save_witnessed("older, cosigned")
    store.save_witnessed("cosigned — with a dash")
    store = kit.again()
    assert (store.checkpoint(), store.witnessed()) == ("newest", "cosigned — with a dash")


def test_entries_are_found_by_their_transaction_ids(kit: Kit) -> None:
    store = kit.writer()
    store.append([entry(seq) for seq in range(3)], [], None)
    known, unknown = entry(1).leaf.hex(), "0" * 64
    assert store.find([known, unknown]) == {known: entry(1)}
    assert store.find([]) == {}


@pytest.mark.parametrize("places", [[1], [0, 2], [1, 0], [0, 0], [0, 3, 2]])
def test_a_gap_or_an_overlap_writes_nothing(kit: Kit, places: list[int]) -> None:
    store = kit.writer()
    with pytest.raises(StoreError):
        store.append([entry(seq) for seq in places], [verdict("a", 9)], "note", Snapshot(1, {}))
    store = kit.again()
    assert (store.size(), store.verdicts(), store.checkpoint()) == (0, [], None)
    assert store.snapshot() is None
    store.append([entry(0)], [], None)
    assert store.leaves(0, 9) == entry(0).leaf


def test_refusals_are_forgotten_when_ledger_time_is_past_them(kit: Kit) -> None:
    store = kit.writer()
    store.append([entry(0)], [verdict("a", 1_500), verdict("b", 2_500)], None)
    store.append([entry(1, 2_000)], [verdict("b", 2_600)], None)
    assert kit.again().verdicts() == [verdict("b", 2_600)]


@pytest.mark.parametrize("groups", [[1] * 7, [TILE], [TILE - 1, 2, 3 * TILE, 5], [2 * TILE + 9]])
def test_leaf_hashes_come_as_one_piece_from_wherever(kit: Kit, groups: list[int]) -> None:
    store, size = kit.writer(), 0
    for at, count in enumerate(groups):
        store.append([entry(seq, size=1) for seq in range(size, size + count)], [], None)
        size += count
        if at % 2:
            store = kit.again()
    whole = b"".join(entry(seq, size=1).leaf for seq in range(size))
    for start in {0, 1, 5, TILE - 1, TILE, TILE + 1, size - 1, size, size + 1}:
        for limit in (0, 1, 2, TILE, TILE + 1, size, 10 * size):
            wanted = whole[32 * start : 32 * (start + limit)]
            assert store.leaves(start, limit) == wanted, (start, limit)


def test_a_snapshot_is_the_sum_of_its_changes_and_the_archive_is_no_part_of_it(kit: Kit) -> None:
    store = kit.writer()
    store.append([entry(0)], [], None, Snapshot(1, {b"a1": b"one", b"h": b"\0", b"r1": b"old"}))
    store.append([entry(1)], [], None, Snapshot(2, {b"a1": b"two", b"h": None, b"f": b""}))
    store = kit.again()
    found = store.snapshot()
    assert found is not None
    assert (found[0], list(found[1])) == (2, [(b"a1", b"two"), (b"f", b"")])
    assert (store.row(b"r1"), store.row(b"a1"), store.row(b"h")) == (b"old", b"two", None)


def test_a_snapshot_is_read_as_of_one_moment(kit: Kit) -> None:
    writer, reader = kit.writer(), kit.reader()
    rows: dict[bytes, bytes | None] = {b"a%04d" % number: b"old" * 99 for number in range(2_000)}
    writer.append([entry(0)], [], None, Snapshot(1, rows))
    found = reader.snapshot()
    assert found is not None
    first = next(items := iter(found[1]))
    writer.append([entry(1)], [], None, Snapshot(2, {**dict.fromkeys(rows, b"new"), b"b": b""}))
    assert (found[0], dict([first, *items])) == (1, rows)
    again = reader.snapshot()
    assert again is not None
    assert (again[0], len(list(again[1]))) == (2, 2_001)


@pytest.mark.parametrize("size", [1, 4])
def test_a_snapshot_covers_no_less_than_before_and_no_more_than_there_is(
    kit: Kit, size: int
) -> None:
    store = kit.writer()
    store.append([entry(0), entry(1)], [], None, Snapshot(2, {b"a": b"two"}))
    with pytest.raises(StoreError, match="covers"):
        store.append([entry(2)], [], "note", Snapshot(size, {b"a": b"wrong"}))
    assert (store.size(), store.row(b"a"), store.checkpoint()) == (2, b"two", None)


def test_one_at_a_time_writes_and_anybody_reads(kit: Kit) -> None:
    first = kit.writer()
    first.append([entry(0)], [], "note")
    second = kit.reader()
    with pytest.raises(StoreLockedError):
        second.acquire()
    assert (second.size(), second.checkpoint()) == (1, "note")
    first.append([entry(1)], [], None)
    assert second.read(0, 5) == [entry(0), entry(1)]
    first.close()
    third = kit.reader()
    third.acquire()
    third.append([entry(2)], [], None)


def test_only_who_acquired_it_writes(kit: Kit) -> None:
    kit.writer().close()
    store = kit.reader()
    for write in (lambda: store.append([entry(0)], [], None), lambda: store.save_witnessed("x")):
        with pytest.raises(StoreError, match="acquired"):
            write()


def test_a_writer_that_was_overtaken_writes_nothing_more(kit: Kit) -> None:
    paused = kit.writer()
    paused.append([entry(0)], [], None)
    newer = kit.writer(steal=True)
    newer.append([entry(1)], [], "new")
    with pytest.raises(FencedError):
        paused.append([entry(2)], [verdict("a", 9_000)], "old", Snapshot(3, {b"a": b"x"}))
    for write in (lambda: paused.save_witnessed("old"), paused.beat):
        with pytest.raises(FencedError):
            write()
    newer.append([entry(2)], [], None)
    assert (newer.size(), newer.checkpoint(), newer.verdicts()) == (3, "new", [])
    assert newer.snapshot() is None
    assert newer.witnessed() is None
    paused.close()  # takes nothing from the newer one
    with pytest.raises(StoreLockedError):
        kit.writer()
    newer.append([entry(3)], [], None)
    kit.again().append([entry(4)], [], None)


def test_a_writer_that_is_one_already_keeps_its_token(kit: Kit) -> None:
    store = kit.writer()
    assert store.acquire() == store.acquire(steal=True) == store.pulse().token
    store.append([entry(0)], [], None)


def test_whoever_watches_sees_that_the_writer_lives(kit: Kit) -> None:
    watcher = kit.reader()
    assert watcher.pulse() == (0, 0)
    store = kit.writer()
    first = watcher.pulse()
    store.append([entry(0)], [], None)
    store.beat()
    second = watcher.pulse()
    store.beat()
    assert first.token == second.token == store.acquire()
    assert len({first, second, watcher.pulse()}) == 3
    newer = kit.writer(steal=True)
    newer.beat()
    assert watcher.pulse().token == newer.acquire() > first.token


def test_tokens_only_grow(kit: Kit) -> None:
    tokens = []
    for _ in range(4):
        store = kit.reader()
        tokens.append(store.acquire())
        store.close()
    assert tokens == sorted(set(tokens))


def test_a_reader_sees_all_of_a_group_or_nothing(kit: Kit) -> None:
    writer, reader = kit.writer(), kit.reader()
    writer.append([entry(0)], [], "0")
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(reader.size())

    thread = threading.Thread(target=look)
    thread.start()
    for first in range(1, 101, 10):
        writer.append([entry(seq) for seq in range(first, first + 10)], [], str(first))
    done.set()
    thread.join()
    assert {size % 10 for size in seen} == {1}


def test_a_closed_store_says_so_and_may_be_closed_twice(kit: Kit) -> None:
    store = kit.writer()
    store.append([entry(0)], [], None)
    store.close()
    store.close()
    with pytest.raises(StoreError):
        store.append([entry(1)], [], None)


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
        admin.execute("ALTER TABLE rahba_ledger.entries ADD CHECK (seq < 5)")
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
