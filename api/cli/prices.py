"""``rahba prices SKILL``: what settled deals cost, and a forecast with the naive one beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from api.cli.market import visited
from api.cli.output import asynchronous, json_option, print_json, print_table
from rahba.money import format_rhb

_SHOWN = 24


@click.command()
@click.argument("skill")
@json_option
@asynchronous
async def prices(skill: str, *, as_json: bool) -> None:
    """Show what SKILL cost by settled deals, and what it is expected to cost."""
    async with visited() as market:
        found = await market.prices(skill)
    if as_json:
        print_json(found)
        return
    forecast = found["forecast"]
    if forecast is None:
        click.echo(f"nobody has bought {skill} yet")
        return
    buckets = found["minutes" if forecast["width_ms"] < 3_600_000 else "hours"]
    print_table(
        ["from", "deals", "low", "median", "high (RHB)"],
        [
            (_when(each["start"]), str(each["deals"]), *_rhb(each, "low", "median", "high"))
            for each in buckets[-_SHOWN:]
        ],
    )
    click.echo()
    print_table(
        ["expected from", "RHB", "low", "high", "naive"],
        [
            (_when(step["start"]), *_rhb(step, "value", "low", "high", "naive"))
            for step in forecast["steps"]
        ],
    )
    errors = ", ".join(
        f"{method} {format_rhb(round(error))}" for method, error in forecast["errors_fals"].items()
    )
    click.secho(
        f"by the {forecast['method']} method; mean absolute errors: {errors or 'not known yet'}",
        dim=True,
        err=True,
    )


def _rhb(row: dict[str, Any], *names: str) -> tuple[str, ...]:
    return tuple(format_rhb(int(row[f"{name}_fals"])) for name in names)


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%m-%d %H:%M")
