"""What every command shares: ``--json``, tables, and errors that name the next step.

Exit codes: 0 done, 1 refused or failed (the error's code is printed), 2 wrong usage (click),
130 interrupted.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ParamSpec

import click
import orjson

from rahba.errors import RahbaError

P = ParamSpec("P")
_PLAIN_WIDTH = 180

json_option = click.option("--json", "as_json", is_flag=True, help="Print data, not prose.")


def print_json(value: object) -> None:
    """Print ``value`` as indented JSON."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    sys.stdout.buffer.write(orjson.dumps(value, option=option, default=str))
    sys.stdout.flush()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns; numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    cells = [[str(cell) for cell in row] for row in rows]
    for place, heading in enumerate(headings):
        numeric = bool(cells) and all(_is_number(row[place]) for row in cells)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(width=width, highlight=False).print(table)


def asynchronous(function: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine as a click command; turn errors into messages and exit codes."""
    return _command(function, asyncio.run)


def service(function: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a process of the market like :func:`asynchronous`, on uvloop where there is one."""
    return _command(function, _run_fast)


def _run_fast(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _command(
    function: Callable[P, Coroutine[Any, Any, None]],
    runner: Callable[[Coroutine[Any, Any, None]], None],
) -> Callable[P, None]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            runner(function(*args, **kwargs))
        except RahbaError as error:
            fail(error, as_json=bool(kwargs.get("as_json")))
        except KeyboardInterrupt:
            sys.exit(130)

    return run


def fail(error: RahbaError, *, as_json: bool) -> None:
    """Print an error with its code, facts and next step; exit with 1."""
    if as_json:
        print_json(
            {
                "error": {
                    "code": error.code,
                    "message": error.message,
                    "hint": error.hint,
                    "retryable": error.retryable,
                    "facts": error.facts,
                }
            }
        )
    else:
        click.secho(f"error: {error.message} [{error.code}]", fg="red", err=True)
        if error.hint:
            click.echo(f"  next: {error.hint}", err=True)
    sys.exit(1)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdigit()
