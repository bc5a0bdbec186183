"""What each side says next: pure decisions over a :class:`Talk`, its policy and the moment.

* ``buyer_move`` and ``seller_move`` return one :class:`Move`: say this, commit to that offer,
  work, or stay silent. They never sleep, send or sign.
* Prices come from a strategy; every offer that would bind the owner passes the guard first.
* The moment lends the time and a salt, so the same talk at the same moment gets the same move.

A bargain as the machine drives it::

    buyer  cfp        seller quote 100    buyer  counter 40    seller counter 93 ...
    seller counter 70 buyer  Commit(70): hold the money, then say accept with the order
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from agents.errors import MandateExceededError, OfferInadmissibleError
from agents.negotiation.agreement import agreement_of
from agents.negotiation.guard import admit, authorise
from agents.negotiation.mandate import Mandate
from agents.negotiation.talk import Phase, Side, Talk
from agents.strategies import Bid, Decision, Strategy, Take, View, price_ladder
from rahba.errors import BadInputError, RahbaError
from rahba.messages import Body, Counter, Failure, Issues, Offer, Order, Quote, Refuse, Reject
from rahba.money import parse_fals, wire_fals

OPENING_BID_PERCENT: Final = 40
TENDER_MARGIN_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """What the world lends to a decision: the time, and a fresh salt for an offer."""

    now_ms: int
    salt: str


@dataclass(frozen=True, slots=True)
class Say:
    """Post this to the thread."""

    body: Body


@dataclass(frozen=True, slots=True)
class Commit:
    """Sign the agreement on this offer (the buyer: hold the money first)."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Perform:
    """Check the order's signature and hold, then do the work."""

    offer: Offer
    order: Order


@dataclass(frozen=True, slots=True)
class Stay:
    """Say nothing: it is the other side's turn, the awarding is elsewhere, or all is over."""


Move = Say | Commit | Perform | Stay


@dataclass(frozen=True, slots=True)
class BuyerPolicy:
    """A buyer's private side.

    ``elsewhere_fals`` is the price here that would only equal the best firm quote elsewhere.
    """

    mandate: Mandate
    strategy: Strategy
    offer_ttl_ms: int = 60_000
    elsewhere_fals: int | None = None


@dataclass(frozen=True, slots=True)
class SellerPolicy:
    """A seller's private side: the mandate's limit is its floor.

    ``posted`` is its public terms, with the price that it starts from; ``penalty`` the thousandths
    of a price that it puts up, as far as ``backing_fals`` a deal reaches.
    """

    mandate: Mandate
    posted: Issues
    strategy: Strategy
    offer_ttl_ms: int = 60_000
    penalty: int = 0
    backing_fals: int = 0

    def penalty_for(self, price: int) -> int:
        """Return the penalty in fals that this side agrees to at a price."""
        return min(price * self.penalty // 1_000, self.backing_fals)


def buyer_move(talk: Talk, policy: BuyerPolicy, moment: Moment) -> Move:
    """Return what the buyer does next (see ``_BUYER`` for the phases in which it has a say)."""
    act = _BUYER.get(talk.phase)
    return Stay() if act is None else act(talk, policy, moment)


def seller_move(talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    """Return what the seller does next (see ``_SELLER`` for the phases in which it has a say)."""
    act = _SELLER.get(talk.phase)
    return Stay() if act is None else act(talk, policy, moment)


def acceptable(talk: Talk, offer: Offer, mandate: Mandate, *, now_ms: int) -> str | None:
    """Return ``None`` if the buyer may accept ``offer``, else the code of what is in the way."""
    try:
        admit(offer, skill=mandate.skill, now_ms=now_ms)
        authorise(offer, mandate, party=talk.seller, now_ms=now_ms)
    except RahbaError as error:
        return error.code
    return None


# The buyer.


def _take_posted(talk: Talk, policy: BuyerPolicy, moment: Moment) -> Move:
    if talk.posted is None:
        return Stay()
    admit(talk.posted, skill=policy.mandate.skill, now_ms=moment.now_ms)
    authorise(talk.posted, policy.mandate, party=talk.seller, now_ms=moment.now_ms)
    return Commit(talk.posted)


def _answer_ask(talk: Talk, policy: BuyerPolicy, moment: Moment) -> Move:
    assert talk.cfp is not None
    if talk.cfp.mode != "bargain":
        return Stay()
    ask, mandate, now_ms = talk.asks[-1], policy.mandate, moment.now_ms
    try:
        admit(ask, skill=mandate.skill, now_ms=now_ms)
        match _decide(policy.strategy, talk, "buyer", **_buyer_range(talk, policy)):
            case Take():
                authorise(ask, mandate, party=talk.seller, now_ms=now_ms)
                return Commit(ask)
            case Bid((int(price),)):
                share = parse_fals(ask.penalty) * price // max(ask.issues.price_fals, 1)
                penalty = wire_fals(share)
                bid = _offer(ask, price, mandate, policy.offer_ttl_ms, moment, penalty=penalty)
                authorise(bid, mandate, party=talk.seller, now_ms=now_ms)
                return Say(Counter(bid))
            case _:
                return Say(Reject("no_deal"))
    except (BadInputError, OfferInadmissibleError, MandateExceededError) as error:
        return Say(Reject(error.code))


def _buyer_range(talk: Talk, policy: BuyerPolicy) -> dict[str, int]:
    """Return the price to hope for and the last acceptable one.

    It never pays more than the first ask, its limit, or what is as good elsewhere.
    """
    first = talk.asks[0].issues.price_fals
    ceilings = [first, policy.mandate.limit_fals]
    if policy.elsewhere_fals is not None:
        ceilings.append(max(policy.elsewhere_fals, 0))
    reserve = min(ceilings)
    hoped = max(first * OPENING_BID_PERCENT // 100, min(first, 1))
    return {"best": min(hoped, reserve), "reserve": reserve}


def _order_agreed(talk: Talk, policy: BuyerPolicy, moment: Moment) -> Move:
    assert talk.agreed is not None
    authorise(talk.agreed, policy.mandate, party=talk.seller, now_ms=moment.now_ms)
    return Commit(talk.agreed)


# The seller.


def _quote(talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    assert talk.cfp is not None
    if talk.cfp.skill != policy.mandate.skill:
        return Say(Refuse("unknown_skill"))
    posted, floor = _range(policy)
    if talk.cfp.mode == "tender":
        return _ask(floor + (posted - floor) // TENDER_MARGIN_PARTS, talk, policy, moment)
    decision = _decide(policy.strategy, talk, "seller", best=posted, reserve=floor)
    match decision:
        case Bid((int(price),)):
            return _ask(price, talk, policy, moment)
        case _:
            return Say(Refuse("no_deal"))


def _answer_bid(talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    bid, now_ms = talk.bids[-1], moment.now_ms
    try:
        admit(bid, skill=policy.mandate.skill, now_ms=now_ms)
    except OfferInadmissibleError as error:
        return Say(Refuse(error.code))
    if not _same_service(bid, policy.posted):
        return Say(Refuse("other_service"))
    if parse_fals(bid.penalty) > policy.penalty_for(bid.issues.price_fals):
        return Say(Refuse("penalty_too_high"))
    posted, floor = _range(policy)
    match _decide(policy.strategy, talk, "seller", best=posted, reserve=floor):
        case Take():
            authorise(bid, policy.mandate, party=talk.buyer, now_ms=now_ms)
            return Commit(bid)
        case Bid((int(price),)):
            return _ask(price, talk, policy, moment)
        case _:
            return Say(Refuse("no_deal"))


def _perform(talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    assert talk.agreed is not None
    assert talk.order is not None
    try:
        authorise(talk.agreed, policy.mandate, party=talk.buyer, now_ms=moment.now_ms)
    except MandateExceededError as error:
        return Say(Failure(agreement_of(talk, talk.agreed).digest(), error.code))
    return Perform(talk.agreed, talk.order)


def _range(policy: SellerPolicy) -> tuple[int, int]:
    """Return the first price and the floor: only what is posted for nothing is given away."""
    posted = policy.posted.price_fals
    return posted, max(policy.mandate.limit_fals, min(posted, 1))


def _ask(price: int, talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    penalty = wire_fals(policy.penalty_for(price))
    base = Offer(policy.mandate.skill, policy.posted, 0, moment.salt, penalty=penalty)
    ask = _offer(base, price, policy.mandate, policy.offer_ttl_ms, moment, penalty=penalty)
    authorise(ask, policy.mandate, party=talk.buyer, now_ms=moment.now_ms)
    return Say(Counter(ask) if talk.asks else Quote(ask))


# Both.


def _decide(strategy: Strategy, talk: Talk, side: Side, *, best: int, reserve: int) -> Decision:
    assert talk.cfp is not None
    mine, theirs = (talk.bids, talk.asks) if side == "buyer" else (talk.asks, talk.bids)
    rounds = talk.cfp.rounds
    return strategy.propose(
        View(
            preferences=price_ladder(best_fals=best, reserve_fals=reserve),
            mine=tuple((offer.issues.price_fals,) for offer in mine),
            theirs=tuple((offer.issues.price_fals,) for offer in theirs),
            time=len(mine) / (rounds - 1) if rounds > 1 else 1.0,
            bids_left=max(rounds - len(mine), 0),
            closing=side == "buyer" and len(mine) == rounds - 1,
        )
    )


def _offer(  # noqa: PLR0917  # terms are as many as they are
    like: Offer, price: int, mandate: Mandate, ttl_ms: int, moment: Moment, penalty: str
) -> Offer:
    """Return the service of ``like`` at ``price``, standing for ``ttl_ms`` under this mandate."""
    return Offer(
        skill=mandate.skill,
        issues=msgspec.structs.replace(like.issues, price=wire_fals(price)),
        valid_until=moment.now_ms + ttl_ms,
        salt=moment.salt,
        penalty=penalty,
        mandate_digest=mandate.digest(),
    )


def _same_service(offer: Offer, posted: Issues) -> bool:
    return msgspec.structs.replace(offer.issues, price=posted.price) == posted


_BUYER: Final[Mapping[Phase, Callable[[Talk, BuyerPolicy, Moment], Move]]] = MappingProxyType(
    {"new": _take_posted, "quoted": _answer_ask, "agreed": _order_agreed}
)
_SELLER: Final[Mapping[Phase, Callable[[Talk, SellerPolicy, Moment], Move]]] = MappingProxyType(
    {"asked": _quote, "countered": _answer_bid, "ordered": _perform}
)
