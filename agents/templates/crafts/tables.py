"""Answers questions about one table (CSV or JSON) with DuckDB. Runs in the sandbox only.

1. The table is loaded as ``data``; only then strangers' SQL is looked at.
2. Before it: no files, no network, no extensions, no Python objects, and none of that can be
   switched back on (``lock_configuration``).
3. One statement, and that one a SELECT; the rest of SQL is refused by name.
4. Memory and threads are DuckDB's limits, CPU and wall time the sandbox's.
5. Rows and cells of the answer are counted; what is cut off is said.

A question may also be asked without SQL: ``{"group_by": [...], "metrics": [...], "top": n}``.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import duckdb

from agents.templates.crafts.refusals import QueryRefusedError, TooComplexError, UnreadableError

OPERATIONS: Final = frozenset({"count", "sum", "avg", "min", "max", "median", "stddev"})
MAX_CELL_CHARS: Final = 10_000
MAX_COLUMNS: Final = 256
MAX_SQL_CHARS: Final = 10_000
_SAFE_INTEGER: Final = 2**53


def ask(
    *,
    table: str,
    kind: str,
    sql: str | None,
    group_by: Sequence[str],
    metrics: Sequence[dict[str, str]],
    top: int,
    max_rows: int,
    memory_mb: int,
) -> dict[str, Any]:
    """Load ``table`` ("csv" or "json" text), put the question, return columns and rows.

    Raises:
        UnreadableError: not a table.
        QueryRefusedError: a wrong question, or one that asks for more than reading.
        TooComplexError: too many columns, or over DuckDB's memory.
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": f"{memory_mb}MB",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
        },
    )
    columns = _load(connection, table, kind)
    for setting in (
        "SET temp_directory = ''",
        "SET python_enable_replacements = false",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(setting)
    query = sql or structured(columns, group_by, metrics, top)
    return {**_answer(connection, query, max_rows), "sql": query, "table_columns": columns}


def structured(
    columns: Sequence[str], group_by: Sequence[str], metrics: Sequence[dict[str, str]], top: int
) -> str:
    """Turn a structured question into SQL; names must be the table's own."""
    for name in [*group_by, *(metric["column"] for metric in metrics if metric.get("column"))]:
        if name not in columns:
            raise QueryRefusedError(f"there is no column {name[:64]!r}", column=name[:64])
    wanted = [_metric(metric) for metric in metrics] or ['count(*) AS "count"']
    groups = [_quoted(name) for name in group_by]
    lines = [f"SELECT {', '.join([*groups, *wanted])}", "FROM data"]
    if groups:
        order = len(groups) + 1
        lines += [f"GROUP BY {', '.join(groups)}", f"ORDER BY {order} DESC, {', '.join(groups)}"]
        lines += [f"LIMIT {int(top)}"]
    return "\n".join(lines)


def _metric(metric: dict[str, str]) -> str:
    operation, column = metric.get("op", ""), metric.get("column", "")
    if operation not in OPERATIONS:
        raise QueryRefusedError(f"there is no metric {operation[:64]!r}")
    if operation == "count" and not column:
        return 'count(*) AS "count"'
    if not column:
        raise QueryRefusedError(f"{operation} needs a column")
    return f"{operation}({_quoted(column)}) AS {_quoted(f'{operation}_{column}')}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _load(connection: duckdb.DuckDBPyConnection, table: str, kind: str) -> list[str]:
    if not table.strip():
        raise UnreadableError("the table is empty")
    path = Path(f"table.{kind}")
    path.write_text(table, encoding="utf-8")
    reader = "read_csv(?, sample_size = -1)" if kind == "csv" else "read_json(?)"
    try:
        connection.execute(f"CREATE TABLE data AS SELECT * FROM {reader}", [str(path)])  # noqa: S608
        described = connection.execute("SELECT name FROM pragma_table_info('data')").fetchall()
    except duckdb.OutOfMemoryException as error:
        raise TooComplexError("the table needs too much memory") from error
    except duckdb.Error as error:
        raise UnreadableError(f"not a {kind.upper()} table: {_first_line(error)}") from error
    finally:
        path.unlink()
    if len(described) > MAX_COLUMNS:
        raise TooComplexError("too many columns", columns=len(described), limit=MAX_COLUMNS)
    return [str(row[0]) for row in described]


def _answer(connection: duckdb.DuckDBPyConnection, sql: str, max_rows: int) -> dict[str, Any]:
    if len(sql) > MAX_SQL_CHARS:
        raise QueryRefusedError("the SQL is too long", limit_chars=MAX_SQL_CHARS)
    try:
        statements = connection.extract_statements(sql)
        kinds = [statement.type.name for statement in statements]
        if kinds != ["SELECT"]:
            raise QueryRefusedError(f"one SELECT, not: {', '.join(kinds) or 'nothing'}"[:200])
        cursor = connection.execute(statements[0])
        columns = [str(column[0]) for column in cursor.description or []]
        rows = cursor.fetchmany(max_rows + 1)
    except duckdb.OutOfMemoryException as error:
        raise TooComplexError("the question needs too much memory") from error
    except duckdb.Error as error:
        raise QueryRefusedError(_first_line(error)) from error
    shown = [[_plain(cell) for cell in row] for row in rows[:max_rows]]
    return {"columns": columns, "rows": shown, "truncated": len(rows) > max_rows}


def _first_line(error: duckdb.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _plain(value: object) -> Any:
    """Return a cell as JSON; what JSON cannot hold exactly becomes text."""
    plain: Any = str(value)[:MAX_CELL_CHARS]
    match value:
        case None | bool():
            plain = value
        case int() if abs(value) < _SAFE_INTEGER:
            plain = value
        case float():
            plain = value if math.isfinite(value) else None
        case decimal.Decimal():
            plain = float(value)
        case dt.date() | dt.time():
            plain = value.isoformat()
        case list() | tuple():
            plain = [_plain(item) for item in value[:MAX_COLUMNS]]
        case dict():
            plain = {str(key): _plain(item) for key, item in value.items()}
        case _:
            pass
    return plain
