"""``rahba wallet``: money and the keys to it. Payments go by the outbox, so none is made twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

import click

from api.cli.counter import Counter, at_counter, unlock, wallet_option
from api.cli.output import asynchronous, json_option, print_json, print_table
from api.cli.secret_input import passphrase_option
from api.cli.wallet_history import history, proof
from api.cli.wallet_keys import export, import_, list_all, new, rotate
from rahba.errors import BadInputError, LocalError, RahbaError, RemoteError
from rahba.ids import key_of, short
from rahba.money import format_rhb, parse_rhb

if TYPE_CHECKING:
    from wallet.outbox import Letter, Resumed
    from wallet.ports import Answer

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.5


class PaidMeanwhileError(LocalError):
    """An earlier payment of as much to the same account was unknown, and turns out to be made."""

    code = "paid_meanwhile"
    hint = "it is paid; run the command once more only if you want to pay once more"


class NotWitnessedError(RemoteError):
    """The payment is durable, but no quorum of witnesses has cosigned it in time."""

    code = "not_witnessed"
    retryable = True
    hint = "it is paid and stays so; `rahba wallet proof TX` shows its receipt once it is covered"


@click.group()
def wallet() -> None:
    """Wallets, balances, payments and their proofs. Amounts are in RHB."""


for command in (new, import_, export, list_all, history, proof, rotate):
    wallet.add_command(command)


@wallet.command()
@click.argument("account", required=False)
@wallet_option
@json_option
@asynchronous
async def balance(account: str | None, name: str | None, *, as_json: bool) -> None:
    """Show what ACCOUNT (default: yours) owns, holds and can spend."""
    async with at_counter(name) as counter:
        wanted = account or counter.purse.account
        view = await counter.ledger.account(wanted)
    if view is None:
        raise BadInputError("the ledger has no such account", account=wanted[:80])
    if as_json:
        print_json(
            {
                "account": view.id,
                "posted_fals": str(view.posted),
                "held_fals": str(view.held),
                "available_fals": str(view.available),
                "staked_fals": str(view.staked),
                "keys": view.keys,
            }
        )
        return
    click.echo(f"{view.id}\n{format_rhb(view.available)} RHB can be spent")
    click.echo(f"{format_rhb(view.held)} RHB held, {format_rhb(view.posted)} RHB in all")


@wallet.command()
@click.argument("to")
@click.argument("amount")
@click.option("--key", metavar="TEXT", help="A name of the payment: under one name it pays once.")
@click.option(
    "--wait",
    type=click.Choice(["durable", "witnessed"]),
    default="durable",
    show_default=True,
    help="How final the payment must be before this returns.",
)
@click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait for witnesses.")
@wallet_option
@passphrase_option
@json_option
@asynchronous
async def send(  # noqa: PLR0917  # options, all named
    to: str,
    amount: str,
    key: str | None,
    wait: Literal["durable", "witnessed"],
    timeout: float,  # noqa: ASYNC109  # an option of the command line
    name: str | None,
    passphrase_file: str | None,
    *,
    as_json: bool,
) -> None:
    """Pay AMOUNT RHB to the account TO.

    The payment is written down before it is sent. If this is interrupted, `rahba wallet outbox`
    says what became of it; the same command says so, too, before it pays anything.
    """
    key_of(to)
    fals = parse_rhb(amount)
    async with at_counter(name) as counter:
        passphrase = unlock(counter.purse, passphrase_file)
        await counter.settle_rotation()
        mine = counter.wallet(passphrase)
        raw = await mine.sign_transfer(to, fals)
        if key is None:
            await _check_not_paid(counter, raw)
        answer = await mine.send(raw, key=key)
        finality = await _wait(counter, answer.id, wait, timeout)
    _paid(answer, f"sent {amount} RHB to …{short(to)}", finality, as_json=as_json)


@wallet.command()
@click.argument("amount", default="100")
@wallet_option
@passphrase_option
@json_option
@asynchronous
async def faucet(
    amount: str, name: str | None, passphrase_file: str | None, *, as_json: bool
) -> None:
    """Claim AMOUNT RHB of test money (the dev network only)."""
    fals = parse_rhb(amount)
    async with at_counter(name) as counter:
        passphrase = unlock(counter.purse, passphrase_file)
        await counter.settle_rotation()
        answer = await counter.wallet(passphrase).faucet(fals)
    _paid(answer, f"claimed {amount} RHB", "durable", as_json=as_json)


@wallet.command()
@click.option("--forget", metavar="TX", help="Stop asking for a payment whose ledger is gone.")
@wallet_option
@json_option
@asynchronous
async def outbox(forget: str | None, name: str | None, *, as_json: bool) -> None:
    """Settle the payments whose fate is unknown, by sending the same bytes again.

    Lists what became of them, and what is still unknown with the reason.
    """
    async with at_counter(name) as counter:
        if forget is not None:
            await counter.outbox.forget(forget)
        found = await counter.outbox.resume()
        await counter.settle_rotation()
    if as_json:
        print_json(_resumed(found))
        return
    for answer in found.settled:
        what = f"entry {answer.seq}" if answer.ok else f"not paid [{answer.code}]"
        click.echo(f"{answer.id}  {what}")
    rows = [(_told(letter), letter.id, error.code) for letter, error in found.unknown]
    if rows:
        print_table(["still unknown", "id", "because"], rows)
    elif not found.settled:
        click.echo("nothing is unknown")


async def _check_not_paid(counter: Counter, raw: bytes) -> None:
    """Settle what an earlier run left; a payment like ``raw`` among it must not be made again."""
    from wallet.outbox import meaning_of

    wanted = meaning_of(raw)
    letters = await counter.outbox.unknown()
    twins = {letter.id for letter in letters if meaning_of(letter.raw) == wanted}
    if not letters:
        return
    found = await counter.outbox.resume()
    for answer in found.settled:
        if answer.ok and answer.id in twins:
            raise PaidMeanwhileError("as much was paid by then", id=answer.id, seq=answer.seq)
    for letter, error in found.unknown:
        if letter.id in twins:
            raise error


async def _wait(counter: Counter, tx: str, wait: str, limit_s: float) -> str:
    """Ask how final a transaction is until it is as final as it must be."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + limit_s, _FIRST_PAUSE_S
    while True:
        finality = (await counter.ledger.status(tx)).finality or "durable"
        if finality in {wait, "witnessed"}:
            return finality
        if loop.time() + pause > deadline:
            raise NotWitnessedError("paid, but not witnessed yet", id=tx, finality=finality)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _resumed(found: Resumed) -> dict[str, list[dict[str, object]]]:
    settled: list[dict[str, object]] = [
        {"tx": each.id, "outcome": each.outcome, "seq": each.seq, "code": each.code}
        for each in found.settled
    ]
    unknown = [_unknown(letter, error) for letter, error in found.unknown]
    return {"settled": settled, "unknown": unknown}


def _unknown(letter: Letter, error: RahbaError) -> dict[str, object]:
    return {
        "tx": letter.id,
        "what": _told(letter),
        "key": letter.key,
        "kept": letter.kept_ms,
        "code": error.code,
    }


def _told(letter: Letter) -> str:
    """Say what a letter does."""
    from wallet.transactions import Transfer, read

    record = read(letter.raw).record
    if isinstance(record, Transfer):
        return f"pay {format_rhb(int(record.amount))} RHB to …{short(record.to)}"
    return str(record.__struct_config__.tag)


def _paid(answer: Answer, done: str, finality: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "outcome": answer.outcome,
                "tx": answer.id,
                "seq": answer.seq,
                "finality": finality,
            }
        )
    else:
        click.echo(f"{done}: entry {answer.seq}, transaction {answer.id}, {finality}")
