"""``rahba witness``: cosign a log's checkpoints, or audit every transaction before that."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from api.cli.output import asynchronous, json_option, print_json, service
from api.settings import Settings
from rahba.errors import BadInputError
from rahba.ids import key_of

if TYPE_CHECKING:
    from wallet.evidence import Finding


@click.group(invoke_without_command=True)
@click.option("--audit", is_flag=True, help="Carry out every transaction before cosigning.")
@click.option("--log", "logs", multiple=True, help="Verifier key of a log to witness.")
@click.option("--operator", "operators", multiple=True, help="DID whose logs to witness.")
@click.option("--log-url", help="Ledger whose entries are audited (default: RAHBA_LEDGER_URL).")
@click.option("--name", help="Name to sign under (default: made of the key).")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of its key and memory (default: witness in RAHBA_DATA).",
)
@click.pass_context
def witness(
    context: click.Context,
    *,
    audit: bool,
    logs: tuple[str, ...],
    operators: tuple[str, ...],
    log_url: str | None,
    name: str | None,
    folder: Path | None,
) -> None:
    """Run a witness (C2SP tlog-witness) at RAHBA_WITNESS.

    It cosigns what is consistent with all that it cosigned before. Whoever runs one for a ledger
    that is not their own makes that ledger's checkpoints worth more. Never run two on one folder,
    never restore one from a backup: it must not forget.
    """
    if context.invoked_subcommand is not None:
        return
    from api.bootstrap import WitnessOptions

    for did in operators:
        key_of(did)
    if not logs and not operators:
        raise click.UsageError("name a log by --log VKEY or --operator DID")
    if audit and len(logs) + len(operators) > 1:
        raise click.UsageError("an auditor audits one log: start another one for the next")
    _run(WitnessOptions(audit, logs, operators, log_url, name, folder))


@service
async def _run(wanted: object) -> None:
    from api.bootstrap import WitnessOptions, run_witness
    from api.cli.process import set_up_service, until_signalled

    assert isinstance(wanted, WitnessOptions)
    settings: Settings = set_up_service()
    async with until_signalled() as stop:
        await run_witness(settings, wanted, stop)


@witness.command()
@click.argument("url", default="")
@json_option
@asynchronous
async def vkey(url: str, *, as_json: bool) -> None:
    """Show the verifier key of the witness at URL (default: RAHBA_WITNESS)."""
    import os

    text = (await _get(url or Settings.read(os.environ).witness.url, "/vkey")).decode().strip()
    if as_json:
        print_json({"verifier_key": text})
    else:
        click.echo(text)


@witness.command()
@click.argument("url", default="")
@json_option
@asynchronous
async def evidence(url: str, *, as_json: bool) -> None:
    """List what the witness at URL keeps against logs that contradicted themselves.

    With --json the bundles are printed whole: save one to a file for `rahba witness judge`.
    """
    import os

    import orjson

    found = orjson.loads(await _get(url or Settings.read(os.environ).witness.url, "/evidence"))
    if as_json:
        print_json(found)
        return
    for bundle in found:
        click.echo(f"{bundle['kind']}  {bundle['vkey']}")
    if not found:
        click.echo("nothing: no log contradicted itself")


@witness.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--ledger",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The log's SQLite file: what is needed to judge a wrong state.",
)
@json_option
def judge(file: Path, ledger: Path | None, *, as_json: bool) -> None:
    """Check a bundle of evidence offline. Exits with 1 if it proves nothing."""
    from wallet.evidence import NotEvidenceError, read_evidence, verify_evidence
    from wallet.stores.readonly import ReadOnlyLog

    bundle = read_evidence(file.read_text("utf-8"))
    try:
        if ledger is None:
            finding = verify_evidence(bundle)
        else:
            with ReadOnlyLog(ledger) as log:
                finding = verify_evidence(bundle, log)
    except NotEvidenceError as error:
        if as_json:
            print_json({"proves": False, "detail": error.message})
        else:
            click.secho(f"it proves nothing: {error.message}", fg="red")
        sys.exit(1)
    _show(finding, as_json=as_json)


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "proves": True,
                "kind": finding.kind,
                "operator": finding.operator,
                "detail": finding.detail,
            }
        )
    else:
        click.echo(f"{finding.kind}: {finding.detail}\nconvicts {finding.operator}")


async def _get(url: str, path: str) -> bytes:
    import aiohttp

    if not url.startswith(("http://", "https://")):
        raise BadInputError("a witness's address begins with http:// or https://")
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as web,
        web.get(url.rstrip("/") + path) as reply,
    ):
        if reply.status != 200:
            raise BadInputError(f"{url} answers {reply.status}: it is no witness")
        return await reply.read()
