"""The state machine of money: ``apply(state, transaction, log_time)`` and nothing else moves any.

* Every transaction compiles into a :class:`~wallet.plan.Plan`: postings (debit, credit, amount)
  and at most one change of something else. A table maps each type to its compiler
  (:mod:`wallet.effects`).
* Everything is judged before anything changes: a refusal leaves the state as it was.
* No clock, no I/O, no randomness, no floats: the same log always makes the same state.
* Signatures were verified before (:mod:`wallet.forms`); whether those who signed may do it is
  :mod:`wallet.authority`'s to say.

After every transaction, always: I1 what was issued is exactly what accounts own; I2 no account
but the issuance owes, nor holds more than it owns; I3 what accounts hold is the rest of all open
holds, their bails, what is retained of captures, and all bonds; I4 a lane counts +1 (a salt is used
once); I5 follows from I4: no transaction runs twice; I6 a hold resolves once, and a capture goes
back at most once, while it is retained; I8 a session stays within its budget; I9 time does not run
backwards. I10, that a replay gives the same root, is :mod:`wallet.replay`'s. A broken invariant is
a defect: :class:`~wallet.errors.InvariantError`, and the ledger stops before it answers.

Channels and streams will be further rows of the table; I3 then also counts deposits, I7 that what
is claimed stays within them and vouchers only grow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from rahba.balance import ISSUANCE
from wallet.authority import authorise
from wallet.effects import COMPILERS, HOUR_MS, NEEDS_NO_FEE
from wallet.errors import (
    BudgetExceededError,
    Failure,
    FeeTooLowError,
    InsufficientFundsError,
    InvariantError,
    NonceConflictError,
    NonceGapError,
    OutOfScopeError,
    PaymentRefusedError,
    TooEarlyError,
    TransactionExpiredError,
)
from wallet.holds import (
    challenge_hold,
    draw_hold,
    free_due,
    freeze_hold,
    open_hold,
    take_part,
    undo_capture,
)
from wallet.moves import may_lead
from wallet.plan import (
    Bond,
    Change,
    Close,
    Contest,
    Context,
    Draw,
    Freeze,
    Hand,
    HoldMove,
    Open,
    OpenHold,
    Plan,
    Rule,
    Seize,
    Unbond,
    Unbonded,
    Undo,
    freed,
)
from wallet.state import FEES, Account, Posting, Session, State
from wallet.transactions import EXPIRING_LANE, AnyTx, Signed

MAX_VALIDITY_MS: Final = HOUR_MS


class Outcome(NamedTuple):
    """How a transaction ended; ``code`` and ``detail`` say why it did not succeed."""

    outcome: Literal["logged"] | Failure
    code: str | None = None
    detail: str = ""


LOGGED: Final = Outcome("logged")


def apply(state: State, signed: Signed, log_time: int) -> Outcome:
    """Carry out one transaction whose form and signatures were checked, or refuse it whole.

    1. It is in its time, and next in its lane. What nobody can challenge any more is free before.
    2. Who signed may act for the account, and for the one that pays the fee.
    3. Its type's own rules hold.
    4. The fee suffices, everybody who pays can, and a session stays within its limits.
    5. Only then anything changes, and the invariants are checked.
    """
    tx = signed.tx
    if log_time < state.log_time:
        raise InvariantError("I9: ledger time runs backwards")
    free_due(state, log_time)
    try:
        _check_turn(state.accounts.get(tx.account), tx, log_time)  # 1
        session = authorise(state, signed, log_time)  # 2
        context = Context(state, session, log_time, signed.leaf, signed.signers[0])
        plan = COMPILERS[type(tx)](tx, context)  # 3
        fee_spend = _add_fee(state, tx, plan)  # 4
        _check_funds(state, plan)
        if session is not None:
            _check_session(session, tx, plan, plan.spend + fee_spend)
    except PaymentRefusedError as refusal:
        return Outcome(refusal.outcome, refusal.code, refusal.message)
    if log_time != state.log_time:  # 5
        state.advance(log_time)
    touched = _carry_out(state, tx, plan, signed.leaf)
    if session is not None:
        session.spent += plan.spend + fee_spend
    _check_invariants(state, touched, session)
    return LOGGED


def _check_turn(account: Account | None, tx: AnyTx, log_time: int) -> None:
    if tx.valid_until < log_time:
        raise TransactionExpiredError(f"valid until {tx.valid_until}, it is {log_time}")
    if tx.valid_until > log_time + MAX_VALIDITY_MS:
        raise TooEarlyError(f"valid_until is over {MAX_VALIDITY_MS} ms ahead")

    if tx.lane == EXPIRING_LANE:
        if account is not None and tx.seq in account.salts:
            raise NonceConflictError("the salt was used by other bytes")
        return
    last = account.lanes.get(tx.lane, 0) if account is not None else 0
    if tx.seq <= last:
        raise NonceConflictError(f"lane {tx.lane} is at {last} already")
    if tx.seq > last + 1:
        raise NonceGapError(f"lane {tx.lane} is at {last}")


def _add_fee(state: State, tx: AnyTx, plan: Plan) -> int:
    """Add the fee's posting; returns what of it the account itself pays."""
    fee = int(tx.fee)
    if fee < state.fee and type(tx) not in NEEDS_NO_FEE:
        raise FeeTooLowError(f"the fee is {state.fee} fals")
    if fee:
        plan.postings.append((tx.fee_payer or tx.account, FEES, fee))
    return fee if tx.fee_payer is None else 0


def _check_funds(state: State, plan: Plan) -> None:
    if plan.change is None and _one_can_pay_it_all(state, plan.postings):
        return
    net: dict[str, int] = {}
    for debit, credit, amount in plan.postings:
        net[debit] = net.get(debit, 0) - amount
        net[credit] = net.get(credit, 0) + amount
    if plan.change is not None:
        for name, change in freed(plan.change):
            net[name] = net.get(name, 0) + change
    for name, change in net.items():
        if change < 0 and name != ISSUANCE and state.available(name) + change < 0:
            missing = -change - state.available(name)
            raise InsufficientFundsError(f"{name} lacks {missing} fals")


def _one_can_pay_it_all(state: State, postings: list[Posting]) -> bool:
    """Say whether all is paid by one account that has enough: the common case, in one pass."""
    total, payer = 0, ""
    for debit, _, amount in postings:
        total += amount
        if debit != payer:
            if payer:
                return False
            payer = debit
    account = state.accounts.get(payer)
    return account is not None and account.posted - account.held >= total


def _check_session(session: Session, tx: AnyTx, plan: Plan, spend: int) -> None:
    if _tag(tx) not in session.types:
        raise OutOfScopeError(f"the session does not cover {_tag(tx)}")
    if session.payees is not None and not session.payees.issuperset(plan.payees):
        raise OutOfScopeError("the session does not cover this payee")
    if spend > session.per_tx:
        raise OutOfScopeError(f"above the {session.per_tx} fals allowed at once")
    if session.spent + spend > session.budget:
        raise BudgetExceededError(f"{session.budget - session.spent} fals are left in the session")


def _tag(tx: AnyTx) -> str:
    return str(tx.__struct_config__.tag)


def _carry_out(state: State, tx: AnyTx, plan: Plan, leaf: bytes) -> dict[str, Account]:
    """Mutate; returns the accounts whose history the transaction is part of."""
    account = state.register(tx.account)
    touched = {tx.account: account}
    _count(state, account, tx)
    state.post(plan.postings, touched)
    if plan.issues is not None:
        state.issue(*plan.issues, state.log_time)
    if plan.change is not None:
        _change(state, account, tx, plan.change)
    for name in plan.parties:
        touched[name] = state.register(name)
    state.touch(touched, leaf)
    return touched


def _count(state: State, account: Account, tx: AnyTx) -> None:
    if tx.lane == EXPIRING_LANE:
        state.spend_salt(account, tx.seq, tx.valid_until)
    elif account.lanes.get(tx.lane, 0) + 1 != tx.seq:
        raise InvariantError("I4: a lane counts +1", lane=tx.lane)
    else:
        account.lanes[tx.lane] = tx.seq


def _check_invariants(state: State, touched: dict[str, Account], session: Session | None) -> None:
    if state.issued != state.total:
        raise InvariantError("I1: what was issued is not what is owned")
    for account in touched.values():
        if not 0 <= account.held <= account.posted and account.position:
            raise InvariantError("I2: an account holds more than it owns", account=account.id)
    if state.held != state.escrowed + state.bonded or state.open_holds < 0:
        raise InvariantError("I3: what accounts hold is not what holds and bonds hold")
    if session is not None and not 0 <= session.spent <= session.budget:
        raise InvariantError("I8: a session is beyond its budget", key=session.key)


def _change(state: State, account: Account, tx: AnyTx, change: Change) -> None:
    """Carry out a change; a hold must go where its table says (I6)."""
    if not isinstance(change, HoldMove):
        _CHANGES[type(change)](state, account, change)
        return
    before = change.hold.status
    _CHANGES[type(change)](state, account, change)
    if not may_lead(before, type(tx), change.hold.status):
        raise InvariantError("I6: a hold goes where its table says", hold=change.hold.id)


def _close(account: Account, key: str) -> None:
    del account.sessions[key]


def _open(account: Account, session: Session, log_time: int) -> None:
    if account.pending is not None and log_time >= account.pending[1]:
        account.rule(account.pending[0], None, log_time)
    account.sessions[session.key] = session


_CHANGES: Final[dict[type[Any], Callable[[State, Account, Any], None]]] = {
    OpenHold: lambda state, _, change: open_hold(state, change.hold),
    Freeze: lambda state, _, change: freeze_hold(state, *change),
    Draw: lambda state, _, change: draw_hold(state, *change),
    Contest: lambda state, _, change: challenge_hold(state, *change),
    Hand: lambda state, _, change: take_part(state, *change),
    Undo: lambda state, _, change: undo_capture(state, *change),
    Bond: lambda state, account, change: state.bond(account, change.amount),
    Unbond: lambda state, _, change: state.unbond(change.part),
    Unbonded: lambda state, _, change: state.end_unbonding(change.part),
    Seize: lambda state, _, change: state.seize(*change),
    Open: lambda state, account, change: _open(account, change.session, state.log_time),
    Close: lambda _, account, change: _close(account, change.key),
    Rule: lambda state, account, change: account.rule(
        change.policy, change.pending, state.log_time
    ),
}
