"""``rahba wallet history`` and ``proof``: what happened to an account, and papers that prove it.

The ledger is not believed: the whole history is checked against the tip that its signed checkpoint
proves, and each checkpoint against the newest one that the wallet has seen.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli.counter import Counter, at_counter, wallet_option
from api.cli.output import asynchronous, json_option, print_json, print_table
from rahba.errors import BadInputError
from rahba.ids import check_digest, short
from rahba.money import format_rhb

if TYPE_CHECKING:
    from rahba.balance import AccountProof, ProvenAccount
    from wallet.ports import TxView

_PAGE: Final = 1_000
_TRIES: Final = 20
_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Story:
    """An account's newest transactions; all that lie before entry ``proven`` are proven complete.

    ``count`` is how many those are; without a proof both are 0.
    """

    newest: list[TxView]
    proven: int
    count: int


@click.command()
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(1, 1_000))
@click.option("--unchecked", is_flag=True, help="Read the newest only, and believe the ledger.")
@wallet_option
@json_option
@asynchronous
async def history(limit: int, unchecked: bool, name: str | None, *, as_json: bool) -> None:
    """List the newest transactions that concern your account.

    The whole history is read and checked: if the ledger leaves one out or changes one, this fails.
    The newest may not be covered by a checkpoint yet.
    """
    async with at_counter(name) as counter:
        account = counter.purse.account
        if unchecked or await counter.ledger.account(account) is None:
            story = Story(await counter.ledger.history(account, limit=limit), 0, 0)
        else:
            story = await _checked(counter, account, limit)
    if as_json:
        print_json([_plain(tx, story) for tx in story.newest])
        return
    rows = [
        (
            tx.seq,
            tx.payload["type"],
            _amount(tx),
            short(str(_other(tx, account))),
            "✓" if tx.seq < story.proven else "",
            tx.id[:16],
        )
        for tx in story.newest
    ]
    print_table(["seq", "type", "RHB", "with", "", "id"], rows)
    if story.proven:
        click.echo(f"✓ complete: {story.count} transactions before entry {story.proven}", err=True)


@click.command()
@click.argument("tx", required=False)
@click.option("--balance", "of_balance", is_flag=True, help="Prove the account instead.")
@click.option("--dropped", is_flag=True, help="Prove that the operator dropped TX.")
@wallet_option
@json_option
@asynchronous
async def proof(
    tx: str | None, of_balance: bool, dropped: bool, name: str | None, *, as_json: bool
) -> None:
    """Print a paper that anybody can verify offline.

    For a transaction TX it is a tlog-proof file; with --balance it is the account proof (JSON) of
    what your account owns under the newest checkpoint. With --dropped it is evidence for `rahba
    witness judge`: the receipt that the wallet keeps, and what is in the log in its place.
    """
    if (tx is None) is not of_balance or (of_balance and dropped):
        raise click.UsageError("name a transaction, or give --balance")
    async with at_counter(name) as counter:
        if dropped and tx is not None:
            click.echo(await _dropped(counter, tx), nl=False)
            return
        if tx is None:
            key = await counter.ledger.verifier_key()
            proven, paper = await _account_proof(counter, counter.purse.account)
            print_json(_account_paper(key, proven, paper))
            return
        key, seq, receipt = await _receipt(counter, tx)
    if as_json:
        print_json({"tx": tx, "seq": seq, "verifier_key": key, "receipt": receipt})
    else:
        click.echo(receipt, nl=False)


async def _dropped(counter: Counter, tx: str) -> str:
    """Return the evidence that a transaction which the operator signed for is not in the log."""
    from wallet.auditor import prove_dropped
    from wallet.evidence import write_evidence

    letter = await counter.outbox.find(check_digest(tx))
    if letter is None or letter.receipt is None:
        raise BadInputError("the wallet holds no receipt for such a transaction", tx=tx)
    key = await counter.ledger.verifier_key()
    bundle = await prove_dropped(counter.ledger, letter.receipt, key)
    if bundle is None:
        raise BadInputError("it is in the log, where it was promised", tx=tx)
    return write_evidence(bundle)


async def _checked(counter: Counter, account: str, limit: int) -> Story:
    """Read the whole history and check it; only the newest are kept decoded."""
    from rahba.balance import verify_history
    from rahba.client.light import check_page

    proven, _ = await _account_proof(counter, account)
    newest: list[TxView] = []
    raws: list[bytes] = []
    page, before, told = await counter.ledger.history(account, limit=_PAGE), None, 0
    while page:
        check_page(page, before, told)
        newest += page[: max(0, limit - len(newest))]
        raws += [tx.raw for tx in page if tx.seq < proven.size]
        before, told = page[-1].seq, told + len(page)
        page = await counter.ledger.history(account, before=before, limit=_PAGE)
    verify_history(reversed(raws), proven.tip)
    return Story([_as_signed(tx) for tx in newest], proven.size, len(raws))


def _as_signed(tx: TxView) -> TxView:
    """Return a transaction as its own bytes tell it, whatever was said beside them."""
    from wallet.ports import TxView
    from wallet.transactions import read

    return TxView(read(tx.raw).id, tx.seq, tx.raw, tx.log_time)


async def _account_proof(counter: Counter, account: str) -> tuple[ProvenAccount, AccountProof]:
    """Return the proof of an account, checked; a fresh account waits for its first checkpoint."""
    from rahba.client.light import LedgerSilentError

    async with counter.light() as light:
        for _ in range(_TRIES):
            try:
                return await light.prove(account)
            except LedgerSilentError as error:
                if error.facts.get("status") != 404:
                    raise
            await asyncio.sleep(_PAUSE_S)
    raise BadInputError("no checkpoint covers the account (yet)", account=account)


async def _receipt(counter: Counter, tx: str) -> tuple[str, int, str]:
    """Return the verifier key, the place and the receipt of a transaction, checked."""
    from rahba.client.light import LedgerSilentError
    from rahba.proof import write_proof

    check_digest(tx)
    async with counter.light() as light:
        key = await counter.ledger.verifier_key()
        try:
            entry, included = await light.payment(tx)
        except LedgerSilentError as error:
            if error.facts.get("status") != 404:
                raise
            raise BadInputError("no checkpoint covers such a transaction (yet)", tx=tx) from error
    return key, included.index, write_proof(included, entry.raw)


def _account_paper(key: str, proven: ProvenAccount, paper: AccountProof) -> dict[str, Any]:
    import msgspec

    return {
        "account": proven.id,
        "balance_fals": str(proven.balance),
        "size": proven.size,
        "log_time": proven.log_time,
        "verifier_key": key,
        "proof": msgspec.to_builtins(paper),
    }


def _plain(tx: TxView, story: Story) -> dict[str, Any]:
    return {
        "seq": tx.seq,
        "id": tx.id,
        "time": tx.log_time,
        "payload": tx.payload,
        "proven": tx.seq < story.proven,
    }


def _other(tx: TxView, account: str) -> object:
    if tx.payload.get("account") != account:
        return tx.payload.get("account")
    return tx.payload.get("to") or tx.payload.get("payee") or tx.payload.get("key") or ""


def _amount(tx: TxView) -> str:
    amount = tx.payload.get("amount") or tx.payload.get("budget")
    return format_rhb(int(amount)) if isinstance(amount, str) else ""
