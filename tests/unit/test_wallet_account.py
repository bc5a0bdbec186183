"""A wallet gets sure answers from a ledger that is slow, busy, away or lying."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fixtures.line import Line
from tests.fixtures.wallet import DEAL, FEE, LedgerRig, did, signer_of
from wallet.account import Wallet
from wallet.errors import (
    BudgetExceededError,
    ExceedsHoldError,
    HoldResolvedError,
    InsufficientFundsError,
    LedgerBusyError,
    NotExpiredError,
    NotPayeeError,
    PaymentRefusedError,
    PaymentUnknownError,
    TransactionExpiredError,
    WrongChainError,
)
from wallet.transactions import Expire, Genesis, Transfer, read, transaction_id


@pytest.fixture
async def line(memory_rig: LedgerRig) -> Line:
    await memory_rig.funded("amina", 100_000)
    return Line(memory_rig)


def wallet_on(line: Line, name: str = "amina", **options: Any) -> Wallet:
    rig = line.rig
    return Wallet(line, signer_of(name), clock=rig.clock, ids=rig.ids, **options)


async def test_a_lost_request_is_sent_again(line: Line) -> None:
    line.lose_requests = 2
    assert (await wallet_on(line).transfer(did("brahim"), 10)).outcome == "logged"
    assert await line.rig.available("brahim") == 10


async def test_a_lost_answer_never_pays_twice(line: Line) -> None:
    line.lose_answers = 2
    answer = await wallet_on(line).transfer(did("brahim"), 10)
    assert answer.outcome == "exists"
    assert len(line.sent) == 3
    assert len(set(line.sent)) == 1
    assert await line.rig.available("brahim") == 10


async def test_a_busy_ledger_is_asked_again(line: Line) -> None:
    line.busy = 3
    assert (await wallet_on(line).transfer(did("brahim"), 10)).outcome == "logged"


async def test_a_payment_nobody_answers_for_is_unknown_and_may_be_asked_for(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.account.GRACE_S", 0.05)
    wallet = wallet_on(line, validity_ms=50)
    line.lose_answers = 1_000
    raw = await wallet.sign_transfer(did("brahim"), 10)
    with pytest.raises(PaymentUnknownError) as caught:
        await wallet.send(raw)
    assert caught.value.facts["id"] == transaction_id(raw)
    assert caught.value.retryable
    line.lose_answers = 0
    assert (await wallet.send(raw)).outcome == "exists"


async def test_a_ledger_that_stays_busy_is_not_an_unknown_payment(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.account.GRACE_S", 0.05)
    line.busy = 1_000
    with pytest.raises(LedgerBusyError):
        await wallet_on(line, validity_ms=50).transfer(did("brahim"), 10)
    assert await line.rig.available("brahim") == 0


async def test_each_refusal_is_an_error_of_its_own(line: Line) -> None:
    amina, brahim = wallet_on(line), wallet_on(line, "brahim")
    now = line.rig.clock.now_ms()
    with pytest.raises(InsufficientFundsError) as caught:
        await amina.transfer(did("brahim"), 100_000)
    assert caught.value.facts["outcome"] == "refused"
    hold = (await amina.hold(did("brahim"), 9_000, now + 60_000, DEAL)).id
    with pytest.raises(ExceedsHoldError):
        await brahim.capture(hold, 9_001)
    with pytest.raises(NotPayeeError):
        await amina.release(hold)
    with pytest.raises(NotExpiredError):
        await amina.do(Expire, subject=hold)
    await brahim.capture(hold, 9_000, DEAL)
    with pytest.raises(HoldResolvedError):
        await brahim.release(hold)
    await amina.grant(did("agent"), 5_000, 5_000, None, ["transfer"], now + 60_000)
    agent = wallet_on(line, "agent", account=did("amina"))
    await agent.transfer(did("brahim"), 3_000)
    with pytest.raises(BudgetExceededError):
        await agent.transfer(did("brahim"), 1)
    await amina.revoke(did("agent"))
    with pytest.raises(PaymentRefusedError):
        await agent.transfer(did("brahim"), 1)


async def test_a_batch_is_one_transaction(line: Line) -> None:
    await wallet_on(line).batch([(did("brahim"), 1), (did("chadia"), 2)])
    assert await line.rig.available("amina") == 100_000 - 3 - FEE
    assert await line.rig.available("chadia") == 2


async def test_a_sponsor_pays_the_fee(line: Line) -> None:
    await line.rig.funded("sponsor", 5_000)
    wallet = wallet_on(line, fee_payer=signer_of("sponsor"))
    await wallet.transfer(did("brahim"), 100_000)
    assert await line.rig.available("sponsor") == 5_000 - FEE


async def test_a_failed_job_is_released_by_a_seller_without_any_money(line: Line) -> None:
    now = line.rig.clock.now_ms()
    hold = (await wallet_on(line).hold(did("brahim"), 9_000, now + 60_000, DEAL)).id
    assert (await wallet_on(line, "brahim").release(hold)).ok
    assert await line.rig.available("amina") == 100_000 - FEE


async def test_signed_bytes_name_their_id_before_they_are_sent(line: Line) -> None:
    wallet = wallet_on(line)
    raw = await wallet.sign_hold(did("brahim"), 5, line.rig.clock.now_ms() + 60_000, DEAL)
    assert await line.rig.ledger.hold(transaction_id(raw)) is None
    answer = await wallet.send(raw)
    assert answer.id == transaction_id(raw)
    assert await line.rig.ledger.hold(answer.id) is not None


async def test_what_was_signed_too_long_ago_is_never_paid(line: Line) -> None:
    wallet = wallet_on(line)
    raw = await wallet.sign_transfer(did("brahim"), 10)
    await asyncio.sleep(0.25)
    line.rig.clock.advance(30_001)
    with pytest.raises(TransactionExpiredError):
        await wallet.send(raw)


async def test_a_wallet_signs_nothing_for_a_genesis_that_is_not_the_chains(line: Line) -> None:
    class Liar(Line):
        async def chain(self) -> str:
            return "0" * 16

    with pytest.raises(WrongChainError):
        await wallet_on(Liar(line.rig)).transfer(did("brahim"), 10)


async def test_the_fee_is_the_genesis_fee(line: Line) -> None:
    record = read(await wallet_on(line).sign_transfer(did("brahim"), 10)).record
    genesis = read((await line.rig.ledger.entries(0, 1))[0].raw).record
    assert isinstance(record, Transfer)
    assert isinstance(genesis, Genesis)
    assert record.fee == genesis.fee == str(FEE)
