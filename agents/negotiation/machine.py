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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import msgspec

from agents.errors import MandateExceededError, OfferInadmissibleError
from agents.negotiation.agreement import agreement_of
from agents.negotiation.guard import admit, authorise
from agents.negotiation.mandate import Mandate
from agents.negotiation.menu import Tier, buying, selling, serves, tier_of
from agents.negotiation.score import Yardstick
from agents.negotiation.talk import Phase, Side, Talk
from agents.strategies import Bid, Decision, Outcome, Preferences, Strategy, Take, View
from broker.knowledge.forecast import PriceView
from rahba.errors import BadInputError, RahbaError
from rahba.messages import (
    MAX_TIERS,
    Body,
    Counter,
    Failure,
    Issues,
    Needs,
    Offer,
    Order,
    Quote,
    Refuse,
    Reject,
)
from rahba.money import MAX_FALS, parse_fals, wire_fals

TENDER_MARGIN_PARTS: Final = 3


class Moment(msgspec.Struct, frozen=True):
    """What the world lends to a decision: the time, and a fresh salt for an offer."""

    now_ms: int
    salt: str


class Say(msgspec.Struct, frozen=True):
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
    ``menu`` is what the seller's card says can be had; ``yardstick`` says what that is worth.
    ``prices`` lowers what is hoped for where an ask is above the market; never the limit.
    """

    mandate: Mandate
    strategy: Strategy
    offer_ttl_ms: int = 60_000
    elsewhere_fals: int | None = None
    menu: tuple[Issues, ...] = ()
    yardstick: Yardstick | None = None
    prices: PriceView | None = None

    def tiers(self, talk: Talk) -> list[Tier]:
        """Return what can be agreed on: what is on the menu or was offered, if it is allowed.

        The price of each is what was asked first.
        """
        found: dict[Issues, Tier] = {}
        for issues in (*(ask.issues for ask in talk.asks), *self.menu):
            service = msgspec.structs.replace(issues, price="0")
            if serves(issues, self.mandate.needs) and len(found) < MAX_TIERS:
                found.setdefault(service, Tier(issues))
        return list(found.values())


@dataclass(frozen=True, slots=True)
class SellerPolicy:
    """A seller's private side: the mandate's limit is the least that it sells anything for.

    ``posted`` is its public terms, with the price that it starts from and their ``floor_fals``
    (the mandate's limit if not given), and ``tiers`` are the others
    that it serves; ``penalty`` the thousandths of a price that it puts up, as far as
    ``backing_fals`` a deal reaches. ``prices`` raises a sealed quote towards what the market pays,
    within asking price and floor.
    """

    mandate: Mandate
    posted: Issues
    strategy: Strategy
    offer_ttl_ms: int = 60_000
    penalty: int = 0
    backing_fals: int = 0
    tiers: tuple[Tier, ...] = ()
    floor_fals: int | None = None
    prices: PriceView | None = None

    def serving(self, needs: Needs) -> list[Tier]:
        """Return the tiers that are of use: only what is posted for nothing is given away."""
        floor = self.mandate.limit_fals if self.floor_fals is None else self.floor_fals
        tiers = (Tier(self.posted, floor), *self.tiers)
        return [
            replace(tier, floor_fals=max(tier.floor_fals, min(tier.ask_fals, 1)))
            for tier in tiers
            if serves(tier.issues, needs)
        ]

    def penalty_for(self, price: int) -> int:
        """Return the penalty in fals that this side agrees to at a price."""
        return min(-(-price * self.penalty // 1_000), self.backing_fals)


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
        tiers = policy.tiers(talk)
        if not tiers:
            return Say(Reject("no_deal"))
        wishes = _wishes(talk, policy, tiers)
        decision = _decide(policy, talk, "buyer", tiers, wishes)
        match _or_what_is_sold(decision, talk, tiers, wishes):
            case Take():
                authorise(ask, mandate, party=talk.seller, now_ms=now_ms)
                return Commit(ask)
            case Bid((int(price), str(tier))):
                wanted = -(-price * mandate.min_penalty // 1_000)
                penalty = wire_fals(min(max(_penalty_at(price, talk.asks), wanted), price))
                service = tiers[int(tier)].issues
                bid = _offer(service, price, mandate, policy.offer_ttl_ms, moment, penalty=penalty)
                authorise(bid, mandate, party=talk.seller, now_ms=now_ms)
                return Say(Counter(bid))
            case _:
                return Say(Reject("no_deal"))
    except (BadInputError, OfferInadmissibleError, MandateExceededError) as error:
        return Say(Reject(error.code))


def _penalty_at(price: int, asks: Sequence[Offer]) -> int:
    """Return the penalty that a seller surely agrees to at a price, by what it put up at others.

    Its share of the price at the next higher ask; beyond all asks no more than it ever put up, as
    what it can put up has an end.
    """
    above = [ask for ask in asks if ask.issues.price_fals >= price]
    if not above:
        return max(parse_fals(ask.penalty) for ask in asks)
    nearest = min(above, key=lambda ask: ask.issues.price_fals)
    return parse_fals(nearest.penalty) * price // max(nearest.issues.price_fals, 1)


def _or_what_is_sold(
    decision: Decision, talk: Talk, tiers: list[Tier], wishes: Preferences
) -> Decision:
    """Return the decision, but for a last bid that may lose a deal which is to be had.

    1. What stands and is no worse than no deal is taken: of bids that strategies thought almost
       sure to be better, one in four was (ADR 0025).
    2. Else the best of what was asked for is bid, at the least that was asked: it is sold so.
    3. Is none of several tiers within the limit, the most that can be given is bid for the one that
       stands: a seller of our kind ends with what it can sell for the least (``_last_ask``).
    """
    assert talk.cfp is not None
    if len(talk.bids) < talk.cfp.rounds - 1 or not isinstance(decision, Bid):
        return decision
    standing = _outcome(talk.asks[-1], tiers)
    if wishes.acceptable(standing):  # 1
        return Take()
    asked = [_outcome(ask, tiers) for ask in talk.asks]
    asked += [(tier.ask_fals, str(place)) for place, tier in enumerate(tiers)]
    best = max(asked, key=lambda outcome: (wishes.worth(outcome), outcome))
    if wishes.acceptable(best):  # 2
        return Bid(best)
    if len(tiers) == 1:  # nothing else can be sold: what is given beyond a strategy's bid is lost
        return decision
    return next(  # 3
        (Bid(each) for each in reversed(wishes.outcomes) if each[1] == standing[1]), decision
    )


def _wishes(talk: Talk, policy: BuyerPolicy, tiers: list[Tier]) -> Preferences:
    """Return what the buyer would have, and the least that it takes."""
    here = tier_of(talk.asks[-1].issues, tiers)
    yardstick = policy.yardstick or Yardstick(policy.mandate.weights, policy.mandate.limit_fals)
    return buying(
        tiers,
        yardstick,
        limit_fals=policy.mandate.limit_fals,
        here=here or 0,
        elsewhere_fals=None if here is None else policy.elsewhere_fals,
        market_fals=None if policy.prices is None else policy.prices.low,
    )


def _order_agreed(talk: Talk, policy: BuyerPolicy, moment: Moment) -> Move:
    assert talk.agreed is not None
    authorise(talk.agreed, policy.mandate, party=talk.seller, now_ms=moment.now_ms)
    return Commit(talk.agreed)


# The seller.


def _quote(talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    assert talk.cfp is not None
    if talk.cfp.skill != policy.mandate.skill:
        return Say(Refuse("unknown_skill"))
    tiers = policy.serving(talk.cfp.needs)
    if not tiers:
        return Say(Refuse("cannot_serve"))
    if talk.cfp.mode == "tender":
        price, tier = min((_sealed(tier, policy.prices), place) for place, tier in enumerate(tiers))
        return _ask(tiers[tier], price, talk, policy, moment)
    return _bargain(talk, policy, tiers, moment)


def _sealed(tier: Tier, prices: PriceView | None) -> int:
    """Return a sealed quote: a share of the margin, and half of what the market pays beyond that.

    Half, so that whoever could do it for less still quotes less: if all sellers know the market,
    the same ones win at nearly the same price (ADR 0023).
    """
    usual = tier.floor_fals + (tier.ask_fals - tier.floor_fals) // TENDER_MARGIN_PARTS
    beyond = 0 if prices is None else max(prices.forecast - usual, 0)
    return min(usual + beyond // 2, tier.ask_fals)


def _bargain(talk: Talk, policy: SellerPolicy, tiers: list[Tier], moment: Moment) -> Move:
    match _decide(policy, talk, "seller", tiers, selling(tiers)):
        case Take():
            bid = talk.bids[-1]
            authorise(bid, policy.mandate, party=talk.buyer, now_ms=moment.now_ms)
            return Commit(bid)
        case Bid(outcome):
            price, place = _last_ask(outcome, talk, tiers)
            return _ask(tiers[place], price, talk, policy, moment)
        case _:
            return Say(Refuse("no_deal"))


def _last_ask(outcome: Outcome, talk: Talk, tiers: list[Tier]) -> tuple[int, int]:
    """Return the price and place of an ask; of the last one for a tier that can be sold.

    A buyer whose limit is below all that is asked can only guess what it could have for that, and
    has one bid left. What it bid before it could pay: a tier with a floor above that is none to end
    with. The one with the lowest floor is then asked for, at a price that is worth as much.
    """
    assert talk.cfp is not None
    price, place = int(outcome[0]), int(outcome[1])
    shown = max((bid.issues.price_fals for bid in talk.bids), default=0)
    if len(talk.asks) < talk.cfp.rounds - 1 or tiers[place].floor_fals <= shown:
        return price, place
    least = min(range(len(tiers)), key=lambda each: (tiers[each].floor_fals, each))
    tier = tiers[least]
    alike = tier.floor_fals + price - tiers[place].floor_fals
    return min(alike, tier.ask_fals), least


def _answer_bid(talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    assert talk.cfp is not None
    bid, now_ms = talk.bids[-1], moment.now_ms
    try:
        admit(bid, skill=policy.mandate.skill, now_ms=now_ms)
    except OfferInadmissibleError as error:
        return Say(Refuse(error.code))
    tiers = policy.serving(talk.cfp.needs)
    tier = tier_of(bid.issues, tiers)
    if tier is None:
        return Say(Refuse("other_service"))
    if parse_fals(bid.penalty) > policy.penalty_for(bid.issues.price_fals):
        return Say(Refuse("penalty_too_high"))
    move = _bargain(talk, policy, tiers, moment)
    if isinstance(move, Commit) and bid.issues.price_fals < tiers[tier].floor_fals:
        return Say(Refuse("no_deal"))  # whatever a strategy says
    return move


def _perform(talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    assert talk.agreed is not None
    assert talk.order is not None
    try:
        authorise(talk.agreed, policy.mandate, party=talk.buyer, now_ms=moment.now_ms)
    except MandateExceededError as error:
        return Say(Failure(agreement_of(talk, talk.agreed).digest(), error.code))
    return Perform(talk.agreed, talk.order)


def _ask(tier: Tier, price: int, talk: Talk, policy: SellerPolicy, moment: Moment) -> Move:
    penalty = wire_fals(policy.penalty_for(price))
    ask = _offer(tier.issues, price, policy.mandate, policy.offer_ttl_ms, moment, penalty=penalty)
    authorise(ask, policy.mandate, party=talk.buyer, now_ms=moment.now_ms)
    return Say(Counter(ask) if talk.asks else Quote(ask))


# Both.


def _decide(
    policy: BuyerPolicy | SellerPolicy,
    talk: Talk,
    side: Side,
    tiers: list[Tier],
    preferences: Preferences,
) -> Decision:
    assert talk.cfp is not None
    mine, theirs = (talk.bids, talk.asks) if side == "buyer" else (talk.asks, talk.bids)
    rounds = talk.cfp.rounds
    return policy.strategy.propose(
        View(
            preferences=preferences,
            mine=tuple(_outcome(offer, tiers) for offer in mine),
            theirs=tuple(_outcome(offer, tiers) for offer in theirs),
            time=len(mine) / (rounds - 1) if rounds > 1 else 1.0,
            bids_left=max(rounds - len(mine), 0),
            closing=side == "buyer" and len(mine) == rounds - 1,
            prices=policy.prices,
        )
    )


def _outcome(offer: Offer, tiers: list[Tier]) -> Outcome:
    """Return an offer as an outcome; one that nobody wants any more is beyond any price."""
    place = tier_of(offer.issues, tiers)
    return (MAX_FALS, "0") if place is None else (offer.issues.price_fals, str(place))


def _offer(  # noqa: PLR0917  # terms are as many as they are
    like: Issues, price: int, mandate: Mandate, ttl_ms: int, moment: Moment, penalty: str
) -> Offer:
    """Return the service of ``like`` at ``price``, standing for ``ttl_ms`` under this mandate."""
    return Offer(
        skill=mandate.skill,
        issues=msgspec.structs.replace(like, price=wire_fals(price)),
        valid_until=moment.now_ms + ttl_ms,
        salt=moment.salt,
        penalty=penalty,
        mandate_digest=mandate.digest(),
    )


_BUYER: Final[Mapping[Phase, Callable[[Talk, BuyerPolicy, Moment], Move]]] = MappingProxyType(
    {"new": _take_posted, "quoted": _answer_ask, "agreed": _order_agreed}
)
_SELLER: Final[Mapping[Phase, Callable[[Talk, SellerPolicy, Moment], Move]]] = MappingProxyType(
    {"asked": _quote, "countered": _answer_bid, "ordered": _perform}
)
