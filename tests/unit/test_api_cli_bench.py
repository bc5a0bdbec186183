"""`rahba bench`: honest rows, and an exit code for those who insist."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from api.cli import bench
from api.cli.main import main
from benchmarks.gateway import CALLS, Block, rows_of
from benchmarks.rows import row

SLOW = """\
from benchmarks.rows import row


def run():
    return [
        row("as fast as it should be", 90.0, "1/s", reference=100.0, target=0.6),
        row("too slow", 50.0, "1/s", reference=100.0, target=0.6),
        row("for information", 3.0, "ms"),
    ]
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a checkout with one benchmark of its own beside the real rows."""
    found = bench.available()
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    monkeypatch.setattr(bench, "available", lambda: {**found, "slow": folder / "slow.py"})
    import benchmarks

    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(folder)])
    return tmp_path


@pytest.mark.parametrize(("value", "met"), [(59.9, False), (60.0, True)])
def test_a_target_is_met_at_its_ratio_and_not_below(value: float, *, met: bool) -> None:
    assert row("x", value, "1/s", reference=100.0, target=0.6).met is met


@pytest.mark.parametrize(("value", "met"), [(2.0, True), (2.01, False)])
def test_a_limit_is_met_at_its_ratio_and_not_above(value: float, *, met: bool) -> None:
    assert row("x", value, "ms", reference=1.0, target=2.0, at_most=True).met is met


@pytest.mark.parametrize(("cost", "met"), [(1.9, True), (2.1, False)])
def test_a_payment_that_costs_too_much_is_reported_as_not_met(cost: float, *, met: bool) -> None:
    free = [Block(0.001 * CALLS, 1.0, [1.0, 2.0])] * 3
    paid = [Block(cost * 0.001 * CALLS, 2.0, [2.0, 3.0])] * 3
    first, speed, *_ = rows_of(paid, free)
    assert first.ratio == pytest.approx(cost)
    assert first.met is met
    assert speed.ratio == pytest.approx(0.5)


def test_rows_are_data_with_value_reference_ratio_and_verdict(checkout: Path) -> None:
    done = CliRunner().invoke(main, ["bench", "slow", "--json"])
    rows = orjson.loads(done.stdout)
    assert [one["met"] for one in rows] == [True, False, None]
    assert set(rows[0]) == {"name", "value", "unit", "reference", "ratio", "target", "met"}
    assert rows[1]["ratio"] == 0.5
    assert "measuring slow" in done.stderr


def test_a_target_that_is_not_met_is_said_and_ends_with_1_only_if_one_insists(
    checkout: Path,
) -> None:
    for words, code in (([], 0), (["--strict"], 1)):
        done = CliRunner().invoke(main, ["bench", "slow", *words])
        assert done.exit_code == code
        assert "not met: too slow" in done.stderr
        assert "NOT MET" in done.stdout


def test_without_the_folder_the_error_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(bench.NoBenchmarksError) as caught:
        bench.available(tmp_path)
    assert "checkout" in str(caught.value.hint)


def test_an_unknown_benchmark_is_refused_with_the_known_ones() -> None:
    done = CliRunner().invoke(main, ["bench", "nonsense", "--json"])
    assert done.exit_code == 1
    error = orjson.loads(done.stdout)["error"]
    assert "startup" in error["message"]
    assert "gateway" in error["message"]


def test_a_benchmark_brings_those_that_belong_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("gateway", "ledger", "ledger_stores", "ledgers")
    monkeypatch.setattr(bench, "available", lambda: dict.fromkeys(names, Path("x.py")))
    assert list(bench._chosen("ledger")) == ["ledger", "ledger_stores"]
    assert list(bench._chosen("ledger_stores")) == ["ledger_stores"]
    assert list(bench._chosen(None)) == list(names)
