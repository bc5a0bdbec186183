"""Who may act for an account: its policy, a session key of it, the key that comes in, who pays.

The signatures of a transaction stand in this order, and there is none too many:

1. those of the account's policy (exactly as many as it asks for, sorted by key), or the one of a
   session key;
2. that of the new key, when one is rotated in: it proves that somebody has it. The old key is among
   those before: another key of the account removes it by a policy, which waits if it weakens;
3. what the policy of the fee payer asks for and is not there already, sorted by key.
"""

from __future__ import annotations

from wallet.errors import NotAuthorisedError, SessionExpiredError, UnknownSessionError
from wallet.state import Account, Policy, Session, State
from wallet.transactions import KeyRotate, Signed


def authorise(state: State, signed: Signed, log_time: int) -> Session | None:
    """Return the session that a transaction is signed by, or ``None`` if by the account itself.

    Raises:
        UnknownSessionError, SessionExpiredError: no key of the account's, nor of a session.
        NotAuthorisedError: the signatures are not exactly those that are asked for.
    """
    tx, signers = signed.tx, signed.signers
    account = state.accounts.get(tx.account)
    alone = signers == (tx.account,) and tx.fee_payer is None and type(tx) is not KeyRotate
    if alone and (account is None or (account.policy is None and account.pending is None)):
        return None  # an account that never had another key than its own, by that
    policy = policy_of(account, tx.account, log_time)
    session = None
    own = 1
    if signers[0] in policy.keys:
        own = policy.threshold
        _check_signers(signers[:own], policy, own)
    else:
        session = _session_of(account, signers[0], log_time)
    rest = signers[own:]
    if type(tx) is KeyRotate:
        if session is None and tx.old in policy.keys and tx.old not in signers[:own]:
            raise NotAuthorisedError("the old key signs for its own successor")
        if not rest or rest[0] != tx.new:
            raise NotAuthorisedError("the new key signs after the account's")
        rest = rest[1:]
    if tx.fee_payer is None:
        if rest:
            raise NotAuthorisedError("more keys signed than were asked")
    else:
        payer = policy_of(state.accounts.get(tx.fee_payer), tx.fee_payer, log_time)
        there = len(set(signers[: len(signers) - len(rest)]).intersection(payer.keys))
        _check_signers(rest, payer, max(0, payer.threshold - there))
    return session


def policy_of(account: Account | None, name: str, log_time: int) -> Policy:
    """Return the policy of an account that may not exist yet: its own key."""
    return account.policy_at(log_time) if account is not None else Policy((name,), 1)


def _check_signers(signers: tuple[str, ...], policy: Policy, wanted: int) -> None:
    if len(signers) != wanted:
        raise NotAuthorisedError(f"{wanted} signatures are asked for, not {len(signers)}")
    if not set(signers) <= set(policy.keys) or list(signers) != sorted(signers):
        raise NotAuthorisedError("the signatures are not those of the policy's keys, sorted")


def _session_of(account: Account | None, key: str, log_time: int) -> Session:
    session = account.sessions_at(log_time).get(key) if account is not None else None
    if session is None:
        raise UnknownSessionError("the signer is no key of the account and has no session of it")
    if log_time >= session.expires:
        raise SessionExpiredError(f"the session ended at {session.expires}")
    return session
