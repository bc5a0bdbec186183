"""The newest entries of the log in memory: what was written, within bounds, nothing else."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wallet.tail
from wallet.ports import Entry
from wallet.stores.memory import MemoryStore
from wallet.tail import MAX_BYTES, MAX_ENTRIES, Shown, Tail


def entry(seq: int, size: int = 1) -> Entry:
    return Entry(seq, bytes(size), b"leaf", 5)


def test_the_example_holds() -> None:
    assert doctest.testmod(wallet.tail).failed == 0


@given(
    groups=st.lists(st.integers(0, 2_000), max_size=8),
    start=st.integers(-3, 16_000),
    limit=st.integers(0, 50),
)
def test_what_it_shows_is_what_the_log_has_there(groups: list[int], start: int, limit: int) -> None:
    tail, size = Tail(), 0
    for count in groups:
        tail.add([entry(seq) for seq in range(size, size + count)])
        size += count
    found = [one.seq for one in tail.read(start, limit)]
    assert found in ([], list(range(start, min(start + limit, size))))
    if 0 <= size - MAX_ENTRIES // 2 + 1 <= start < size and limit:
        assert found


def test_it_is_bounded_by_entries_and_by_bytes() -> None:
    tail = Tail()
    for seq in range(3 * MAX_ENTRIES):
        tail.add([entry(seq)])
        assert tail.read(seq, 2) == [entry(seq)]
    first = next(seq for seq in range(3 * MAX_ENTRIES) if tail.read(seq, 1))
    assert MAX_ENTRIES // 2 <= len(tail.read(first, 3 * MAX_ENTRIES)) <= MAX_ENTRIES
    large = Tail()
    for seq in range(300):
        large.add([entry(seq, 60_000)])
    assert large.read(299, 5) == [entry(299, 60_000)]
    held = [seq for seq in range(300) if large.read(seq, 1)]
    assert 0 < len(held) * 60_000 <= MAX_BYTES
    large.add([entry(300, MAX_BYTES + 1)])
    assert large.read(300, 1) == []


def test_what_memory_does_not_have_is_read_from_the_store() -> None:
    tail, store = Tail(), MemoryStore()
    store.acquire()
    store.append([entry(seq) for seq in range(9)], [], None)
    tail.add([entry(seq, 2) for seq in range(5, 9)])
    shown = Shown(tail, store)
    assert shown.read(4, 9) == [entry(seq) for seq in range(4, 9)]
    assert shown.read(5, 3) == [entry(seq, 2) for seq in range(5, 8)]
    assert shown.read(9, 1) == []


@pytest.mark.parametrize("seq", [0, 4, 6, 90])
def test_after_a_gap_it_begins_anew(seq: int) -> None:
    tail = Tail()
    tail.add([entry(3), entry(4)])
    tail.add([entry(seq)])
    assert tail.read(seq, 9) == [entry(seq)]
    assert tail.read(3, 1) == []
