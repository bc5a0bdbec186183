"""``rahba ledger export | import | backup | restore``: a ledger's way out, and back."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from api.cli.output import asynchronous, json_option, print_json
from api.settings import Settings

if TYPE_CHECKING:
    from wallet.audit import Report
    from wallet.recovery import BeforeSigning

vkey_option = click.option(
    "--vkey", help="The log's verifier key that you trust (default: what its genesis says)."
)
older_option = click.option(
    "--older",
    type=click.File("r", encoding="utf-8"),
    help="A checkpoint saved elsewhere: the log must be the same, and no shorter.",
)
_from_option = click.option(
    "--from", "place", help="The ledger: file, data folder, exported folder or address."
)
_to_option = click.option("--to", "place", help="Where the ledger goes: file, folder or database.")
_folder = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@click.command("export")
@_folder
@_from_option
@vkey_option
@json_option
@asynchronous
async def export_command(
    folder: Path, place: str | None, vkey: str | None, *, as_json: bool
) -> None:
    """Write the whole log into FOLDER, as files that any web server can show.

    Run it again to go on after an interruption, or with what came since.
    """
    from api.places import opened_source
    from wallet.export import export_log

    async with opened_source(place, _settings()) as source:
        done = await export_log(source, folder, vkey=vkey, progress=progress("entries", as_json))
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "entries": done.size,
                "kept": done.kept,
                "root": done.root,
                "origin": done.log.origin,
                "vkey": done.log.vkey,
            }
        )
        return
    click.echo(f"{done.size} entries in {folder}, {done.kept} of them were there already")
    click.echo(f"root        {done.root}")
    click.echo(f"key         {done.log.vkey}")


@click.command("import")
@click.argument("source")
@_to_option
@vkey_option
@older_option
@json_option
@asynchronous
async def import_command(
    source: str, place: str | None, vkey: str | None, older: TextIO | None, *, as_json: bool
) -> None:
    """Verify the log of SOURCE whole, and make a new ledger of it.

    SOURCE is an exported folder, a file, a database or the address of a ledger. Run it again to go
    on after an interruption; what is not finished does not start.
    """
    from api.places import opened_source, target_at
    from wallet.restore import Known, import_log
    from wallet.stores.sqlite import SqliteStore

    settings = _settings()
    target = target_at(place, settings)
    known = Known(vkey, older.read() if older else None)
    store = SqliteStore(target) if isinstance(target, Path) else target
    with contextlib.closing(store):
        async with opened_source(source, settings) as log:
            report = await import_log(log, store, known, progress("entries", as_json))
    _say(report, "imported", as_json=as_json)


@click.command("backup")
@_folder
@_from_option
@json_option
@asynchronous
async def backup_command(folder: Path, place: str | None, *, as_json: bool) -> None:
    """Copy the ledger into the new FOLDER, while it runs.

    The operator's key is not in it: keep that elsewhere, nobody goes on with a ledger without it.
    """
    from api.places import archive_at, database_of, file_at, is_address, opened_source
    from rahba.clock import SystemClock
    from wallet.backup import back_up_file, back_up_log

    settings, made_ms = _settings(), SystemClock().now_ms()
    if is_address(place) or archive_at(place) or database_of(place, settings):
        async with opened_source(place, settings) as source:
            done = await back_up_log(source, folder, made_ms, progress("entries", as_json))
    else:
        path = file_at(place, settings)
        done = back_up_file(path, folder, made_ms, progress("pages", as_json))
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "kind": done.kind,
                "entries": done.size,
                "covered": done.covered,
                "root": done.root,
                "files": len(done.files),
                "bytes": sum(file.bytes for file in done.files),
            }
        )
        return
    click.echo(f"{done.size} entries in {folder}, {done.covered} under the checkpoint")
    click.echo(f"root        {done.root}")
    click.echo("the operator's key is not in it: keep that elsewhere")


@click.command("restore")
@_folder
@_to_option
@click.option("--tail", help="A longer copy of the log (exported folder, address): what it has on.")
@vkey_option
@older_option
@json_option
@asynchronous
async def restore_command(
    folder: Path,
    place: str | None,
    tail: str | None,
    vkey: str | None,
    older: TextIO | None,
    *,
    as_json: bool,
) -> None:
    """Verify the backup in FOLDER whole, and put the ledger back where there is none.

    The witnesses of the policy are asked, and a backup older than what they have seen is refused.
    """
    from api.places import opened_source, target_at
    from wallet.restore import Known, restore_backup

    settings = _settings()
    target = target_at(place, settings)
    async with contextlib.AsyncExitStack() as stack:
        more = await stack.enter_async_context(opened_source(tail, settings)) if tail else None
        if not isinstance(target, Path):
            stack.callback(target.close)
        ask = await stack.enter_async_context(_witnesses(settings))
        known = Known(vkey, older.read() if older else None, ask)
        report = await restore_backup(
            folder, target, known, tail=more, progress=progress("entries", as_json)
        )
    _say(report, "restored", as_json=as_json, witnesses_asked=ask is not None)
    if ask is None and older is None and not as_json:
        click.secho(
            "no witness was asked whether there was more: there is no policy, and no --older",
            fg="yellow",
            err=True,
        )


def progress(what: str, quiet: bool) -> Callable[[int], None]:
    """Return what shows on a terminal how far a command has come."""

    def show(done: int) -> None:
        if not quiet and sys.stderr.isatty():
            click.echo(f"\r{done:>10} {what}", nl=False, err=True)

    return show


@contextlib.asynccontextmanager
async def _witnesses(settings: Settings) -> AsyncIterator[BeforeSigning | None]:
    from api.bootstrap import witnessed_by

    async with witnessed_by(settings) as cosigning:
        yield cosigning.before_signing if cosigning is not None else None


def _settings() -> Settings:
    return Settings.read(os.environ)


def _say(report: Report, done: str, *, as_json: bool, **more: bool) -> None:
    if as_json:
        print_json(
            {
                "entries": report.entries,
                "transactions": report.transactions,
                "accounts": report.accounts,
                "supply_fals": str(report.supply),
                "root": report.root,
            }
            | more
        )
        return
    click.echo(f"{report.entries} entries {done}, {report.transactions} transactions")
    click.echo(f"root        {report.root} over {report.covered} entries")
    click.secho("everything verifies", fg="green")
