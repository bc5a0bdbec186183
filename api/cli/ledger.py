"""``rahba ledger``: run the sequencer, verify a ledger without believing it, copy it."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, TextIO

import click

from api.cli.ledger_copies import (
    backup_command,
    export_command,
    import_command,
    older_option,
    progress,
    restore_command,
    vkey_option,
)
from api.cli.output import asynchronous, json_option, print_json, service
from api.settings import Settings
from rahba.money import format_rhb

if TYPE_CHECKING:
    from wallet.audit import Report


@click.group(invoke_without_command=True)
@click.option("--standby", is_flag=True, help="Follow the ledger; take over when it is gone.")
@click.pass_context
def ledger(context: click.Context, *, standby: bool) -> None:
    """Run the ledger (without a subcommand), verify one, or copy it away and back."""
    if context.invoked_subcommand is None:
        _run(standby=standby)


@ledger.command()
@click.argument("place", required=False)
@vkey_option
@older_option
@json_option
@asynchronous
async def verify(
    place: str | None, vkey: str | None, older: TextIO | None, *, as_json: bool
) -> None:
    """Verify every signature, every state and the tree of a ledger.

    PLACE is a SQLite file, a data folder, an exported folder, the http address of a ledger, or the
    postgresql address of its database; by default the ledger of RAHBA_LEDGER_STORE or RAHBA_DATA.
    Exits with 1 if anything is wrong.
    """
    note = older.read() if older else None
    report = await _audit(place, vkey, note, quiet=as_json)
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "entries": report.entries,
                "covered": report.covered,
                "transactions": report.transactions,
                "accounts": report.accounts,
                "supply_fals": str(report.supply),
                "root": report.root,
                "checkpoint_ok": report.checkpoint_ok,
                "problems": [
                    {"seq": problem.seq, "code": problem.code, "detail": problem.detail}
                    for problem in report.problems
                ],
            }
        )
    else:
        _print(report)
    if not report.ok:
        sys.exit(1)


for command in (export_command, import_command, backup_command, restore_command):
    ledger.add_command(command)


@service
async def _run(*, standby: bool) -> None:
    from api.bootstrap import run_ledger
    from api.cli.process import set_up_service, until_signalled

    settings = set_up_service()
    async with until_signalled() as stop:
        await run_ledger(settings, stop, standby=standby)


async def _audit(place: str | None, vkey: str | None, older: str | None, *, quiet: bool) -> Report:
    from api.places import archive_at, database_of, file_at, is_address
    from wallet.archive import audit_archive
    from wallet.audit import audit_entries, audit_ledger
    from wallet.stores.readonly import ReadOnlyLog, pages
    from wallet.transports.http import HttpLedger

    show = progress("entries", quiet)
    settings = Settings.read(os.environ)
    if is_address(place):
        async with HttpLedger(place or "") as remote:
            return await audit_ledger(remote, vkey=vkey, older=older, progress=show)
    archive = archive_at(place)
    if archive is not None:
        return audit_archive(archive, vkey=vkey, older=older, progress=show)
    store = database_of(place, settings)
    if store is not None:
        note = store.checkpoint() or ""
        with contextlib.closing(store):
            return audit_entries(pages(store), note, vkey=vkey, older=older, progress=show)
    with ReadOnlyLog(file_at(place, settings)) as log:
        return audit_entries(log, log.checkpoint, vkey=vkey, older=older, progress=show)


def _print(report: Report) -> None:
    click.echo(
        f"{report.entries} entries, {report.transactions} transactions, {report.accounts} accounts"
    )
    click.echo(f"supply      {format_rhb(report.supply)} RHB issued, exactly what accounts own")
    click.echo(f"root        {report.root} over {report.covered} entries")
    click.echo(f"checkpoint  {'signed by the operator' if report.checkpoint_ok else 'NOT VALID'}")
    for problem in report.problems:
        where = "log" if problem.seq is None else f"entry {problem.seq}"
        click.secho(f"{where}: {problem.detail} [{problem.code}]", fg="red")
    if report.ok:
        click.secho("everything verifies", fg="green")
