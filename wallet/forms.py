"""What a transaction may say: everything that no state of the ledger could make valid is refused.

:func:`check_form` judges a record by itself, :func:`check_signatures` verifies what it is signed
with, :func:`open_transaction` does all from the bytes on. Nothing here knows a balance, a key that
was rotated in or a policy: those are :mod:`wallet.machine`'s.

    >>> from rahba.envelope import Signer
    >>> from wallet.transactions import EXPIRING_LANE, Faucet, dev_genesis, seal_transaction
    >>> signer, genesis = Signer(bytes(32)), dev_genesis(Signer(bytes(32)).did, 0)
    >>> tx = Faucet(account=signer.did, chain=genesis.chain, fee="1000", fee_payer=None,
    ...             lane=EXPIRING_LANE, seq=7, valid_until=60_000, amount="5000")
    >>> open_transaction(seal_transaction(tx, signer), genesis.chain).tx == tx
    True
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from rahba.encoding import unb64
from rahba.envelope import pae, verify_pae
from rahba.errors import RahbaError
from rahba.ids import BadIdError, check_digest, key_of
from rahba.messages import TX_TYPE
from rahba.money import BadAmountError, parse_fals
from rahba.pledge import Pledge, check_pledge
from wallet.errors import (
    BadArbitrationError,
    BadPartError,
    BadPledgeError,
    BadRecourseError,
    BadThresholdError,
    SelfPaymentError,
    UnknownAccountError,
    WrongChainError,
    WrongSignersError,
)
from wallet.faults import fault_of
from wallet.transactions import (
    AnyTx,
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
    Signed,
    Slash,
    Stake,
    Transfer,
    Tx,
    Unstake,
    read,
)


def check_signatures(signed: Signed) -> None:
    """Verify every signature of the envelope (libsodium's rule; see :mod:`rahba.envelope`).

    A pledge that a hold carries is verified, too: made out to whoever signed the hold first.
    """
    message = pae(TX_TYPE, signed.payload)
    for signer, signature in zip(signed.signers, signed.signatures, strict=True):
        verify_pae(signer, message, signature)
    tx = signed.record
    if type(tx) is Hold and tx.bail is not None:
        pledge = Pledge(
            chain=tx.chain,
            agreement=tx.agreement,
            buyer=signed.signers[0],
            seller=tx.payee,
            amount=tx.bail.amount,
            until=tx.bail.until,
        )
        try:
            check_pledge(pledge, tx.bail.signature)
        except RahbaError as error:
            raise BadPledgeError("the payee did not sign for its bail") from error


def check_form(signed: Signed, chain: str) -> AnyTx:
    """Refuse what no state of the ledger could make valid; returns the transaction.

    1. It is a transaction, of this chain, by an account that can sign.
    2. Nobody signs twice.
    3. The fee payer is another account; amounts, names and digests are well formed.
    """
    tx = signed.tx  # 1
    if tx.chain != chain:
        raise WrongChainError("the transaction is for another ledger", chain=chain)
    check_account(tx.account)
    signers = signed.signers
    if len(signers) > 1 and len(set(signers)) != len(signers):  # 2
        raise WrongSignersError("a key signs once")
    if tx.fee_payer is not None:  # 3
        check_account(tx.fee_payer)
        if tx.fee_payer == tx.account:
            raise WrongSignersError("fee_payer names another account, or is null")
    _amount(tx.fee)
    _FORMS[type(tx)](tx)
    return tx


def open_transaction(raw: bytes, chain: str) -> Signed:
    """Read, check and verify one transaction; see the functions this calls."""
    signed = read(raw)
    check_form(signed, chain)
    check_signatures(signed)
    return signed


def check_account(name: str) -> str:
    """Return ``name`` if it is the ``did:key`` of a valid key."""
    try:
        key_of(name)
    except BadIdError as error:
        raise UnknownAccountError(f"not an account: {error}") from error
    return name


_amount = lru_cache(maxsize=4_096)(parse_fals)  # fees are all alike, and so are many prices


def _positive(text: str) -> None:
    if _amount(text) == 0:
        raise BadAmountError("an amount of nothing")


def _payment(account: str, payee: str, amount: str) -> None:
    check_account(payee)
    if payee == account:
        raise SelfPaymentError("an account does not pay itself")
    _positive(amount)


def _transfer(tx: Transfer) -> None:
    _payment(tx.account, tx.to, tx.amount)


def _batch(tx: Batch) -> None:
    """Many payments are much alike: each payee and each amount is looked at once."""
    payees = {item.to for item in tx.items}
    if tx.account in payees:
        raise SelfPaymentError("an account does not pay itself")
    for payee in payees:
        check_account(payee)
    for amount in {item.amount for item in tx.items}:
        _positive(amount)


def _hold(tx: Hold) -> None:
    _payment(tx.account, tx.payee, tx.amount)
    check_digest(tx.agreement)
    if tx.bail is not None:
        _positive(tx.bail.amount)
    if tx.arbitration is not None:
        check_account(tx.arbitration.arbiter)
        if tx.arbitration.arbiter in {tx.account, tx.payee}:
            raise BadArbitrationError("nobody decides in a case of their own")
        if tx.recourse is not None:
            raise BadRecourseError("where an arbiter decides, nothing is challenged")


def _capture(tx: Capture) -> None:
    check_digest(tx.hold)
    _amount(tx.amount)
    if tx.receipt is not None:
        check_digest(tx.receipt)


def _release(tx: Release) -> None:
    check_digest(tx.hold)
    _amount(tx.forfeit)


def _about_a_hold(tx: Dispute | Challenge) -> None:
    check_digest(tx.hold)


def _deliver(tx: Deliver) -> None:
    check_digest(tx.hold)
    if tx.part > tx.parts:
        raise BadPartError("there are fewer parts than that")
    if tx.output is not None:
        unb64(tx.output)
    elif tx.parts > 1:
        raise BadPartError("that the buyer left takes one part")


def _expire(tx: Expire) -> None:
    check_digest(tx.subject)


def _resolve(tx: Resolve) -> None:
    check_digest(tx.hold)
    _amount(tx.to_payee)
    _amount(tx.to_payer)


def _slash(tx: Slash) -> None:
    check_account(tx.offender)
    if tx.offender == tx.account:
        raise SelfPaymentError("nobody is rewarded for reporting themselves")
    fault_of(tx.offender, tx.evidence)


def _mint(tx: Mint) -> None:
    check_account(tx.to)
    _positive(tx.amount)


def _own_amount(tx: Faucet | Stake | Unstake) -> None:
    _positive(tx.amount)


def _grant(tx: Grant) -> None:
    check_account(tx.key)
    if tx.key == tx.account:
        raise WrongSignersError("an account's own key needs no session")
    _amount(tx.budget)
    _amount(tx.per_tx)
    for payee in tx.payees or ():
        check_account(payee)


def _revoke(tx: Revoke) -> None:
    check_account(tx.key)


def _rotate(tx: KeyRotate) -> None:
    check_account(tx.old)
    check_account(tx.new)
    if tx.old == tx.new:
        raise WrongSignersError("a key is not its own successor")


def _policy(tx: PolicySet) -> None:
    for key in tx.keys:
        check_account(key)
    if list(tx.keys) != sorted(set(tx.keys)):
        raise BadThresholdError("the keys of a policy are sorted, each named once")
    if tx.threshold > len(tx.keys):
        raise BadThresholdError("a policy asks for more keys than it names")


_FORMS: Final[dict[type[Tx], Callable[[Any], None]]] = {
    Transfer: _transfer,
    Batch: _batch,
    Hold: _hold,
    Capture: _capture,
    Release: _release,
    Expire: _expire,
    Dispute: _about_a_hold,
    Challenge: _about_a_hold,
    Deliver: _deliver,
    Resolve: _resolve,
    Stake: _own_amount,
    Unstake: _own_amount,
    Slash: _slash,
    Mint: _mint,
    Faucet: _own_amount,
    Grant: _grant,
    Revoke: _revoke,
    KeyRotate: _rotate,
    PolicySet: _policy,
}
