"""Every row of the table of transactions and every refusal code, on the machine alone."""

from __future__ import annotations

import pytest

from tests.fixtures.wallet import DEAL, FEE, PureLedger, did, signer_of
from wallet.book import Book
from wallet.effects import MAX_SESSIONS
from wallet.errors import InvariantError
from wallet.forms import open_transaction
from wallet.machine import MAX_VALIDITY_MS, Outcome, apply
from wallet.transactions import (
    Batch,
    Capture,
    Expire,
    Faucet,
    Grant,
    Hold,
    Item,
    Release,
    Revoke,
    Transfer,
    read,
    seal_transaction,
)

LOGGED = Outcome("logged")


def code(outcome: Outcome) -> str | None:
    return outcome.code


def grant(pure: PureLedger, **changes: object) -> Outcome:
    fields: dict[str, object] = {
        "key": did("agent"),
        "budget": "100000",
        "per_tx": "50000",
        "payees": None,
        "types": ("transfer", "batch", "hold", "capture", "release"),
        "expires": pure.now + 3_600_000,
    }
    return pure.do(Grant, "amina", **(fields | changes))


def test_a_transfer_moves_the_amount_and_the_fee(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    assert pure.do(Transfer, "amina", to=did("brahim"), amount="4000") == LOGGED
    assert pure.available("amina") == 10_000 - 4_000 - FEE
    assert pure.available("brahim") == 4_000
    assert pure.state.available("fees") == 2 * FEE
    assert pure.state.issued == pure.state.total


def test_insufficient_funds_change_nothing(pure: PureLedger) -> None:
    pure.fund("amina", 5_000)
    outcome = pure.do(Transfer, "amina", to=did("brahim"), amount="4001")
    assert (outcome.outcome, outcome.code) == ("refused", "insufficient_funds")
    assert pure.available("amina") == 5_000
    assert did("brahim") not in pure.state.accounts


def test_an_account_nobody_paid_into_has_nothing(pure: PureLedger) -> None:
    assert code(pure.do(Transfer, "amina", to=did("brahim"), amount="1")) == "insufficient_funds"


def test_a_batch_pays_all_or_none(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    items = (Item(to=did("brahim"), amount="4000"), Item(to=did("chadia"), amount="4000"))
    assert pure.do(Batch, "amina", items=items) == LOGGED
    assert (pure.available("brahim"), pure.available("chadia")) == (4_000, 4_000)
    assert code(pure.do(Batch, "amina", items=items)) == "insufficient_funds"
    assert (pure.available("amina"), pure.available("brahim")) == (1_000, 4_000)


def test_held_money_cannot_be_spent_twice(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    pure.open_hold(Hold, "amina", "brahim", 6_000)
    assert pure.available("amina") == 3_000
    assert code(pure.do(Transfer, "amina", to=did("brahim"), amount="2001")) == "insufficient_funds"
    assert pure.do(Transfer, "amina", to=did("brahim"), amount="2000") == LOGGED


def test_a_capture_pays_the_payee_and_a_final_one_frees_the_rest(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    assert pure.do(Capture, "brahim", hold=hold, amount="5000", final=True, receipt=DEAL) == LOGGED
    assert pure.available("brahim") == 5_000 - FEE
    assert pure.available("amina") == 10_000 - 5_000 - FEE
    assert pure.state.holds[hold].status == "captured"
    assert (pure.state.held, pure.state.open_holds) == (0, 0)


def test_a_double_capture_is_refused(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    words = {"hold": hold, "amount": "6000", "final": True, "receipt": None}
    assert pure.do(Capture, "brahim", **words) == LOGGED
    assert code(pure.do(Capture, "brahim", **words)) == "hold_resolved"
    assert pure.available("brahim") == 6_000 - FEE


def test_partial_captures_add_up_to_the_hold_and_no_further(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    words = {"hold": hold, "final": False, "receipt": None}
    assert pure.do(Capture, "brahim", amount="4000", **words) == LOGGED
    assert pure.state.holds[hold].status == "open"
    assert code(pure.do(Capture, "brahim", amount="2001", **words)) == "exceeds_hold"
    assert pure.do(Capture, "brahim", amount="2000", **words) == LOGGED
    assert pure.state.holds[hold].status == "captured"
    assert pure.available("brahim") == 6_000 - 2 * FEE


def test_a_capture_of_nothing_frees_everything(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    pure.fund("brahim", FEE)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    assert pure.do(Capture, "brahim", hold=hold, amount="0", final=True, receipt=None) == LOGGED
    assert pure.available("amina") == 10_000 - FEE
    assert pure.state.holds[hold].status == "released"


def test_only_the_payee_captures(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    for name in ("amina", "chadia"):
        outcome = pure.do(Capture, name, hold=hold, amount="1", final=True, receipt=None)
        assert code(outcome) == "not_payee"


def test_a_capture_after_expiry_is_refused(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    pure.now += 60_000
    outcome = pure.do(Capture, "brahim", hold=hold, amount="6000", final=True, receipt=None)
    assert code(outcome) == "hold_expired"
    assert pure.state.holds[hold].status == "open"


def test_the_payee_releases_at_any_time_and_needs_no_money_for_it(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    assert pure.do(Release, "brahim", hold=hold, forfeit="0", fee="0") == LOGGED
    assert pure.available("amina") == 10_000 - FEE
    assert code(pure.do(Release, "brahim", hold=hold, forfeit="0", fee="0")) == "hold_resolved"


def test_only_the_payee_releases_and_anybody_ends_what_has_expired(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    hold = pure.open_hold(Hold, "amina", "brahim", 6_000)
    for name in ("amina", "brahim", "chadia"):
        assert code(pure.do(Expire, name, subject=hold, fee="0")) == "not_expired"
    pure.now += 60_000
    assert code(pure.do(Release, "amina", hold=hold, forfeit="0", fee="0")) == "not_payee"
    assert pure.do(Expire, "chadia", subject=hold, fee="0") == LOGGED
    assert code(pure.do(Expire, "chadia", subject=hold, fee="0")) == "hold_resolved"
    assert pure.available("amina") == 10_000 - FEE


def test_an_unknown_hold_is_refused(pure: PureLedger) -> None:
    outcome = pure.do(Capture, "brahim", hold=DEAL, amount="1", final=True, receipt=None)
    assert code(outcome) == "unknown_hold"
    assert code(pure.do(Release, "brahim", hold=DEAL, forfeit="0", fee="0")) == "unknown_hold"


@pytest.mark.parametrize("ahead", [-1, 0, 31 * 24 * 3_600_000])
def test_a_hold_ends_in_the_near_future(pure: PureLedger, ahead: int) -> None:
    pure.fund("amina", 10_000)
    words = {
        "payee": did("brahim"),
        "amount": "1",
        "agreement": DEAL,
        "arbitration": None,
        "bail": None,
    }
    assert code(pure.do(Hold, "amina", expires=pure.now + ahead, **words)) == "bad_expiry"


def test_the_faucet_has_a_cap_a_claim_and_a_cap_an_epoch(pure: PureLedger) -> None:
    claim = int(pure.genesis.faucet_claim)
    assert code(pure.do(Faucet, "amina", amount=str(claim + 1))) == "cap_exceeded"
    for _ in range(int(pure.genesis.faucet_epoch) // claim):
        assert pure.do(Faucet, "amina", amount=str(claim)) == LOGGED
    assert code(pure.do(Faucet, "amina", amount="5000")) == "cap_exceeded"
    pure.now += pure.genesis.epoch_ms
    assert pure.do(Faucet, "amina", amount=str(claim)) == LOGGED


def test_the_faucet_pays_its_own_fee_or_nothing(pure: PureLedger) -> None:
    assert code(pure.do(Faucet, "amina", amount=str(FEE - 1))) == "insufficient_funds"
    assert pure.state.issued == 0


def test_a_fee_below_the_flat_one_is_refused(pure: PureLedger) -> None:
    pure.fund("amina", 10_000)
    outcome = pure.do(Transfer, "amina", to=did("brahim"), amount="1", fee=str(FEE - 1))
    assert code(outcome) == "fee_too_low"


def test_another_account_may_pay_the_fee(pure: PureLedger) -> None:
    pure.fund("amina", 5_000)
    pure.fund("sponsor", 3_000)
    assert pure.do(Transfer, "amina", fee_by="sponsor", to=did("brahim"), amount="5000") == LOGGED
    assert (pure.available("amina"), pure.available("sponsor")) == (0, 3_000 - FEE)


def test_a_fee_payer_without_money_is_no_help(pure: PureLedger) -> None:
    pure.fund("amina", 5_000)
    outcome = pure.do(Transfer, "amina", fee_by="sponsor", to=did("brahim"), amount="1")
    assert code(outcome) == "insufficient_funds"


def test_a_lane_counts_up_by_one(pure: PureLedger) -> None:
    pure.fund("amina")
    words = {"to": did("brahim"), "amount": "1"}
    gap = pure.do(Transfer, "amina", lane=3, seq=2, **words)
    assert (gap.outcome, gap.code) == ("retry", "nonce_gap")
    assert pure.do(Transfer, "amina", lane=3, seq=1, **words) == LOGGED
    assert pure.do(Transfer, "amina", lane=3, seq=2, **words) == LOGGED
    assert pure.do(Transfer, "amina", lane=4, seq=1, **words) == LOGGED


def test_the_same_place_in_a_lane_by_other_bytes_is_a_conflict(pure: PureLedger) -> None:
    pure.fund("amina")
    assert pure.do(Transfer, "amina", lane=3, seq=1, to=did("brahim"), amount="1") == LOGGED
    outcome = pure.do(Transfer, "amina", lane=3, seq=1, to=did("brahim"), amount="2")
    assert outcome.outcome == "conflict"
    assert pure.available("brahim") == 1


def test_a_salt_is_used_once_even_under_another_signature(pure: PureLedger) -> None:
    pure.fund("amina")
    pure.fund("sponsor")
    words = {"seq": 77, "to": did("brahim"), "amount": "1"}
    assert pure.do(Transfer, "amina", **words) == LOGGED
    assert pure.do(Transfer, "amina", fee_by="sponsor", **words).outcome == "conflict"
    assert pure.available("brahim") == 1


def test_a_salt_may_come_again_once_its_transaction_cannot(pure: PureLedger) -> None:
    pure.fund("amina")
    words = {"seq": 77, "to": did("brahim"), "amount": "1"}
    assert pure.do(Transfer, "amina", **words) == LOGGED
    pure.now += 180_000
    pure.fund("chadia")  # time moves with what is logged
    assert pure.do(Transfer, "amina", **words) == LOGGED


def test_a_transaction_past_its_valid_until_is_invalid(pure: PureLedger) -> None:
    pure.fund("amina")
    outcome = pure.do(Transfer, "amina", to=did("brahim"), amount="1", valid_until=pure.now - 1)
    assert (outcome.outcome, outcome.code) == ("invalid", "expired")


def test_a_transaction_valid_for_longer_than_the_ledger_remembers_comes_too_early(
    pure: PureLedger,
) -> None:
    pure.fund("amina")
    words = {"to": did("brahim"), "amount": "1"}
    late = pure.now + MAX_VALIDITY_MS
    outcome = pure.do(Transfer, "amina", valid_until=late + 1, **words)
    assert (outcome.outcome, outcome.code) == ("retry", "too_early")
    assert pure.do(Transfer, "amina", valid_until=late, **words) == LOGGED


def test_a_stranger_cannot_spend_for_an_account(pure: PureLedger) -> None:
    pure.fund("amina")
    outcome = pure.do(Transfer, "amina", signed_by="agent", to=did("agent"), amount="1")
    assert code(outcome) == "unknown_session"


def test_a_session_never_exceeds_its_budget_fees_included(pure: PureLedger) -> None:
    pure.fund("amina")
    assert grant(pure, budget="10000", per_tx="10000") == LOGGED
    words = {"signed_by": "agent", "to": did("brahim")}
    assert pure.do(Transfer, "amina", amount="6000", **words) == LOGGED
    outcome = pure.do(Transfer, "amina", amount="2001", **words)
    assert code(outcome) == "budget_exceeded"
    assert pure.do(Transfer, "amina", amount="2000", **words) == LOGGED
    session = pure.state.accounts[did("amina")].sessions[did("agent")]
    assert session.spent == session.budget


def test_a_session_has_a_cap_for_each_transaction(pure: PureLedger) -> None:
    pure.fund("amina")
    assert grant(pure, per_tx="3000") == LOGGED
    words = {"signed_by": "agent", "to": did("brahim")}
    assert code(pure.do(Transfer, "amina", amount="2001", **words)) == "out_of_scope"
    assert pure.do(Transfer, "amina", amount="2000", **words) == LOGGED
    items = (Item(to=did("brahim"), amount="1500"), Item(to=did("chadia"), amount="1500"))
    assert code(pure.do(Batch, "amina", signed_by="agent", items=items)) == "out_of_scope"


def test_a_session_pays_only_its_payees(pure: PureLedger) -> None:
    pure.fund("amina")
    assert grant(pure, payees=(did("brahim"),)) == LOGGED
    assert pure.do(Transfer, "amina", signed_by="agent", to=did("brahim"), amount="1") == LOGGED
    outcome = pure.do(Transfer, "amina", signed_by="agent", to=did("chadia"), amount="1")
    assert code(outcome) == "out_of_scope"
    items = (Item(to=did("brahim"), amount="1"), Item(to=did("chadia"), amount="1"))
    assert code(pure.do(Batch, "amina", signed_by="agent", items=items)) == "out_of_scope"
    words = {
        "payee": did("chadia"),
        "amount": "1",
        "agreement": DEAL,
        "arbitration": None,
        "bail": None,
        "expires": pure.now + 1,
    }
    assert code(pure.do(Hold, "amina", signed_by="agent", **words)) == "out_of_scope"


def test_a_session_does_only_its_types(pure: PureLedger) -> None:
    pure.fund("amina")
    assert grant(pure, types=("hold",)) == LOGGED
    outcome = pure.do(Transfer, "amina", signed_by="agent", to=did("brahim"), amount="1")
    assert code(outcome) == "out_of_scope"


def test_a_session_grants_and_revokes_nothing(pure: PureLedger) -> None:
    pure.fund("amina")
    assert grant(pure) == LOGGED
    assert code(grant(pure, signed_by="agent", key=did("accomplice"))) == "out_of_scope"
    outcome = pure.do(Revoke, "amina", signed_by="agent", key=did("agent"))
    assert code(outcome) == "out_of_scope"


def test_a_session_ends_when_it_expires_and_when_it_is_revoked(pure: PureLedger) -> None:
    pure.fund("amina")
    words = {"signed_by": "agent", "to": did("brahim"), "amount": "1"}
    assert grant(pure, expires=pure.now + 1_000) == LOGGED
    pure.now += 1_000
    assert code(pure.do(Transfer, "amina", **words)) == "session_expired"
    assert grant(pure, expires=pure.now + 1_000) == LOGGED
    assert pure.do(Transfer, "amina", **words) == LOGGED
    assert pure.do(Revoke, "amina", key=did("agent")) == LOGGED
    assert code(pure.do(Transfer, "amina", **words)) == "unknown_session"
    assert code(pure.do(Revoke, "amina", key=did("agent"))) == "unknown_session"


@pytest.mark.parametrize("ahead", [0, 400 * 24 * 3_600_000])
def test_a_session_ends_in_the_future_within_a_year(pure: PureLedger, ahead: int) -> None:
    pure.fund("amina")
    assert code(grant(pure, expires=pure.now + ahead)) == "bad_expiry"


def test_what_a_hold_of_a_session_did_not_cost_may_be_spent_again(pure: PureLedger) -> None:
    pure.fund("amina")
    assert grant(pure, budget="10000", per_tx="10000") == LOGGED
    hold = pure.open_hold(Hold, "amina", "brahim", 8_000, signed_by="agent")
    session = pure.state.accounts[did("amina")].sessions[did("agent")]
    assert session.spent == 8_000 + FEE
    assert pure.do(Capture, "brahim", hold=hold, amount="3000", final=True, receipt=None) == LOGGED
    assert session.spent == 3_000 + FEE


def test_an_account_has_a_limited_number_of_sessions(pure: PureLedger) -> None:
    pure.fund("amina", 100_000_000)
    for number in range(MAX_SESSIONS):
        assert grant(pure, key=did(f"agent-{number}")) == LOGGED
    assert code(grant(pure, key=did("one too many"))) == "too_many_sessions"
    assert grant(pure, key=did("agent-0")) == LOGGED


def test_ledger_time_never_runs_backwards(pure: PureLedger) -> None:
    pure.fund("amina")
    pure.now -= 1
    with pytest.raises(InvariantError, match="I9"):
        pure.do(Transfer, "amina", to=did("brahim"), amount="1")


def test_money_that_appears_from_nowhere_stops_the_ledger(pure: PureLedger) -> None:
    pure.fund("amina")
    pure.state.total += 1
    with pytest.raises(InvariantError, match="I1"):
        pure.do(Transfer, "amina", to=did("brahim"), amount="1")


def test_money_that_appears_in_one_account_alone_ends_with_its_interval(pure: PureLedger) -> None:
    first = read(seal_transaction(pure.genesis, signer_of("operator")))
    book = Book(pure.genesis, first.leaf)
    raw = pure.sign(Faucet, "amina", amount="5000")
    assert book.take(open_transaction(raw, pure.genesis.chain), pure.now) == LOGGED
    book.state.accounts[did("amina")].posted += 1
    with pytest.raises(InvariantError, match="I1"):
        book.close_interval(signer_of("operator"))


def test_a_hold_that_does_not_add_up_stops_the_ledger(pure: PureLedger) -> None:
    pure.fund("amina")
    pure.state.escrowed += 1
    with pytest.raises(InvariantError, match="I3"):
        pure.do(Transfer, "amina", to=did("brahim"), amount="1")


def test_every_transaction_lengthens_the_history_of_all_whom_it_concerns(pure: PureLedger) -> None:
    pure.fund("amina")
    pure.fund("brahim")
    tips = {name: pure.state.accounts[did(name)].tip for name in ("amina", "brahim")}
    pure.open_hold(Hold, "amina", "brahim", 5)
    for name, tip in tips.items():
        assert pure.state.accounts[did(name)].tip != tip


def test_a_refusal_leaves_no_trace(pure: PureLedger) -> None:
    pure.fund("amina", 5_000)
    before = [account.leaf() for account in pure.state.accounts.values()]
    pure.state.touched.clear()
    pure.now += 999
    raw = pure.sign(Transfer, "amina", to=did("brahim"), amount="999999")
    signed = open_transaction(raw, pure.genesis.chain)
    assert apply(pure.state, signed, pure.now).outcome == "refused"
    assert [account.leaf() for account in pure.state.accounts.values()] == before
    assert not pure.state.touched
    assert pure.state.log_time == pure.now - 999
