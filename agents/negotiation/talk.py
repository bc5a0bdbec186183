"""What has been said in a thread so far: the same for both sides, rebuilt from the transcript.

* ``hear`` is the whole state machine: a table from (phase, who, message type) to the next phase.
  A message that is not in the table is out of place, and changes nothing.
* Nobody's private view is in here, so a restarted side folds the transcript and carries on.
* Races (late, twice, after the deal) are the broker's to decide; this checks the order of speech.

    new -> asked -> quoted <-> countered -> agreed -> ordered -> delivered | failed
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from agents.errors import OutOfPlaceError
from rahba.messages import (
    Accept,
    Body,
    Cfp,
    Counter,
    Decommit,
    Failure,
    Job,
    Message,
    NotUnderstood,
    Offer,
    Order,
    Quote,
    Refuse,
    Reject,
    Result,
    Withdraw,
)

Side = Literal["buyer", "seller"]
Phase = Literal[
    "new", "asked", "quoted", "countered", "agreed", "ordered", "delivered", "failed", "closed"
]

STEPS: Final[Mapping[tuple[Phase, Side, str], Phase]] = MappingProxyType(
    {
        ("new", "buyer", "cfp"): "asked",
        ("new", "buyer", "accept"): "ordered",
        ("asked", "seller", "quote"): "quoted",
        ("asked", "seller", "refuse"): "closed",
        ("asked", "seller", "reject"): "closed",
        ("asked", "buyer", "reject"): "closed",
        ("quoted", "buyer", "counter"): "countered",
        ("quoted", "buyer", "accept"): "ordered",
        ("quoted", "buyer", "reject"): "closed",
        ("quoted", "seller", "refuse"): "closed",
        ("quoted", "seller", "reject"): "closed",
        ("quoted", "seller", "withdraw"): "closed",
        ("countered", "seller", "counter"): "quoted",
        ("countered", "seller", "accept"): "agreed",
        ("countered", "seller", "refuse"): "closed",
        ("countered", "seller", "reject"): "closed",
        ("countered", "buyer", "reject"): "closed",
        ("agreed", "buyer", "order"): "ordered",
        ("agreed", "buyer", "decommit"): "closed",
        ("agreed", "seller", "decommit"): "closed",
        ("agreed", "seller", "failure"): "failed",
        ("ordered", "seller", "result"): "delivered",
        ("ordered", "seller", "failure"): "failed",
        ("ordered", "buyer", "decommit"): "failed",
        ("ordered", "seller", "decommit"): "failed",
        ("asked", "seller", "not_understood"): "closed",
        ("countered", "seller", "not_understood"): "closed",
        ("agreed", "seller", "not_understood"): "closed",
        ("ordered", "seller", "not_understood"): "failed",
    }
)

OVER: Final[frozenset[Phase]] = frozenset({"delivered", "failed", "closed"})


class Talk(msgspec.Struct, frozen=True):
    """A thread as both sides know it. ``agreed`` is the offer that was accepted.

    ``pledge`` is the seller's, for the penalty of its last ask or of what it accepted. ``posted``
    is what one side knows of the seller's card, and is not said.
    """

    thread: str
    buyer: str
    seller: str
    phase: Phase = "new"
    cfp: Cfp | None = None
    asks: tuple[Offer, ...] = ()
    bids: tuple[Offer, ...] = ()
    agreed: Offer | None = None
    buyer_signature: str | None = None
    seller_signature: str | None = None
    order: Order | None = None
    result: Result | None = None
    pledge: str | None = None
    code: str | None = None
    posted: Offer | None = None

    def side_of(self, did: str) -> Side:
        """Return which side ``did`` is on."""
        if did == self.buyer:
            return "buyer"
        if did == self.seller:
            return "seller"
        raise OutOfPlaceError("a stranger speaks", sender=did)

    @property
    def rounds(self) -> int:
        """Return how many offers the side that made more of them made (1 for a posted price)."""
        return max(len(self.asks), len(self.bids), 1)


def hear(talk: Talk, by: Side, body: Body) -> Talk:
    """Return the talk after ``by`` said ``body``.

    Raises:
        OutOfPlaceError: the message does not belong here, or names an offer that is not standing.
    """
    kind = str(body.__struct_config__.tag)
    phase = STEPS.get((talk.phase, by, kind))
    if phase is None:
        raise OutOfPlaceError(f"{by} cannot say {kind} now", phase=talk.phase, type=kind)
    return msgspec.structs.replace(talk, phase=phase, **_noted(talk, by, body, kind))


def replay(talk: Talk, messages: list[Message]) -> Talk:
    """Fold a transcript; what is out of place is skipped, as it was when it arrived."""
    for message in messages:
        try:
            talk = hear(talk, talk.side_of(message.sender), message.body)
        except OutOfPlaceError:
            continue
    return talk


def _noted(  # noqa: PLR0911  # one return a message type
    talk: Talk, by: Side, body: Body, kind: str
) -> dict[str, Any]:
    """Return what changes by a message, but for the phase."""
    match body:
        case Accept():
            return _accepted(talk, by, body)
        case Cfp():
            return {"cfp": body, "code": None}
        case Quote() | Counter() if by == "seller":
            return {"asks": (*talk.asks, body.offer), "pledge": body.pledge, "code": None}
        case Quote() | Counter():
            return {"bids": (*talk.bids, body.offer), "code": None}
        case Job(order=order):
            return {"order": order, "buyer_signature": order.signature, "code": None}
        case Result():
            return {"result": body, "seller_signature": body.signature, "code": None}
        case Failure() | Refuse() | NotUnderstood():
            return {"code": body.code}
        case Reject():
            return {"code": body.reason}
        case Withdraw() | Decommit():
            return {"code": kind}


def _accepted(talk: Talk, by: Side, accept: Accept) -> dict[str, Any]:
    if by == "seller":
        offer = talk.bids[-1]
        if accept.order is not None or accept.opening is not None:
            raise OutOfPlaceError("a seller accepts with its signature alone")
    elif talk.phase == "new":
        if accept.opening is None or accept.opening.mode != "posted" or talk.posted is None:
            raise OutOfPlaceError("only a posted price is accepted unasked")
        offer = talk.posted
    else:
        offer = talk.asks[-1]
    if accept.offer != offer.digest():
        raise OutOfPlaceError("another offer is standing", standing=offer.digest())
    if by == "seller":
        signature, pledge = accept.signature, accept.pledge
        return {"agreed": offer, "seller_signature": signature, "pledge": pledge}
    if accept.order is None:
        raise OutOfPlaceError("a buyer accepts with its order")
    return {
        "cfp": accept.opening or talk.cfp,
        "agreed": offer,
        "buyer_signature": accept.signature,
        "order": accept.order,
    }
