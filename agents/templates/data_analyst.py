"""Answers questions about a table: in SQL, or as "these metrics by these columns".

The work is heavy, so it runs on a worker; and it runs strangers' SQL, so it runs in the sandbox
under the rules of :mod:`agents.templates.crafts.tables`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, NotRequired

from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents import sandbox
from agents.agent import Agent, Runs
from agents.templates.crafts.refusals import QueryRefusedError, TooComplexError, UnreadableError
from agents.templates.pricing import PricedTemplate, Pricing
from agents.templates.trial import prove

MAX_TABLE_CHARS: Final = 1_000_000
_ASK: Final = "agents.templates.crafts.tables:ask"
_MEGABYTE: Final = 1024 * 1024
_OVERHEAD_BYTES: Final = 1024 * _MEGABYTE  # what the interpreter and DuckDB map, mostly unused

Column = Annotated[str, Field(max_length=256)]
Operation = Literal["count", "sum", "avg", "min", "max", "median", "stddev"]


class Metric(TypedDict):
    """What to compute: an operation, and the column it is of (``count`` needs none)."""

    op: Operation
    column: NotRequired[Column]


class TableOutput(TypedDict):
    """The answer as a table; ``sql`` is the question that was put."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool
    sql: str
    table_columns: list[str]


class AnalystConfig(Pricing):
    """What one question may use, and costs."""

    price: str = "0.004"
    floor: str = "0.0025"
    runs: Runs = "worker"
    max_rows: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    memory_mb: Annotated[int, Field(ge=64, le=4_096)] = 256
    max_seconds: Annotated[int, Field(ge=1, le=60)] = 10


class DataAnalyst(PricedTemplate):
    """Sells ``data.analyse``."""

    name: ClassVar[str] = "data-analyst"
    title: ClassVar[str] = "Data analyst"
    description: ClassVar[str] = "Answers questions about a CSV or JSON table (DuckDB)."
    Config: ClassVar[type[BaseModel]] = AnalystConfig

    @override
    def build(self, config: AnalystConfig, name: str) -> Agent:
        agent = self.agent(config, name)

        @agent.offer(
            "data.analyse",
            **config.terms(),
            runs=config.runs,
            description='SQL over the table "data", or metrics by columns',
            tags=["data", "csv", "json", "sql"],
            quality=750,
            latency_ms=1_500,
        )
        async def analyse(
            *,
            table: Annotated[str, Field(max_length=MAX_TABLE_CHARS)],
            kind: Literal["csv", "json"] = "csv",
            sql: Annotated[str, Field(max_length=10_000)] | None = None,
            group_by: Annotated[list[Column], Field(max_length=8)] = [],  # noqa: B006
            metrics: Annotated[list[Metric], Field(max_length=16)] = [],  # noqa: B006
            top: Annotated[int, Field(ge=1, le=1_000)] = 20,
        ) -> TableOutput:
            """Put a question to ``table``, which SQL knows as ``data``."""
            answer: TableOutput = await sandbox.call(
                _ASK,
                {
                    "table": table,
                    "kind": kind,
                    "sql": sql,
                    "group_by": group_by,
                    "metrics": metrics,
                    "top": top,
                    "max_rows": config.max_rows,
                    "memory_mb": config.memory_mb,
                },
                _limits(config),
                errors=(QueryRefusedError, TooComplexError, UnreadableError),
            )
            return answer

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        table = "city,sold\nFez,3\nRabat,5\nFez,4\n"
        await prove(
            agent,
            "data.analyse",
            {"table": table, "group_by": ["city"], "metrics": [{"op": "sum", "column": "sold"}]},
            lambda output: output["rows"] == [["Fez", 7], ["Rabat", 5]],
        )


def _limits(config: AnalystConfig) -> sandbox.Limits:
    return sandbox.Limits(
        wall_s=config.max_seconds + 10,
        cpu_s=config.max_seconds,
        memory_bytes=config.memory_mb * _MEGABYTE + _OVERHEAD_BYTES,
        file_bytes=4 * MAX_TABLE_CHARS,
        input_bytes=8 * MAX_TABLE_CHARS,
    )
