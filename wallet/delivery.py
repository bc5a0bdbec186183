"""Signed bytes on their way to a sure answer, or an honest "unknown".

* The same bytes are sent again on a lost connection or ``retry``: they are executed once at most.
* An answer is sure when the ledger says ``logged``, ``exists``, ``refused``, ``invalid`` or
  ``conflict``. Of a ledger of another chain no answer is: it knows nothing of these bytes.
* With ``receipt`` being logged is sure only by the operator's own signature on it
  (:mod:`rahba.promise`), which is evidence if the transaction is ever missing.
"""

from __future__ import annotations

import asyncio
from typing import Final

from rahba.encoding import shape
from rahba.errors import BadSignatureError
from rahba.promise import Promise, open_promise
from wallet.errors import (
    LedgerUnavailableError,
    PaymentRefusedError,
    PaymentUnknownError,
    WrongChainError,
    error_for,
)
from wallet.ports import Answer, Ledger
from wallet.transactions import Genesis, transaction_id

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0


async def deliver(
    ledger: Ledger, raw: bytes, *, patience_s: float, receipt_by: Genesis | None = None
) -> Answer:
    """Submit ``raw`` until there is a sure answer; returns it, also when it is a refusal.

    Args:
        ledger: where to send them.
        raw: the envelope.
        patience_s: how long to go on when nobody answers.
        receipt_by: the rules whose operator must sign that the transaction is logged.

    Raises:
        PaymentUnknownError: nobody answered in time; the same bytes may be sent again.
        PaymentRefusedError: the ledger said ``retry`` to the last (the class says why), or is
            another one.
        BadSignatureError: it is said to be logged, and the operator does not sign that it is.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + patience_s, FIRST_PAUSE_S
    lost: LedgerUnavailableError | None = None
    while True:
        failure: Exception
        try:
            answer = await ledger.submit(raw, receipt=receipt_by is not None)
        except LedgerUnavailableError as error:
            failure = lost = error
        else:
            if answer.outcome != "retry":
                _check_sure(answer, receipt_by)
                return answer
            failure = refusal(answer)
        if loop.time() + pause > deadline:
            break
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
    if lost is None:
        raise failure
    raise PaymentUnknownError("the ledger gave no sure answer", id=transaction_id(raw)) from lost


def refusal(answer: Answer) -> PaymentRefusedError:
    """Return the error that stands for an answer that is none of success."""
    code = answer.code or answer.outcome
    return error_for(code, answer.detail, id=answer.id, outcome=answer.outcome)


async def genesis_of(ledger: Ledger) -> Genesis:
    """Read the rules of a ledger; they must be the ones that its chain id names."""
    chain = await ledger.chain()
    first = await ledger.entries(0, 1)
    if not first:
        raise BadSignatureError("the ledger shows no genesis")
    genesis = shape(first[0].payload, Genesis)
    if genesis.chain != chain:
        raise WrongChainError("the genesis is not the chain's", chain=chain)
    return genesis


def _check_sure(answer: Answer, rules: Genesis | None) -> None:
    if answer.code == WrongChainError.code:
        raise WrongChainError("this ledger is not the one that was signed for", id=answer.id)
    if not answer.ok or rules is None:
        return
    if answer.receipt is None or answer.seq is None:
        raise BadSignatureError("the operator gives no receipt", id=answer.id)
    promise = open_promise(answer.receipt, rules.operator)
    said = Promise(chain=rules.chain, id=answer.id, seq=answer.seq, by_size=promise.by_size)
    if promise != said:
        raise BadSignatureError("the operator's receipt is for something else", id=answer.id)
