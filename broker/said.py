"""From a verified message to what the rules and the feed need of it; pure.

``said_of`` checks what the kernel leaves to the broker: prices, digests and ids inside bodies.
``told`` turns a ruling into public events. The price of a sealed quote (mode ``tender``) is told
only once its thread is over for offers: nobody may read it before the window closes.
"""

from __future__ import annotations

import msgspec

from broker.errors import FirstMessageError
from broker.thread import Header, Said
from rahba.encoding import Json, sha256_hex, unb64
from rahba.ids import check_digest, check_id, check_skill, key_of
from rahba.messages import (
    Accept,
    Agreement,
    Cfp,
    Counter,
    Decommit,
    Failure,
    Job,
    Message,
    NotUnderstood,
    Offer,
    Quote,
    Refuse,
    Reject,
    Result,
    Withdraw,
)
from rahba.money import parse_fals

Told = tuple[str, dict[str, Json]]


class Terms(msgspec.Struct, frozen=True):
    """What never changes in a thread, and every agreement in it names."""

    group: str
    buyer: str
    seller: str
    input_digest: str

    def makes(self, thread: str, offer: Offer) -> str:
        """Return the digest of the agreement that accepting ``offer`` would make."""
        return Agreement(
            thread=thread,
            group=self.group,
            buyer=self.buyer,
            seller=self.seller,
            offer=offer,
            input_digest=self.input_digest,
        ).digest()


def terms_of_opening(message: Message) -> Terms | None:
    """Return the terms that a first message sets."""
    body = message.body
    opening = body.opening if isinstance(body, Accept) else body
    if not isinstance(opening, Cfp):
        return None
    return Terms(opening.group, message.sender, message.to, opening.input_digest)


def said_of(
    message: Message, digest: str, *, terms: Terms | None = None, posted: Offer | None = None
) -> Said:
    """Reduce a message to what it says; ``posted`` is the seller's live offer for the skill.

    Raises:
        BadInputError: an amount, a digest, an id or a skill in the body is malformed.
    """
    key_of(message.to)
    said = {
        "id": message.id,
        "digest": digest,
        "sender": message.sender,
        "to": message.to,
        "type": message.type,
        "seq": message.seq,
        "reply_by": message.reply_by,
    }
    return Said(**said, **_body(message, terms, posted))  # type: ignore[arg-type]


def _body(  # noqa: PLR0911  # one return a message type
    message: Message, terms: Terms | None, posted: Offer | None
) -> dict[str, object]:
    match message.body:
        case Cfp() as cfp:
            return _opening(cfp)
        case Quote(offer=offer) | Counter(offer=offer):
            makes = terms.makes(message.thread, offer) if terms else ""
            return {"skill": check_skill(offer.skill), **_offer(offer), "makes": makes}
        case Accept() as accept:
            return _accept(message, accept, terms, posted)
        case Job(order=order):
            return _order(order.agreement, order.hold, order.deadline)
        case Result() as result:
            return {
                "agreement": check_digest(result.agreement),
                "receipt": sha256_hex(unb64(result.receipt)),
            }
        case Failure(agreement=agreement, code=code):
            return {"agreement": check_digest(agreement), "code": code}
        case Decommit(agreement=agreement):
            return {"agreement": check_digest(agreement), "code": "decommitted"}
        case Reject(reason=code) | Refuse(code=code) | NotUnderstood(code=code):
            return {"code": code}
        case Withdraw(offer=offer):
            return {"offer": check_digest(offer)}


def _accept(
    message: Message, accept: Accept, terms: Terms | None, posted: Offer | None
) -> dict[str, object]:
    found: dict[str, object] = {"offer": check_digest(accept.offer)}
    if accept.order is not None:
        order = accept.order
        found |= _order(order.agreement, order.hold, order.deadline)
    if accept.opening is not None:
        if accept.opening.mode != "posted" or accept.order is None:
            raise FirstMessageError("accepting a posted offer takes mode posted and an order")
        if accept.posted is None or accept.posted.digest() != accept.offer:
            raise FirstMessageError("accepting a posted offer takes the offer itself along")
        found = {**_opening(accept.opening), **found, "opening": True}
        if posted is not None:
            offered = _offer(posted)
            found |= {key: offered[key] for key in ("valid_until", "price")}
            found["posted"] = offered["offer"]
            found["makes"] = terms.makes(message.thread, posted) if terms else ""
    return found


def _opening(cfp: Cfp) -> dict[str, object]:
    return {
        "group": check_id(cfp.group),
        "skill": check_skill(cfp.skill),
        "mode": cfp.mode,
        "rounds": cfp.rounds,
        "deadline": cfp.deadline,
        "input_digest": check_digest(cfp.input_digest),
    }


def _offer(offer: Offer) -> dict[str, object]:
    parse_fals(offer.penalty)
    return {
        "offer": offer.digest(),
        "valid_until": offer.valid_until,
        "price": str(offer.issues.price_fals),
    }


def _order(agreement: str, hold: str | None, deadline: int) -> dict[str, object]:
    return {
        "ordered": True,
        "agreement": check_digest(agreement),
        "hold": check_digest(hold) if hold is not None else "",
        "deadline": deadline,
    }


def told(thread: str, said: Said, header: Header) -> list[Told]:
    """Return the events that a message which was ruled OK makes public, in order."""
    group, sealed = header.group, header.mode == "tender"
    events: list[Told] = []
    if said.type == "cfp" or said.opening:
        events.append(("negotiation.opened", _opened(thread, header)))
    if said.type in {"quote", "counter"}:
        events.append(("offer", _offered(thread, said, header, sealed=sealed)))
    if sealed and said.type in {"accept", "reject"} and header.seller_offer:
        events.append(("offer.revealed", _revealed(thread, header)))
    if said.type == "accept":
        events.append(("accepted", _accepted(thread, header)))
    if said.ordered:
        held: dict[str, Json] = {
            "thread": thread,
            "hold": header.hold,
            "amount": header.agreed if header.hold else "0",
        }
        events.append(("held", held))
    if said.type == "result":
        delivered: dict[str, Json] = {
            "thread": thread,
            "agreement": header.agreement,
            "receipt": header.receipt,
        }
        events.append(("delivered", delivered))
    if said.type == "failure":
        events.append(("failed", {"group": group, "thread": thread, "code": said.code}))
    if said.type in {"reject", "refuse", "decommit"}:
        kind = "refused" if said.type == "refuse" else "closed"
        by: dict[str, Json] = {"from": said.sender, "code": said.code}
        events.append((kind, {"group": group, "thread": thread, **by}))
    return events


def told_at_end(thread: str, header: Header) -> list[Told]:
    """Return the events of an ending that was ruled OK."""
    state, group = header.state, header.group
    if state == "settled":
        names = ("group", "agreement", "skill", "buyer", "seller", "paid", "tx", "hold")
        return [("settled", {"thread": thread, **{name: getattr(header, name) for name in names}})]
    kind = "failed" if state == "failed" else "closed"
    events: list[Told] = []
    if header.mode == "tender" and not header.agreement and header.seller_offer:
        events.append(("offer.revealed", _revealed(thread, header)))
    return [*events, (kind, {"group": group, "thread": thread, "code": header.code})]


def _opened(thread: str, header: Header) -> dict[str, Json]:
    return {
        "group": header.group,
        "thread": thread,
        "skill": header.skill,
        "mode": header.mode,
        "buyer": header.buyer,
        "sellers": [header.seller],
    }


def _offered(thread: str, said: Said, header: Header, *, sealed: bool) -> dict[str, Json]:
    side = "buyer" if said.sender == header.buyer else "seller"
    offered: dict[str, Json] = {
        "group": header.group,
        "thread": thread,
        "from": said.sender,
        "to": said.to,
        "side": side,
        "round": header.buyer_offers if side == "buyer" else header.seller_offers,
        "message": said.id,
    }
    return {**offered, "sealed": 1} if sealed else {**offered, "price": said.price}


def _revealed(thread: str, header: Header) -> dict[str, Json]:
    return {
        "group": header.group,
        "thread": thread,
        "from": header.seller,
        "price": header.seller_price,
    }


def _accepted(thread: str, header: Header) -> dict[str, Json]:
    return {
        "group": header.group,
        "thread": thread,
        "agreement": header.agreement,
        "buyer": header.buyer,
        "seller": header.seller,
        "skill": header.skill,
        "price": header.agreed,
        "mode": header.mode,
        "rounds": rounds_of(header),
        "asked": header.asked,
    }


def rounds_of(header: Header) -> int:
    """Return how many rounds of offers a thread took (a posted price takes one)."""
    return max(1, header.buyer_offers, header.seller_offers)
