"""Rates, bodies, cursors: what the gateway's small parts promise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.errors import RateLimitedError, TooManyCallsError, TooManyStreamsError
from api.http.idempotency import request_hash
from api.http.metrics import Metrics
from api.http.rates import Rates, Turnstile
from api.http.reading import make_cursor, parse_json, read_cursor
from api.http.sse import Seats, encode, parse_event_id
from rahba.clock import ManualClock
from rahba.errors import BadInputError, TooLargeError
from rahba.messages import Event


def test_a_bucket_refills_with_time() -> None:
    clock = ManualClock()
    rates = Rates(per_s=2, burst=3, clock=clock)
    left = [rates.take("a")["ratelimit"] for _ in range(3)]
    assert [item.split(";")[1] for item in left] == ["r=2", "r=1", "r=0"]
    with pytest.raises(RateLimitedError) as caught:
        rates.take("a")
    assert caught.value.headers["retry-after"] == "1"
    rates.take("b")  # another key has its own
    clock.advance(500)
    rates.take("a")
    with pytest.raises(RateLimitedError):
        rates.take("a")


@given(st.lists(st.integers(0, 1_000), max_size=60))
def test_no_pattern_of_requests_gets_more_than_burst_and_refill(pauses_ms: list[int]) -> None:
    clock = ManualClock()
    rates, passed = Rates(per_s=5, burst=4, clock=clock), 0
    for pause_ms in pauses_ms:
        clock.advance(pause_ms)
        try:
            rates.take("k")
        except RateLimitedError:
            continue
        passed += 1
    assert passed <= 4 + 5 * sum(pauses_ms) / 1000


def test_a_turnstile_counts_in_and_out() -> None:
    turnstile = Turnstile(2)
    turnstile.enter("k")
    turnstile.enter("k")
    with pytest.raises(TooManyCallsError):
        turnstile.enter("k")
    turnstile.enter("other")
    turnstile.leave("k")
    turnstile.enter("k")


def test_seats_are_counted_and_shown() -> None:
    metrics = Metrics()
    seats = Seats(1, metrics)
    seats.take()
    with pytest.raises(TooManyStreamsError):
        seats.take()
    assert b"rahba_streams_open 1.0" in metrics.text()
    seats.give_back()
    seats.take()


def nested(depth: int) -> Any:
    return [] if depth == 1 else [nested(depth - 1)]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}'])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInputError):
        parse_json(raw, max_depth=8)


def test_depth_is_limited_exactly() -> None:
    import orjson

    assert parse_json(orjson.dumps(nested(8)), max_depth=8)
    with pytest.raises(TooLargeError):
        parse_json(orjson.dumps({"a": nested(8)}), max_depth=8)


@given(st.integers(0, 2**53), st.lists(st.text("0123456789abcdef", min_size=32, max_size=32)))
def test_a_cursor_comes_back_as_it_went(at_ms: int, seen: list[str]) -> None:
    assert read_cursor(make_cursor(at_ms, seen[:50]), tuple[int, list[str]]) == (at_ms, seen[:50])


@given(st.text(max_size=80))
def test_a_foreign_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        read_cursor(text, tuple[int, list[str]])


def test_requests_differ_by_method_path_and_body() -> None:
    hashes = {
        request_hash(method, path, body)
        for method in ("POST", "PUT")
        for path in ("/a", "/b")
        for body in (b"", b"x")
    }
    assert len(hashes) == 8


def test_an_event_is_encoded_with_its_id() -> None:
    encoded = encode("17-3", Event(kind="tick", ts=5, data={"n": 1}))
    assert encoded.id == (17, 3)
    wire = b'id: 17-3\ndata: {"id":"17-3","kind":"tick","ts":5,"data":{"n":1}}\n\n'
    assert encoded.wire == wire


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-1-1", "9" * 20 + "-1", "²-1"])
def test_what_is_no_event_id_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        parse_event_id(text)
