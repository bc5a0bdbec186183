"""``rahba witness``: cosign a log's checkpoints, or audit every transaction before that."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from api.cli.output import asynchronous, json_option, print_json, service
from api.settings import Settings
from rahba.errors import BadInputError, TooLargeError
from rahba.ids import key_of

if TYPE_CHECKING:
    from wallet.evidence import Finding
    from wallet.ports import Entry
    from wallet.sources import Source


_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024  # all the evidence that a witness shows at once


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
    help="The log, as `rahba ledger verify` takes it: what is needed to judge a wrong state.",
)
@json_option
@asynchronous
async def judge(file: Path, ledger: str | None, *, as_json: bool) -> None:
    """Check a bundle of evidence. Exits with 1 if it proves nothing.

    All but a wrong state is checked offline; that one is replayed from the log's entries.
    """
    import os

    from api.places import opened_source
    from wallet.errors import LedgerUnavailableError
    from wallet.evidence import MAX_BYTES, NotEvidenceError, read_evidence, verify_evidence

    with file.open("rb") as opened:
        bundle = read_evidence(opened.read(MAX_BYTES + 1).decode("utf-8", "replace"))
    try:
        if ledger is None:
            finding = verify_evidence(bundle)
        else:
            async with opened_source(ledger, Settings.read(os.environ)) as source:
                entries = _entries_of(source, asyncio.get_running_loop())
                finding = await asyncio.to_thread(verify_evidence, bundle, entries)
    except NotEvidenceError as error:
        if isinstance(error.__cause__, LedgerUnavailableError):  # it says nothing about the bundle
            raise error.__cause__ from error
        if as_json:
            print_json({"proves": False, "detail": error.message})
        else:
            click.secho(f"it proves nothing: {error.message}", fg="red")
        sys.exit(1)
    _show(finding, as_json=as_json)


def _entries_of(source: Source, loop: asyncio.AbstractEventLoop) -> Iterator[Entry]:
    """Yield the entries of a source in another thread than that of its loop."""
    pages = source.pages(0)

    async def next_page() -> list[Entry]:
        return await anext(pages, [])

    while page := asyncio.run_coroutine_threadsafe(next_page(), loop).result():
        yield from page


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

    from wallet.transports.witness import WitnessUnreachableError

    if not url.startswith(("http://", "https://")):
        raise BadInputError("a witness's address begins with http:// or https://")
    timeout = aiohttp.ClientTimeout(total=10)
    raw = bytearray()
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as web,
            web.get(url.rstrip("/") + path) as reply,
        ):
            if reply.status != 200:
                raise BadInputError(f"{url} answers {reply.status}: it is no witness")
            async for chunk in reply.content.iter_any():
                raw += chunk
                if len(raw) > _MAX_ANSWER_BYTES:
                    raise TooLargeError("the answer is too large", limit=_MAX_ANSWER_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise WitnessUnreachableError(f"{url}{path}: {error!r}") from error
    return bytes(raw)
