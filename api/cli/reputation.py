"""``rahba reputation``: what settled deals say of agents, computed from a log that is audited."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from api.cli.ledger_copies import progress, vkey_option
from api.cli.output import asynchronous, json_option, print_json, print_table
from api.settings import Settings
from rahba.ids import key_of, short
from rahba.money import format_rhb

if TYPE_CHECKING:
    from rahba.standing import ReputationBook, Standing
    from wallet.reputation import Basis


@click.command()
@click.argument("agent", required=False)
@click.option(
    "--from", "place", help="The log: file, data folder, exported folder, database or address."
)
@click.option("--for", "caller", help="Whose own deals decide whom to believe.")
@click.option("--at", type=click.IntRange(1), help="As of so many entries (an earlier checkpoint).")
@click.option(
    "--limit", type=click.IntRange(1, 1_000), default=20, help="How many to list without AGENT."
)
@vkey_option
@json_option
@asynchronous
async def reputation(
    agent: str | None,
    *,
    place: str | None,
    caller: str | None,
    at: int | None,
    limit: int,
    vkey: str | None,
    as_json: bool,
) -> None:
    """Verify a whole log, then compute what its settled deals say of AGENT, or of the best.

    Nothing but the log is needed: whoever has the same entries finds the same figures, those that a
    gateway tells (GET /v1/agents/AGENT/reputation) among them; --at takes the size it names.
    """
    for name in (agent, caller):
        if name is not None:
            key_of(name)
    book, basis, digest = await _recomputed(place, at, vkey, quiet=as_json)
    names = [agent] if agent is not None else _best(book, caller, limit)
    found = [book.standing(name, caller) for name in names]
    if as_json:
        _print_json(found, basis, digest, one=agent is not None)
    elif agent is not None:
        _print_one(found[0], basis)
    else:
        _print_all(found, basis)


async def _recomputed(
    place: str | None, at: int | None, vkey: str | None, *, quiet: bool
) -> tuple[ReputationBook, Basis, str]:
    from api.places import opened_source
    from rahba.standing import ReputationBook
    from wallet.errors import LedgerCorruptError
    from wallet.reputation import Basis, recompute

    async with opened_source(place, Settings.read(os.environ)) as source:
        report, read = await recompute(
            source, at=at, vkey=vkey, progress=progress("entries", quiet)
        )
    if not report.ok:
        first = next(iter(report.problems), None)
        said = first.detail if first is not None else "the checkpoint is not the operator's"
        raise LedgerCorruptError(
            f"the log does not verify: {said}",
            seq=None if first is None else first.seq,
            reason=None if first is None else first.code,
        )
    basis = Basis(read.size, read.frontier.root().hex(), read.log_time)
    return ReputationBook(read.dealings, read.log_time), basis, read.digest()


def _best(book: ReputationBook, caller: str | None, limit: int) -> list[str]:
    bounds = {payee: book.lower_bound(payee, caller) for payee in book.dealings.payees}
    return sorted(bounds, key=lambda payee: (-bounds[payee], payee))[:limit]


def _print_json(found: list[Standing], basis: Basis, digest: str, *, one: bool) -> None:
    from api.standings import standing_document

    documents = [standing_document(each, basis) for each in found]
    print_json((documents[0] if one else {"agents": documents}) | {"digest": digest})


def _print_one(one: Standing, basis: Basis) -> None:
    click.echo(one.agent)
    for reason in one.reasons:
        click.echo(f"  {reason}")
    click.echo(f"  fees paid   {format_rhb(one.fees_fals)} RHB")
    _print_basis(basis)


def _print_all(found: list[Standing], basis: Basis) -> None:
    def rates(one: Standing) -> list[str]:
        rate = one.rate if one.personal is None else one.personal.rate
        return [f"{part / 10:.1f}" for part in (rate.low, rate.mean, rate.high)]

    if not found:
        click.echo("no deals were settled yet")
    else:
        heads = ("agent", "at least %", "mean %", "at most %", "deals", "counterparties", "failed")
        print_table(
            heads,
            (
                [short(one.agent), *rates(one), one.deals, one.counterparties, one.failures]
                for one in found
            ),
        )
    _print_basis(basis)


def _print_basis(basis: Basis) -> None:
    click.echo(f"computed from {basis.size} entries that verify, root {basis.root}")
    sys.stdout.flush()
