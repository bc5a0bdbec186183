"""The rules of a thread: who may say what, when; pure, and a table wherever it can be one.

``rule(record, said, now_ms)`` judges one message and returns the verdict with the thread after
it; ``rule_ending`` does so for the two facts that are no messages (payment, time-out). Both are
total functions of their arguments. The script ``rules.lua`` is their twin where races are
decided; a property test holds the two equal.

Rules, in the order in which they are checked:

1. a thread begins with a buyer's ``cfp``, or with an ``accept`` of a posted offer (``opening``);
   anything else on an unknown thread: UNKNOWN_THREAD;
2. only the buyer and the seller speak, to each other: NOT_PARTY;
3. a message id is judged once: DUP with the first verdict (other bytes under it: OUT_OF_ORDER);
4. the deal is made, or the thread has ended: CLOSED; the step is not the sender's: OUT_OF_TURN;
5. each side counts its messages 1, 2, 3 ...: OUT_OF_ORDER;
6. past its own ``reply_by``, the other side's ``reply_by`` (offers), or the deadline: LATE;
7. more than 32 messages or ``rounds`` offers (at most 20) a side: ROUND_LIMIT;
8. ``accept`` names the other side's standing offer: NO_STANDING_OFFER, OFFER_CHANGED,
   OFFER_EXPIRED; what follows names the agreement that this offer makes: OFFER_CHANGED.

    >>> cfp = Said(id="1" * 32, digest="d", sender="b", to="s", type="cfp", seq=1, reply_by=50,
    ...            mode="tender", rounds=1, deadline=90)
    >>> ruled = rule(None, cfp, 10)
    >>> ruled.verdict, ruled.record.state
    ('OK', 'open')
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal

import msgspec

from broker.ports import ThreadState, Verdict

Role = Literal["buyer", "seller"]
EndingKind = Literal["settled", "failed", "expired", "closed"]

MAX_MESSAGES_A_SIDE: Final = 32
MAX_SEEN: Final = 128
MAX_REPEATS: Final = 8

#: (state, who, message type) -> the state after it. What is not here is not allowed.
STEPS: Final[dict[tuple[ThreadState, Role, str], ThreadState]] = {
    ("open", "seller", "quote"): "open",
    ("open", "seller", "counter"): "open",
    ("open", "buyer", "counter"): "open",
    ("open", "buyer", "withdraw"): "open",
    ("open", "seller", "withdraw"): "open",
    ("open", "buyer", "accept"): "held",
    ("open", "seller", "accept"): "agreed",
    ("open", "buyer", "reject"): "closed",
    ("open", "seller", "reject"): "closed",
    ("open", "seller", "refuse"): "closed",
    ("open", "buyer", "not_understood"): "open",
    ("open", "seller", "not_understood"): "open",
    ("agreed", "buyer", "order"): "held",
    ("agreed", "buyer", "decommit"): "decommitted",
    ("agreed", "seller", "decommit"): "decommitted",
    ("agreed", "seller", "failure"): "failed",
    ("agreed", "buyer", "not_understood"): "agreed",
    ("agreed", "seller", "not_understood"): "agreed",
    ("held", "seller", "result"): "delivered",
    ("held", "seller", "failure"): "failed",
    ("held", "buyer", "decommit"): "decommitted",
    ("held", "seller", "decommit"): "decommitted",
    ("held", "buyer", "not_understood"): "held",
    ("held", "seller", "not_understood"): "held",
}

#: How a thread ends without a message, and from which states.
ENDINGS: Final[dict[EndingKind, frozenset[ThreadState]]] = {
    "settled": frozenset({"delivered"}),
    "failed": frozenset({"open", "agreed", "held", "delivered"}),
    "expired": frozenset({"open", "agreed", "held"}),
    "closed": frozenset({"open"}),
}

ENDED: Final[frozenset[ThreadState]] = frozenset(
    {"delivered", "settled", "expired", "closed", "failed", "decommitted"}
)
BARGAINING: Final = frozenset({"cfp", "quote", "counter", "accept", "reject", "refuse", "withdraw"})
OFFERING: Final = frozenset({"quote", "counter"})
BINDING: Final = frozenset({"order", "result", "failure", "decommit"})


class Said(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a verified message says, as far as the rules care.

    ``digest`` is the envelope's. ``offer`` is the digest of the offer made, taken or withdrawn;
    ``makes`` the digest of the agreement that an offer (or the posted offer) would make;
    ``agreement`` the one that the message names. ``posted`` is the digest of the seller's posted
    offer as its live card has it ("" if none); ``deadline`` that of the cfp or order.
    """

    id: str
    digest: str
    sender: str
    to: str
    type: str
    seq: int
    reply_by: int
    group: str = ""
    skill: str = ""
    mode: str = ""
    rounds: int = 0
    deadline: int = 0
    input_digest: str = ""
    opening: bool = False
    offer: str = ""
    valid_until: int = 0
    price: str = ""
    makes: str = ""
    posted: str = ""
    ordered: bool = False
    agreement: str = ""
    hold: str = ""
    receipt: str = ""
    code: str = ""


class Ending(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How the thread ended apart from its messages.

    ``paid`` (fals) and ``tx`` when settled; ``code`` says why it was closed.
    """

    kind: EndingKind
    code: str = ""
    paid: str = ""
    tx: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a thread: what it said last, and its standing offer (``offer`` "" if none)."""

    seq: int = 0
    offers: int = 0
    reply_by: int = 0
    offer: str = ""
    until: int = 0
    price: str = ""
    makes: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """The first verdict on a message id, the bytes it was about, and how often they came again."""

    verdict: Verdict
    digest: str
    repeats: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRecord:
    """A thread as the rules see it."""

    buyer: str
    seller: str
    group: str
    skill: str
    mode: str
    rounds: int
    deadline: int
    input_digest: str
    opened_ms: int
    state: ThreadState = "open"
    turn: Role = "seller"
    asked: str = ""
    agreed: str = ""
    agreement: str = ""
    hold: str = ""
    receipt: str = ""
    code: str = ""
    agreed_ms: int = 0
    delivered_ms: int = 0
    settled_ms: int = 0
    paid: str = ""
    tx: str = ""
    messages: int = 1
    buyer_side: Side = Side()
    seller_side: Side = Side()
    seen: dict[str, Seen] = field(default_factory=dict)

    def side(self, role: Role) -> Side:
        """Return one side."""
        return self.buyer_side if role == "buyer" else self.seller_side

    def role(self, sender: str, to: str) -> Role | None:
        """Return who speaks, or ``None`` for a stranger (or somebody talking past the other)."""
        if (sender, to) == (self.buyer, self.seller):
            return "buyer"
        if (sender, to) == (self.seller, self.buyer):
            return "seller"
        return None


class Header(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A thread as it is stored and shown: its record with both sides, flat.

    ``messages`` is how many of them stand.
    """

    buyer: str
    seller: str
    group: str = ""
    skill: str = ""
    mode: str = ""
    rounds: int = 0
    deadline: int = 0
    input_digest: str = ""
    opened_ms: int = 0
    state: ThreadState = "open"
    turn: Role = "seller"
    asked: str = ""
    agreed: str = ""
    agreement: str = ""
    hold: str = ""
    receipt: str = ""
    code: str = ""
    agreed_ms: int = 0
    delivered_ms: int = 0
    settled_ms: int = 0
    paid: str = ""
    tx: str = ""
    messages: int = 1
    buyer_seq: int = 0
    buyer_offers: int = 0
    buyer_reply_by: int = 0
    buyer_offer: str = ""
    buyer_until: int = 0
    buyer_price: str = ""
    buyer_makes: str = ""
    seller_seq: int = 0
    seller_offers: int = 0
    seller_reply_by: int = 0
    seller_offer: str = ""
    seller_until: int = 0
    seller_price: str = ""
    seller_makes: str = ""


_SIDE: Final = tuple(entry.name for entry in fields(Side))
_OWN: Final = tuple(
    entry.name
    for entry in fields(ThreadRecord)
    if entry.name not in {"buyer_side", "seller_side", "seen"}
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict and the thread after it (``None``: still unknown).

    ``deliver`` says whether the recipient is to get the message (again).
    """

    verdict: Verdict
    record: ThreadRecord | None
    first: Verdict | None = None
    deliver: bool = False


def other(role: Role) -> Role:
    """Return the other side."""
    return "seller" if role == "buyer" else "buyer"


def rule(record: ThreadRecord | None, said: Said, now_ms: int) -> Decision:
    """Judge one message by the rules above."""
    if record is None:
        return _begin(said, now_ms)
    role = record.role(said.sender, said.to)
    if role is None:
        return Decision("NOT_PARTY", record)
    before = record.seen.get(said.id)
    if before is not None:
        return _again(record, said, before)
    verdict = _judge(record, said, role, now_ms)
    after = _apply(record, said, role, now_ms) if verdict == "OK" else record
    return Decision(verdict, _note(after, said, verdict), deliver=verdict == "OK")


def rule_ending(record: ThreadRecord | None, ending: Ending, now_ms: int) -> Decision:
    """Judge an ending; repeating the one that stands is a DUP of OK."""
    if record is None:
        return Decision("UNKNOWN_THREAD", None)
    if record.state == ending.kind:
        same = ending.kind != "settled" or record.tx == ending.tx
        return Decision("DUP", record, first="OK") if same else Decision("CLOSED", record)
    if record.state not in ENDINGS[ending.kind]:
        return Decision("CLOSED" if record.state in ENDED else "OUT_OF_TURN", record)
    if ending.kind == "expired" and record.state == "held" and now_ms < record.deadline:
        return Decision("OUT_OF_TURN", record)
    if ending.kind == "settled":
        return Decision(
            "OK",
            replace(record, state="settled", settled_ms=now_ms, paid=ending.paid, tx=ending.tx),
        )
    code = record.code or ending.code or ending.kind
    return Decision("OK", replace(record, state=ending.kind, code=code))


def header_of(record: ThreadRecord) -> Header:
    """Write a record as it is stored and shown."""
    sides = {
        f"{role}_{name}": getattr(record.side(role), name)
        for role in ("buyer", "seller")
        for name in _SIDE
    }
    return Header(**{name: getattr(record, name) for name in _OWN}, **sides)


def _begin(said: Said, now_ms: int) -> Decision:
    posted = said.type == "accept" and said.opening
    if said.type != "cfp" and not posted:
        return Decision("UNKNOWN_THREAD", None)
    verdict: Verdict = "OK"
    if said.sender == said.to:
        verdict = "NOT_PARTY"
    elif said.seq != 1:
        verdict = "OUT_OF_ORDER"
    elif now_ms > said.reply_by or now_ms > said.deadline:
        verdict = "LATE"
    elif posted:
        verdict = _take_posted(said, now_ms)
    if verdict != "OK":
        return Decision(verdict, None)
    record = ThreadRecord(
        buyer=said.sender,
        seller=said.to,
        group=said.group,
        skill=said.skill,
        mode=said.mode,
        rounds=said.rounds,
        deadline=said.deadline,
        input_digest=said.input_digest,
        opened_ms=now_ms,
        buyer_side=Side(seq=1, reply_by=said.reply_by),
    )
    if posted:
        offer = Side(offer=said.offer, until=said.valid_until, price=said.price, makes=said.makes)
        record = replace(record, seller_side=offer, asked=said.price)
        record = _strike(record, said, "buyer", "held", now_ms)
    return Decision("OK", _note(record, said, "OK"), deliver=True)


def _take_posted(said: Said, now_ms: int) -> Verdict:
    if not said.ordered:
        return "OUT_OF_TURN"
    if not said.posted:
        return "NO_STANDING_OFFER"
    if said.posted != said.offer or said.agreement != said.makes:
        return "OFFER_CHANGED"
    return "OFFER_EXPIRED" if now_ms > said.valid_until else "OK"


def _again(record: ThreadRecord, said: Said, before: Seen) -> Decision:
    if before.digest != said.digest:
        return Decision("OUT_OF_ORDER", record)
    deliver = before.verdict == "OK" and before.repeats < MAX_REPEATS
    if deliver:
        again = replace(before, repeats=before.repeats + 1)
        record = replace(record, seen={**record.seen, said.id: again})
    return Decision("DUP", record, first=before.verdict, deliver=deliver)


def _judge(record: ThreadRecord, said: Said, role: Role, now_ms: int) -> Verdict:
    if record.state in ENDED or (record.state != "open" and said.type in BARGAINING):
        return "CLOSED"
    if not _is_its_turn(record, said, role):
        return "OUT_OF_TURN"
    if said.seq != record.side(role).seq + 1:
        return "OUT_OF_ORDER"
    if _is_late(record, said, role, now_ms):
        return "LATE"
    offers = record.side(role).offers
    if said.seq > MAX_MESSAGES_A_SIDE or (said.type in OFFERING and offers >= record.rounds):
        return "ROUND_LIMIT"
    return _names_what_stands(record, said, role, now_ms)


def _is_its_turn(record: ThreadRecord, said: Said, role: Role) -> bool:
    if (record.state, role, said.type) not in STEPS or said.opening:
        return False
    if said.type in OFFERING:
        return record.turn == role and (role == "seller" or record.mode == "bargain")
    # The buyer secures the money before it accepts; the seller has no order to give.
    return said.type != "accept" or said.ordered == (role == "buyer")


def _is_late(record: ThreadRecord, said: Said, role: Role, now_ms: int) -> bool:
    if now_ms > said.reply_by:
        return True
    if said.type in OFFERING:
        return now_ms > record.side(other(role)).reply_by or now_ms > record.deadline
    if said.type in {"accept", "order"}:
        return now_ms > record.deadline or (said.ordered and now_ms > said.deadline)
    return said.type == "result" and now_ms > record.deadline


def _names_what_stands(record: ThreadRecord, said: Said, role: Role, now_ms: int) -> Verdict:
    if said.type in OFFERING:
        return "OK" if said.skill == record.skill else "OFFER_CHANGED"
    if said.type in BINDING:
        return "OK" if said.agreement == record.agreement else "OFFER_CHANGED"
    if said.type not in {"accept", "withdraw"}:
        return "OK"
    taken = record.side(role if said.type == "withdraw" else other(role))
    if not taken.offer:
        return "NO_STANDING_OFFER"
    if taken.offer != said.offer or (said.ordered and said.agreement != taken.makes):
        return "OFFER_CHANGED"
    expired = said.type == "accept" and now_ms > taken.until
    return "OFFER_EXPIRED" if expired else "OK"


def _apply(record: ThreadRecord, said: Said, role: Role, now_ms: int) -> ThreadRecord:
    state = STEPS[record.state, role, said.type]
    side = replace(record.side(role), seq=said.seq, reply_by=said.reply_by)
    record = replace(record, messages=record.messages + 1)
    if said.type in OFFERING:
        side = replace(
            side,
            offers=side.offers + 1,
            offer=said.offer,
            until=said.valid_until,
            price=said.price,
            makes=said.makes,
        )
        asked = record.asked or (said.price if role == "seller" else "")
        record = replace(record, turn=other(role), asked=asked)
    elif said.type == "withdraw":
        side = replace(side, offer="", until=0, price="", makes="")
    record = _with_side(record, role, side)
    if said.type == "accept":
        return _strike(record, said, role, state, now_ms)
    if said.type == "order":
        return replace(record, state=state, hold=said.hold, deadline=said.deadline)
    if said.type == "result":
        return replace(record, state=state, receipt=said.receipt, delivered_ms=now_ms)
    return replace(record, state=state, code=said.code if state in ENDED else record.code)


def _strike(
    record: ThreadRecord, said: Said, role: Role, state: ThreadState, now_ms: int
) -> ThreadRecord:
    taken = record.side(other(role))
    return replace(
        record,
        state=state,
        agreed=taken.price,
        agreement=taken.makes,
        agreed_ms=now_ms,
        hold=said.hold,
        deadline=said.deadline if said.ordered else record.deadline,
    )


def _with_side(record: ThreadRecord, role: Role, side: Side) -> ThreadRecord:
    if role == "buyer":
        return replace(record, buyer_side=side)
    return replace(record, seller_side=side)


def _note(record: ThreadRecord, said: Said, verdict: Verdict) -> ThreadRecord:
    if verdict != "OK" and len(record.seen) >= MAX_SEEN:
        return record
    return replace(record, seen={**record.seen, said.id: Seen(verdict, said.digest)})
