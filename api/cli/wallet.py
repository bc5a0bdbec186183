"""``rahba wallet`` and ``rahba keys``: the owner's money, and the API keys that may spend it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from api.cli.output import asynchronous, json_option, print_json, print_table
from api.settings import Settings
from rahba.errors import BadInputError
from rahba.ids import check_digest, key_of, short
from rahba.money import format_rhb, parse_rhb

if TYPE_CHECKING:
    from broker.transports.redis.wire import Wire
    from wallet.account import Wallet
    from wallet.ports import Answer, TxView
    from wallet.transports.http import HttpLedger

_PAGE = 1_000


@contextlib.asynccontextmanager
async def owned() -> AsyncIterator[tuple[Wallet, HttpLedger]]:
    """Open the owner's wallet on the ledger of the market that runs here."""
    from api.bootstrap import located
    from api.owner import owner_wallet
    from wallet.transports.http import HttpLedger

    settings = located(Settings.read(os.environ))
    ledger = HttpLedger(settings.ledger_url)
    try:
        yield owner_wallet(settings.data_dir, ledger), ledger
    finally:
        await ledger.close()


@contextlib.asynccontextmanager
async def wired() -> AsyncIterator[Wire]:
    """Connect to the Redis of the market that runs here."""
    from api.bootstrap import located
    from broker.transports.redis.wire import Wire

    url = located(Settings.read(os.environ)).redis_url
    assert url is not None
    wire = Wire(url)
    try:
        yield wire
    finally:
        await wire.close()


@click.group()
def wallet() -> None:
    """Balance, transfers and history of your account. Amounts are in RHB."""


@wallet.command()
@click.argument("account", required=False)
@json_option
@asynchronous
async def balance(account: str | None, *, as_json: bool) -> None:
    """Show what ACCOUNT (default: yours) owns, holds and can spend."""
    async with owned() as (mine, ledger):
        name = account or mine.account
        view = await ledger.account(name)
    if view is None:
        raise BadInputError("the ledger has no such account", account=name[:80])
    if as_json:
        print_json(
            {
                "account": view.id,
                "posted_fals": str(view.posted),
                "held_fals": str(view.held),
                "available_fals": str(view.available),
            }
        )
        return
    click.echo(f"{view.id}\n{format_rhb(view.available)} RHB can be spent")
    click.echo(f"{format_rhb(view.held)} RHB held, {format_rhb(view.posted)} RHB in all")


@wallet.command()
@click.argument("to")
@click.argument("amount")
@json_option
@asynchronous
async def send(to: str, amount: str, *, as_json: bool) -> None:
    """Pay AMOUNT RHB to the account TO."""
    key_of(to)
    fals = parse_rhb(amount)
    async with owned() as (mine, _):
        _paid(await mine.transfer(to, fals), f"sent {amount} RHB to …{short(to)}", as_json=as_json)


@wallet.command()
@click.argument("amount", default="100")
@json_option
@asynchronous
async def faucet(amount: str, *, as_json: bool) -> None:
    """Claim AMOUNT RHB of test money (the dev network only)."""
    async with owned() as (mine, _):
        _paid(await mine.faucet(parse_rhb(amount)), f"claimed {amount} RHB", as_json=as_json)


@wallet.command()
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 1_000))
@json_option
@asynchronous
async def history(limit: int, *, as_json: bool) -> None:
    """List the newest transactions that your account signed, paid or received."""
    async with owned() as (mine, ledger):
        found = await _history(mine.account, ledger, limit)
    if as_json:
        print_json(
            [
                {"seq": tx.seq, "id": tx.id, "time": tx.log_time, "payload": tx.payload}
                for tx in found
            ]
        )
        return
    rows = [
        (tx.seq, tx.payload["type"], _amount(tx), short(str(_other(tx, mine.account))), tx.id[:16])
        for tx in found
    ]
    print_table(["seq", "type", "RHB", "with", "id"], rows)


@wallet.command()
@click.argument("tx")
@json_option
@asynchronous
async def proof(tx: str, *, as_json: bool) -> None:
    """Print the receipt of transaction TX: a tlog-proof file that anybody can verify offline."""
    from rahba.proof import verify_proof, write_proof

    async with owned() as (_, ledger):
        check_digest(tx)
        found = await ledger.transaction(tx)
        included = await ledger.inclusion(tx)
        key = await ledger.verifier_key()
    if found is None or included is None:
        raise BadInputError("no checkpoint covers such a transaction (yet)", tx=tx)
    verify_proof(included, key)
    receipt = write_proof(included, found.raw)
    if as_json:
        print_json({"tx": tx, "seq": found.seq, "verifier_key": key, "receipt": receipt})
    else:
        click.echo(receipt, nl=False)


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
    async with owned() as (mine, _), wired() as wire:
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

    async with owned() as (mine, _), wired() as wire:
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

    async with owned() as (mine, _), wired() as wire:
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


async def _history(account: str, ledger: HttpLedger, limit: int) -> list[TxView]:
    """Walk the log backwards until ``limit`` transactions of ``account`` were found."""
    end = await _log_size(ledger)
    found: list[TxView] = []
    while end > 0 and len(found) < limit:
        start = max(0, end - _PAGE)
        page = await ledger.entries(start, end - start)
        found += [tx for tx in reversed(page) if _concerns(tx, account)]
        end = start
    return found[:limit]


async def _log_size(ledger: HttpLedger) -> int:
    from rahba.note import open_checkpoint

    return open_checkpoint(await ledger.checkpoint(), await ledger.verifier_key()).size


def _concerns(tx: TxView, account: str) -> bool:
    items = tx.payload.get("items")
    named = [tx.payload.get(part) for part in ("account", "to", "payee")]
    paid = [item.get("to") for item in items] if isinstance(items, list) else []
    return account in named + paid


def _other(tx: TxView, account: str) -> object:
    if tx.payload.get("account") != account:
        return tx.payload.get("account")
    return tx.payload.get("to") or tx.payload.get("payee") or tx.payload.get("key") or ""


def _amount(tx: TxView) -> str:
    amount = tx.payload.get("amount") or tx.payload.get("budget")
    return format_rhb(int(amount)) if isinstance(amount, str) else ""


def _paid(answer: Answer, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"outcome": answer.outcome, "tx": answer.id, "seq": answer.seq})
    else:
        click.echo(f"{done}: entry {answer.seq}, transaction {answer.id}")
