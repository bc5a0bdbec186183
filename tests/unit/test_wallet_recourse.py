"""What was captured may be challenged for a while; then it is delivered, or it goes back."""

from __future__ import annotations

from typing import Any

import pytest

from rahba.encoding import b64, sha256_hex, unb64
from rahba.envelope import seal
from rahba.errors import RahbaError
from rahba.messages import TX_TYPE
from tests.fixtures.faults import receipt
from tests.fixtures.wallet import FEE, PureLedger, did, signer_of
from wallet.errors import BadPartError
from wallet.holds import free_due
from wallet.machine import LOGGED, Outcome
from wallet.transactions import (
    MAX_PARTS,
    Capture,
    Challenge,
    Deliver,
    Dispute,
    Expire,
    Hold,
    Recourse,
    Release,
    Resolve,
    Transfer,
)

WINDOW_MS, ANSWER_MS = 30_000, 20_000
KEPT = 6_000 - FEE  # of what Brahim takes: the fee for that he can spend
RECOURSE = Recourse(window_ms=WINDOW_MS, answer_ms=ANSWER_MS)
MINE = receipt("brahim", "a")
NAMED = sha256_hex(unb64(MINE))


def code(outcome: Outcome) -> str:
    return outcome.code or outcome.outcome


def capture(pure: PureLedger, hold: str, amount: int = 6_000, **words: Any) -> Outcome:
    fields = {"hold": hold, "amount": str(amount), "final": True, "receipt": NAMED}
    return pure.do(Capture, "brahim", **(fields | words))


def challenge(pure: PureLedger, hold: str, by: str = "amina") -> Outcome:
    return pure.do(Challenge, by, hold=hold, fee="0")


def deliver(pure: PureLedger, hold: str, part: int = 1, parts: int = 1, **words: Any) -> Outcome:
    fields = {"hold": hold, "receipt": MINE, "part": part, "parts": parts, "output": "AAAA"}
    return pure.do(Deliver, words.pop("by", "brahim"), fee="0", **(fields | words))


def expire(pure: PureLedger, hold: str) -> Outcome:
    return pure.do(Expire, "operator", subject=hold, fee="0")


def release(pure: PureLedger, hold: str, forfeit: int = 0) -> Outcome:
    return pure.do(Release, "brahim", hold=hold, forfeit=str(forfeit), fee="0")


def spend(pure: PureLedger, name: str, amount: int) -> str:
    return code(pure.do(Transfer, name, to=did("chadia"), amount=str(amount)))


@pytest.fixture
def open_hold(pure: PureLedger) -> str:
    """Return a hold of 6,000 from Amina to Brahim, who has nothing."""
    pure.fund("amina", 20_000)
    return pure.open_hold(Hold, "amina", "brahim", 6_000, recourse=RECOURSE)


@pytest.fixture
def captured(pure: PureLedger, open_hold: str) -> str:
    assert capture(pure, open_hold) == LOGGED
    return open_hold


@pytest.fixture
def challenged(pure: PureLedger, captured: str) -> str:
    assert challenge(pure, captured) == LOGGED
    return captured


# What was captured, while it may be challenged.


def test_what_was_captured_is_the_payees_at_once_and_not_its_to_spend(
    pure: PureLedger, captured: str
) -> None:
    account, hold = pure.state.accounts[did("brahim")], pure.state.holds[captured]
    assert (account.posted, account.held) == (KEPT, KEPT)
    assert (hold.status, hold.captured, hold.retained) == ("captured", 6_000, KEPT)
    assert hold.deadline == pure.now + WINDOW_MS
    assert spend(pure, "brahim", 1) == "insufficient_funds"
    pure.now += WINDOW_MS - 1
    assert spend(pure, "brahim", 1) == "insufficient_funds"
    pure.now += 1
    assert spend(pure, "brahim", KEPT - FEE) == "logged"


def test_the_window_is_over_exactly_at_its_deadline(pure: PureLedger, captured: str) -> None:
    pure.now += WINDOW_MS - 1
    before = pure.sign(Challenge, "amina", hold=captured)
    pure.now += 1
    assert code(challenge(pure, captured)) == "not_contestable"
    free_due(pure.state, pure.now + 5_000)
    hold = pure.state.holds[captured]
    assert (hold.retained, hold.ended) == (0, pure.now)
    pure.now += 5_000
    assert code(pure.apply(before)[0]) == "not_contestable"


def test_the_last_moment_of_the_window_is_good_for_a_challenge(
    pure: PureLedger, captured: str
) -> None:
    pure.now += WINDOW_MS - 1
    assert challenge(pure, captured) == LOGGED
    hold = pure.state.holds[captured]
    assert (hold.status, hold.deadline) == ("challenged", pure.now + ANSWER_MS)
    pure.now += 1
    assert spend(pure, "brahim", 1) == "insufficient_funds"


def test_time_alone_frees_what_was_retained_without_a_transaction(
    pure: PureLedger, captured: str
) -> None:
    tip = pure.state.accounts[did("brahim")].tip
    free_due(pure.state, pure.now + WINDOW_MS - 1)
    assert pure.available("brahim") == 0
    free_due(pure.state, pure.now + WINDOW_MS)
    assert pure.available("brahim") == KEPT
    assert pure.state.accounts[did("brahim")].tip == tip
    assert (pure.state.held, pure.state.escrowed) == (0, 0)
    assert pure.state.holds[captured].status == "captured"


@pytest.mark.parametrize("early", [1, 0])
def test_a_refused_transaction_moves_time_on_if_something_is_due(
    pure: PureLedger, captured: str, early: int
) -> None:
    before = pure.state.log_time
    pure.now += WINDOW_MS - early
    assert code(expire(pure, captured)) == "hold_resolved"
    assert pure.available("brahim") == (0 if early else KEPT)
    assert pure.state.log_time == (before if early else pure.now)


def test_what_is_left_of_the_hold_is_the_payers_at_once(pure: PureLedger, open_hold: str) -> None:
    assert capture(pure, open_hold, 2_000) == LOGGED
    assert pure.available("amina") == 20_000 - FEE - 2_000
    assert pure.state.holds[open_hold].retained == 2_000 - FEE


@pytest.mark.parametrize(
    ("amount", "final", "told"),
    [
        (2_000, False, "not_final"),
        (0, False, "not_final"),
        (6_001, True, "exceeds_hold"),
        (6_000, False, "logged"),
    ],
)
def test_a_hold_with_a_recourse_is_captured_once(
    pure: PureLedger, open_hold: str, amount: int, final: bool, told: str
) -> None:
    assert code(capture(pure, open_hold, amount, final=final)) == told
    assert pure.state.holds[open_hold].captured == (6_000 if told == "logged" else 0)


def test_a_retained_capture_is_neither_captured_nor_given_back_again(
    pure: PureLedger, captured: str
) -> None:
    assert code(capture(pure, captured, 1)) == "hold_resolved"
    assert code(release(pure, captured)) == "hold_resolved"
    assert code(expire(pure, captured)) == "hold_resolved"
    assert code(pure.do(Dispute, "amina", hold=captured)) == "hold_resolved"
    assert code(deliver(pure, captured)) == "not_challenged"


def test_a_retained_capture_is_on_no_list_of_what_is_due(pure: PureLedger, captured: str) -> None:
    assert captured in pure.state.holds
    assert pure.state.deadlines.pop(pure.now + WINDOW_MS + 3_600_000, 10) == []
    assert pure.state.open_holds == 0


# The challenge.


@pytest.mark.parametrize("fee", [0, 1, FEE])
def test_a_challenge_needs_no_fee_and_may_pay_one(
    pure: PureLedger, captured: str, fee: int
) -> None:
    before = pure.available("amina")
    assert pure.do(Challenge, "amina", hold=captured, fee=str(fee)) == LOGGED
    assert pure.available("amina") == before - fee


def test_a_payer_without_any_money_can_still_challenge(pure: PureLedger, captured: str) -> None:
    assert spend(pure, "amina", pure.available("amina") - FEE) == "logged"
    assert pure.available("amina") == 0
    assert challenge(pure, captured) == LOGGED


@pytest.mark.parametrize("by", ["brahim", "chadia"])
def test_only_the_payer_challenges(pure: PureLedger, captured: str, by: str) -> None:
    pure.fund(by, 10_000)
    assert code(challenge(pure, captured, by)) == "not_party"
    assert pure.state.holds[captured].status == "captured"


def test_nothing_is_challenged_before_it_was_captured(pure: PureLedger, open_hold: str) -> None:
    assert code(challenge(pure, open_hold)) == "not_contestable"
    assert code(challenge(pure, "00" * 32)) == "unknown_hold"
    assert release(pure, open_hold) == LOGGED
    assert code(challenge(pure, open_hold)) == "hold_resolved"


def test_a_capture_without_a_recourse_is_not_contestable(pure: PureLedger) -> None:
    pure.fund("amina", 20_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    assert capture(pure, hold) == LOGGED
    assert pure.available("brahim") == 5_000
    assert code(challenge(pure, hold)) == "not_contestable"


@pytest.mark.parametrize(("amount", "told"), [(FEE, "not_contestable"), (FEE + 1, "logged")])
def test_what_its_own_fee_eats_up_is_not_contestable(
    pure: PureLedger, open_hold: str, amount: int, told: str
) -> None:
    assert capture(pure, open_hold, amount) == LOGGED
    assert code(challenge(pure, open_hold)) == told


def test_more_than_the_usual_fee_is_not_paid_out_of_what_may_be_challenged(
    pure: PureLedger, open_hold: str
) -> None:
    """Else a thief could burn in fees what it would have to give back."""
    assert code(capture(pure, open_hold, fee=str(FEE + 1))) == "insufficient_funds"
    pure.fund("brahim", 5_000)
    assert capture(pure, open_hold, fee="6000") == LOGGED
    assert pure.state.holds[open_hold].retained == KEPT
    assert pure.available("brahim") == 0


def test_where_another_pays_the_fee_all_that_was_captured_is_retained(
    pure: PureLedger, open_hold: str
) -> None:
    pure.fund("sponsor", 5_000)
    words = {"fee_by": "sponsor", "fee": "2000"}
    assert capture(pure, open_hold, 1_000, **words) == LOGGED
    assert pure.state.holds[open_hold].retained == 1_000
    assert (pure.available("brahim"), pure.available("sponsor")) == (0, 3_000)


def test_a_challenge_is_made_once(pure: PureLedger, challenged: str) -> None:
    assert code(challenge(pure, challenged)) == "challenged"
    assert code(capture(pure, challenged, 1)) == "challenged"
    assert code(pure.do(Dispute, "amina", hold=challenged)) == "challenged"
    split = {"hold": challenged, "to_payee": "0", "to_payer": "6000"}
    pure.fund("judge", 5_000)
    assert code(pure.do(Resolve, "judge", **split)) == "not_disputed"
    assert deliver(pure, challenged) == LOGGED
    assert code(challenge(pure, challenged)) == "not_contestable"


# The answer.


def test_a_payee_without_any_money_can_still_deliver(pure: PureLedger, challenged: str) -> None:
    assert pure.available("brahim") == 0
    assert deliver(pure, challenged) == LOGGED
    hold = pure.state.holds[challenged]
    assert (hold.status, hold.retained, hold.ended) == ("captured", 0, pure.now)
    assert pure.available("brahim") == KEPT
    assert pure.state.deadlines.pop(pure.now + 3_600_000, 10) == []
    assert code(deliver(pure, challenged)) == "not_challenged"
    assert code(expire(pure, challenged)) == "hold_resolved"


def test_a_delivery_in_parts_frees_the_money_with_its_last_part(
    pure: PureLedger, challenged: str
) -> None:
    for part in (1, 2):
        assert deliver(pure, challenged, part, 3) == LOGGED
        assert pure.state.holds[challenged].status == "challenged"
        assert spend(pure, "brahim", 1) == "insufficient_funds"
    assert deliver(pure, challenged, 3, 3) == LOGGED
    assert pure.available("brahim") == KEPT


def test_the_parts_come_in_order_and_all_say_how_many_there_are(
    pure: PureLedger, challenged: str
) -> None:
    assert code(deliver(pure, challenged, 2, 3)) == "bad_part"
    assert deliver(pure, challenged, 1, 3) == LOGGED
    for part, parts in ((1, 3), (3, 3), (2, 2), (2, 4)):
        assert code(deliver(pure, challenged, part, parts)) == "bad_part", (part, parts)
    assert pure.state.holds[challenged].part == 1
    assert deliver(pure, challenged, 2, 3) == LOGGED


def test_a_delivery_has_at_most_so_many_parts(pure: PureLedger, challenged: str) -> None:
    with pytest.raises(BadPartError):
        deliver(pure, challenged, 2, 1)
    for part, parts in ((0, 1), (1, 0), (1, MAX_PARTS + 1)):
        with pytest.raises(RahbaError):
            deliver(pure, challenged, part, parts)
    for part in range(1, MAX_PARTS + 1):
        assert deliver(pure, challenged, part, MAX_PARTS) == LOGGED
    assert pure.state.holds[challenged].status == "captured"


def test_what_is_delivered_is_base64_and_something(pure: PureLedger, challenged: str) -> None:
    for output in ("", "A", "AAA", "====", "\u0430AAA"):
        with pytest.raises(RahbaError):
            deliver(pure, challenged, output=output)


@pytest.mark.parametrize(
    "shown",
    [
        receipt("brahim", "b"),  # another output than the capture named
        receipt("brahim", "a", "cd" * 32),  # another deal
        receipt("chadia", "a"),  # another seller
        b64(seal(TX_TYPE, {"x": 1}, signer_of("brahim"))),  # no receipt at all
        b64(unb64(MINE)[:-1]),
        b64(b"[" * 5_000),
        "AAAA",
        "A",
        "\u0430AAA",
    ],
    ids=["other", "deal", "seller", "type", "cut", "deep", "junk", "odd", "letters"],
)
def test_only_the_receipt_that_the_capture_named_answers_a_challenge(
    pure: PureLedger, challenged: str, shown: str
) -> None:
    assert code(deliver(pure, challenged, receipt=shown)) == "wrong_receipt"
    assert pure.state.holds[challenged].part == 0


def test_each_part_comes_with_that_receipt(pure: PureLedger, challenged: str) -> None:
    assert deliver(pure, challenged, 1, 2) == LOGGED
    assert code(deliver(pure, challenged, 2, 2, receipt=receipt("brahim", "b"))) == "wrong_receipt"
    assert pure.available("brahim") == 0


def test_a_capture_that_named_no_receipt_is_answered_with_any_of_the_deal(
    pure: PureLedger, open_hold: str
) -> None:
    assert capture(pure, open_hold, receipt=None) == LOGGED
    assert challenge(pure, open_hold) == LOGGED
    foreign = receipt("brahim", "b", "cd" * 32)
    assert code(deliver(pure, open_hold, receipt=foreign)) == "wrong_receipt"
    assert deliver(pure, open_hold, receipt=receipt("brahim", "b")) == LOGGED


def test_where_the_capture_named_no_receipt_the_first_part_does(
    pure: PureLedger, open_hold: str
) -> None:
    assert capture(pure, open_hold, receipt=None) == LOGGED
    assert challenge(pure, open_hold) == LOGGED
    assert deliver(pure, open_hold, 1, 2, receipt=receipt("brahim", "b")) == LOGGED
    assert code(deliver(pure, open_hold, 2, 2, receipt=MINE)) == "wrong_receipt"
    assert deliver(pure, open_hold, 2, 2, receipt=receipt("brahim", "b")) == LOGGED


@pytest.mark.parametrize("by", ["amina", "chadia"])
def test_only_the_payee_delivers(pure: PureLedger, challenged: str, by: str) -> None:
    assert code(deliver(pure, challenged, by=by)) == "not_payee"


def test_a_delivery_comes_before_the_deadline(pure: PureLedger, challenged: str) -> None:
    pure.now += ANSWER_MS - 1
    assert deliver(pure, challenged, 1, 2) == LOGGED
    assert code(expire(pure, challenged)) == "not_expired"
    pure.now += 1
    assert code(deliver(pure, challenged, 2, 2)) == "deadline_passed"
    assert expire(pure, challenged) == LOGGED
    assert code(deliver(pure, challenged, 2, 2)) == "hold_resolved"


# What becomes of it without an answer.


def test_who_took_and_has_nothing_to_show_gives_it_all_back(
    pure: PureLedger, challenged: str
) -> None:
    assert pure.state.deadlines.pop(pure.now + ANSWER_MS - 1, 10) == []
    pure.now += ANSWER_MS
    assert pure.state.deadlines.pop(pure.now, 10) == [challenged]
    assert expire(pure, challenged) == LOGGED
    hold = pure.state.holds[challenged]
    assert (hold.status, hold.captured, hold.retained) == ("released", 0, 0)
    assert pure.available("amina") == 20_000 - 2 * FEE  # the hold's and the capture's
    assert pure.available("brahim") == 0
    assert (pure.state.held, pure.state.escrowed, pure.state.open_holds) == (0, 0, 0)
    assert code(expire(pure, challenged)) == "hold_resolved"
    assert code(challenge(pure, challenged)) == "hold_resolved"


@pytest.mark.parametrize(("left", "back"), [(FEE - 1, FEE - 1), (FEE, FEE), (3 * FEE, FEE)])
def test_the_fee_of_a_capture_comes_back_as_far_as_its_payee_has_it(
    pure: PureLedger, challenged: str, left: int, back: int
) -> None:
    pure.fund("brahim", left)
    pure.now += ANSWER_MS
    assert expire(pure, challenged) == LOGGED
    assert pure.available("amina") == 20_000 - 2 * FEE + back
    assert pure.available("brahim") == left - back


@pytest.mark.parametrize("after_ms", [0, ANSWER_MS])
def test_nobody_gives_in_once_it_is_challenged(
    pure: PureLedger, challenged: str, after_ms: int
) -> None:
    """Else who took and never worked would choose what that says of it."""
    pure.fund("brahim", 10_000)
    pure.now += after_ms
    assert code(release(pure, challenged)) == "challenged"
    assert pure.state.holds[challenged].status == "challenged"
    assert pure.available("brahim") == 10_000
