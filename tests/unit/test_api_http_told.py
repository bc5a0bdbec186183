"""What a gateway remembers of ended calls is bounded by bytes, not by how many there were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.http.told import Told


def test_the_oldest_calls_are_forgotten_when_there_are_too_many_bytes() -> None:
    told = Told(max_bytes=100, max_calls=10)
    for name in ("a", "b", "c"):
        told.keep(name, [b"x" * 20, b"y" * 20])
    assert told.of("a") is None
    assert told.of("c") == (b"x" * 20, b"y" * 20)
    told.keep("huge", [b"z" * 101])
    assert told.of("huge") is None
    assert told.size_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60)), max_size=40))
def test_no_history_of_calls_exceeds_the_bounds(history: list[tuple[str, int]]) -> None:
    told = Told(max_bytes=100, max_calls=3)
    for name, size in history:
        told.keep(name, [b"e" * size])
        kept = [events for one in "abcdef" if (events := told.of(one)) is not None]
        assert told.size_bytes == sum(len(event) for events in kept for event in events) <= 100
        assert len(kept) <= 3
