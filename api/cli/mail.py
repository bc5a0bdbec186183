"""``rahba mail``: what an agent could not handle, and another try at it."""

from __future__ import annotations

import os

import click

from api.cli.output import asynchronous, json_option, print_json, print_table
from api.settings import Settings
from rahba.errors import RahbaError

_SHOWN = 100
_AGAIN = 1_000


@click.group()
def mail() -> None:
    """Look at the dead letters of an agent, or deliver them again."""


@mail.command()
@click.argument("agent")
@json_option
@asynchronous
async def dead(agent: str, *, as_json: bool) -> None:
    """List the newest messages to AGENT (its id) that could not be handled, with the reasons."""
    from api.bootstrap import linked, located

    async with linked(located(Settings.read(os.environ))) as links:
        letters = await links.broker.mailbox.dead(agent, limit=_SHOWN)
    found = [_shown(raw, reason) for raw, reason in letters]
    if as_json:
        print_json(found)
    elif found:
        columns = ("reason", "type", "from", "thread", "bytes")
        print_table(columns, [[each[name] for name in columns] for each in found])
    else:
        click.echo("no dead letters")


@mail.command()
@click.argument("agent")
@click.option("--limit", default=_AGAIN, show_default=True, type=click.IntRange(1, _AGAIN))
@json_option
@asynchronous
async def replay(agent: str, limit: int, *, as_json: bool) -> None:
    """Put the dead letters of AGENT (its id) back into its mailbox, the oldest first.

    They are handled like any other message: what was done before is not done twice, and what
    cannot be handled comes back to the dead letters.
    """
    from api.bootstrap import linked, located

    async with linked(located(Settings.read(os.environ))) as links:
        count = await links.broker.mailbox.revive(agent, limit=limit)
        left = len(await links.broker.mailbox.dead(agent, limit=_AGAIN))
    if as_json:
        print_json({"delivered": count, "left": left})
    else:
        click.echo(f"{count} back in the mailbox, {left} left")


def _shown(raw: bytes, reason: str) -> dict[str, object]:
    from rahba.encoding import sha256_hex
    from rahba.messages import open_message

    about: dict[str, object] = {
        "digest": sha256_hex(raw),
        "reason": reason,
        "bytes": len(raw),
        "type": None,
        "from": None,
        "thread": None,
    }
    try:
        message = open_message(raw, me=None, now_ms=0)
    except RahbaError:
        return about
    said = {"type": message.type, "from": message.sender, "thread": message.thread}
    return about | said
