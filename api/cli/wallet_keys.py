"""``rahba wallet new | import | export | ls | rotate``: the keys of wallets, never shown by chance.

Only ``new`` (once) and ``export --phrase`` print a recovery phrase; nothing prints a seed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from api.cli.counter import at_counter, find_purse, ledger_settings, unlock, wallet_option
from api.cli.output import asynchronous, json_option, print_json, print_table
from api.cli.secret_input import (
    passphrase_option,
    read_passphrase,
    read_secret,
    secret_file_option,
)
from api.settings import Settings
from rahba.errors import BadInputError, RahbaError

if TYPE_CHECKING:
    from wallet.keystore import Origin
    from wallet.purse import Purse

_KEYS_TRIED: Final = 64


@click.command()
@click.argument("name")
@passphrase_option
@json_option
@asynchronous
async def new(name: str, passphrase_file: str | None, *, as_json: bool) -> None:
    """Make the wallet NAME and show its recovery phrase, this once.

    Write the words down on paper: whoever has them has the wallet, and without them a forgotten
    passphrase is the end of it.
    """
    from rahba.ids import RandomIds
    from wallet.keystore import Origin
    from wallet.phrase import new_phrase

    check_free(name)
    passphrase = read_passphrase(passphrase_file, fresh=True)
    origin = Origin.from_phrase(new_phrase(RandomIds()))
    purse = _create(name, origin, passphrase)
    if as_json:
        print_json(_described(purse) | {"phrase": origin.reveal()})
        return
    click.echo(f"account  {purse.account}")
    click.echo("\nWrite these words down, in this order. They are not shown again.\n")
    words = origin.reveal().split(" ")
    for start in range(0, len(words), 6):
        row = enumerate(words[start : start + 6], start + 1)
        click.echo("  ".join(f"{place:>2} {word:<9}" for place, word in row).rstrip())
    click.echo(f"\nnext     rahba wallet faucet 100 --wallet {name}")


@click.command(name="import")
@click.argument("name")
@click.option(
    "--keystore",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read an encrypted keystore instead of a phrase; its passphrase becomes the wallet's.",
)
@secret_file_option("phrase-file", "Read the recovery phrase here (`-`: a line of stdin).")
@secret_file_option("extra-file", "Read the phrase's own passphrase here (the '25th word').")
@click.option("--path", metavar="PATH", help="Path of the first key (default: m/44'/5392450'/…).")
@passphrase_option
@json_option
@asynchronous
async def import_(  # noqa: PLR0917  # options, all named
    name: str,
    keystore: Path | None,
    phrase_file: str | None,
    extra_file: str | None,
    path: str | None,
    passphrase_file: str | None,
    *,
    as_json: bool,
) -> None:
    """Bring a wallet back as NAME, from its recovery phrase or from a keystore.

    The phrase is asked for at the terminal unless --phrase-file or --keystore is given. If a ledger
    can be reached, the key in force is found there: the wallet may have been rotated since.
    """
    from wallet.keystore import Origin, open_keystore

    check_free(name)
    if keystore is not None:
        passphrase = read_passphrase(passphrase_file)
        purse = _create(name, open_keystore(keystore, passphrase), passphrase)
    else:
        phrase = read_secret(phrase_file, "Recovery phrase")
        extra = read_secret(extra_file, "Passphrase of the phrase") if extra_file else ""
        origin = Origin.from_phrase(phrase, extra, path)
        passphrase = read_passphrase(passphrase_file, fresh=True, what="New passphrase")
        purse = _create(name, origin, passphrase)
        await _find_key_in_force(purse, origin)
    if as_json:
        print_json(_described(purse))
        return
    click.echo(f"account  {purse.account}")
    click.echo(f"key      {purse.record().active.path or 'bare'}")


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--phrase", "as_phrase", is_flag=True, help="Print the recovery phrase instead.")
@secret_file_option("new-passphrase-file", "Lock FILE with the passphrase in here instead.")
@wallet_option
@passphrase_option
@json_option
@asynchronous
async def export(
    file: Path | None,
    as_phrase: bool,
    new_passphrase_file: str | None,
    name: str | None,
    passphrase_file: str | None,
    *,
    as_json: bool,
) -> None:
    """Write the wallet into the new keystore FILE, or print its recovery phrase (--phrase).

    FILE is locked with the wallet's passphrase, or with another one. The owner's wallet has none:
    one is asked for.
    """
    from wallet.keystore import save_keystore

    if (file is None) is not as_phrase:
        raise click.UsageError("name a FILE, or give --phrase")
    purse = find_purse(name, _market_or_own())
    passphrase = unlock(purse, passphrase_file)
    origin = purse.origin(passphrase)
    if file is None:
        phrase = origin.reveal()
        print_json(_described(purse) | {"phrase": phrase}) if as_json else click.echo(phrase)
        return
    if new_passphrase_file is not None or passphrase is None:
        given = new_passphrase_file or (None if purse.locked else passphrase_file)
        passphrase = read_passphrase(given, fresh=True, what="Passphrase of the file")
    save_keystore(file, origin, passphrase)
    if as_json:
        print_json(_described(purse) | {"keystore": str(file)})
    else:
        click.echo(f"{purse.account}\nlocked in {file}")


@click.command(name="ls")
@json_option
@asynchronous
async def list_all(*, as_json: bool) -> None:
    """List the named wallets, and the accounts they act for."""
    from wallet.purse import Purse

    found = [_described(each) for each in Purse.all_named(Settings.read(os.environ).data_dir)]
    if as_json:
        print_json(found)
        return
    columns = ("name", "account", "path", "rotating")
    rows = [tuple("" if row[each] is None else row[each] for each in columns) for row in found]
    print_table(list(columns), [(*row[:3], "yes" if row[3] else "") for row in rows])


@click.command()
@click.option(
    "--to",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="KEYSTORE",
    help="Rotate to the key of this keystore (default: the next of the phrase, or a fresh one).",
)
@secret_file_option("to-passphrase-file", "Read the passphrase of that keystore here.")
@wallet_option
@passphrase_option
@json_option
@asynchronous
async def rotate(
    to: Path | None,
    to_passphrase_file: str | None,
    name: str | None,
    passphrase_file: str | None,
    *,
    as_json: bool,
) -> None:
    """Put another key in force for the same account; the old one signs nothing any more.

    All sessions of the account end with it, API keys among them. Interrupted at any point, the same
    command finishes it; the old key stays in force until the ledger has logged the new one.
    """
    from rahba.clock import SystemClock
    from rahba.ids import RandomIds
    from wallet import rotation
    from wallet.keystore import open_keystore

    async with at_counter(name) as counter:
        passphrase = unlock(counter.purse, passphrase_file)
        given = None
        if to is not None:
            secret = read_secret(to_passphrase_file, "Passphrase of the other keystore")
            given = open_keystore(to, secret)
        done = await rotation.rotate(
            counter.purse,
            counter.ledger,
            counter.outbox,
            passphrase,
            clock=SystemClock(),
            ids=RandomIds(),
            given=given,
        )
        renewed = None if counter.purse.locked else await _renew_api_key()
    if as_json:
        print_json(
            {
                "account": done.account,
                "old": done.old,
                "new": done.new,
                "tx": done.answer.id,
                "seq": done.answer.seq,
            }
        )
        return
    click.echo(f"account  {done.account}\nkey      {done.new}\nlogged   entry {done.answer.seq}")
    if renewed is not None:
        click.echo(f"API key  renewed in {renewed}; all others have ended: rahba keys new")


def check_free(name: str) -> None:
    """Refuse the name of a wallet that is there, before anything is asked."""
    from wallet.purse import Purse, UnknownWalletError, WalletExistsError

    try:
        Purse.named(Settings.read(os.environ).data_dir, name)
    except UnknownWalletError:
        return
    raise WalletExistsError("there is a wallet of that name", name=name)


def _create(name: str, origin: Origin, passphrase: str) -> Purse:
    from wallet.purse import Purse

    return Purse.create(Settings.read(os.environ).data_dir, name, origin, passphrase)


async def _find_key_in_force(purse: Purse, origin: Origin) -> None:
    """Ask the ledger, if there is one, which key of the phrase acts for the account by now."""
    from wallet.slip10 import next_path
    from wallet.transports.http import HttpLedger

    try:
        async with HttpLedger(ledger_settings().ledger_url, patience_s=2) as ledger:
            view = await ledger.account(purse.account)
    except RahbaError:
        return  # none runs: the first key, until the ledger says otherwise
    path = origin.path
    for _ in range(_KEYS_TRIED):
        if view is None or path is None:
            return
        did = origin.signer(path).did
        if did in view.keys:
            purse.adopt(path, did)
            return
        path = next_path(path)
    raise BadInputError("the account was rotated to a key that is not of this phrase")


async def _renew_api_key() -> Path | None:
    """Renew the owner's API key, if a market runs whose broker can be told."""
    from api.bootstrap import located
    from api.market import NoMarketError
    from api.owner import renew_api_key

    try:
        return await renew_api_key(located(Settings.read(os.environ)))
    except NoMarketError:
        return None


def _market_or_own() -> Settings:
    """Return the settings of the market that runs, or those of the data folder if none does."""
    try:
        return ledger_settings()
    except RahbaError:
        return Settings.read(os.environ)


def _described(purse: Purse) -> dict[str, object]:
    record = purse.record()
    return {
        "name": purse.name,
        "account": record.account,
        "key": record.active.did,
        "path": record.active.path,
        "rotating": record.coming is not None,
    }
