"""Questions about tables are answered rightly, and nothing but the table is ever read."""

from __future__ import annotations

import csv
import io
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.agent import Agent
from agents.perform import try_offer
from agents.sandbox import SandboxError, SandboxTimeoutError
from agents.templates.crafts import tables
from agents.templates.crafts.refusals import QueryRefusedError, TooComplexError, UnreadableError
from agents.templates.data_analyst import DataAnalyst
from rahba.errors import BadInputError
from tests.fixtures.documents import read_document

SALES = read_document("sales.csv")
ROWS = list(csv.DictReader(io.StringIO(SALES)))


@pytest.fixture
def analyst() -> Agent:
    return DataAnalyst().make({"max_seconds": 4}, "analyst")


async def ask(agent: Agent, table: str = SALES, **question: Any) -> Any:
    raw = await try_offer(agent, "data.analyse", {"table": table, **question})
    return orjson.loads(raw)["output"]


def asked_here(folder: Path, monkeypatch: pytest.MonkeyPatch, **question: Any) -> dict[str, Any]:
    """Ask without the sandbox, in a folder of our own."""
    monkeypatch.chdir(folder)
    settings: dict[str, Any] = {
        "table": SALES,
        "kind": "csv",
        "sql": None,
        "group_by": [],
        "metrics": [],
        "top": 10,
        "max_rows": 100,
        "memory_mb": 256,
    }
    return tables.ask(**{**settings, **question})


def totals_by(column: str) -> dict[str, float]:
    totals: defaultdict[str, float] = defaultdict(float)
    for row in ROWS:
        totals[row[column]] += float(row["amount"])
    return {name: round(total, 2) for name, total in totals.items()}


async def test_the_table_is_sold_as_heavy_work(analyst: Agent) -> None:
    assert analyst.offers["data.analyse"].runs == "worker"


async def test_a_structured_question_is_answered_as_by_hand(analyst: Agent) -> None:
    answer = await ask(
        analyst, group_by=["city"], metrics=[{"op": "sum", "column": "amount"}, {"op": "count"}]
    )
    expected = totals_by("city")
    assert answer["columns"] == ["city", "sum_amount", "count"]
    assert {row[0]: round(row[1], 2) for row in answer["rows"]} == expected
    assert [row[0] for row in answer["rows"]] == sorted(expected, key=lambda c: -expected[c])
    assert sum(row[2] for row in answer["rows"]) == len(ROWS) == 312
    assert answer["truncated"] is False


async def test_top_cuts_the_answer(analyst: Agent) -> None:
    answer = await ask(
        analyst, group_by=["product"], metrics=[{"op": "avg", "column": "unit_price"}], top=3
    )
    assert len(answer["rows"]) == 3
    assert answer["rows"][0][0] == "saffron"


async def test_sql_is_answered_as_by_hand(analyst: Agent) -> None:
    sql = (
        "SELECT strftime(date, '%Y-%m') AS month, round(sum(amount), 2) FROM data "
        "WHERE category = 'spices' GROUP BY month ORDER BY month"
    )
    months: defaultdict[str, float] = defaultdict(float)
    for row in ROWS:
        if row["category"] == "spices":
            months[row["date"][:7]] += float(row["amount"])
    answer = await ask(analyst, sql=sql)
    assert answer["rows"] == [[month, round(months[month], 2)] for month in sorted(months)]


async def test_json_is_a_table_too(analyst: Agent) -> None:
    table = '[{"city": "Fez", "sold": 3}, {"city": "Rabat", "sold": null}, {"city": "Fez"}]'
    answer = await ask(
        analyst, table, kind="json", sql="SELECT city, sum(sold) FROM data GROUP BY 1 ORDER BY 1"
    )
    assert answer["rows"] == [["Fez", 3], ["Rabat", None]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM sniff_csv('/etc/hosts')",
        "SELECT * FROM read_json('http://127.0.0.1/x.json')",
        "COPY data TO '/tmp/stolen.csv'",
        "COPY data FROM '/etc/passwd'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE '/tmp/all'",
        "SET memory_limit = '64GB'",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "CREATE TABLE more AS SELECT 1",
        "DROP TABLE data",
        "DELETE FROM data",
        "UPDATE data SET amount = 0",
        "CALL pragma_version()",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY data TO '/tmp/stolen.csv'",
        "SELECT * FROM query('COPY data TO ''/tmp/stolen.csv''')",
        "SELECT * FROM os",
        "SELECT getenv('HOME')",
        "SELECT no_such_column FROM data",
        "not sql at all",
        ";",
        "SELECT ?",
    ],
)
def test_sql_that_does_more_than_read_the_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises(QueryRefusedError):
        asked_here(tmp_path, monkeypatch, sql=sql)
    assert set(tmp_path.iterdir()) == before
    assert not Path("/tmp/stolen.csv").exists()


async def test_a_refusal_crosses_the_sandbox_with_its_type(analyst: Agent) -> None:
    with pytest.raises(QueryRefusedError, match="one SELECT"):
        await ask(analyst, sql="COPY data TO 'out.csv'")


async def test_an_endless_question_is_stopped() -> None:
    analyst = DataAnalyst().make({"max_seconds": 1}, "analyst")
    started = time.monotonic()
    with pytest.raises(SandboxTimeoutError):
        await ask(analyst, sql="SELECT count(*) FROM range(1000000000000) a, range(1000) b")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(range) FROM range(500000000)",
        "SELECT repeat('x', 2000000000)",
        "SELECT string_agg(repeat(a.product, 10000), '') FROM data a, data b, data c",
    ],
)
async def test_a_greedy_question_is_refused_its_memory(sql: str) -> None:
    analyst = DataAnalyst().make({"max_seconds": 5, "memory_mb": 64}, "analyst")
    with pytest.raises((TooComplexError, QueryRefusedError, SandboxError)):
        await ask(analyst, sql=sql)


async def test_a_long_answer_is_cut_and_says_so() -> None:
    analyst = DataAnalyst().make({"max_rows": 5}, "analyst")
    answer = await ask(analyst, sql="SELECT * FROM range(1000)")
    assert answer["rows"] == [[0], [1], [2], [3], [4]]
    assert answer["truncated"] is True


@pytest.mark.parametrize(
    ("table", "kind"), [("", "csv"), ("{", "json"), ('{"a": [', "json"), ("\x00\x01", "json")]
)
async def test_what_is_no_table_is_refused(analyst: Agent, table: str, kind: str) -> None:
    with pytest.raises(UnreadableError):
        await ask(analyst, table, kind=kind)


@pytest.mark.parametrize(
    "question",
    [
        {"group_by": ["planet"]},
        {"group_by": ['city" FROM data; DROP TABLE data; --']},
        {"metrics": [{"op": "sum", "column": "weight"}]},
        {"metrics": [{"op": "sum"}]},
        {"metrics": [{"op": "system", "column": "city"}]},
        {"metrics": [{"op": "sum", "column": "city"}]},
    ],
)
def test_a_structured_question_about_other_columns_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: dict[str, Any]
) -> None:
    with pytest.raises(QueryRefusedError):
        asked_here(tmp_path, monkeypatch, **question)


async def test_an_unknown_metric_is_refused_by_the_schema(analyst: Agent) -> None:
    with pytest.raises(BadInputError):
        await ask(analyst, metrics=[{"op": "eval", "column": "city"}])


def test_odd_column_names_are_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = asked_here(
        tmp_path,
        monkeypatch,
        table='"a ""b"" c","x;--"\n1,2\n1,3\n',
        group_by=['a "b" c'],
        metrics=[{"op": "max", "column": "x;--"}],
    )
    assert answer["rows"] == [[1, 3]]


def test_cells_become_json_without_losing_what_json_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = (
        "SELECT 9007199254740993, 'nan'::DOUBLE, 1.5::DECIMAL(5,2), DATE '2024-02-29', [1, NULL], "
        "{'a': 1}, true, NULL, INTERVAL 1 DAY, '\\x00'::BLOB"
    )
    (row,) = asked_here(tmp_path, monkeypatch, sql=sql)["rows"]
    assert row[:8] == ["9007199254740993", None, 1.5, "2024-02-29", [1, None], {"a": 1}, True, None]
    assert all(isinstance(cell, str) for cell in row[8:])


def test_a_table_with_too_many_columns_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ",".join(f"c{n}" for n in range(tables.MAX_COLUMNS + 1))
    with pytest.raises(TooComplexError, match="columns"):
        asked_here(tmp_path, monkeypatch, table=f"{names}\n{names}\n")
    with pytest.raises(QueryRefusedError, match="too long"):
        asked_here(tmp_path, monkeypatch, sql="SELECT 1" + " " * tables.MAX_SQL_CHARS)
