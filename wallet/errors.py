"""What can go wrong with a payment: one class for each stable code.

* ``outcome`` says what the ledger answers: ``invalid`` (never valid), ``refused`` (not now, and
  remembered for these bytes until ``valid_until``, within an account's share: see
  :mod:`wallet.refusals`), ``conflict`` or ``retry``.
* :func:`error_for` turns an answer back into its class, so that a client catches
  :class:`InsufficientFundsError` whether the ledger is in its process or across the network.

    >>> error_for("insufficient_funds", "2 fals short")
    InsufficientFundsError('2 fals short')
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Final, Literal

from rahba.errors import Fact, LocalError, RahbaError, RemoteError

Failure = Literal["conflict", "retry", "invalid", "refused"]


class PaymentRefusedError(LocalError):
    """The ledger did not take a transaction; ``code`` says why."""

    code = "payment_refused"
    outcome: ClassVar[Failure] = "refused"


class InvalidTransactionError(PaymentRefusedError):
    """A transaction that can never become valid."""

    code = "invalid_transaction"
    outcome = "invalid"


class WrongChainError(InvalidTransactionError):
    """The transaction is for another ledger."""

    code = "wrong_chain"
    hint = "ask the ledger for its chain id and sign again"


class TransactionExpiredError(InvalidTransactionError):
    """The ledger's time is past the transaction's ``valid_until``."""

    code = "expired"
    hint = "it will never be taken any more: sign a fresh one"


class UnknownAccountError(InvalidTransactionError):
    """An account's name is not the ``did:key`` of a valid key."""

    code = "unknown_account"


class SelfPaymentError(InvalidTransactionError):
    """An account pays itself."""

    code = "self_payment"


class WrongSignersError(InvalidTransactionError):
    """The signatures are not exactly the actor's and, if there is one, the fee payer's."""

    code = "wrong_signers"


class BadThresholdError(InvalidTransactionError):
    """A policy asks for more keys than it names, or does not name each once, in order."""

    code = "bad_threshold"


class BadArbitrationError(InvalidTransactionError):
    """The arbiter of a hold is a party to it."""

    code = "bad_arbitration"


class BadRecourseError(InvalidTransactionError):
    """A hold has an arbiter or a recourse, not both."""

    code = "bad_recourse"


class BadPartError(PaymentRefusedError):
    """A delivery is logged part after part, each once, and all say how many there are."""

    code = "bad_part"


class WrongReceiptError(PaymentRefusedError):
    """It is not the payee's receipt for the hold's agreement that the capture named."""

    code = "wrong_receipt"


class BadEvidenceError(InvalidTransactionError):
    """What is offered as evidence does not prove a fault of the offender's."""

    code = "bad_evidence"


class ReservedTypeError(InvalidTransactionError):
    """Only the ledger itself writes records of this type."""

    code = "reserved_type"


class InsufficientFundsError(PaymentRefusedError):
    """An account would pay more than is available: posted minus held."""

    code = "insufficient_funds"
    hint = "on network rahba:dev the faucet gives test money"


class FeeTooLowError(PaymentRefusedError):
    """The offered fee is below the flat fee of the genesis."""

    code = "fee_too_low"


class BadExpiryError(PaymentRefusedError):
    """A hold or a session ends in the past, or later than the ledger allows."""

    code = "bad_expiry"


class UnknownHoldError(PaymentRefusedError):
    """No hold has that id."""

    code = "unknown_hold"


class HoldResolvedError(PaymentRefusedError):
    """The hold was captured or released before."""

    code = "hold_resolved"


class HoldExpiredError(PaymentRefusedError):
    """The hold's time is over; what is left goes back to its payer."""

    code = "hold_expired"


class BadPledgeError(PaymentRefusedError):
    """The payee did not sign it, its time is over, or its account is not its key's alone."""

    code = "bad_pledge"


class PledgeUsedError(PaymentRefusedError):
    """A pledge stands for one hold, and there was one."""

    code = "pledge_used"


class PledgeUnbackedError(PaymentRefusedError):
    """The payee pledged money that it does not have."""

    code = "pledge_unbacked"
    hint = "buy from another seller, or hold without its pledge"


class ExceedsHoldError(PaymentRefusedError):
    """A capture asks for more than is left in the hold."""

    code = "exceeds_hold"


class NotPayeeError(PaymentRefusedError):
    """Only the payee of a hold captures it."""

    code = "not_payee"


class NotExpiredError(PaymentRefusedError):
    """The time of a hold, of a dispute or of a stake is not over yet."""

    code = "not_expired"


class DisputedError(PaymentRefusedError):
    """The hold is in dispute: it waits for its arbiter, or for the deadline."""

    code = "disputed"


class NotDisputedError(PaymentRefusedError):
    """The hold is not in dispute."""

    code = "not_disputed"


class NoArbiterError(PaymentRefusedError):
    """The hold names no arbiter, so it cannot be disputed."""

    code = "no_arbiter"


class NotArbiterError(PaymentRefusedError):
    """Only the arbiter whom the hold names resolves its dispute."""

    code = "not_arbiter"


class NotPartyError(PaymentRefusedError):
    """Only payer and payee of a hold dispute it, and only its payer challenges a capture."""

    code = "not_party"


class NotFinalError(PaymentRefusedError):
    """A hold with a recourse is captured once, and nothing is left in it."""

    code = "not_final"


class NotContestableError(PaymentRefusedError):
    """Nothing was captured that may be challenged, or the time for it is over."""

    code = "not_contestable"


class ChallengedError(PaymentRefusedError):
    """The hold is challenged: it waits for its payee to deliver, or for the deadline."""

    code = "challenged"


class NotChallengedError(PaymentRefusedError):
    """The hold is not challenged."""

    code = "not_challenged"


class BadSplitError(PaymentRefusedError):
    """An arbiter splits exactly what is left of the hold."""

    code = "bad_split"


class DeadlinePassedError(PaymentRefusedError):
    """The arbiter's time is over: the default split applies. Or that to deliver is."""

    code = "deadline_passed"


class InsufficientStakeError(PaymentRefusedError):
    """The account has not staked that much."""

    code = "insufficient_stake"


class UnbondingError(PaymentRefusedError):
    """That part of the stake is being taken back already, or too many parts are."""

    code = "unbonding"


class NoBondError(PaymentRefusedError):
    """The offender has no bond that could be taken."""

    code = "no_bond"


class EvidenceUsedError(PaymentRefusedError):
    """The fault was punished before."""

    code = "evidence_used"


class NotMinterError(PaymentRefusedError):
    """Only the operator whom the genesis names mints."""

    code = "not_minter"


class NotAuthorisedError(PaymentRefusedError):
    """The signatures are not exactly those that the policies of the accounts ask for."""

    code = "not_authorised"


class UnknownKeyError(PaymentRefusedError):
    """The key to be rotated out is none of the account's, or the new one is already."""

    code = "unknown_key"


class FixedKeyError(PaymentRefusedError):
    """The operator's key is in the genesis: it is neither rotated nor shared."""

    code = "fixed_key"


class CapExceededError(PaymentRefusedError):
    """More would be issued than the genesis allows."""

    code = "cap_exceeded"


class UnknownSessionError(PaymentRefusedError):
    """The signing key is neither the account's own nor one it granted a session to."""

    code = "unknown_session"


class SessionExpiredError(PaymentRefusedError):
    """The session of the signing key is over."""

    code = "session_expired"


class OutOfScopeError(PaymentRefusedError):
    """The session does not cover this type, payee or amount."""

    code = "out_of_scope"


class BudgetExceededError(PaymentRefusedError):
    """The session's budget would be exceeded, fees included."""

    code = "budget_exceeded"


class TooManySessionsError(PaymentRefusedError):
    """The account has as many sessions as the ledger allows; revoke one."""

    code = "too_many_sessions"


class NonceConflictError(PaymentRefusedError):
    """Other bytes were logged under the same lane and sequence number."""

    code = "nonce_conflict"
    outcome = "conflict"


class NonceGapError(PaymentRefusedError):
    """An earlier sequence number of the lane is still missing."""

    code = "nonce_gap"
    retryable = True
    outcome = "retry"


class TooEarlyError(PaymentRefusedError):
    """``valid_until`` lies further ahead than the ledger remembers."""

    code = "too_early"
    retryable = True
    outcome = "retry"


class LedgerBusyError(PaymentRefusedError):
    """The ledger's queue is full."""

    code = "busy"
    retryable = True
    outcome = "retry"


class PaymentUnknownError(RemoteError):
    """Nobody could be asked whether the payment went through; ``facts["id"]`` names it.

    Sending the same bytes again is safe: they are executed once at most.
    """

    code = "payment_unknown"
    retryable = True
    hint = "ask the ledger for the transaction by its id once it can be reached"


class LedgerUnavailableError(RemoteError):
    """The ledger cannot be reached or has stopped; what it did not answer may still be logged."""

    code = "ledger_unavailable"
    retryable = True


class StoreError(RemoteError):
    """The disk did not take or give what the ledger asked."""

    code = "store_failed"


class StoreLockedError(StoreError):
    """Another process writes to this store."""

    code = "store_locked"
    hint = "one sequencer a ledger: stop the other one, or start this one with --standby"


class FencedError(StoreError):
    """Another sequencer took this store over; this one must stop."""

    code = "fenced"
    hint = "it was silent and taken for dead: look why; it may be started again with --standby"


class StoreVersionError(StoreError):
    """The ledger was stored by another release, in another form."""

    code = "store_version"
    hint = "run the release that wrote it, or start in another data folder"


class LedgerCorruptError(RemoteError):
    """The stored log does not lead to its recorded state; ``facts["seq"]`` is the first place."""

    code = "ledger_corrupt"
    hint = "do not start on this file: restore a copy that `rahba ledger verify` accepts"


class WrongGenesisError(LocalError):
    """The stored ledger has another network or operator than the one it is to be run by."""

    code = "wrong_genesis"


class InvariantError(RahbaError):
    """The machine is about to break one of its own rules: a defect; the ledger stops."""

    code = "invariant_broken"


class KeystoreError(LocalError):
    """A key file is missing, damaged, readable by others, or the passphrase is wrong."""

    code = "keystore"


def error_for(code: str, message: str = "", **facts: Fact) -> PaymentRefusedError:
    """Return the error that stands for a refusal code; an unknown code gets its own class."""
    return _class_for(code)(message, **facts)


@lru_cache(maxsize=256)
def _class_for(code: str) -> type[PaymentRefusedError]:
    for known in _descendants(PaymentRefusedError):
        if known.code == code:
            return known
    return type("PaymentRefusedError", (PaymentRefusedError,), {"code": code})


def _descendants(root: type[PaymentRefusedError]) -> list[type[PaymentRefusedError]]:
    return [item for child in root.__subclasses__() for item in (child, *_descendants(child))]


_REFUSALS: Final = frozenset(
    kind.code for kind in _descendants(PaymentRefusedError) if kind.outcome == "refused"
)


def is_refusal(code: str) -> bool:
    """Say whether a ledger refuses with that code, for as long as it remembers."""
    return code in _REFUSALS
