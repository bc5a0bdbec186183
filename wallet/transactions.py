"""What can be written into the ledger, field by field, and how its bytes are read.

* A transaction is canonical JSON in a DSSE envelope, signed as the acting account's policy asks
  (by its own key, at first) or by a session key of it; then by the new key, when one is rotated
  in; last as the fee payer's policy asks, when another account pays the fee.
* The exact envelope bytes are the log's leaf; the transaction id is their RFC 6962 leaf hash.
* Bytes must be their own re-encoding, less than 64 KiB. Every field is present, ``null`` if need
  be; but no recourse is left out. Amounts are strings of fals, times ms, shares basis points.
* ``genesis`` opens a log and ``state`` closes each interval; only the ledger itself writes these.

:func:`read` takes bytes apart; what they may say is :mod:`wallet.forms`', who may say it and what
it does :mod:`wallet.machine`'s.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec

from rahba.encoding import MAX_INT, digest
from rahba.envelope import Signer, seal
from rahba.errors import BadEncodingError, BadSignatureError, TooLargeError, UnknownFieldError
from rahba.merkle import leaf_hash
from rahba.messages import TX_TYPE
from rahba.money import FALS_PER_RHB
from wallet.errors import ReservedTypeError, WrongSignersError

EXPIRING_LANE: Final = 2**32 - 1
MAX_TX_BYTES: Final = 64 * 1024 - 1  # an entry of a C2SP bundle has a uint16 length
MAX_KEYS: Final = 8
MAX_SIGNERS: Final = 2 * MAX_KEYS + 1
MAX_ITEMS: Final = 1_000
MAX_PAYEES: Final = 64
MAX_PARTS: Final = 32  # of what is delivered: 1 MiB of base64 and more
CHAIN_CHARS: Final = 16

Lane = Annotated[int, msgspec.Meta(ge=0, le=EXPIRING_LANE)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=MAX_INT)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
Share = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
Place = Annotated[int, msgspec.Meta(ge=1, le=MAX_PARTS)]
Note = Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
Part = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TX_BYTES)]  # base64
_Hold = Literal["hold", "capture", "release", "expire", "dispute", "challenge", "deliver"]
Spending = Literal["transfer", "batch", _Hold, "faucet"]


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


class Arbitration(Record, frozen=True):
    """Who decides when the parties of a hold disagree, how soon, and what holds if they do not.

    ``payee_share`` (basis points, the rest is the payer's) is what applies when the arbiter has
    said nothing ``window_ms`` after the dispute began.
    """

    arbiter: str
    window_ms: Annotated[int, msgspec.Meta(ge=1_000, le=90 * 24 * 3_600_000)]
    payee_share: Share


class Recourse(Record, frozen=True):
    """For how long a capture may be challenged, and how long its payee then has to deliver.

    But for the fee what was captured is the payee's to spend when the window is over.
    """

    window_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)]
    answer_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)]


class Bail(Record, frozen=True):
    """What the payee put up: its :class:`rahba.pledge.Pledge` to the key that signs the hold first.

    ``signature`` is base64. The rest of what it is over is the hold's own.
    """

    amount: str
    until: Millis
    signature: Annotated[str, msgspec.Meta(min_length=88, max_length=88)]


class Hold(Tx, frozen=True, tag="hold", omit_defaults=True):
    """Set ``amount`` aside for ``payee`` until ``expires``, for the agreement of that digest.

    With ``bail`` the payee's pledge is set aside as well: the payer gets what of it is above all
    that was captured in the end, or as much as the payee forfeits when it gives the hold back.
    With ``recourse`` the payer may challenge what is captured.
    """

    payee: str
    amount: str
    expires: Millis
    agreement: str
    arbitration: Arbitration | None
    bail: Bail | None
    recourse: Recourse | None = None


class Capture(Tx, frozen=True, tag="capture"):
    """The payee takes ``amount`` of a hold; ``final`` frees the rest. ``receipt`` is a digest."""

    hold: str
    amount: str
    final: bool
    receipt: str | None


class Release(Tx, frozen=True, tag="release"):
    """The payee gives a hold back, disputed or not. Needs no fee.

    ``forfeit`` of its bail goes to the payer: what the two agreed on for leaving.
    """

    hold: str
    forfeit: str


class Expire(Tx, frozen=True, tag="expire"):
    """End what its time has ended, whoever asks: needs no fee, and the ledger does it by itself.

    ``subject`` is a hold past its expiry (back to the payer), a disputed one past its arbiter's
    deadline (split by the default), a challenged one that was not delivered in time (what was
    captured goes back, and of the bail what its payee has), or a stake whose delay is over.
    """

    subject: str


class Dispute(Tx, frozen=True, tag="dispute"):
    """Payer or payee freezes a hold that has an arbiter, before it expires."""

    hold: str


class Resolve(Tx, frozen=True, tag="resolve"):
    """The arbiter splits exactly what is left of a disputed hold, before its deadline."""

    hold: str
    to_payee: str
    to_payer: str


class Challenge(Tx, frozen=True, tag="challenge"):
    """The payer says that nothing was delivered, while the hold's window lasts. Needs no fee."""

    hold: str


class Deliver(Tx, frozen=True, tag="deliver"):
    """The payee of a challenged hold logs what it delivered, part after part. Needs no fee.

    ``receipt`` is its signed receipt (base64) for the hold's agreement, the one that its capture
    named; each ``output`` is base64, together what was sealed for the buyer. Without ``output`` it
    is the signed word (``decommit``) by which the buyer left, which answers for the bail and no
    more. The last of the ``parts`` makes the capture final.
    """

    hold: str
    receipt: Note
    part: Place
    parts: Place
    output: Part | None


class Stake(Tx, frozen=True, tag="stake"):
    """Set ``amount`` of the account's own aside as its bond."""

    amount: str


class Unstake(Tx, frozen=True, tag="unstake"):
    """Take ``amount`` of the bond back: free after the delay of the genesis, at risk until then."""

    amount: str


class NoteFault(Record, frozen=True, tag_field="fault", tag="notes"):
    """Two signed notes (C2SP checkpoints) of one log and size, two roots, one signer."""

    first: Note
    second: Note


class ReceiptFault(Record, frozen=True, tag_field="fault", tag="receipts"):
    """Two receipt envelopes (base64) of one seller for one agreement, with different results."""

    first: Note
    second: Note


class Slash(Tx, frozen=True, tag="slash"):
    """Take from ``offender``'s bond what its own signatures prove it forfeits.

    The account that reports it gets its share, the rest ceases to exist. One fault, one slash. The
    key that an account is named after stays liable when it is rotated away, as it still signs
    receipts; an account that does not want that takes its stake back.
    """

    offender: str
    evidence: NoteFault | ReceiptFault


class Mint(Tx, frozen=True, tag="mint"):
    """The operator issues ``amount`` to an account, within the cap of the genesis."""

    to: str
    amount: str


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
    types: Annotated[tuple[Spending, ...], msgspec.Meta(min_length=1, max_length=10)]
    expires: Millis


class Revoke(Tx, frozen=True, tag="session.revoke"):
    """End the session of ``key``."""

    key: str


class KeyRotate(Tx, frozen=True, tag="key.rotate"):
    """Put key ``new`` in the place of key ``old``, at once; both sign. Ends all sessions.

    A lost key is replaced by ``policy.set``, whose new keys wait for the delay. The account keeps
    its name, which is the ``did:key`` of its first key.
    """

    old: str
    new: str


class PolicySet(Tx, frozen=True, tag="policy.set"):
    """Let any ``threshold`` of ``keys`` (sorted) act for the account.

    At once if whoever satisfies this policy satisfies the present one as well; else after the
    delay of the genesis, unless another policy is set meanwhile. No session outlives the policy
    that it was granted by.
    """

    keys: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_KEYS)]
    threshold: Annotated[int, msgspec.Meta(ge=1, le=MAX_KEYS)]


class Genesis(Record, frozen=True, cache_hash=True, tag_field="type", tag="genesis"):
    """The rules of one ledger and its first leaf. Its digest names the chain.

    ``fee`` is flat; ``faucet_claim`` caps one claim, ``faucet_epoch`` and ``mint_epoch`` what is
    issued in each ``epoch_ms``. A stake is free ``unbond_ms`` after its unstake, a weaker policy in
    force ``policy_ms`` after it was set. A fault costs the ``slashed`` share of a bond, of which
    the ``reporter`` share goes to who reports it.
    """

    network: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9.:-]{1,64}\Z")]
    operator: str
    created: Millis
    fee: str
    faucet_claim: str
    faucet_epoch: str
    mint_epoch: str
    epoch_ms: Annotated[int, msgspec.Meta(ge=1_000, le=MAX_INT)]
    unbond_ms: Millis
    policy_ms: Millis
    slashed: Share
    reporter: Share

    @property
    def chain(self) -> str:
        """Return the chain id that every transaction names."""
        return _chain_of(self)

    @property
    def origin(self) -> str:
        """Return the origin line of the log's checkpoints."""
        return f"{self.network}/{self.chain}"


@lru_cache(maxsize=16)
def _chain_of(genesis: Genesis) -> str:
    return digest(genesis)[:CHAIN_CHARS]


class StateLeaf(Record, frozen=True, tag_field="type", tag="state"):
    """Closes an interval: its ``log_time``, and what all before this leaf amounts to."""

    log_time: Millis
    prev_size: Millis
    root: str
    supply: str


AnyTx = (
    Transfer
    | Batch
    | Hold
    | Capture
    | Release
    | Expire
    | Dispute
    | Resolve
    | Challenge
    | Deliver
    | Stake
    | Unstake
    | Slash
    | Mint
    | Faucet
    | Grant
    | Revoke
    | KeyRotate
    | PolicySet
)
AnyRecord = AnyTx | Genesis | StateLeaf


class Signed(msgspec.Struct, frozen=True, gc=False):
    """A record with its exact bytes. ``signers`` are in order; :func:`read` does not verify."""

    raw: bytes
    leaf: bytes
    payload: bytes
    record: AnyRecord
    signers: tuple[str, ...]
    signatures: tuple[bytes, ...]

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
    sig: bytes


class _Dsse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    payload: bytes
    payloadType: str  # noqa: N815  # DSSE's own spelling
    signatures: tuple[_Signature, ...]


_ENVELOPE: Final = msgspec.json.Decoder(_Dsse)
_RECORD: Final = msgspec.json.Decoder(AnyRecord)
_PAYLOAD: Final = msgspec.json.Decoder(dict[str, object])
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
    2. The envelope is a transaction's and has one signature or several, within the limit.

    Raises:
        TooLargeError, BadEncodingError, UnknownFieldError, BadSignatureError: accordingly.
    """
    if len(raw) > MAX_TX_BYTES:  # 1
        raise TooLargeError("transaction too large", size_bytes=len(raw), limit_bytes=MAX_TX_BYTES)
    try:
        dsse = _ENVELOPE.decode(raw)
        payload = dsse.payload
        record: AnyRecord = _RECORD.decode(payload)
    except msgspec.ValidationError as error:
        raise UnknownFieldError(str(error)) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadEncodingError(f"not a transaction: {error}") from error
    if _ENCODER.encode(dsse) != raw or _ENCODER.encode(record) != payload:
        raise BadEncodingError("not canonical: bytes differ from their own re-encoding")
    if dsse.payloadType != TX_TYPE:  # 2
        raise BadSignatureError("the envelope is of another type", expected=TX_TYPE)
    signatures = dsse.signatures
    if not 1 <= len(signatures) <= MAX_SIGNERS:
        raise WrongSignersError(f"a transaction has 1 to {MAX_SIGNERS} signatures")
    return Signed(
        raw,
        leaf_hash(raw),
        payload,
        record,
        tuple([item.keyid for item in signatures]),
        tuple([item.sig for item in signatures]),
    )


def payload_of(raw: bytes) -> dict[str, object]:
    """Return the payload of an envelope that :func:`read` took before; nothing is checked again.

    Raises:
        BadEncodingError: it is no envelope.
    """
    try:
        return _PAYLOAD.decode(payload_bytes(raw))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadEncodingError(f"not a transaction: {error}") from error


def payload_bytes(raw: bytes) -> bytes:
    """Return the exact bytes of that payload: canonical JSON, if :func:`read` took the envelope.

    Raises:
        BadEncodingError: it is no envelope.
    """
    try:
        return _ENVELOPE.decode(raw).payload
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadEncodingError(f"not a transaction: {error}") from error


def dev_genesis(operator_did: str, created_ms: int) -> Genesis:
    """Return the rules of network ``rahba:dev``: test money from a faucet, a flat fee."""
    return Genesis(
        network="rahba:dev",
        operator=operator_did,
        created=created_ms,
        fee="1000",
        faucet_claim=str(1_000 * FALS_PER_RHB),
        faucet_epoch=str(1_000_000 * FALS_PER_RHB),
        mint_epoch=str(100_000 * FALS_PER_RHB),
        epoch_ms=3_600_000,
        unbond_ms=24 * 3_600_000,
        policy_ms=3_600_000,
        slashed=5_000,
        reporter=1_000,
    )
