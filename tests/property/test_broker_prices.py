"""Price knowledge: histories are bounded and exact in count; forecasts never lie about naive."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import market_prices
from broker.knowledge.forecast import (
    MARGIN,
    forecast,
    naive,
    price_view,
    rolling_errors,
    seasonal,
)
from broker.knowledge.history import (
    HOUR_MS,
    MAX_HOURS,
    MAX_MINUTES,
    MAX_SAMPLE,
    MINUTE_MS,
    Course,
    History,
)
from broker.knowledge.smoothing import fit

prices = st.integers(0, 10**12)
deals = st.lists(st.tuples(st.integers(0, 3 * HOUR_MS), prices), max_size=300)
gappy = st.lists(st.none() | st.floats(0, 1e9, width=32), max_size=80)


@given(deals)
def test_buckets_count_every_deal_once(found: list[tuple[int, int]]) -> None:
    history, at_ms = History(), 0
    for step, price in found:
        at_ms += step // 100
        history.note(at_ms, price)
    for course in (history.minutes, history.hours):
        buckets = course.buckets()
        starts = [bucket.start_ms for bucket in buckets]
        assert starts == sorted(set(starts))
        assert len(buckets) <= course.most
        if len(buckets) < course.most:
            assert sum(bucket.count for bucket in buckets) == len(found)
            assert sum(bucket.volume for bucket in buckets) == sum(price for _, price in found)
        assert all(bucket.low <= bucket.median <= bucket.high for bucket in buckets)


def test_a_history_is_bounded_however_much_is_traded() -> None:
    history = History()
    for step in range(20_000):
        history.note(step * 7 * MINUTE_MS, step)
    assert len(history.minutes.buckets()) == MAX_MINUTES
    assert len(history.hours.buckets()) == MAX_HOURS
    busy = Course(HOUR_MS, 4)
    for price in range(10_000):
        busy.note(5, price)
    assert len(busy.sample) < MAX_SAMPLE
    assert busy.buckets()[0].median == pytest.approx(5_000, rel=0.05)


def test_time_never_goes_back() -> None:
    history = History()
    history.note(10 * MINUTE_MS, 5)
    history.note(3 * MINUTE_MS, 7)
    assert [bucket.count for bucket in history.minutes.buckets()] == [2]


def test_the_series_shows_gaps_and_leaves_out_the_open_step() -> None:
    course = Course(MINUTE_MS, 10)
    for minute, price in ((0, 5), (3, 7), (4, 9)):
        course.note(minute * MINUTE_MS, price)
    assert course.series(until_ms=4 * MINUTE_MS + 1) == [5.0, None, None, 7.0]
    assert course.series(until_ms=6 * MINUTE_MS) == [5.0, None, None, 7.0, 9.0, None]
    assert len(course.series(until_ms=1_000 * MINUTE_MS)) == 10


@given(gappy, st.sampled_from([0, 2, 6, 24]), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_a_forecast_is_finite_ordered_and_the_same_again(
    series: list[float | None], period: int, ahead: int
) -> None:
    found = forecast(series, period=period, ahead=ahead)
    if found is None:
        assert not any(value is not None for value in series)
        return
    assert found == forecast(series, period=period, ahead=ahead)
    assert found.naive == tuple(naive(series, ahead))
    for low, value, high in zip(found.low, found.values, found.high, strict=True):
        assert 0 <= low <= value <= high
        assert math.isfinite(high)


@given(gappy, st.sampled_from([0, 6]))
@settings(max_examples=60, deadline=None)
def test_the_smoothing_is_used_only_where_it_beat_the_naive_ones(
    series: list[float | None], period: int
) -> None:
    found = forecast(series, period=period, ahead=3)
    if found is None or not found.errors:
        return
    others = [error for name, error in found.errors.items() if name != "smoothing"]
    beaten = found.errors["smoothing"] < min(others) * (1 - MARGIN)
    assert (found.method == "smoothing") == beaten


@given(st.integers(1, 10**9), st.integers(13, 60))
def test_a_price_that_never_moves_is_forecast_as_it_is(price: int, length: int) -> None:
    found = forecast([float(price)] * length, period=0, ahead=2)
    assert found is not None
    assert found.values == pytest.approx([price, price])
    assert found.low == pytest.approx(found.high)


def test_the_rolling_origin_never_sees_what_it_forecasts() -> None:
    rng = random.Random(5)
    series: list[float | None] = [rng.gauss(100, 10) for _ in range(90)]
    before = rolling_errors(series[:-1], period=0, ahead=1)
    wild = rolling_errors([*series[:-1], 1e6], period=0, ahead=1)
    last = series[-2]
    assert last is not None
    assert wild["naive"] == pytest.approx((before["naive"] * 30 + 1e6 - last) / 30, rel=0.05)


def test_the_seasonal_forecast_looks_a_season_back_and_over_gaps() -> None:
    series = [1.0, 2.0, 3.0, 4.0, None, 6.0]
    assert seasonal(series, 4, 3) == [4.0, 2.0, 6.0, 4.0]


def test_the_smoothing_learns_a_season_and_a_damped_trend() -> None:
    rising = [100.0 + 3 * step + (20 if step % 4 == 0 else 0) for step in range(80)]
    ahead = fit(rising, period=4).ahead(4)
    assert ahead == pytest.approx([360, 343, 346, 349], rel=0.03)
    deviations = fit([value + (-1) ** place for place, value in enumerate(rising)], period=4)
    spread = deviations.deviations(6)
    assert spread == sorted(spread)


def test_strategies_are_offered_a_view_from_the_first_deal_on() -> None:
    history = History()
    assert price_view("s", history, now_ms=0) is None
    history.note(HOUR_MS, 500)
    view = price_view("s", history, now_ms=HOUR_MS + 1)
    assert view is not None
    assert (view.last, view.median, view.forecast, view.method) == (500, 500, 500, "naive")
    for minute in range(1, 60):
        history.note(HOUR_MS + minute * MINUTE_MS, 500 + minute % 2)
    view = price_view("s", history, now_ms=2 * HOUR_MS)
    assert view is not None
    assert view.width_ms == MINUTE_MS
    assert view.low <= view.forecast <= view.high


def test_the_hours_are_forecast_by_once_there_are_enough_of_them() -> None:
    history = History()
    for hour in range(20):
        history.note(hour * HOUR_MS, 100)
    view = price_view("s", history, now_ms=20 * HOUR_MS)
    assert view is not None
    assert view.width_ms == HOUR_MS


def test_the_benchmark_meets_its_targets_on_a_few_series_of_each_kind() -> None:
    rows = market_prices.run(count=12)
    assert [row.name for row in rows if row.met is False] == []
    assert median([row.value for row in rows]) > 0


def test_where_the_same_comes_again_each_season_the_season_is_what_is_forecast() -> None:
    rng = random.Random(3)
    day = [rng.uniform(50, 5_000) for _ in range(8)]
    series: list[float | None] = [*day * 3]
    found = forecast(series, period=8, ahead=10)
    assert found is not None
    assert found.method == "seasonal"
    assert found.values == pytest.approx([*day, *day[:2]])
    assert found.low == pytest.approx(found.high), "nothing ever deviated"
