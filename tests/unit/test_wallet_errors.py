"""Codes are stable, told apart, and lead back to their classes."""

from __future__ import annotations

import pytest

from wallet.errors import (
    HoldExpiredError,
    InsufficientFundsError,
    LedgerBusyError,
    PaymentRefusedError,
    _descendants,
    error_for,
)

CLASSES = _descendants(PaymentRefusedError)


def test_every_code_belongs_to_one_class() -> None:
    codes = [known.code for known in CLASSES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("known", CLASSES)
def test_a_code_leads_back_to_its_class(known: type[PaymentRefusedError]) -> None:
    assert type(error_for(known.code)) is known


def test_an_unknown_code_keeps_its_name() -> None:
    error = error_for("frozen", "by a newer ledger", id="x")
    assert isinstance(error, PaymentRefusedError)
    assert (error.code, str(error), error.facts) == ("frozen", "by a newer ledger", {"id": "x"})


def test_the_outcome_is_part_of_the_class() -> None:
    assert InsufficientFundsError.outcome == HoldExpiredError.outcome == "refused"
    assert LedgerBusyError.outcome == "retry"
    assert LedgerBusyError.retryable
