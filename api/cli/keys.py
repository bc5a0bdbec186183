"""``rahba keys``: the API keys that spend from the owner's account, each within a budget."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from api.cli.counter import at_counter
from api.cli.output import asynchronous, json_option, print_json, print_table
from api.settings import Settings
from rahba.errors import BadInputError
from rahba.money import format_rhb, parse_rhb

if TYPE_CHECKING:
    from broker.transports.redis.wire import Wire


@contextlib.asynccontextmanager
async def wired() -> AsyncIterator[Wire]:
    """Connect to the Redis of the market that runs here."""
    from api.bootstrap import located
    from broker.transports.redis.dial import dial

    url = located(Settings.read(os.environ)).redis_url
    assert url is not None
    wire = await dial(url)
    try:
        yield wire
    finally:
        await wire.close()


@click.group()
def keys() -> None:
    """Issue, list and revoke API keys: each spends from your account within a budget."""


@keys.command()
@click.option("--budget", default="10", show_default=True, help="RHB it may spend in all.")
@click.option("--label", default="key", show_default=True)
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 365))
@json_option
@asynchronous
async def new(budget: str, label: str, days: int, *, as_json: bool) -> None:
    """Issue a key. It is shown once, now."""
    from api.keys import issue_key
    from rahba.clock import SystemClock

    fals = parse_rhb(budget)
    expires_ms = SystemClock().now_ms() + days * 24 * 3600 * 1000
    async with at_counter(None) as counter, wired() as wire:
        mine = counter.wallet(None)
        token = await issue_key(mine, wire, fals, label, expires_ms)
    if as_json:
        print_json({"api_key": token, "budget_fals": str(fals), "label": label})
    else:
        click.echo(token)


@keys.command(name="ls")
@json_option
@asynchronous
async def list_all(*, as_json: bool) -> None:
    """List your keys by label, budget and hash (the keys themselves are kept nowhere)."""
    from api.keys import list_keys

    async with at_counter(None) as counter, wired() as wire:
        mine = counter.wallet(None)
        found = await list_keys(wire, account=mine.account)
    if as_json:
        print_json(
            [
                {
                    "hash": key.hash,
                    "label": key.label,
                    "budget_fals": key.budget,
                    "expires": key.expires,
                    "revoked": key.revoked,
                }
                for key in found
            ]
        )
        return
    rows = [
        (key.hash[:16], key.label, format_rhb(int(key.budget)), "revoked" if key.revoked else "")
        for key in found
    ]
    print_table(["hash", "label", "budget RHB", ""], rows)


@keys.command()
@click.argument("key_hash")
@json_option
@asynchronous
async def revoke(key_hash: str, *, as_json: bool) -> None:
    """End the key whose hash begins with KEY_HASH; what it has not spent stays yours."""
    from api.keys import list_keys, revoke_key

    async with at_counter(None) as counter, wired() as wire:
        mine = counter.wallet(None)
        fitting = [
            key
            for key in await list_keys(wire, account=mine.account)
            if key_hash and key.hash.startswith(key_hash)
        ]
        if len(fitting) != 1:
            raise BadInputError(f"{len(fitting)} of your keys begin with {key_hash[:64]!r}")
        ended = await revoke_key(mine, wire, fitting[0].hash)
    if as_json:
        print_json({"hash": ended.hash, "revoked": ended.revoked})
    else:
        click.echo(f"revoked {ended.label}")
