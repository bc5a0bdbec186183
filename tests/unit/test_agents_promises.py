"""What a seller may promise, to whom, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agents.promises import Promises


def test_one_buyer_holds_half_of_the_room_at_most() -> None:
    promises = Promises(room=6)
    made = [promises.make(f"t{n}", "ann", 100, now_ms=0) for n in range(5)]
    assert made == [True] * 3 + [False] * 2
    assert promises.make("other", "bob", 100, now_ms=0)


def test_a_promise_is_over_with_its_time_and_makes_room() -> None:
    promises = Promises(room=1)
    assert promises.make("a", "ann", 100, now_ms=0)
    assert not promises.make("b", "ann", 100, now_ms=100)
    assert promises.make("b", "ann", 200, now_ms=101)
    assert (promises.has("a"), promises.standing(now_ms=101)) == (False, 1)


def test_a_promise_that_is_prolonged_counts_once() -> None:
    promises = Promises(room=2)
    for until_ms in (10, 50, 30):
        assert promises.make("a", "ann", until_ms, now_ms=0)
    assert promises.standing(now_ms=30) == 1
    assert promises.standing(now_ms=31) == 0


def test_what_is_forgotten_twice_is_forgotten_once() -> None:
    promises = Promises(room=2)
    promises.make("a", "ann", 10, now_ms=0)
    promises.forget("a")
    promises.forget("a")
    assert promises.make("b", "ann", 10, now_ms=0)
    assert promises.standing(now_ms=0) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["make", "forget"]),
            st.sampled_from("abcdef"),
            st.sampled_from(["ann", "bob"]),
            st.integers(0, 30),
        )
    )
)
def test_the_books_agree_with_a_plain_list(steps: list[tuple[str, str, str, int]]) -> None:
    promises, plain = Promises(room=4), dict[str, tuple[str, int]]()
    for now_ms, (step, thread, buyer, ahead) in enumerate(steps):
        plain = {name: made for name, made in plain.items() if made[1] >= now_ms}
        if step == "forget":
            promises.forget(thread)
            plain.pop(thread, None)
        else:
            share = sum(1 for name, _ in plain.values() if name == buyer)
            made = promises.make(thread, buyer, now_ms + ahead, now_ms=now_ms)
            assert made == (thread in plain or share < 2)
            if made:
                plain[thread] = buyer, now_ms + ahead
        assert promises.standing(now_ms=now_ms) == len(plain)
