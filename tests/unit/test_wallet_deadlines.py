"""What is due comes oldest first, once, and only if it has not ended or been put off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wallet.deadlines import Deadlines


def test_what_was_put_off_or_has_ended_is_not_due() -> None:
    times: dict[str, int] = {"early": 5, "late": 9, "gone": 6}
    deadlines = Deadlines(times.get)
    for subject, due in times.items():
        deadlines.watch(subject, due)
    del times["gone"]
    times["early"] = 8
    deadlines.watch("early", 8)
    assert deadlines.next() == 8
    assert deadlines.pop(7, 10) == []
    assert deadlines.pop(9, 10) == ["early", "late"]


def test_what_is_listed_twice_for_one_time_is_due_once() -> None:
    deadlines = Deadlines({"a": 5}.get)
    deadlines.watch("a", 5)
    deadlines.watch("a", 5)
    assert deadlines.pop(5, 10) == ["a"]


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 50)), st.integers(0, 50))
def test_everything_that_is_due_is_found(times: dict[str, int], now: int) -> None:
    deadlines = Deadlines(times.get)
    for subject, due in times.items():
        deadlines.watch(subject, due)
    found = deadlines.pop(now, 1_000)
    assert sorted(found) == sorted(name for name, due in times.items() if due <= now)
    assert [times[name] for name in found] == sorted(times[name] for name in found)
