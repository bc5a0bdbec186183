"""What each side says next, and what an offer scores."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from agents.negotiation.machine import (
    Commit,
    Perform,
    Say,
    SellerPolicy,
    Stay,
    buyer_move,
    seller_move,
)
from agents.negotiation.mandate import Weights
from agents.negotiation.score import Yardstick, best_first
from agents.negotiation.talk import hear
from agents.strategies import make_strategy
from rahba.messages import (
    Accept,
    Counter,
    Energy,
    Failure,
    Issues,
    Quote,
    Refuse,
    Reject,
)
from tests.fixtures.talks import (
    BUYING,
    MOMENT,
    NOW,
    SELLING,
    THIRD,
    cfp,
    mandate,
    offer,
    order,
    talk,
)

# Score.

YARDSTICK = Yardstick(Weights(), 2_000_000)


def test_cheaper_better_faster_and_thriftier_each_score_higher() -> None:
    base = Issues("1000000", quality=500, latency_ms=10_000)
    better = [
        msgspec.structs.replace(base, price="999000"),
        msgspec.structs.replace(base, quality=501),
        msgspec.structs.replace(base, latency_ms=9_000),
        msgspec.structs.replace(base, energy=Energy(5, 1, 10, "declared")),
    ]
    assert all(YARDSTICK.score(issues) > YARDSTICK.score(base) for issues in better)


def test_a_price_can_be_found_that_matches_a_score() -> None:
    target = YARDSTICK.score(Issues("1000000", quality=500))
    price = YARDSTICK.price_matching(target, Issues("0", quality=700))
    assert price is not None
    assert price > 1_000_000
    matched = YARDSTICK.score(Issues(str(price), quality=700))
    assert abs(matched - target) <= 1_000
    careless = Yardstick(Weights(price=0), 1)
    assert careless.price_matching(5, Issues("1")) is None


def test_the_order_in_which_offers_come_in_changes_nothing() -> None:
    offers = [offer(100, salt=f"{n}") for n in range(5)] + [offer(99)]
    winners = set()
    for shift in range(len(offers)):
        turned = offers[shift:] + offers[:shift]
        ranking = [turned[i].digest() for i in best_first(turned, YARDSTICK, nonce="n")]
        winners.add(tuple(ranking))
    assert len(winners) == 1
    assert offers[best_first(offers, YARDSTICK, nonce="n")[0]] == offer(99)


# Moves.


def test_a_bargain_converges_between_the_floor_and_the_first_ask() -> None:
    state = talk(("buyer", cfp()))
    for _ in range(20):
        theirs = seller_move(state, SELLING, MOMENT)
        if isinstance(theirs, Commit):
            deal = theirs.offer
            break
        assert isinstance(theirs, Say)
        state = hear(state, "seller", theirs.body)
        ours = buyer_move(state, BUYING, MOMENT)
        if isinstance(ours, Commit):
            deal = ours.offer
            break
        assert isinstance(ours, Say)
        state = hear(state, "buyer", ours.body)
    assert 1_000_000 <= deal.issues.price_fals < 2_000_000
    assert 2 <= state.rounds <= 6


def test_a_seller_quotes_a_third_of_its_range_above_the_floor_in_a_tender() -> None:
    move = seller_move(talk(("buyer", cfp("tender", 1))), SELLING, MOMENT)
    assert isinstance(move, Say)
    assert isinstance(move.body, Quote)
    assert move.body.offer.issues.price_fals == 1_333_333
    assert move.body.offer.mandate_digest == SELLING.mandate.digest()


def test_a_seller_refuses_what_it_does_not_sell_and_a_changed_service() -> None:
    other = msgspec.structs.replace(cfp(), skill="text.other")
    assert seller_move(talk(("buyer", other)), SELLING, MOMENT) == Say(Refuse("unknown_skill"))
    better = offer(1_500_000, issues=Issues("1500000", quality=1_000))
    state = talk(("buyer", cfp()), ("seller", Quote(offer(2_000_000))), ("buyer", Counter(better)))
    assert seller_move(state, SELLING, MOMENT) == Say(Refuse("other_service"))


def test_a_seller_works_only_within_its_mandate() -> None:
    cheap = offer(5)
    state = talk(
        ("buyer", cfp()), ("seller", Quote(cheap)), ("buyer", Accept(cheap.digest(), "s", order()))
    )
    move = seller_move(state, SELLING, MOMENT)
    assert isinstance(move, Say)
    assert isinstance(move.body, Failure)
    fair = msgspec.structs.replace(state, agreed=offer(1_500_000))
    assert seller_move(fair, SELLING, MOMENT) == Perform(offer(1_500_000), order())


def test_a_buyer_leaves_offers_that_do_not_stand_and_sellers_that_are_not_allowed() -> None:
    stale = talk(("buyer", cfp()), ("seller", Quote(offer(1, valid_until=NOW))))
    assert buyer_move(stale, BUYING, MOMENT) == Say(Reject("offer_inadmissible"))
    state = talk(("buyer", cfp()), ("seller", Quote(offer(100))))
    picky = replace(BUYING, mandate=mandate(parties=[THIRD.did]))
    assert buyer_move(state, picky, MOMENT) == Say(Reject("mandate_exceeded"))


def test_a_buyer_takes_a_posted_price_orders_what_was_accepted_and_else_stays_silent() -> None:
    posted = offer(5)
    assert buyer_move(msgspec.structs.replace(talk(), posted=posted), BUYING, MOMENT) == Commit(
        posted
    )
    assert buyer_move(talk(), BUYING, MOMENT) == Stay()
    assert buyer_move(talk(("buyer", cfp())), BUYING, MOMENT) == Stay()
    quoted = talk(("buyer", cfp("tender")), ("seller", Quote(offer(5))))
    assert buyer_move(quoted, BUYING, MOMENT) == Stay()
    bid = offer(4, salt="4")
    agreed = talk(
        ("buyer", cfp()),
        ("seller", Quote(offer(5))),
        ("buyer", Counter(bid)),
        ("seller", Accept(bid.digest(), "s")),
    )
    assert buyer_move(agreed, BUYING, MOMENT) == Commit(bid)
    assert seller_move(agreed, SELLING, MOMENT) == Stay()


def test_a_better_quote_elsewhere_is_the_most_that_is_bid_here() -> None:
    state = talk(("buyer", cfp(rounds=1)), ("seller", Quote(offer(2_000_000))))
    assert buyer_move(state, BUYING, MOMENT) == Commit(offer(2_000_000))
    pressed = replace(BUYING, elsewhere_fals=1_200_000)
    move = buyer_move(state, pressed, MOMENT)
    assert isinstance(move, Say)
    assert isinstance(move.body, Counter)
    assert move.body.offer.issues.price_fals <= 1_200_000


def test_what_is_posted_for_nothing_costs_nothing_and_nothing_else_does() -> None:
    free = SellerPolicy(mandate("sell", 0), Issues("0"), make_strategy("best"))
    move = seller_move(talk(("buyer", cfp())), free, MOMENT)
    assert isinstance(move, Say)
    assert isinstance(move.body, Quote)
    assert move.body.offer.issues.price == "0"
    priced = SellerPolicy(mandate("sell", 0), Issues("1"), make_strategy("conceder"))
    move = seller_move(talk(("buyer", cfp("tender", 1))), priced, MOMENT)
    assert isinstance(move, Say)
    assert isinstance(move.body, Quote)
    assert move.body.offer.issues.price == "1"
