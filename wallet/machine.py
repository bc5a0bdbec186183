"""The state machine of money: ``apply(state, transaction, log_time)`` and nothing else moves any.

* Every transaction compiles into a :class:`Plan`: postings (debit, credit, amount), at most one
  change of a hold, at most one of a session. A table maps each type to its compiler.
* Everything is judged before anything changes: a refusal leaves the state as it was.
* No clock, no I/O, no randomness, no floats: the same log always makes the same state.
* Signatures were verified before (:mod:`wallet.transactions`); here it is decided whether those
  who signed may do it.

After every transaction, always: I1 what was issued is exactly what accounts own; I2 no account
but the issuance owes, nor holds more than it owns; I3 what accounts hold is the rest of all open
holds; I4 a lane counts +1 (a salt is used once); I5 follows from I4: no transaction runs twice;
I6 a hold resolves once; I8 a session stays within its budget; I9 time does not run backwards.
I10, that a replay gives the same root, is :mod:`wallet.replay`'s. A broken invariant is a defect:
:class:`~wallet.errors.InvariantError`, and the ledger stops before it answers.

Disputes, channels, streams and stakes will be further rows of the table; I3 then also counts
deposits and bonds, I7 their claims.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from rahba.balance import ISSUANCE
from rahba.money import MAX_FALS
from wallet.errors import (
    BadExpiryError,
    BudgetExceededError,
    CapExceededError,
    ExceedsHoldError,
    Failure,
    FeeTooLowError,
    HoldExpiredError,
    HoldResolvedError,
    InsufficientFundsError,
    InvariantError,
    NonceConflictError,
    NonceGapError,
    NotExpiredError,
    NotPayeeError,
    OutOfScopeError,
    PaymentRefusedError,
    SessionExpiredError,
    TooEarlyError,
    TooManySessionsError,
    TransactionExpiredError,
    UnknownHoldError,
    UnknownSessionError,
)
from wallet.state import FEES, Account, Escrow, Session, State
from wallet.transactions import (
    EXPIRING_LANE,
    AnyTx,
    Batch,
    Capture,
    Faucet,
    Grant,
    Hold,
    Release,
    Revoke,
    Signed,
    Transfer,
    Tx,
)

HOUR_MS: Final = 3_600_000
MAX_VALIDITY_MS: Final = HOUR_MS
MAX_HOLD_MS: Final = 30 * 24 * HOUR_MS
MAX_SESSION_MS: Final = 366 * 24 * HOUR_MS
MAX_SESSIONS: Final = 1_024


class Outcome(NamedTuple):
    """How a transaction ended; ``code`` and ``detail`` say why it did not succeed."""

    outcome: Literal["logged"] | Failure
    code: str | None = None
    detail: str = ""


LOGGED: Final = Outcome("logged")


Posting = tuple[str, str, int]
"""``(debit, credit, amount)``: the amount moves from the first to the second."""


class Draw(NamedTuple):
    """A hold gives ``taken`` to its payee and ``freed`` back to its payer."""

    hold: Escrow
    taken: int
    freed: int


class Plan(msgspec.Struct, gc=False):
    """What a transaction will do, and nothing else.

    ``spend`` is what a session's limits count, ``payees`` to whom; ``parties`` see it in their
    history although nothing is posted to them.
    """

    postings: list[Posting]
    spend: int = 0
    payees: tuple[str, ...] = ()
    hold: Escrow | Draw | None = None
    session: Session | str | None = None
    issues: int = 0
    parties: tuple[str, ...] = ()


class Context(msgspec.Struct, frozen=True, gc=False):
    """What a compiler may know: the state to read, who acts, when, and by which transaction."""

    state: State
    actor: str
    session: Session | None
    log_time: int
    tx_id: str


def apply(state: State, signed: Signed, log_time: int) -> Outcome:
    """Carry out one transaction whose form and signatures were checked, or refuse it whole.

    1. It is in its time, and next in its lane.
    2. Who signed may act for the account.
    3. Its type's own rules hold.
    4. The fee suffices, everybody who pays can, and a session stays within its limits.
    5. Only then anything changes, and the invariants are checked.
    """
    tx = signed.tx
    if log_time < state.log_time:
        raise InvariantError("I9: ledger time runs backwards")
    try:
        _check_time(tx, log_time)  # 1
        _check_order(state.accounts.get(tx.account), tx)
        session = _authorise(state, tx, signed.signers[0], log_time)  # 2
        plan = _COMPILERS[type(tx)](  # 3
            tx, Context(state, signed.signers[0], session, log_time, signed.id)
        )
        fee_spend = _add_fee(state, tx, plan)  # 4
        _check_funds(state, plan)
        if session is not None:
            _check_session(session, tx, plan, plan.spend + fee_spend)
    except PaymentRefusedError as refusal:
        return Outcome(refusal.outcome, refusal.code, refusal.message)
    state.advance(log_time)  # 5
    touched = _carry_out(state, tx, plan, signed.leaf)
    if session is not None:
        session.spent += plan.spend + fee_spend
    _check_invariants(state, touched, session)
    return LOGGED


def _check_time(tx: AnyTx, log_time: int) -> None:
    if tx.valid_until < log_time:
        raise TransactionExpiredError(f"valid until {tx.valid_until}, it is {log_time}")
    if tx.valid_until > log_time + MAX_VALIDITY_MS:
        raise TooEarlyError(f"valid_until is over {MAX_VALIDITY_MS} ms ahead")


def _check_order(account: Account | None, tx: AnyTx) -> None:
    if tx.lane == EXPIRING_LANE:
        if account is not None and tx.seq in account.salts:
            raise NonceConflictError("the salt was used by other bytes")
        return
    last = account.lanes.get(tx.lane, 0) if account is not None else 0
    if tx.seq <= last:
        raise NonceConflictError(f"lane {tx.lane} is at {last} already")
    if tx.seq > last + 1:
        raise NonceGapError(f"lane {tx.lane} is at {last}")


def _authorise(state: State, tx: AnyTx, actor: str, log_time: int) -> Session | None:
    if actor == tx.account:
        return None
    account = state.accounts.get(tx.account)
    session = account.sessions.get(actor) if account is not None else None
    if session is None:
        raise UnknownSessionError("the signer has no session of this account")
    if log_time >= session.expires:
        raise SessionExpiredError(f"the session ended at {session.expires}")
    return session


def _add_fee(state: State, tx: AnyTx, plan: Plan) -> int:
    """Add the fee's posting; returns what of it the account itself pays."""
    fee = int(tx.fee)
    # A release ends a hold whose fee was paid when it was opened; nobody should need money for it.
    if fee < state.fee and not isinstance(tx, Release):
        raise FeeTooLowError(f"the fee is {state.fee} fals")
    if fee:
        plan.postings.append((tx.fee_payer or tx.account, FEES, fee))
    return fee if tx.fee_payer is None else 0


def _check_funds(state: State, plan: Plan) -> None:
    net: dict[str, int] = {}
    for debit, credit, amount in plan.postings:
        net[debit] = net.get(debit, 0) - amount
        net[credit] = net.get(credit, 0) + amount
    hold = plan.hold
    if isinstance(hold, Draw):
        net[hold.hold.payer] = net.get(hold.hold.payer, 0) + hold.taken + hold.freed
    elif hold is not None:
        net[hold.payer] = net.get(hold.payer, 0) - hold.amount
    for name, change in net.items():
        if change < 0 and name != ISSUANCE and state.available(name) + change < 0:
            missing = -change - state.available(name)
            raise InsufficientFundsError(f"{name} lacks {missing} fals")


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
    for debit, credit, amount in plan.postings:
        payer = touched[debit] = state.register(debit)
        payee = touched[credit] = state.register(credit)
        state.post(payer, -amount)
        state.post(payee, amount)
    if plan.issues:
        state.issue(plan.issues, state.log_time)
    if isinstance(plan.hold, Draw):
        state.draw_hold(*plan.hold)
    elif plan.hold is not None:
        state.open_hold(plan.hold)
    if isinstance(plan.session, Session):
        account.sessions[plan.session.key] = plan.session
    elif plan.session is not None:
        del account.sessions[plan.session]
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
        if not 0 <= account.held <= account.posted and account.id != ISSUANCE:
            raise InvariantError("I2: an account holds more than it owns", account=account.id)
    if state.held != state.escrowed or state.open_holds < 0:
        raise InvariantError("I3: what accounts hold is not what open holds hold")
    if session is not None and not 0 <= session.spent <= session.budget:
        raise InvariantError("I8: a session is beyond its budget", key=session.key)


def _transfer(tx: Transfer, _context: Context) -> Plan:
    amount = int(tx.amount)
    return Plan([(tx.account, tx.to, amount)], amount, (tx.to,))


def _batch(tx: Batch, _context: Context) -> Plan:
    postings = [(tx.account, item.to, int(item.amount)) for item in tx.items]
    total = sum(amount for _, _, amount in postings)
    return Plan(postings, total, tuple(item.to for item in tx.items))


def _hold(tx: Hold, context: Context) -> Plan:
    if not context.log_time < tx.expires <= context.log_time + MAX_HOLD_MS:
        raise BadExpiryError(f"a hold lasts up to {MAX_HOLD_MS} ms from now")
    amount = int(tx.amount)
    hold = Escrow(
        context.tx_id, tx.account, tx.payee, amount, tx.expires, tx.agreement, context.session
    )
    return Plan([], amount, (tx.payee,), hold=hold, parties=(tx.payee,))


def _open_hold(hold_id: str, state: State) -> Escrow:
    hold = state.holds.get(hold_id)
    if hold is None:
        raise UnknownHoldError("no hold has that id")
    if hold.status != "open":
        raise HoldResolvedError(f"the hold was {hold.status}")
    return hold


def _capture(tx: Capture, context: Context) -> Plan:
    hold = _open_hold(tx.hold, context.state)
    if tx.account != hold.payee:
        raise NotPayeeError("only the payee captures a hold")
    if context.log_time >= hold.expires:
        raise HoldExpiredError(f"the hold expired at {hold.expires}")
    amount = int(tx.amount)
    if amount > hold.rest:
        raise ExceedsHoldError(f"{hold.rest} fals are left in the hold")
    freed = hold.rest - amount if tx.final else 0
    postings = [(hold.payer, hold.payee, amount)] if amount else []
    return Plan(postings, hold=Draw(hold, amount, freed), parties=(hold.payer,))


def _release(tx: Release, context: Context) -> Plan:
    hold = _open_hold(tx.hold, context.state)
    if tx.account != hold.payee and context.log_time < hold.expires:
        raise NotExpiredError(f"before {hold.expires} only the payee releases it")
    return Plan([], hold=Draw(hold, 0, hold.rest), parties=(hold.payer, hold.payee))


def _faucet(tx: Faucet, context: Context) -> Plan:
    state, amount = context.state, int(tx.amount)
    if amount > int(state.genesis.faucet_claim):
        raise CapExceededError(f"one claim is at most {state.genesis.faucet_claim} fals")
    issued = state.issued_in_epoch(context.log_time) + amount
    if issued > state.epoch_cap or state.issued + amount > MAX_FALS:
        raise CapExceededError("the faucet is empty for now")
    return Plan([(ISSUANCE, tx.account, amount)], issues=amount)


def _own_key_only(context: Context) -> None:
    if context.session is not None:
        raise OutOfScopeError("only the account's own key grants and revokes sessions")


def _grant(tx: Grant, context: Context) -> Plan:
    _own_key_only(context)
    if not context.log_time < tx.expires <= context.log_time + MAX_SESSION_MS:
        raise BadExpiryError(f"a session lasts up to {MAX_SESSION_MS} ms from now")
    account = context.state.accounts.get(tx.account)
    others = account.sessions.keys() - {tx.key} if account is not None else ()
    if len(others) >= MAX_SESSIONS:
        raise TooManySessionsError(f"an account has at most {MAX_SESSIONS} sessions")
    session = Session(
        tx.key,
        int(tx.budget),
        int(tx.per_tx),
        frozenset(tx.payees) if tx.payees is not None else None,
        frozenset(tx.types),
        tx.expires,
    )
    return Plan([], session=session)


def _revoke(tx: Revoke, context: Context) -> Plan:
    _own_key_only(context)
    account = context.state.accounts.get(tx.account)
    if account is None or tx.key not in account.sessions:
        raise UnknownSessionError("no session has that key")
    return Plan([], session=tx.key)


_COMPILERS: Final[dict[type[Tx], Callable[[Any, Context], Plan]]] = {
    Transfer: _transfer,
    Batch: _batch,
    Hold: _hold,
    Capture: _capture,
    Release: _release,
    Faucet: _faucet,
    Grant: _grant,
    Revoke: _revoke,
}
