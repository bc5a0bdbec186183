"""What every store of the ledger promises; all run the same tests."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures import store_process
from tests.fixtures.stores import entry, verdict
from wallet.errors import FencedError, StoreError, StoreLockedError
from wallet.ports import Snapshot, Store
from wallet.stores.leaf_tiles import TILE, cut, read_leaves
from wallet.stores.memory import MemoryDisk, MemoryStore
from wallet.stores.postgres import PostgresStore
from wallet.stores.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("gap", [0, 1])
def test_a_tile_that_is_missing_is_noticed(gap: int) -> None:
    tiles, tail = cut(b"", bytes(32) * (3 * TILE + 1), 0)
    assert ([number for number, _ in tiles], len(tail)) == ([0, 1, 2], 32)
    kept = [tile for tile in tiles if tile[0] != gap]
    with pytest.raises(StoreError, match="a tile is missing"):
        read_leaves(0, 3 * TILE, lambda first, last: kept[first : last + 1], lambda *_: b"")


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


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_killed_writer_leaves_what_it_said_and_its_place(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = str(tmp_path / "ledger.db")
    if kind == "postgres":
        address = request.getfixturevalue("postgres_url")
    command = [sys.executable, "-m", "tests.fixtures.store_process", address]
    said, tokens = 0, []
    for kill in range(1, 5):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in itertools.islice(process.stdout, 3 * kill):
                said = int(line)
            process.kill()
            said = int([str(said), *process.stdout.read().decode().split()][-1])
        store = store_process.open_store(address)
        tokens.append(until_free(store))
        size = store.size()
        assert size >= said
        assert store.read(0, size + 1) == [store_process.entry(seq) for seq in range(size)]
        assert store.leaves(0, size) == b"".join(each.leaf for each in store.read(0, size))
        assert store.checkpoint() == f"size {size}"
        store.close()
    assert tokens == sorted(set(tokens))


def until_free(store: Store) -> int:
    """A server needs a moment to see that a client is gone."""
    give_up = time.monotonic() + 10
    while True:
        try:
            return store.acquire()
        except StoreLockedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
