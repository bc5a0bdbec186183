"""``rahba doctor``: what is wrong with this machine or its market, and the next step."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from api.cli.output import asynchronous, json_option, print_json
from api.settings import Settings

if TYPE_CHECKING:
    from api.machine_checks import Finding

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "broken": ("BROKEN", "red")}


@click.command()
@json_option
@asynchronous
async def doctor(*, as_json: bool) -> None:
    """Check this machine and, if one runs, its market.

    Each finding names its next step. Exits with 1 if something is broken.
    """
    from api.machine_checks import check_machine
    from api.market_checks import check_market
    from rahba.clock import SystemClock

    settings, clock = Settings.read(os.environ), SystemClock()
    found: list[Finding] = []

    def note(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            _show(finding)

    for finding in check_machine(settings, clock):
        note(finding)
    async for finding in check_market(settings, clock):
        note(finding)
    broken = sum(finding.state == "broken" for finding in found)
    if as_json:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in found]})
    elif broken:
        click.secho(f"{broken} broken", fg="red", err=True)
    if broken:
        sys.exit(1)


def _show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.state]
    click.echo(f"{click.style(f'{mark:<8}', fg=colour)} {finding.check:<10} {finding.detail}")
    if finding.next:
        click.echo(f"{'':<20}next: {finding.next}")
