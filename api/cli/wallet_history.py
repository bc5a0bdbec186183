"""``rahba wallet history`` and ``proof``: what happened to an account, and papers that prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from api.cli.counter import at_counter, wallet_option
from api.cli.output import asynchronous, json_option, print_json, print_table
from rahba.errors import BadInputError
from rahba.ids import check_digest, short
from rahba.money import format_rhb

if TYPE_CHECKING:
    from wallet.ports import TxView
    from wallet.transports.http import HttpLedger

_PAGE = 1_000


@click.command()
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 1_000))
@wallet_option
@json_option
@asynchronous
async def history(limit: int, name: str | None, *, as_json: bool) -> None:
    """List the newest transactions that your account signed, paid or received."""
    async with at_counter(name) as counter:
        account = counter.purse.account
        found = await _history(account, counter.ledger, limit)
    if as_json:
        print_json(
            [
                {"seq": tx.seq, "id": tx.id, "time": tx.log_time, "payload": tx.payload}
                for tx in found
            ]
        )
        return
    rows = [
        (tx.seq, tx.payload["type"], _amount(tx), short(str(_other(tx, account))), tx.id[:16])
        for tx in found
    ]
    print_table(["seq", "type", "RHB", "with", "id"], rows)


@click.command()
@click.argument("tx")
@wallet_option
@json_option
@asynchronous
async def proof(tx: str, name: str | None, *, as_json: bool) -> None:
    """Print the receipt of transaction TX: a tlog-proof file that anybody can verify offline."""
    from rahba.proof import verify_proof, write_proof

    async with at_counter(name) as counter:
        check_digest(tx)
        found = await counter.ledger.transaction(tx)
        included = await counter.ledger.inclusion(tx)
        key = await counter.ledger.verifier_key()
    if found is None or included is None:
        raise BadInputError("no checkpoint covers such a transaction (yet)", tx=tx)
    verify_proof(included, key)
    receipt = write_proof(included, found.raw)
    if as_json:
        print_json({"tx": tx, "seq": found.seq, "verifier_key": key, "receipt": receipt})
    else:
        click.echo(receipt, nl=False)


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
