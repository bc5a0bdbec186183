"""What is said on the market: every signed document, field by field.

All are frozen ``msgspec`` Structs that refuse unknown fields. Amounts are strings of fals, times
are milliseconds since the Unix epoch, digests are SHA-256 in hex. Free text is capped.

A message travels as ``{v, id, thread, seq, prev, type, from, to, ts, reply_by, body}``, signed
by ``from`` (see :func:`open_message` for what is checked). One thread joins one buyer and one
seller; the threads of one request share its ``group``.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec

from rahba.encoding import MAX_INT, canonical, decode_as, rewrite, sha256_hex, shape
from rahba.envelope import Signer, open_envelope, seal_together
from rahba.errors import (
    BadSignatureError,
    EnvelopeExpiredError,
    RahbaError,
    WrongAudienceError,
)
from rahba.ids import check_id, check_skill
from rahba.money import parse_fals

MESSAGE_TYPE: Final = "application/vnd.rahba.message+json"
AGREEMENT_TYPE: Final = "application/vnd.rahba.agreement+json"
RECEIPT_TYPE: Final = "application/vnd.rahba.receipt+json"
CARD_TYPE: Final = "application/vnd.rahba.card+json"
TX_TYPE: Final = "application/vnd.rahba.tx+json"
MARKET_EXTENSION: Final = "urn:rahba:ext:market:v1"

MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
MAX_CARD_BYTES: Final = 64 * 1024
MAX_TIERS: Final = 8
CLOCK_SKEW_MS: Final = 30_000
_REMEMBERED: Final = 4_096
_REMEMBERED_BYTES: Final = 8 * 1024

Name = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Mode = Literal["posted", "tender", "bargain"]
Signature = Annotated[str, msgspec.Meta(max_length=88)]
Amount = Annotated[str, msgspec.Meta(max_length=19)]


class Doc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed document: immutable, every field known."""


@lru_cache(maxsize=2_048)
def _written(document: Doc) -> tuple[bytes, str]:
    """Return the canonical bytes of a document, and their digest."""
    raw = canonical(document)
    return raw, sha256_hex(raw)


class Energy(Doc, frozen=True):
    """Energy of one call in micro-watt-hours with its interval and how it is known."""

    uwh: Count = 0
    low: Count = 0
    high: Count = 0
    method: Literal["measured", "modelled", "declared", "unknown"] = "unknown"


class Issues(Doc, frozen=True):
    """What is bargained over. ``price`` in fals a ``unit``; ``quality`` in thousandths."""

    price: Amount
    unit: Literal["call"] = "call"
    latency_ms: Millis = 60_000
    quality: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 500
    privacy: Literal["sealed", "logged", "public"] = "sealed"
    energy: Energy = Energy()

    @property
    def price_fals(self) -> int:
        """Return the price as an integer of fals."""
        return parse_fals(self.price)


class Offer(Doc, frozen=True, cache_hash=True):
    """Terms that bind whoever signs them until ``valid_until``; the ``salt`` makes it unique.

    ``penalty`` (fals, at most the price) is what leaving the deal costs whoever leaves: the seller
    puts it up (:mod:`rahba.pledge`) when it bargains or answers a tender, the buyer pays it out of
    the hold.
    """

    skill: Name
    issues: Issues
    valid_until: Millis
    salt: Name
    qty: Literal[1] = 1
    firm: bool = True
    penalty: Amount = "0"
    mandate_digest: Name | None = None

    def digest(self) -> str:
        """Return the digest that ``accept`` and ``withdraw`` name."""
        return _written(self)[1]


class Agreement(Doc, frozen=True):
    """What both sides sign; its digest is the deal id that holds and receipts name."""

    thread: str
    group: str
    buyer: str
    seller: str
    offer: Offer
    input_digest: str
    v: Literal[1] = 1

    def encoded(self) -> bytes:
        """Return the canonical bytes that both sides sign."""
        return _written(self)[0]

    def digest(self) -> str:
        """Return the deal id."""
        return _written(self)[1]


class Usage(Doc, frozen=True):
    """What the work took, as metered by its host."""

    wall_ms: Count = 0
    cpu_ms: Count = 0
    bytes_in: Count = 0
    bytes_out: Count = 0


class Receipt(Doc, frozen=True):
    """The seller's signed word on what it delivered for which agreement."""

    agreement: str
    skill: Name
    buyer: str
    seller: str
    input_digest: str
    output_digest: str
    price: str
    usage: Usage
    energy: Energy
    finished: Millis
    v: Literal[1] = 1


class Order(Doc, frozen=True):
    """The buyer's job: its signature on the agreement, the hold that pays, the sealed input.

    ``depth`` is how many purchases deep the job is; ``hold`` is null only for a free job.
    ``parent`` names the agreement on whose behalf it is bought, if any.
    """

    agreement: str
    signature: str
    hold: str | None
    input: str
    deadline: Millis
    depth: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    parent: str | None = None


class Needs(Doc, frozen=True):
    """What a service must be like to be of any use; ``quality`` in thousandths.

    Said openly, so that sellers offer the tier that fits. What a buyer would pay is not in here.
    """

    max_latency_ms: Millis | None = None
    min_quality: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    privacy: Literal["sealed", "logged", "public"] = "public"
    max_energy_uwh: Count | None = None


class Cfp(Doc, frozen=True, tag_field="type", tag="cfp"):
    """A buyer opens a thread: what it wants, by its digest and size, and what it needs."""

    group: str
    skill: Name
    mode: Mode
    input_digest: str
    input_bytes: Count
    deadline: Millis
    rounds: Annotated[int, msgspec.Meta(ge=1, le=20)] = 1
    needs: Needs = Needs()


class Quote(Doc, frozen=True, tag_field="type", tag="quote"):
    """A seller's firm offer; ``pledge`` signs for its penalty (:mod:`rahba.pledge`)."""

    offer: Offer
    note: Text = ""
    pledge: Signature | None = None


class Counter(Doc, frozen=True, tag_field="type", tag="counter"):
    """The other side's firm offer in return; a seller's has a ``pledge``, as in a quote."""

    offer: Offer
    note: Text = ""
    pledge: Signature | None = None


class Accept(Doc, frozen=True, tag_field="type", tag="accept"):
    """Take the standing offer named by its digest; ``signature`` is over the agreement.

    A buyer who accepts has secured the money and sends its ``order`` along. For a posted price
    (no ``cfp`` before it) ``opening`` says what the thread is about and ``posted`` repeats the
    offer from the card, so that the thread tells everything by itself. A seller that accepts adds
    the ``pledge`` for the offer's penalty.
    """

    offer: str
    signature: str
    order: Order | None = None
    opening: Cfp | None = None
    posted: Offer | None = None
    pledge: Signature | None = None


class Job(Doc, frozen=True, tag_field="type", tag="order"):
    """The buyer's order after the seller accepted the buyer's counter-offer."""

    order: Order


class Reject(Doc, frozen=True, tag_field="type", tag="reject"):
    """The thread ends: somebody else was chosen, or no deal is in sight."""

    reason: Name
    text: Text = ""


class Refuse(Doc, frozen=True, tag_field="type", tag="refuse"):
    """A seller will not or cannot serve this request."""

    code: Name
    text: Text = ""


class Withdraw(Doc, frozen=True, tag_field="type", tag="withdraw"):
    """Take back one's own standing offer before it is accepted."""

    offer: str


class Decommit(Doc, frozen=True, tag_field="type", tag="decommit"):
    """Leave an agreement, at the price of its penalty once the money is held."""

    agreement: str
    reason: Text = ""


class Result(Doc, frozen=True, tag_field="type", tag="result"):
    """The sealed output, the signed receipt (envelope, base64), the seller's countersignature."""

    agreement: str
    signature: str
    output: str
    receipt: str


class Failure(Doc, frozen=True, tag_field="type", tag="failure"):
    """The job failed; the hold is released. ``code`` is stable, ``text`` is for people."""

    agreement: str
    code: Name
    text: Text = ""
    retryable: bool = False


class NotUnderstood(Doc, frozen=True, tag_field="type", tag="not_understood"):
    """The last message could not be processed."""

    code: Name
    text: Text = ""


Body = (
    Cfp
    | Quote
    | Counter
    | Accept
    | Job
    | Reject
    | Refuse
    | Withdraw
    | Decommit
    | Result
    | Failure
    | NotUnderstood
)


class Message(Doc, frozen=True):
    """One message of a thread.

    ``seq`` counts from 1 for each sender; ``prev`` is the digest of the last message its sender
    saw in the thread (null for the first).
    """

    id: str
    thread: str
    seq: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    prev: str | None
    sender: str = msgspec.field(name="from")
    to: str
    ts: Millis
    reply_by: Millis
    body: Body
    v: Literal[1] = 1

    @property
    def type(self) -> str:
        """Return the message type, such as ``quote``."""
        return str(self.body.__struct_config__.tag)


class SkillOffer(Doc, frozen=True):
    """One skill on a card. ``posted`` is a firm price; the schemas are JSON Schema, as text.

    ``tiers`` are other terms that can be had, each with the price that is asked for it.
    """

    skill: Name
    description: Text
    tags: Annotated[list[Name], msgspec.Meta(max_length=16)]
    posted: Offer | None
    negotiable: bool
    input_schema: Annotated[str, msgspec.Meta(max_length=16_384)]
    output_schema: Annotated[str, msgspec.Meta(max_length=16_384)]
    tiers: Annotated[list[Issues], msgspec.Meta(max_length=MAX_TIERS - 1)] = []


class Card(Doc, frozen=True):
    """Who an agent is and what it sells; signed by its key, listed under a lease of ``ttl_ms``."""

    agent: str
    name: Name
    description: Text
    version: Name
    template: Name
    skills: Annotated[list[SkillOffer], msgspec.Meta(max_length=32)]
    data_policy: Literal["sealed", "logged", "public"]
    issued: Millis
    ttl_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)]
    v: Literal[1] = 1

    def skill(self, name: str) -> SkillOffer | None:
        """Return the entry for skill ``name``, if the card has it."""
        return next((entry for entry in self.skills if entry.skill == name), None)


def seal_message(message: Message, signer: Signer) -> bytes:
    """Sign a message; the signer must be its sender."""
    (raw,) = seal_messages([message], signer)
    return raw


def seal_messages(messages: Sequence[Message], signer: Signer) -> list[bytes]:
    """Sign several messages of one sender; some of them may share a signature."""
    if any(message.sender != signer.did for message in messages):
        raise BadSignatureError("a message is signed by its sender")
    payloads, read = [], []
    for message in messages:
        payload, found = _write(message)
        payloads.append(payload)
        read.append(found)
    sealed = seal_together(MESSAGE_TYPE, payloads, signer)
    for raw, found in zip(sealed, read, strict=True):
        if found is not None:
            _remember(raw, found, sha256_hex(raw))
    return sealed


def open_message(raw: bytes, *, me: str | None, now_ms: int) -> Message:
    """Verify and decode a message for ``me`` (``None`` reads as an auditor: any audience or age).

    1. The envelope is canonical, within 2 MiB, and its one signature verifies.
    2. Every field is known and well formed; ``from`` is the signer.
    3. ``to`` is ``me``.
    4. It is not past its ``reply_by``, nor dated over 30 s in the future.

    Replays are the thread's to refuse: ids and sequence numbers are used once.
    """
    known = _KNOWN.get(raw)
    message = _verify(raw) if known is None else known[0]  # 1, 2
    if me is None:
        return message
    if message.to != me:  # 3
        raise WrongAudienceError("the message is addressed to somebody else", to=message.to)
    if message.reply_by < now_ms or message.ts > now_ms + CLOCK_SKEW_MS:  # 4
        raise EnvelopeExpiredError(
            "the message is out of its time", reply_by=message.reply_by, now=now_ms
        )
    return message


def _write(message: Message) -> tuple[bytes, Message | None]:
    """Encode a message, and return what a reader makes of the bytes; ``None``: it refuses them."""
    try:
        payload, found = rewrite(message)
        _check_names(found)
    except RahbaError:
        return canonical(message), None
    return payload, found


def _verify(raw: bytes) -> Message:
    opened = open_envelope(raw, MESSAGE_TYPE, max_bytes=MAX_MESSAGE_BYTES, together=True)
    message = _read(opened.payload)
    if opened.signers != (message.sender,):
        raise BadSignatureError("the message is not signed by its sender")
    _remember(raw, message, opened.digest)
    return message


def message_digest(raw: bytes) -> str:
    """Return the digest of a signed message, by which the next one names it in ``prev``."""
    known = _KNOWN.get(raw)
    return sha256_hex(raw) if known is None else known[1]


def _read(payload: bytes) -> Message:
    message = decode_as(payload, Message, max_bytes=MAX_MESSAGE_BYTES)
    _check_names(message)
    return message


def _check_names(message: Message) -> None:
    check_id(message.id)
    check_id(message.thread)


# The same bytes are read several times on their way: by whoever sends them, rules on them, receives
# them and keeps the thread. What verified once verifies again, and so does what we just signed.
_KNOWN: Final[OrderedDict[bytes, tuple[Message, str]]] = OrderedDict()


def _remember(raw: bytes, message: Message, digest: str) -> None:
    if len(raw) > _REMEMBERED_BYTES:
        return
    while len(_KNOWN) >= _REMEMBERED:  # several threads may do so at once
        with contextlib.suppress(KeyError):
            _ = _KNOWN.popitem(last=False)
    _KNOWN[raw] = message, digest


def open_card(raw: bytes, *, now_ms: int | None) -> Card:
    """Verify a signed card: canonical, signed by the agent it names, known skills, not expired.

    ``None`` reads a card of any age: once it is listed, its lease decides.
    """
    opened = open_envelope(raw, CARD_TYPE, max_bytes=MAX_CARD_BYTES)
    card = decode_as(opened.payload, Card)
    if opened.signers != (card.agent,):
        raise BadSignatureError("the card is not signed by the agent it names")
    if now_ms is not None and not (
        card.issued - CLOCK_SKEW_MS <= now_ms <= card.issued + card.ttl_ms
    ):
        raise EnvelopeExpiredError("the card is out of its time", issued=card.issued, now=now_ms)
    for entry in card.skills:
        check_skill(entry.skill)
        terms = [*entry.tiers, *([entry.posted.issues] if entry.posted is not None else [])]
        for issues in terms:
            _ = issues.price_fals
    return card


def open_receipt(raw: bytes, *, seller: str) -> Receipt:
    """Verify a receipt envelope signed by ``seller``."""
    opened = open_envelope(raw, RECEIPT_TYPE)
    receipt = decode_as(opened.payload, Receipt)
    if opened.signers != (seller,) or receipt.seller != seller:
        raise BadSignatureError("the receipt is not signed by the seller")
    return receipt


class Event(Doc, frozen=True):
    """A public event of the market, as told on the feed; ``data`` holds ids and figures only."""

    kind: Name
    ts: Millis
    data: dict[str, Any]


def read_event(raw: bytes) -> Event:
    """Decode an event of the feed."""
    return shape(msgspec.json.decode(raw), Event)
