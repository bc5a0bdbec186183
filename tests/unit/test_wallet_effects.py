"""Disputes, stakes, slashes, minting: every row and every refusal, on the machine alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.faults import note, receipt, two_results, two_roots
from tests.fixtures.wallet import FEE, PureLedger, did
from wallet.effects import COMPILERS, MAX_UNBONDING
from wallet.holds import forget_holds
from wallet.machine import LOGGED
from wallet.state import REMEMBER_MS
from wallet.transactions import (
    AnyTx,
    Arbitration,
    Capture,
    Dispute,
    Expire,
    Hold,
    Mint,
    NoteFault,
    ReceiptFault,
    Release,
    Resolve,
    Slash,
    Stake,
    Transfer,
    Unstake,
)

FAIR = Arbitration(arbiter=did("judge"), window_ms=30_000, payee_share=2_500)


def code(pure: PureLedger, form: type[Any], by: str, **words: Any) -> str | None:
    outcome = pure.do(form, by, **words)
    return outcome.code or outcome.outcome


@pytest.fixture
def hold(pure: PureLedger) -> str:
    """Return a hold of 6,000 from amina to brahim that the judge decides on, if they disagree."""
    for name in ("amina", "brahim", "judge"):
        pure.fund(name, 10_000)
    return pure.open_hold(Hold, "amina", "brahim", 6_000, arbitration=FAIR)


def test_the_table_has_a_row_for_every_type() -> None:
    assert set(COMPILERS) == set(AnyTx.__args__)


def test_a_dispute_freezes_the_hold_until_its_arbiter_splits_it(
    pure: PureLedger, hold: str
) -> None:
    assert pure.do(Dispute, "amina", hold=hold) == LOGGED
    words = {"amount": "6000", "final": True, "receipt": None}
    assert code(pure, Capture, "brahim", hold=hold, **words) == "disputed"
    assert code(pure, Dispute, "brahim", hold=hold) == "disputed"
    split = {"hold": hold, "to_payee": "4000", "to_payer": "2000"}
    assert code(pure, Resolve, "amina", **split) == "not_arbiter"
    assert code(pure, Resolve, "judge", **(split | {"to_payer": "2001"})) == "bad_split"
    assert pure.do(Resolve, "judge", **split) == LOGGED
    assert code(pure, Resolve, "judge", **split) == "hold_resolved"
    assert pure.available("amina") == 10_000 - 4_000 - 2 * FEE
    assert pure.available("brahim") == 10_000 + 4_000
    assert pure.state.holds[hold].status == "captured"


def test_only_the_parties_dispute_and_only_a_hold_with_an_arbiter(
    pure: PureLedger, hold: str
) -> None:
    bare = pure.open_hold(Hold, "amina", "brahim", 1_000)
    assert code(pure, Dispute, "amina", hold=bare) == "no_arbiter"
    assert code(pure, Dispute, "judge", hold=hold) == "not_party"
    split = {"hold": hold, "to_payee": "0", "to_payer": "6000"}
    assert code(pure, Resolve, "judge", **split) == "not_disputed"
    pure.now += 60_000
    assert code(pure, Dispute, "amina", hold=hold) == "hold_expired"


def test_when_the_arbiter_is_silent_the_default_split_applies(pure: PureLedger, hold: str) -> None:
    assert pure.do(Dispute, "brahim", hold=hold) == LOGGED
    pure.now += FAIR.window_ms - 1
    assert code(pure, Expire, "chadia", subject=hold, fee="0") == "not_expired"
    pure.now += 1
    split = {"hold": hold, "to_payee": "0", "to_payer": "6000"}
    assert code(pure, Resolve, "judge", **split) == "deadline_passed"
    assert pure.do(Expire, "chadia", subject=hold, fee="0") == LOGGED
    assert pure.available("brahim") == 10_000 - FEE + 1_500
    assert pure.available("amina") == 10_000 - FEE - 1_500


def test_a_dispute_outlasts_the_expiry_of_its_hold(pure: PureLedger, hold: str) -> None:
    pure.now += 59_000
    assert pure.do(Dispute, "amina", hold=hold) == LOGGED
    pure.now += 2_000
    assert pure.state.deadlines.pop(pure.now, 10) == []
    assert code(pure, Expire, "amina", subject=hold, fee="0") == "not_expired"
    assert pure.state.deadlines.pop(pure.now + FAIR.window_ms, 10) == [hold]


def test_the_payee_may_give_in_while_the_arbiter_thinks(pure: PureLedger, hold: str) -> None:
    assert pure.do(Dispute, "amina", hold=hold) == LOGGED
    assert pure.do(Release, "brahim", hold=hold, forfeit="0", fee="0") == LOGGED
    assert pure.available("amina") == 10_000 - 2 * FEE


def test_after_a_partial_capture_only_the_rest_is_in_dispute(pure: PureLedger, hold: str) -> None:
    words = {"hold": hold, "amount": "2000", "final": False, "receipt": None}
    assert pure.do(Capture, "brahim", **words) == LOGGED
    assert pure.do(Dispute, "amina", hold=hold) == LOGGED
    split = {"hold": hold, "to_payee": "0", "to_payer": "4000"}
    assert pure.do(Resolve, "judge", **split) == LOGGED
    assert pure.state.holds[hold].captured == 2_000


def test_a_resolved_hold_is_remembered_for_an_hour(pure: PureLedger, hold: str) -> None:
    assert pure.do(Release, "brahim", hold=hold, forfeit="0", fee="0") == LOGGED
    pure.now += REMEMBER_MS
    pure.state.advance(pure.now)
    assert forget_holds(pure.state) == []
    pure.state.advance(pure.now + 1)
    assert [gone.id for gone in forget_holds(pure.state)] == [hold]
    pure.now += 1
    assert code(pure, Expire, "amina", subject=hold, fee="0") == "unknown_hold"


def test_a_stake_is_no_longer_available_and_comes_back_after_the_delay(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    assert code(pure, Stake, "amina", amount="9001") == "insufficient_funds"
    assert pure.do(Stake, "amina", amount="6000") == LOGGED
    assert pure.available("amina") == 10_000 - 6_000 - FEE
    assert code(pure, Unstake, "amina", amount="6001") == "insufficient_stake"
    raw = pure.sign(Unstake, "amina", amount="4000")
    outcome, signed = pure.apply(raw)
    assert outcome == LOGGED
    assert code(pure, Unstake, "amina", amount="3000") == "unbonding"
    assert pure.available("amina") == 10_000 - 6_000 - 2 * FEE
    pure.now += pure.genesis.unbond_ms - 1
    assert code(pure, Expire, "brahim", subject=signed.id, fee="0") == "not_expired"
    pure.now += 1
    assert pure.state.deadlines.pop(pure.now, 10) == [signed.id]
    assert pure.do(Expire, "brahim", subject=signed.id, fee="0") == LOGGED
    assert code(pure, Expire, "brahim", subject=signed.id, fee="0") == "unknown_hold"
    assert pure.available("amina") == 10_000 - 2_000 - 2 * FEE
    assert (pure.state.bonded, pure.state.held) == (2_000, 2_000)


def test_the_parts_of_a_stake_on_their_way_back_are_limited(pure: PureLedger) -> None:
    pure.fund("amina")
    assert pure.do(Stake, "amina", amount="1000") == LOGGED
    for _ in range(MAX_UNBONDING):
        assert pure.do(Unstake, "amina", amount="1") == LOGGED
    assert code(pure, Unstake, "amina", amount="1") == "unbonding"


@pytest.mark.parametrize("evidence", [two_roots("brahim"), two_results("brahim")])
def test_a_proven_fault_costs_half_the_bond_once(
    pure: PureLedger, evidence: NoteFault | ReceiptFault
) -> None:
    pure.fund("amina", 10_000)
    pure.fund("brahim", 10_000)
    words = {"offender": did("brahim"), "evidence": evidence}
    assert code(pure, Slash, "amina", **words) == "no_bond"
    assert pure.do(Stake, "brahim", amount="8000") == LOGGED
    issued = pure.state.issued
    assert pure.do(Slash, "amina", **words) == LOGGED
    assert pure.available("amina") == 10_000 - FEE + 400
    assert pure.state.accounts[did("brahim")].bond == 4_000
    assert pure.state.issued == issued - 3_600
    swapped = type(evidence)(first=evidence.second, second=evidence.first)
    assert code(pure, Slash, "amina", **words) == "evidence_used"
    assert code(pure, Slash, "amina", **(words | {"evidence": swapped})) == "evidence_used"


def test_who_unstakes_in_time_is_slashed_all_the_same(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    pure.fund("brahim", 20_000)
    assert pure.do(Stake, "brahim", amount="8000") == LOGGED
    for amount in ("2000", "5000"):
        assert pure.do(Unstake, "brahim", amount=amount) == LOGGED
    words = {"offender": did("brahim"), "evidence": two_roots("brahim")}
    assert pure.do(Slash, "amina", **words) == LOGGED
    account = pure.state.accounts[did("brahim")]
    assert (account.staked, account.bond, account.held) == (0, 4_000, 4_000)
    assert pure.state.bonded == 4_000


@pytest.mark.parametrize(
    "evidence",
    [
        NoteFault(first=note("brahim", 7, 1), second=note("brahim", 7, 1)),
        NoteFault(first=note("brahim", 7, 1), second=note("brahim", 8, 2)),
        NoteFault(first=note("brahim", 7, 1), second=note("chadia", 7, 2)),
        NoteFault(first=note("brahim", 7, 1), second=note("brahim", 7, 2, "other.test/log")),
        NoteFault(first="nothing", second="signed"),
        ReceiptFault(first=receipt("brahim", "a"), second=receipt("brahim", "a", finished=9)),
        ReceiptFault(first=receipt("brahim", "a"), second=receipt("brahim", "b", "e" * 64)),
        ReceiptFault(first=receipt("brahim", "a"), second=receipt("chadia", "b")),
        ReceiptFault(first="?", second="AA=="),
    ],
)
def test_what_proves_no_fault_is_never_valid(
    pure: PureLedger, evidence: NoteFault | ReceiptFault
) -> None:
    from rahba.errors import RahbaError

    with pytest.raises(RahbaError) as caught:
        pure.do(Slash, "amina", offender=did("brahim"), evidence=evidence)
    assert caught.value.code == "bad_evidence"


def test_the_operator_mints_within_the_cap_and_nobody_else(pure: PureLedger) -> None:
    pure.fund("operator")
    pure.fund("amina")
    cap = int(pure.genesis.mint_epoch)
    assert code(pure, Mint, "amina", to=did("amina"), amount="1") == "not_minter"
    assert code(pure, Mint, "operator", to=did("amina"), amount=str(cap + 1)) == "cap_exceeded"
    assert pure.do(Mint, "operator", to=did("brahim"), amount=str(cap)) == LOGGED
    assert pure.available("brahim") == cap
    assert code(pure, Mint, "operator", to=did("amina"), amount="1") == "cap_exceeded"
    pure.now += pure.genesis.epoch_ms
    assert pure.do(Mint, "operator", to=did("amina"), amount="1") == LOGGED


def test_a_second_payer_pays_the_fee_of_any_type(pure: PureLedger) -> None:
    pure.fund("amina", 10)
    pure.fund("sponsor", 10_000)
    assert pure.do(Stake, "amina", fee_by="sponsor", amount="10") == LOGGED
    assert pure.do(Unstake, "amina", fee_by="sponsor", amount="10") == LOGGED
    assert pure.available("sponsor") == 10_000 - 2 * FEE
    assert code(pure, Transfer, "amina", fee_by="sponsor", to=did("brahim"), amount="1") == (
        "insufficient_funds"
    )
