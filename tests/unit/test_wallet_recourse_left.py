"""A buyer that left owes the bail: its own word answers its challenge, and answers for no more."""

from __future__ import annotations

from typing import Any

import pytest

from rahba.encoding import b64, sha256_hex, unb64
from rahba.envelope import seal
from rahba.messages import TX_TYPE, Reject
from tests.fixtures.faults import leaving, receipt, said
from tests.fixtures.wallet import DEAL, FEE, PureLedger, did, signer_of
from tests.unit.test_wallet_bail import bail_of
from tests.unit.test_wallet_recourse import (
    ANSWER_MS,
    MINE,
    RECOURSE,
    capture,
    challenge,
    code,
    deliver,
    expire,
)
from tests.unit.test_wallet_snapshot import copy, rows_of
from wallet.errors import BadPartError
from wallet.machine import LOGGED, Outcome
from wallet.transactions import Grant, Hold

BAIL = 1_500
WORD = leaving("amina")
NAMED = sha256_hex(unb64(WORD))


def left(pure: PureLedger, hold: str, shown: str = WORD, **words: Any) -> Outcome:
    return deliver(pure, hold, receipt=shown, output=None, **words)


def contested(pure: PureLedger, amount: int = BAIL, named: str | None = NAMED) -> str:
    """Return a hold of 6,000 with a bail, whose captured ``amount`` is challenged."""
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    words = {"bail": bail_of(pure, BAIL), "recourse": RECOURSE}
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, **words)
    assert capture(pure, hold, amount, receipt=named) == LOGGED
    assert challenge(pure, hold) == LOGGED
    return hold


@pytest.mark.parametrize("named", [NAMED, None])
@pytest.mark.parametrize("amount", [FEE + 1, BAIL])
def test_the_buyers_word_that_it_left_answers_for_the_bail(
    pure: PureLedger, amount: int, named: str | None
) -> None:
    hold = contested(pure, amount, named)
    assert left(pure, hold) == LOGGED
    found = pure.state.holds[hold]
    assert (found.status, found.captured, found.retained) == ("captured", amount, 0)
    assert found.receipt == NAMED
    assert pure.available("brahim") == 5_000 + amount - FEE - (BAIL - amount)
    assert (pure.state.held, pure.state.open_holds) == (0, 0)


@pytest.mark.parametrize("amount", [BAIL + 1, 6_000])
def test_it_answers_for_no_more_than_the_bail(pure: PureLedger, amount: int) -> None:
    hold = contested(pure, amount)
    assert code(left(pure, hold)) == "wrong_receipt"
    pure.now += ANSWER_MS
    assert expire(pure, hold) == LOGGED
    assert pure.available("amina") == 20_000 - FEE + BAIL


@pytest.mark.parametrize(
    "shown",
    [
        leaving("brahim"),  # the payee's own word
        leaving("chadia"),
        leaving("amina", agreement="cd" * 32),
        said("amina", Reject(reason="no")),  # no leaving
        MINE,  # a receipt is none of the buyer's words
        b64(seal(TX_TYPE, {"x": 1}, signer_of("amina"))),
        b64(unb64(WORD)[:-1]),
        b64(b"[" * 5_000),
        "AAAA",
        "A",
    ],
    ids=["seller", "other", "deal", "word", "receipt", "type", "cut", "deep", "junk", "odd"],
)
def test_only_the_buyers_own_word_for_that_deal_counts(pure: PureLedger, shown: str) -> None:
    hold = contested(pure, named=None)
    assert code(left(pure, hold, shown)) == "wrong_receipt"
    assert pure.state.holds[hold].part == 0
    assert left(pure, hold) == LOGGED


def test_it_is_the_word_that_the_capture_named(pure: PureLedger) -> None:
    hold = contested(pure)
    assert code(left(pure, hold, leaving("amina", "another time"))) == "wrong_receipt"
    assert left(pure, hold) == LOGGED


def test_a_word_is_not_shown_as_a_delivery_nor_a_receipt_as_a_word(pure: PureLedger) -> None:
    hold = contested(pure, named=None)
    assert code(deliver(pure, hold, receipt=WORD)) == "wrong_receipt"
    assert code(left(pure, hold, receipt("amina", "a"))) == "wrong_receipt"
    assert deliver(pure, hold, receipt=MINE) == LOGGED


def test_that_the_buyer_left_takes_one_part(pure: PureLedger) -> None:
    hold = contested(pure, named=None)
    for part in (1, 2):
        with pytest.raises(BadPartError):
            left(pure, hold, part=part, parts=2)
    assert deliver(pure, hold, 1, 2) == LOGGED
    assert code(left(pure, hold)) == "bad_part"


@pytest.mark.parametrize("by", ["amina", "chadia"])
def test_only_the_payee_shows_that_its_buyer_left(pure: PureLedger, by: str) -> None:
    hold = contested(pure)
    assert code(left(pure, hold, by=by)) == "not_payee"


def test_who_left_is_told_in_time(pure: PureLedger) -> None:
    hold = contested(pure)
    pure.now += ANSWER_MS
    assert code(left(pure, hold)) == "deadline_passed"


def test_nobody_leaves_a_hold_without_a_bail(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, recourse=RECOURSE)
    assert pure.state.holds[hold].buyer == ""
    assert capture(pure, hold, FEE + 1, receipt=NAMED) == LOGGED
    assert challenge(pure, hold) == LOGGED
    assert code(left(pure, hold)) == "wrong_receipt"


def test_the_buyer_is_the_key_that_signed_the_hold(pure: PureLedger) -> None:
    """A session's key is the buyer of its deals, also after a snapshot; its account is not."""
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    grant = {
        "key": did("agent"),
        "budget": "10000",
        "per_tx": "10000",
        "payees": None,
        "types": ("hold",),
        "expires": pure.now + 3_600_000,
    }
    assert pure.do(Grant, "amina", **grant) == LOGGED
    put_up = bail_of(pure, BAIL, buyer=did("agent"))
    words = {"bail": put_up, "recourse": RECOURSE, "signed_by": "agent"}
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, **words)
    assert capture(pure, hold, BAIL, receipt=None) == LOGGED
    assert challenge(pure, hold) == LOGGED
    pure.state = copy(pure, rows_of(pure.state))
    assert pure.state.holds[hold].buyer == did("agent")
    assert code(left(pure, hold)) == "wrong_receipt"
    assert left(pure, hold, leaving("agent")) == LOGGED
    assert pure.state.holds[hold].agreement == DEAL
