"""What a challenge does to a bail, and to the session that the money came from."""

from __future__ import annotations

import pytest

from tests.fixtures.wallet import FEE, PureLedger, did
from tests.unit.test_wallet_bail import bail_of
from tests.unit.test_wallet_recourse import (
    ANSWER_MS,
    KEPT,
    RECOURSE,
    capture,
    challenge,
    code,
    deliver,
    expire,
    spend,
)
from wallet.machine import LOGGED
from wallet.state import Session
from wallet.transactions import Challenge, Grant, Hold


@pytest.fixture
def pledged(pure: PureLedger) -> str:
    """Return a hold of 6,000 with 500 of Brahim's, who has 5,000 in all."""
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    return pure.open_hold(Hold, "amina", "brahim", 6_000, bail=bail_of(pure), recourse=RECOURSE)


def test_the_bail_is_free_once_more_than_it_was_taken(pure: PureLedger, pledged: str) -> None:
    assert pure.available("brahim") == 4_500
    assert capture(pure, pledged) == LOGGED
    assert pure.available("brahim") == 5_000


def test_a_thief_gets_nothing_and_loses_its_bail(pure: PureLedger, pledged: str) -> None:
    assert capture(pure, pledged) == LOGGED
    assert challenge(pure, pledged) == LOGGED
    pure.now += ANSWER_MS
    assert expire(pure, pledged) == LOGGED
    assert pure.available("amina") == 20_000 - FEE + 500
    assert pure.available("brahim") == 5_000 - FEE - 500


@pytest.mark.parametrize(("left", "lost"), [(1_499, 499), (999, -1), (0, -FEE), (1_501, 500)])
def test_of_its_bail_a_thief_loses_what_it_still_has(
    pure: PureLedger, pledged: str, left: int, lost: int
) -> None:
    """What is due must end, whatever its payee did with its own; its fee goes back first."""
    assert capture(pure, pledged) == LOGGED
    assert challenge(pure, pledged) == LOGGED
    assert spend(pure, "brahim", 5_000 - FEE - left) == "logged"
    pure.now += ANSWER_MS
    assert expire(pure, pledged) == LOGGED
    assert pure.available("amina") == 20_000 - FEE + lost
    assert pure.available("brahim") == left - lost - FEE


@pytest.mark.parametrize(("taken", "lost"), [(FEE, 0), (500, 0), (200, 300), (0, 500)])
def test_what_only_the_fee_is_paid_with_is_final_at_once(
    pure: PureLedger, pledged: str, taken: int, lost: int
) -> None:
    assert capture(pure, pledged, taken) == LOGGED
    assert pure.state.holds[pledged].retained == 0
    assert pure.available("brahim") == 5_000 - FEE + taken - lost
    assert pure.available("amina") == 20_000 - FEE - taken + lost
    told = "not_contestable" if taken else "hold_resolved"
    assert code(challenge(pure, pledged)) == told


@pytest.fixture
def surely(pure: PureLedger) -> str:
    """Return a hold of 6,000 with 1,500 of Brahim's, who has 5,000 in all."""
    pure.fund("amina", 20_000)
    pure.fund("brahim", 5_000)
    put_up = bail_of(pure, 1_500)
    return pure.open_hold(Hold, "amina", "brahim", 6_000, bail=put_up, recourse=RECOURSE)


@pytest.mark.parametrize("taken", [FEE + 1, 1_499, 1_500, 1_501])
def test_also_the_bail_or_less_may_be_challenged(pure: PureLedger, surely: str, taken: int) -> None:
    assert capture(pure, surely, taken) == LOGGED
    assert pure.state.holds[surely].retained == taken - FEE
    assert pure.available("brahim") == 5_000 - max(0, 1_500 - taken)  # a token saves no bail
    assert challenge(pure, surely) == LOGGED
    pure.now += ANSWER_MS
    assert expire(pure, surely) == LOGGED
    assert pure.available("amina") == 20_000 - FEE + 1_500
    assert pure.available("brahim") == 5_000 - FEE - 1_500


def test_all_of_the_bail_is_retained_where_another_pays_the_fee(
    pure: PureLedger, pledged: str
) -> None:
    pure.fund("sponsor", 5_000)
    assert capture(pure, pledged, 500, fee_by="sponsor") == LOGGED
    assert pure.state.holds[pledged].retained == 500
    assert pure.available("brahim") == 5_000
    assert challenge(pure, pledged) == LOGGED


def test_even_a_penalty_is_captured_once(pure: PureLedger, pledged: str) -> None:
    assert code(capture(pure, pledged, 500, final=False)) == "not_final"


def test_an_open_hold_with_a_recourse_runs_out_as_any_other(pure: PureLedger, pledged: str) -> None:
    pure.now += 60_000
    assert code(capture(pure, pledged)) == "hold_expired"
    assert expire(pure, pledged) == LOGGED
    assert pure.available("amina") == 20_000 - FEE + 500


@pytest.fixture
def session(pure: PureLedger) -> Session:
    """Return a session of Amina's with 20,000 to spend."""
    pure.fund("amina", 50_000)
    pure.fund("brahim", 5_000)
    grant = {
        "key": did("agent"),
        "budget": "20000",
        "per_tx": "20000",
        "payees": (did("brahim"),),
        "types": ("challenge", "hold"),
        "expires": pure.now + 3_600_000,
    }
    assert pure.do(Grant, "amina", **grant) == LOGGED
    return pure.state.accounts[did("amina")].sessions[did("agent")]


@pytest.mark.parametrize("by", ["expire", "deliver"])
def test_what_comes_back_may_be_spent_again_in_the_session(
    pure: PureLedger, session: Session, by: str
) -> None:
    words = {"signed_by": "agent", "recourse": RECOURSE}
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, **words)
    assert capture(pure, hold, 4_000) == LOGGED
    assert session.spent == FEE + 4_000
    assert pure.do(Challenge, "amina", signed_by="agent", hold=hold) == LOGGED
    assert session.spent == 2 * FEE + 4_000
    if by == "expire":
        pure.now += ANSWER_MS
        assert expire(pure, hold) == LOGGED
    else:
        assert deliver(pure, hold) == LOGGED
    assert session.spent == 2 * FEE + (4_000 if by == "deliver" else 0)


def test_a_session_may_spend_again_what_came_back_and_not_the_fee_that_did_not(
    pure: PureLedger, session: Session
) -> None:
    words = {"signed_by": "agent", "recourse": RECOURSE}
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, **words)
    assert capture(pure, hold) == LOGGED
    assert spend(pure, "brahim", pure.available("brahim") - FEE) == "logged"  # all that it can
    assert pure.do(Challenge, "amina", signed_by="agent", hold=hold) == LOGGED
    before, pure.now = pure.available("amina"), pure.now + ANSWER_MS
    assert expire(pure, hold) == LOGGED
    assert pure.available("amina") == before + KEPT
    assert session.spent == 2 * FEE + 6_000 - KEPT


def test_a_session_challenges_only_if_it_was_granted(pure: PureLedger, session: Session) -> None:
    del session
    words = {"signed_by": "agent", "recourse": RECOURSE}
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000, **words)
    assert capture(pure, hold) == LOGGED
    grant = {
        "key": did("other agent"),
        "budget": "20000",
        "per_tx": "20000",
        "payees": None,
        "types": ("hold",),
        "expires": pure.now + 3_600_000,
    }
    assert pure.do(Grant, "amina", **grant) == LOGGED
    outcome = pure.do(Challenge, "amina", signed_by="other agent", hold=hold)
    assert code(outcome) == "out_of_scope"
