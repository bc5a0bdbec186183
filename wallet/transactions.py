"""What can be written into the ledger, field by field, and how its bytes are read.

* A transaction is canonical JSON in a DSSE envelope, signed by the acting account's key or by a
  session key of it, and by the fee payer's when another account pays the fee.
* The exact envelope bytes are the log's leaf; the transaction id is their RFC 6962 leaf hash.
* Bytes must be their own re-encoding, less than 64 KiB. Every field must be present: what is not
  there is ``null``. Amounts are strings of fals, times milliseconds.
* ``genesis`` opens a log and ``state`` closes each interval; only the ledger itself writes these.

:func:`read` takes bytes apart, :func:`check_form` refuses what can never be valid,
:func:`check_signatures` verifies; :func:`open_transaction` does all three. Nothing here knows a
balance: that is :mod:`wallet.machine`'s.

    >>> from rahba.envelope import Signer
    >>> signer, genesis = Signer(bytes(32)), dev_genesis(Signer(bytes(32)).did, 0)
    >>> tx = Faucet(account=signer.did, chain=genesis.chain, fee="1000", fee_payer=None,
    ...             lane=EXPIRING_LANE, seq=7, valid_until=60_000, amount="5000")
    >>> open_transaction(seal_transaction(tx, signer), genesis.chain).tx == tx
    True
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec

from rahba.encoding import MAX_INT, digest
from rahba.envelope import Signer, seal, verify
from rahba.errors import BadEncodingError, BadSignatureError, TooLargeError, UnknownFieldError
from rahba.ids import BadIdError, check_digest, key_of
from rahba.merkle import leaf_hash
from rahba.messages import TX_TYPE
from rahba.money import FALS_PER_RHB, BadAmountError, parse_fals
from wallet.errors import (
    ReservedTypeError,
    SelfPaymentError,
    UnknownAccountError,
    WrongChainError,
    WrongSignersError,
)

EXPIRING_LANE: Final = 2**32 - 1
MAX_TX_BYTES: Final = 64 * 1024 - 1  # an entry of a C2SP bundle has a uint16 length
MAX_SIGNERS: Final = 2
MAX_ITEMS: Final = 1_000
MAX_PAYEES: Final = 64
CHAIN_CHARS: Final = 16

Lane = Annotated[int, msgspec.Meta(ge=0, le=EXPIRING_LANE)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=MAX_INT)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
Spending = Literal["transfer", "batch", "hold", "capture", "release", "faucet"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Anything in the log: immutable, every field known and present.

    Records form no cycles, so the garbage collector need not look at them (``gc=False``).
    """


class Tx(Record, frozen=True, tag_field="type"):
    """What all transactions share.

    ``account`` acts and pays; ``lane`` and ``seq`` order it: strictly +1 from 1 in each lane, but
    in ``EXPIRING_LANE`` a random salt that is used once until ``valid_until``.
    """

    account: str
    chain: str
    fee: str
    fee_payer: str | None
    lane: Lane
    seq: Seq
    valid_until: Millis


class Transfer(Tx, frozen=True, tag="transfer"):
    """Pay ``amount`` to ``to``."""

    to: str
    amount: str


class Item(Record, frozen=True):
    """One payment of a batch."""

    to: str
    amount: str


class Batch(Tx, frozen=True, tag="batch"):
    """Pay several, all or none."""

    items: Annotated[tuple[Item, ...], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]


class Hold(Tx, frozen=True, tag="hold"):
    """Set ``amount`` aside for ``payee`` until ``expires``, for the agreement of that digest."""

    payee: str
    amount: str
    expires: Millis
    agreement: str


class Capture(Tx, frozen=True, tag="capture"):
    """The payee takes ``amount`` of a hold; ``final`` frees the rest. ``receipt`` is a digest."""

    hold: str
    amount: str
    final: bool
    receipt: str | None


class Release(Tx, frozen=True, tag="release"):
    """Give a hold back: its payee at any time, anybody after it expired. Costs no fee."""

    hold: str


class Faucet(Tx, frozen=True, tag="faucet"):
    """Issue ``amount`` to the account, within the caps of the genesis."""

    amount: str


class Grant(Tx, frozen=True, tag="session.grant"):
    """Let ``key`` spend for the account until ``expires``, by these ``types`` only.

    ``budget`` is the cap in all and ``per_tx`` at once, fees included; ``payees`` null is anybody.
    """

    key: str
    budget: str
    per_tx: str
    payees: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_PAYEES)] | None
    types: Annotated[tuple[Spending, ...], msgspec.Meta(min_length=1, max_length=6)]
    expires: Millis


class Revoke(Tx, frozen=True, tag="session.revoke"):
    """End the session of ``key``."""

    key: str


class Genesis(Record, frozen=True, tag_field="type", tag="genesis"):
    """The rules of one ledger and its first leaf. Its digest names the chain."""

    network: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9.:-]{1,64}\Z")]
    operator: str
    created: Millis
    fee: str
    faucet_claim: str
    faucet_epoch: str
    epoch_ms: Annotated[int, msgspec.Meta(ge=1_000, le=MAX_INT)]

    @property
    def chain(self) -> str:
        """Return the chain id that every transaction names."""
        return digest(self)[:CHAIN_CHARS]

    @property
    def origin(self) -> str:
        """Return the origin line of the log's checkpoints."""
        return f"{self.network}/{self.chain}"


class StateLeaf(Record, frozen=True, tag_field="type", tag="state"):
    """Closes an interval: its ``log_time``, and what all before this leaf amounts to."""

    log_time: Millis
    prev_size: Millis
    root: str
    supply: str


AnyTx = Transfer | Batch | Hold | Capture | Release | Faucet | Grant | Revoke
AnyRecord = AnyTx | Genesis | StateLeaf


class Signed(msgspec.Struct, frozen=True, gc=False):
    """A record with its exact bytes. ``signers`` are in order; :func:`read` does not verify."""

    raw: bytes
    leaf: bytes
    payload: bytes
    record: AnyRecord
    signers: tuple[str, ...]
    signatures: tuple[str, ...]

    @property
    def id(self) -> str:
        """Return the transaction id: the leaf hash in hex."""
        return self.leaf.hex()

    @property
    def tx(self) -> AnyTx:
        """Return the transaction; a record that only the ledger writes is refused."""
        record = self.record
        if isinstance(record, Tx):
            return record
        raise ReservedTypeError("only the ledger itself writes this type")


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    keyid: str
    sig: str


class _Dsse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    payload: str
    payloadType: str  # noqa: N815  # DSSE's own spelling
    signatures: tuple[_Signature, ...]


_ENVELOPE: Final = msgspec.json.Decoder(_Dsse)
_RECORD: Final = msgspec.json.Decoder(AnyRecord)
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def transaction_id(raw: bytes) -> str:
    """Return the id of a transaction by its exact envelope bytes."""
    return leaf_hash(raw).hex()


def seal_transaction(record: AnyRecord, *signers: Signer) -> bytes:
    """Return the signed envelope; the actor's signature comes first, the fee payer's second."""
    return seal(TX_TYPE, record, *signers)


def read(raw: bytes) -> Signed:
    """Take envelope bytes apart without verifying a signature.

    1. Below 64 KiB; envelope and payload are canonical, with all their fields and no others.
    2. The envelope is a transaction's and has one or two signatures.

    Raises:
        TooLargeError, BadEncodingError, UnknownFieldError, BadSignatureError: accordingly.
    """
    if len(raw) > MAX_TX_BYTES:  # 1
        raise TooLargeError("transaction too large", size_bytes=len(raw), limit_bytes=MAX_TX_BYTES)
    try:
        dsse = _ENVELOPE.decode(raw)
        payload = binascii.a2b_base64(dsse.payload)
        record: AnyRecord = _RECORD.decode(payload)
    except msgspec.ValidationError as error:
        raise UnknownFieldError(str(error)) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadEncodingError(f"not a transaction: {error}") from error
    # Base64 has other spellings of the same bytes, so it is encoded again as well.
    if (
        binascii.b2a_base64(payload, newline=False) != dsse.payload.encode()
        or _ENCODER.encode(record) != payload
        or _ENCODER.encode(dsse) != raw
    ):
        raise BadEncodingError("not canonical: bytes differ from their own re-encoding")
    if dsse.payloadType != TX_TYPE:  # 2
        raise BadSignatureError("the envelope is of another type", expected=TX_TYPE)
    if not 1 <= len(dsse.signatures) <= MAX_SIGNERS:
        raise WrongSignersError("a transaction has one or two signatures")
    return Signed(
        raw,
        leaf_hash(raw),
        payload,
        record,
        tuple([item.keyid for item in dsse.signatures]),
        tuple([item.sig for item in dsse.signatures]),
    )


def check_signatures(signed: Signed) -> None:
    """Verify every signature of the envelope (libsodium's rule; see :mod:`rahba.envelope`)."""
    for signer, signature in zip(signed.signers, signed.signatures, strict=True):
        verify(signer, TX_TYPE, signed.payload, signature)


def check_form(signed: Signed, chain: str) -> AnyTx:
    """Refuse what no state of the ledger could make valid; returns the transaction.

    1. It is a transaction, of this chain, by an account that can sign.
    2. The signers are the actor and, when another account pays the fee, that account.
    3. Amounts, names and digests are well formed.
    """
    tx = signed.tx  # 1
    if tx.chain != chain:
        raise WrongChainError("the transaction is for another ledger", chain=chain)
    check_account(tx.account)
    signers, payer = signed.signers, tx.fee_payer  # 2
    if payer == tx.account:
        raise WrongSignersError("fee_payer names another account, or is null")
    if signers[1:] != (() if payer is None or payer == signers[0] else (payer,)):
        raise WrongSignersError("signatures: the actor's, then the fee payer's if there is one")
    _amount(tx.fee)  # 3
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


def dev_genesis(operator_did: str, created_ms: int) -> Genesis:
    """Return the rules of network ``rahba:dev``: test money from a faucet, a flat fee."""
    return Genesis(
        network="rahba:dev",
        operator=operator_did,
        created=created_ms,
        fee="1000",
        faucet_claim=str(1_000 * FALS_PER_RHB),
        faucet_epoch=str(1_000_000 * FALS_PER_RHB),
        epoch_ms=3_600_000,
    )


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
    for item in tx.items:
        _payment(tx.account, item.to, item.amount)


def _hold(tx: Hold) -> None:
    _payment(tx.account, tx.payee, tx.amount)
    check_digest(tx.agreement)


def _capture(tx: Capture) -> None:
    check_digest(tx.hold)
    _amount(tx.amount)
    if tx.receipt is not None:
        check_digest(tx.receipt)


def _release(tx: Release) -> None:
    check_digest(tx.hold)


def _faucet(tx: Faucet) -> None:
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


_FORMS: Final[dict[type[Tx], Callable[[Any], None]]] = {
    Transfer: _transfer,
    Batch: _batch,
    Hold: _hold,
    Capture: _capture,
    Release: _release,
    Faucet: _faucet,
    Grant: _grant,
    Revoke: _revoke,
}
