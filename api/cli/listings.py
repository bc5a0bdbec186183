"""Put an agent that is elsewhere on the web on the market."""

from __future__ import annotations

from typing import Any

import click

from api.cli.market import visited
from api.cli.output import asynchronous, json_option, print_json
from rahba.money import format_rhb, parse_rhb, wire_fals


@click.command()
@click.argument("url")
@click.option("--name", help="What it is called here (default: its own name).")
@click.option("--price", default="0", show_default=True, help="RHB that a call costs.")
@click.option("--call-seconds", type=click.IntRange(1, 600), help="How long a call may take.")
@click.option("--probe-seconds", type=click.IntRange(1, 300), help="How often it is looked at.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is listed.")
@json_option
@asynchronous
async def adopt(
    url: str,
    name: str | None,
    price: str,
    call_seconds: int | None,
    probe_seconds: int | None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """List the A2A agent at URL: card fetched, verified and probed, its skills sold here.

    You stand for it: buyers see your account on its card. `rahba stop NAME` ends the listing.
    """
    wishes: dict[str, Any] = {"price": wire_fals(parse_rhb(price))}
    given = {"name": name, "call_seconds": call_seconds, "probe_seconds": probe_seconds}
    wishes |= {wish: value for wish, value in given.items() if value is not None}
    async with visited() as market:
        record = await market.adopt(url, **wishes)
        if wait:
            record = await market.listed(record["id"])
    if as_json:
        print_json(record)
        return
    sold = ", ".join(skill["skill"] for skill in record["skills"])
    cost = format_rhb(int(record["price"]))
    click.echo(f"{record['name']} is {record['state']}: {record['agent'] or record['id']}")
    click.echo(f"sells {sold} at {cost} RHB; A2A {record['protocol']}, card {record['seal']}")
