"""The table of transactions: what each type does, and when it is refused.

Each compiler reads the state and returns a :class:`~wallet.plan.Plan`, or raises the refusal. None
changes anything. That the account may act, can pay and stays within a session's limits is checked
for all types alike (:mod:`wallet.machine`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rahba.balance import ISSUANCE
from rahba.money import MAX_FALS
from wallet.authority import policy_of
from wallet.errors import (
    BadExpiryError,
    BadPartError,
    BadPledgeError,
    BadSplitError,
    CapExceededError,
    DeadlinePassedError,
    EvidenceUsedError,
    ExceedsHoldError,
    FixedKeyError,
    HoldExpiredError,
    InsufficientStakeError,
    NoArbiterError,
    NoBondError,
    NotArbiterError,
    NotContestableError,
    NotExpiredError,
    NotFinalError,
    NotMinterError,
    NotPartyError,
    NotPayeeError,
    OutOfScopeError,
    PledgeUnbackedError,
    PledgeUsedError,
    TooManySessionsError,
    UnbondingError,
    UnknownHoldError,
    UnknownKeyError,
    UnknownSessionError,
    WrongReceiptError,
)
from wallet.faults import fault_of, leaving_digest, receipt_digest
from wallet.moves import check_move
from wallet.plan import (
    Bond,
    Close,
    Contest,
    Context,
    Draw,
    Freeze,
    Hand,
    Open,
    OpenHold,
    Plan,
    Rule,
    Seize,
    Unbond,
    Unbonded,
    Undo,
)
from wallet.state import REMEMBER_MS, Escrow, Issue, Policy, Session, State, Unbonding
from wallet.transactions import (
    Batch,
    Capture,
    Challenge,
    Deliver,
    Dispute,
    Expire,
    Faucet,
    Grant,
    Hold,
    KeyRotate,
    Mint,
    PolicySet,
    Release,
    Resolve,
    Revoke,
    Slash,
    Stake,
    Transfer,
    Tx,
    Unstake,
)

HOUR_MS: Final = 3_600_000
MAX_HOLD_MS: Final = 30 * 24 * HOUR_MS
MIN_BAIL_MS: Final = 12_000
MAX_SESSION_MS: Final = 366 * 24 * HOUR_MS
MAX_SESSIONS: Final = 1_024
MAX_UNBONDING: Final = 64
BASIS: Final = 10_000


def _transfer(tx: Transfer, _context: Context) -> Plan:
    amount = int(tx.amount)
    return Plan([(tx.account, tx.to, amount)], amount, (tx.to,))


def _batch(tx: Batch, _context: Context) -> Plan:
    postings = [(tx.account, item.to, int(item.amount)) for item in tx.items]
    total = sum([amount for _, _, amount in postings])
    return Plan(postings, total, tuple([item.to for item in tx.items]))


def _hold(tx: Hold, context: Context) -> Plan:
    if not context.log_time < tx.expires <= context.log_time + MAX_HOLD_MS:
        raise BadExpiryError(f"a hold lasts up to {MAX_HOLD_MS} ms from now")
    amount = int(tx.amount)
    hold = Escrow(
        context.tx_id,
        tx.account,
        tx.payee,
        amount,
        tx.expires,
        tx.agreement,
        context.session,
        tx.arbitration,
        bail=_bail_of(tx, context),
        recourse=tx.recourse,
        buyer=context.signer if tx.bail is not None else "",
    )
    return Plan([], amount, (tx.payee,), OpenHold(hold), parties=(tx.payee,))


def _bail_of(tx: Hold, context: Context) -> int:
    """Return what the payee pledged, if its pledge stands; the signature was verified before.

    A pledge is remembered as long as its hold is, which is longer than it can be used. The payee
    has time to notice a hold that it got no order for, and to give it back.
    """
    if tx.bail is None:
        return 0
    amount, state, now = int(tx.bail.amount), context.state, context.log_time
    payee = state.accounts.get(tx.payee)
    if policy_of(payee, tx.payee, now) != ((tx.payee,), 1):
        raise BadPledgeError("the payee's account is not its own key's alone")
    if tx.expires < now + MIN_BAIL_MS:
        raise BadExpiryError(f"a hold with a bail lasts {MIN_BAIL_MS} ms or more")
    if not now <= tx.bail.until <= now + REMEMBER_MS:
        raise BadPledgeError(
            f"the pledge opens a hold until {tx.bail.until}, an hour ahead at most"
        )
    if state.pledged.get((tx.payee, tx.agreement), -1) >= now:
        raise PledgeUsedError("another hold has that pledge")
    if payee is None or payee.available < amount:
        raise PledgeUnbackedError(f"the payee cannot set {amount} fals aside")
    return amount


def _hold_for(kind: type[Tx], hold_id: str, state: State) -> Escrow:
    """Return the hold, if a transaction of that type may move it at all."""
    hold = state.holds.get(hold_id)
    if hold is None:
        raise UnknownHoldError("no hold has that id")
    check_move(hold.status, kind)
    return hold


def _capture(tx: Capture, context: Context) -> Plan:
    hold = _hold_for(Capture, tx.hold, context.state)
    if tx.account != hold.payee:
        raise NotPayeeError("only the payee captures a hold")
    if context.log_time >= hold.expires:
        raise HoldExpiredError(f"the hold expired at {hold.expires}")
    amount = int(tx.amount)
    if amount > hold.rest:
        raise ExceedsHoldError(f"{hold.rest} fals are left in the hold")
    back = hold.rest - amount if tx.final else 0
    ends, recourse = amount + back == hold.rest, hold.recourse
    if recourse is not None and not ends:
        raise NotFinalError("a hold with a recourse is captured once: say that it is final")
    # More than the usual fee is the payee's own to pay: else a fee could burn what is challenged.
    own_fee = min(int(tx.fee), context.state.fee) if tx.fee_payer is None else 0
    kept = amount - own_fee
    if recourse is not None and kept > 0:
        until = context.log_time + recourse.window_ms
        plan = _drawn(hold, amount, back, _lost_bail(hold, amount))
        plan.change = Draw(hold, amount, back, (kept, until, tx.receipt))
        return plan
    return _drawn(hold, amount, back, _lost_bail(hold, amount) if ends else 0)


def _release(tx: Release, context: Context) -> Plan:
    hold = _hold_for(Release, tx.hold, context.state)
    if tx.account != hold.payee:
        raise NotPayeeError("only the payee gives a hold back")
    forfeit = int(tx.forfeit)
    if forfeit > hold.bail:
        raise ExceedsHoldError(f"{hold.bail} fals of the payee's own are set aside")
    plan = _drawn(hold, 0, hold.rest, forfeit)
    if forfeit:
        plan.spend, plan.payees = forfeit, (hold.payer,)
    return plan


def _dispute(tx: Dispute, context: Context) -> Plan:
    hold = _hold_for(Dispute, tx.hold, context.state)
    if tx.account not in {hold.payer, hold.payee}:
        raise NotPartyError("only payer and payee dispute a hold")
    if hold.arbitration is None:
        raise NoArbiterError("the hold names no arbiter")
    if context.log_time >= hold.expires:
        raise HoldExpiredError(f"the hold expired at {hold.expires}")
    deadline = context.log_time + hold.arbitration.window_ms
    parties = (hold.payer, hold.payee, hold.arbitration.arbiter)
    return Plan([], change=Freeze(hold, deadline), parties=parties)


def _resolve(tx: Resolve, context: Context) -> Plan:
    _own_key_only(context)
    hold = _hold_for(Resolve, tx.hold, context.state)
    if hold.arbitration is None or tx.account != hold.arbitration.arbiter:
        raise NotArbiterError("only the hold's arbiter resolves its dispute")
    if context.log_time >= hold.deadline:
        raise DeadlinePassedError(f"the arbiter's time was over at {hold.deadline}")
    taken, back = int(tx.to_payee), int(tx.to_payer)
    if taken + back != hold.rest:
        raise BadSplitError(f"{hold.rest} fals are left in the hold")
    return _drawn(hold, taken, back)


def _challenge(tx: Challenge, context: Context) -> Plan:
    hold = _hold_for(Challenge, tx.hold, context.state)
    if tx.account != hold.payer:
        raise NotPartyError("only the payer challenges what was captured")
    if hold.recourse is None or not hold.retained:
        raise NotContestableError("what was captured is the payee's for good")
    deadline = context.log_time + hold.recourse.answer_ms
    return Plan([], change=Contest(hold, deadline), parties=(hold.payer, hold.payee))


def _deliver(tx: Deliver, context: Context) -> Plan:
    hold = _hold_for(Deliver, tx.hold, context.state)
    if tx.account != hold.payee:
        raise NotPayeeError("only the payee delivers")
    if context.log_time >= hold.deadline:
        raise DeadlinePassedError(f"the time to deliver was over at {hold.deadline}")
    if tx.part != hold.part + 1 or hold.parts not in {0, tx.parts}:
        raise BadPartError(f"part {hold.part + 1} of {hold.parts or 'any number'} comes next")
    if tx.output is not None:
        shown = receipt_digest(tx.receipt, hold.payee, hold.agreement)
    else:
        shown = leaving_digest(tx.receipt, hold.buyer, hold.agreement)
        if hold.captured > hold.bail:
            raise WrongReceiptError(f"who leaves owes the bail, {hold.bail} fals")
    if hold.receipt not in {None, shown}:
        raise WrongReceiptError("the capture, or the first part, named another one")
    return Plan([], change=Hand(hold, tx.parts, shown), parties=(hold.payer, hold.payee))


def _expire(tx: Expire, context: Context) -> Plan:
    part = context.state.unbonding.get(tx.subject)
    if part is not None:
        _check_due(part.due, context)
        return Plan([], change=Unbonded(part), parties=(part.owner,))
    hold = _hold_for(Expire, tx.subject, context.state)
    _check_due(hold.due, context)
    if hold.status == "challenged":
        owed = hold.captured - hold.retained + min(hold.bail, hold.captured)  # the rest was lost
        return _undone(hold, min(owed, context.state.available(hold.payee)))
    taken, lost = 0, _lost_bail(hold) if hold.status == "open" else 0
    if hold.status == "disputed" and hold.arbitration is not None:
        taken = hold.rest * hold.arbitration.payee_share // BASIS
    return _drawn(hold, taken, hold.rest - taken, lost)


def _lost_bail(hold: Escrow, more: int = 0) -> int:
    """Return what of its bail a payee loses: a price covers it, silence and a token do not."""
    return max(0, hold.bail - hold.captured - more)


def _check_due(due: int, context: Context) -> None:
    if context.log_time < due:
        raise NotExpiredError(f"its time is not over before {due}")


def _drawn(hold: Escrow, taken: int, back: int, forfeit: int = 0) -> Plan:
    postings = [(hold.payer, hold.payee, taken)] if taken else []
    if forfeit:
        postings.append((hold.payee, hold.payer, forfeit))
    return Plan(postings, change=Draw(hold, taken, back), parties=(hold.payer, hold.payee))


def _undone(hold: Escrow, more: int) -> Plan:
    """Give back what is retained, and ``more`` of the payee's own."""
    back = hold.retained + more
    postings, undo = [(hold.payee, hold.payer, back)], Undo(hold, min(back, hold.captured))
    return Plan(postings, change=undo, parties=(hold.payer, hold.payee))


def _stake(tx: Stake, context: Context) -> Plan:
    _own_key_only(context)
    return Plan([], change=Bond(tx.account, int(tx.amount)))


def _unstake(tx: Unstake, context: Context) -> Plan:
    _own_key_only(context)
    account, amount = context.state.accounts.get(tx.account), int(tx.amount)
    if account is None or amount > account.bond:
        raise InsufficientStakeError("the account has not staked that much")
    if amount > account.staked or len(account.unbonding) >= MAX_UNBONDING:
        raise UnbondingError(f"{account.staked} fals are staked, the rest is on its way back")
    due = context.log_time + context.state.genesis.unbond_ms
    return Plan([], change=Unbond(Unbonding(context.tx_id, tx.account, amount, due)))


def _slash(tx: Slash, context: Context) -> Plan:
    _own_key_only(context)
    state, fault = context.state, fault_of(tx.offender, tx.evidence)
    if fault in state.faults:
        raise EvidenceUsedError("the fault was punished before")
    account = state.accounts.get(tx.offender)
    amount = account.bond * state.genesis.slashed // BASIS if account is not None else 0
    if account is None or not amount:
        raise NoBondError("the offender has no bond")
    reward = amount * state.genesis.reporter // BASIS
    shares = ((tx.account, reward), (ISSUANCE, amount - reward))
    postings = [(tx.offender, to, share) for to, share in shares if share]
    return Plan(postings, change=Seize(account, amount, fault), parties=(tx.offender,))


def _mint(tx: Mint, context: Context) -> Plan:
    _own_key_only(context)
    if tx.account != context.state.genesis.operator:
        raise NotMinterError("only the operator of the genesis mints")
    return _issued("mint", tx.to, int(tx.amount), context)


def _faucet(tx: Faucet, context: Context) -> Plan:
    amount, claim = int(tx.amount), context.state.genesis.faucet_claim
    if amount > int(claim):
        raise CapExceededError(f"one claim is at most {claim} fals")
    return _issued("faucet", tx.account, amount, context)


def _issued(kind: Issue, to: str, amount: int, context: Context) -> Plan:
    state = context.state
    issued = state.issued_in_epoch(kind, context.log_time) + amount
    if issued > state.caps[kind] or state.issued + amount > MAX_FALS:
        raise CapExceededError("no more is issued for now")
    return Plan([(ISSUANCE, to, amount)], issues=(kind, amount))


def _own_key_only(context: Context) -> None:
    if context.session is not None:
        raise OutOfScopeError("only the account's own keys do that")


def _grant(tx: Grant, context: Context) -> Plan:
    _own_key_only(context)
    if not context.log_time < tx.expires <= context.log_time + MAX_SESSION_MS:
        raise BadExpiryError(f"a session lasts up to {MAX_SESSION_MS} ms from now")
    account = context.state.accounts.get(tx.account)
    others = account.sessions_at(context.log_time).keys() - {tx.key} if account is not None else ()
    if len(others) >= MAX_SESSIONS:
        raise TooManySessionsError(f"an account has at most {MAX_SESSIONS} sessions")
    session = Session(
        tx.key,
        int(tx.budget),
        int(tx.per_tx),
        frozenset(tx.payees) if tx.payees is not None else None,
        frozenset(tx.types),
        tx.expires,
        context.tx_id,
    )
    return Plan([], change=Open(session))


def _revoke(tx: Revoke, context: Context) -> Plan:
    _own_key_only(context)
    account = context.state.accounts.get(tx.account)
    if account is None or tx.key not in account.sessions_at(context.log_time):
        raise UnknownSessionError("no session has that key")
    return Plan([], change=Close(tx.key))


def _rotate(tx: KeyRotate, context: Context) -> Plan:
    policy = _present_policy(tx, context)
    if tx.old not in policy.keys or tx.new in policy.keys:
        raise UnknownKeyError("the old key is none of the account's, or the new one is already")
    keys = sorted({*policy.keys, tx.new} - {tx.old})
    return Plan([], change=Rule(Policy(tuple(keys), policy.threshold), None))


def _policy(tx: PolicySet, context: Context) -> Plan:
    present, wanted = _present_policy(tx, context), Policy(tx.keys, tx.threshold)
    if wanted.covers(present):
        return Plan([], change=Rule(wanted, None))
    due = context.log_time + context.state.genesis.policy_ms
    return Plan([], change=Rule(present, (wanted, due)))


def _present_policy(tx: KeyRotate | PolicySet, context: Context) -> Policy:
    _own_key_only(context)
    if tx.account == context.state.genesis.operator:
        raise FixedKeyError("the operator's key is the genesis's")
    return policy_of(context.state.accounts.get(tx.account), tx.account, context.log_time)


COMPILERS: Final[dict[type[Tx], Callable[[Any, Context], Plan]]] = {
    Transfer: _transfer,
    Batch: _batch,
    Hold: _hold,
    Capture: _capture,
    Release: _release,
    Expire: _expire,
    Dispute: _dispute,
    Resolve: _resolve,
    Challenge: _challenge,
    Deliver: _deliver,
    Stake: _stake,
    Unstake: _unstake,
    Slash: _slash,
    Mint: _mint,
    Faucet: _faucet,
    Grant: _grant,
    Revoke: _revoke,
    KeyRotate: _rotate,
    PolicySet: _policy,
}
NEEDS_NO_FEE: Final = frozenset({Release, Expire, Challenge, Deliver})
"""They end what a fee was paid for when it began; nobody should need money for that."""
