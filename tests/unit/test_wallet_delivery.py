"""A delivery ends with a sure answer, or says that there is none."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from rahba.errors import BadSignatureError
from rahba.promise import Promise, open_promise, sign_promise
from tests.fixtures.line import Line
from tests.fixtures.wallet import LedgerRig, did, signer_of
from wallet.delivery import deliver, genesis_of, refusal
from wallet.errors import (
    InsufficientFundsError,
    LedgerBusyError,
    PaymentUnknownError,
    WrongChainError,
)
from wallet.ports import Answer
from wallet.transactions import dev_genesis


@pytest.fixture
async def line(memory_rig: LedgerRig) -> Line:
    await memory_rig.funded("amina", 100_000)
    return Line(memory_rig)


async def signed(line: Line, amount: int = 10) -> bytes:
    return await line.rig.wallet("amina").sign_transfer(did("brahim"), amount)


async def test_a_refusal_is_an_answer_and_an_error_of_its_own(line: Line) -> None:
    answer = await deliver(line, await signed(line, 200_000), patience_s=1)
    assert (answer.outcome, answer.code) == ("refused", "insufficient_funds")
    assert isinstance(refusal(answer), InsufficientFundsError)


async def test_nobody_answering_is_unknown_and_a_busy_ledger_is_busy(line: Line) -> None:
    raw = await signed(line)
    line.lose_answers = 1_000
    with pytest.raises(PaymentUnknownError):
        await deliver(line, raw, patience_s=0.05)
    line.lose_answers, line.busy = 0, 1_000
    with pytest.raises(LedgerBusyError):
        await deliver(line, raw, patience_s=0.05)
    line.busy = 0
    assert (await deliver(line, raw, patience_s=0)).outcome == "exists"
    assert set(line.sent) == {raw}


async def test_being_logged_is_sure_by_the_operators_signature(line: Line) -> None:
    rules = await genesis_of(line)
    answer = await deliver(line, await signed(line), patience_s=1, receipt_by=rules)
    assert answer.receipt is not None
    promise = open_promise(answer.receipt, rules.operator)
    assert (promise.id, promise.seq, promise.chain) == (answer.id, answer.seq, rules.chain)


class Liar(Line):
    """An operator whose receipts are not what they should be."""

    def __init__(self, rig: LedgerRig, **changes: Any) -> None:
        super().__init__(rig)
        self.changes = changes

    async def submit(self, raw: bytes, *, receipt: bool = False) -> Answer:
        answer = await super().submit(raw, receipt=receipt)
        if not self.changes:
            return replace(answer, receipt=None)
        fields = {"chain": self.rig.genesis.chain, "id": answer.id, "seq": answer.seq or 0}
        signer = self.changes.pop("by", "operator")
        fields |= {"by_size": (answer.seq or 0) + 1} | self.changes
        return replace(answer, receipt=sign_promise(Promise(**fields), signer_of(signer)))


@pytest.mark.parametrize(
    "changes",
    [{}, {"by": "amina"}, {"id": "0" * 64}, {"seq": 0}, {"chain": "0" * 16}, {"by_size": 0}],
    ids=str,
)
async def test_a_receipt_for_something_else_is_no_sure_answer(
    memory_rig: LedgerRig, changes: dict[str, Any]
) -> None:
    await memory_rig.funded("amina", 100_000)
    liar = Liar(memory_rig, **changes)
    raw = await signed(liar)
    with pytest.raises(BadSignatureError):
        await deliver(liar, raw, patience_s=1, receipt_by=memory_rig.genesis)


async def test_a_ledger_of_another_chain_knows_nothing_of_these_bytes(line: Line) -> None:
    stranger = Line(line.rig)
    raw = await signed(line)
    other = dev_genesis(did("stranger"), 0)

    async def submit(raw: bytes, *, receipt: bool = False) -> Answer:
        return Answer("invalid", "0" * 64, code="wrong_chain")

    stranger.submit = submit  # type: ignore[method-assign]
    with pytest.raises(WrongChainError):
        await deliver(stranger, raw, patience_s=1, receipt_by=other)


async def test_a_ledger_that_shows_no_or_another_genesis_is_not_believed(line: Line) -> None:
    class Empty(Line):
        async def entries(self, start: int, limit: int) -> list[Any]:
            return []

    class Other(Line):
        async def chain(self) -> str:
            return "0" * 16

    with pytest.raises(BadSignatureError):
        await genesis_of(Empty(line.rig))
    with pytest.raises(WrongChainError):
        await genesis_of(Other(line.rig))
