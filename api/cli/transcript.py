"""``rahba transcript``: what was said in a negotiation, to keep and to check for oneself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.market import visited
from api.cli.output import asynchronous, json_option, print_json, print_table
from rahba.errors import BadInputError

if TYPE_CHECKING:
    from agents.negotiation.transcript import Checked


@click.group()
def transcript() -> None:
    """Export what was said in a negotiation, or check such a file offline."""


@transcript.command()
@click.argument("group")
@click.option("--out", type=click.Path(path_type=Path), help="The new file (default: print it).")
@json_option
@asynchronous
async def export(group: str, out: Path | None, *, as_json: bool) -> None:
    """Write the signed messages of negotiation GROUP (see `rahba ls negotiations`).

    One message a line. The quotes of a tender that is still open are sealed, and not in it.
    """
    from agents.negotiation.transcript import check_transcript, write_transcript
    from rahba.encoding import unb64

    async with visited() as market:
        found = await market.negotiation(group, raw=True)
    threads = [tuple(unb64(raw) for raw in each["transcript"]) for each in found["threads"]]
    content = write_transcript(threads)
    if out is None:
        sys.stdout.buffer.write(content)
        return
    checked = check_transcript(content)
    try:
        with out.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise BadInputError(f"cannot write {out}: {error.strerror}") from error
    _show(checked, as_json=as_json)


@transcript.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@asynchronous
async def verify(file: Path, *, as_json: bool) -> None:
    """Check every signature, link and agreement of FILE. Asks nobody."""
    from agents.negotiation.transcript import MAX_TRANSCRIPT_BYTES, check_transcript

    try:
        with file.open("rb") as source:
            content = source.read(MAX_TRANSCRIPT_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"cannot read {file}: {error.strerror}") from error
    _show(check_transcript(content), as_json=as_json)


def _show(checked: list[Checked], *, as_json: bool) -> None:
    if as_json:
        print_json([_plain(each) for each in checked])
        return
    headings = ("thread", "buyer", "seller", "messages", "got to", "agreement", "head")
    rows = [
        (
            each.thread[:8],
            each.buyer[-8:],
            each.seller[-8:],
            each.messages,
            each.phase,
            each.agreement.digest[:16] if each.agreement else "-",
            each.head[:16],
        )
        for each in checked
    ]
    print_table(headings, rows)
    click.echo("every message is signed and linked; what was agreed bears both signatures")


def _plain(each: Checked) -> dict[str, Any]:
    signed = each.agreement
    return {
        "thread": each.thread,
        "group": each.group,
        "buyer": each.buyer,
        "seller": each.seller,
        "messages": each.messages,
        "phase": each.phase,
        "head": each.head,
        "agreement": signed.digest if signed else None,
        "price_fals": signed.agreement.offer.issues.price if signed else None,
    }
