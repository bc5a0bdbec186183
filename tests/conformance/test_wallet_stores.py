"""What every store of the ledger promises; both run the same tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rahba.merkle import leaf_hash
from wallet.errors import StoreError
from wallet.ports import Entry, Store, Verdict
from wallet.stores.memory import MemoryStore
from wallet.stores.sqlite import SqliteStore


def entry(seq: int, log_time: int = 1_000, size: int = 100) -> Entry:
    raw = b"%d" % seq * size
    return Entry(seq, raw, leaf_hash(raw), log_time)


def verdict(name: str, until: int) -> Verdict:
    return Verdict(name * 64, "insufficient_funds", "1 short", until)


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Return a function that closes the store and opens it again."""
    memory = MemoryStore()
    opened: list[Store] = []

    def again() -> Store:
        for store in opened:
            store.close()
        opened[:] = [memory if request.param == "memory" else SqliteStore(tmp_path / "ledger.db")]
        return opened[0]

    yield again
    for store in opened:
        store.close()


def test_a_new_store_is_empty(reopen: Callable[[], Store]) -> None:
    store = reopen()
    assert (store.size(), store.read(0, 10), store.verdicts(), store.checkpoint()) == (
        0,
        [],
        [],
        None,
    )


def test_what_was_appended_is_read_after_it_is_opened_again(reopen: Callable[[], Store]) -> None:
    entries = [entry(seq) for seq in range(5)]
    reopen().append(entries[:2], [verdict("a", 2_000)], "first")
    reopen().append(entries[2:], [], "second")
    store = reopen()
    assert store.size() == 5
    assert store.read(0, 10) == entries
    assert store.read(3, 1) == [entries[3]]
    assert store.read(5, 1) == []
    assert store.verdicts() == [verdict("a", 2_000)]
    assert store.checkpoint() == "second"


def test_an_append_without_a_checkpoint_keeps_the_old_one(reopen: Callable[[], Store]) -> None:
    store = reopen()
    store.append([entry(0)], [], "first")
    store.append([entry(1)], [], None)
    assert store.checkpoint() == "first"


def test_entries_are_found_by_their_transaction_ids(reopen: Callable[[], Store]) -> None:
    store = reopen()
    store.append([entry(seq) for seq in range(3)], [], None)
    known, unknown = entry(1).leaf.hex(), "0" * 64
    assert store.find([known, unknown]) == {known: entry(1)}


@pytest.mark.parametrize("places", [[1], [0, 2], [1, 0], [0, 0], [0, 3, 2]])
def test_a_gap_or_an_overlap_writes_nothing(reopen: Callable[[], Store], places: list[int]) -> None:
    store = reopen()
    with pytest.raises(StoreError):
        store.append([entry(seq) for seq in places], [verdict("a", 9)], "note")
    store = reopen()
    assert (store.size(), store.verdicts(), store.checkpoint()) == (0, [], None)


def test_refusals_are_forgotten_when_ledger_time_is_past_them(reopen: Callable[[], Store]) -> None:
    store = reopen()
    store.append([entry(0)], [verdict("a", 1_500), verdict("b", 2_500)], None)
    store.append([entry(1, 2_000)], [], None)
    assert reopen().verdicts() == [verdict("b", 2_500)]


def test_a_full_memory_store_takes_all_or_nothing() -> None:
    store = MemoryStore(limit=2)
    store.append([entry(0)], [], None)
    with pytest.raises(StoreError):
        store.append([entry(1), entry(2)], [], "note")
    assert (store.size(), store.checkpoint()) == (1, None)


def test_a_full_disk_takes_all_or_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db", max_pages=40)
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
    assert store.size() == done > 0
    assert store.checkpoint() == str(done - 4)
    store.append([entry(done)], [], None)
    store.close()


def test_one_process_at_a_time_has_the_file(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "ledger.db")
    with pytest.raises(StoreError, match="another process"):
        SqliteStore(tmp_path / "ledger.db")
    first.close()
    SqliteStore(tmp_path / "ledger.db").close()


def test_a_file_that_is_no_ledger_is_refused_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database, but long enough to look at: " * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot open"):
            SqliteStore(path)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.size()
    with pytest.raises(StoreError, match="closed"):
        store.append([entry(0)], [], None)


def test_the_file_is_written_in_the_safest_way(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    writer, reader = store._writer, store._reader
    assert writer is not None
    assert reader is not None
    assert list(writer.execute("PRAGMA journal_mode")) == [("wal",)]
    assert list(writer.execute("PRAGMA synchronous")) == [(2,)]
    assert list(reader.execute("PRAGMA wal_autocheckpoint")) == [(0,)]
    store.close()
