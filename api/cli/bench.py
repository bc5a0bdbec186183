"""``rahba bench``: measure speed, each figure beside a limit or a peer of the same run.

The benchmarks are the modules of the repository's folder ``benchmarks`` that have a ``run``; they
are no part of the installed package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click

from api.cli.output import fail, json_option, print_json, print_table
from rahba.errors import BadInputError, LocalError, RahbaError

FOLDER: Final = "benchmarks"


class NoBenchmarksError(LocalError):
    """Rahba was installed without the folder of its benchmarks."""

    code = "no_benchmarks"
    hint = "run it from a checkout of the repository: `make bench`"


@click.command()
@click.argument("name", required=False)
@click.option("--strict", is_flag=True, help="Exit with 1 if a target is not met.")
@json_option
def bench(name: str | None, *, strict: bool, as_json: bool) -> None:
    """Measure the benchmark NAME and those that belong to it (NAME_…), or all of them.

    Each figure comes with its reference, a limit or a peer measured in the same run, and their
    ratio; `met` says whether the ratio reaches its target. Exits with 0 also when one is not met,
    unless --strict.
    """
    try:
        rows = [item for one in _chosen(name) for item in _measured(one)]
    except RahbaError as error:
        fail(error, as_json=as_json)
        return
    missed = [item["name"] for item in rows if item["met"] is False]
    if as_json:
        print_json(rows)
    else:
        headings = ("figure", "value", "unit", "beside", "ratio", "target", "")
        print_table(headings, [_shown(item) for item in rows])
    for text in missed:
        click.secho(f"not met: {text}", fg="red", err=True)
    if missed and strict:
        sys.exit(1)


def available(root: Path | None = None) -> dict[str, Path]:
    """Return the benchmarks by name, of the repository at ``root``.

    Raises:
        NoBenchmarksError: there is no such folder.
    """
    folder = (root or Path(__file__).resolve().parents[2]) / FOLDER
    found = {
        path.stem: path
        for path in sorted(folder.glob("*.py"))
        if "\ndef run(" in path.read_text(encoding="utf-8")
    }
    if not found:
        raise NoBenchmarksError("there is no folder of benchmarks here", folder=str(folder))
    return found


def _chosen(name: str | None) -> Iterable[str]:
    known = available()
    chosen = [one for one in known if name is None or one == name or one.startswith(f"{name}_")]
    if not chosen:
        raise BadInputError(f"no benchmark {str(name)[:64]!r}; there are {', '.join(known)}")
    return chosen


def _measured(name: str) -> list[dict[str, Any]]:
    click.echo(f"measuring {name} …", err=True)
    rows = _load(name).run()
    return [item.plain() for item in rows]


def _load(name: str) -> ModuleType:
    """Import one by its path; the modules know each other as ``benchmarks.…``."""
    root = str(available()[name].parents[1])
    if root not in sys.path:
        sys.path.insert(0, root)
    return importlib.import_module(f"{FOLDER}.{name}")


def _shown(item: dict[str, Any]) -> tuple[str, ...]:
    figures = [_figure(item[key]) for key in ("value", "reference", "ratio", "target")]
    verdict = {True: "met", False: "NOT MET", None: ""}[item["met"]]
    value, reference, ratio, target = figures
    return (item["name"], value, item["unit"], reference, ratio, target, verdict)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"
