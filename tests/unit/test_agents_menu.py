"""Bargaining over more than the price: tiers of a service, and who would rather have which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.agent import Agent, Tier
from agents.negotiation import menu
from agents.negotiation.machine import (
    BuyerPolicy,
    Commit,
    Say,
    SellerPolicy,
    buyer_move,
    seller_move,
)
from agents.negotiation.mandate import Weights
from agents.negotiation.menu import MIN_STEPS, buying, selling, serves, tier_of
from agents.negotiation.score import Yardstick
from agents.negotiation.talk import Talk, hear
from agents.schema import OfferDefinitionError
from agents.shelf import build_card, tiers_of
from agents.strategies import make_strategy
from rahba.errors import BadInputError
from rahba.messages import Counter, Energy, Issues, Needs, Offer, Quote, Refuse, Reject
from tests.fixtures.talks import MOMENT, cfp, mandate, offer, talk

PLAIN = Issues("2000000", latency_ms=60_000, quality=400)
FAST = Issues("2600000", latency_ms=1_000, quality=400)
FINE = Issues("3000000", latency_ms=60_000, quality=900)
MENU = (
    menu.Tier(PLAIN, 1_000_000),
    menu.Tier(FAST, 1_100_000),
    menu.Tier(FINE, 2_700_000),
)
SELLER = SellerPolicy(
    mandate("sell", 1_000_000), PLAIN, make_strategy("best"), tiers=MENU[1:], floor_fals=1_000_000
)


def buyer(limit: int = 3_000_000, **weights: int) -> BuyerPolicy:
    wishes = Weights(**{"price": 400, "quality": 0, "latency": 0, "energy": 0, **weights})
    return BuyerPolicy(
        mandate("buy", limit, weights=wishes),
        make_strategy("best"),
        menu=tuple(tier.issues for tier in MENU),
        yardstick=Yardstick(wishes, limit),
    )


def bargain(
    buying_side: BuyerPolicy, selling_side: SellerPolicy = SELLER, *, rounds: int = 10
) -> tuple[Talk, Offer]:
    """Let the two bargain; returns the talk and the offer that one of them takes."""
    needs = buying_side.mandate.needs
    state = talk(("buyer", msgspec.structs.replace(cfp(rounds=rounds), needs=needs)))
    for _ in range(50):
        theirs = seller_move(state, selling_side, MOMENT)
        if isinstance(theirs, Commit):
            return state, theirs.offer
        assert isinstance(theirs, Say)
        assert isinstance(theirs.body, Quote | Counter), theirs
        state = hear(state, "seller", theirs.body)
        ours = buyer_move(state, buying_side, MOMENT)
        if isinstance(ours, Commit):
            return state, ours.offer
        assert isinstance(ours, Say)
        assert isinstance(ours.body, Counter), ours
        state = hear(state, "buyer", ours.body)
    raise AssertionError("they never agreed")


def test_a_buyer_in_a_hurry_and_a_seller_whose_speed_is_cheap_agree_on_the_fast_tier() -> None:
    _, agreed = bargain(buyer(latency=600))
    assert tier_of(agreed.issues, MENU) == 1
    assert 1_100_000 <= agreed.issues.price_fals <= 2_600_000


def test_a_buyer_that_minds_the_price_alone_agrees_on_what_leaves_most_to_share() -> None:
    state, agreed = bargain(buyer())
    place = tier_of(agreed.issues, MENU)
    assert place in {0, 1}
    assert agreed.issues.price_fals < 2_000_000
    assert all(bid.issues.price_fals <= 2_600_000 for bid in state.bids)


def test_a_buyer_takes_no_tier_that_it_has_no_use_for() -> None:
    picky = buyer(quality=1)
    picky = replace(picky, mandate=msgspec.structs.replace(picky.mandate, min_quality=800))
    state, agreed = bargain(picky)
    assert tier_of(agreed.issues, MENU) == 2
    assert all(ask.issues.quality == 900 for ask in state.asks)


def test_a_seller_says_when_no_tier_of_its_is_of_use() -> None:
    opened = msgspec.structs.replace(cfp(), needs=Needs(min_quality=901))
    assert seller_move(talk(("buyer", opened)), SELLER, MOMENT) == Say(Refuse("cannot_serve"))


def test_a_seller_tenders_the_cheapest_tier_that_is_of_use() -> None:
    for needs, wanted in ((Needs(), 0), (Needs(max_latency_ms=2_000), 1)):
        opened = msgspec.structs.replace(cfp("tender", 1), needs=needs)
        move = seller_move(talk(("buyer", opened)), SELLER, MOMENT)
        assert isinstance(move, Say)
        assert isinstance(move.body, Quote)
        assert tier_of(move.body.offer.issues, MENU) == wanted


def test_a_seller_refuses_a_service_that_is_not_on_its_menu() -> None:
    odd = offer(3_000_000, issues=msgspec.structs.replace(FAST, quality=1_000, price="3000000"))
    state = talk(
        ("buyer", cfp()),
        ("seller", Quote(offer(2_000_000, issues=PLAIN))),
        ("buyer", Counter(odd)),
    )
    assert seller_move(state, SELLER, MOMENT) == Say(Refuse("other_service"))


def test_a_seller_sells_no_tier_below_its_own_floor() -> None:
    cheap = offer(2_000_000, issues=msgspec.structs.replace(FINE, price="2000000"))
    state = talk(
        ("buyer", cfp(rounds=2)),
        ("seller", Quote(offer(3_000_000, issues=FINE))),
        ("buyer", Counter(cheap)),
    )
    move = seller_move(state, SELLER, MOMENT)
    assert isinstance(move, Say)
    assert isinstance(move.body, Counter)


def test_an_offer_off_the_menu_can_be_taken_but_never_above_what_was_asked_first() -> None:
    extra = msgspec.structs.replace(PLAIN, quality=450, price="1500000")
    state = talk(("buyer", cfp(rounds=1)), ("seller", Quote(offer(1_500_000, issues=extra))))
    assert buyer_move(state, buyer(), MOMENT) == Commit(offer(1_500_000, issues=extra))
    dear = buyer(limit=1_000_000)
    move = buyer_move(state, dear, MOMENT)
    assert not isinstance(move, Commit)


def test_a_buyer_without_use_for_any_tier_leaves() -> None:
    picky = replace(buyer(), mandate=mandate("buy", 3_000_000, min_quality=901))
    state = talk(("buyer", cfp()), ("seller", Quote(offer(2_000_000, issues=PLAIN))))
    assert buyer_move(state, picky, MOMENT) == Say(Reject("no_deal"))


def test_a_service_serves_or_does_not() -> None:
    metered = msgspec.structs.replace(PLAIN, energy=Energy(5, 1, 9, "measured"))
    assert serves(metered, Needs(max_energy_uwh=9))
    assert not serves(metered, Needs(max_energy_uwh=8))
    assert not serves(PLAIN, Needs(max_energy_uwh=8))
    assert not serves(msgspec.structs.replace(PLAIN, privacy="logged"), Needs(privacy="sealed"))
    assert not serves(PLAIN, Needs(max_latency_ms=59_999))


prices = st.integers(0, 5_000_000)


@given(st.lists(st.tuples(prices, prices, st.integers(0, 1_000)), min_size=1, max_size=8), prices)
def test_no_side_ever_bids_beyond_what_it_said_in_private(
    rows: list[tuple[int, int, int]], limit: int
) -> None:
    tiers = [
        menu.Tier(Issues(str(max(a, b)), quality=quality), min(a, b)) for a, b, quality in rows
    ]
    for _, (price, place) in selling(tiers).ranked:
        assert tiers[int(place)].floor_fals <= int(price) <= tiers[int(place)].ask_fals
    yardstick = Yardstick(Weights(), max(limit, 1))
    try:
        wishes = buying(tiers, yardstick, limit_fals=limit, here=0)
    except BadInputError:
        return
    for worth, (price, place) in wishes.ranked:
        assert 0 <= int(price) <= min(limit, tiers[int(place)].ask_fals)
        assert worth >= 0


def test_one_tier_has_the_outcomes_of_a_price_ladder() -> None:
    wishes = buying(MENU[:1], Yardstick(Weights(), 3_000_000), limit_fals=1_500_000, here=0)
    assert wishes.ranked[0] == (1.0, (800_000, "0"))
    assert wishes.ranked[-1][1] == (1_500_000, "0")
    pressed = buying(
        MENU[:1],
        Yardstick(Weights(), 3_000_000),
        limit_fals=1_500_000,
        here=0,
        elsewhere_fals=1_200_000,
    )
    assert pressed.ranked[-1][1] == (1_200_000, "0")
    assert len(selling([menu.Tier(PLAIN, 0)] * 8, steps=1).ranked) >= MIN_STEPS


@pytest.mark.parametrize("rounds", [4, 6, 10, 20])
@pytest.mark.parametrize("issue", ["price", "quality", "latency", "energy"])
def test_two_of_our_own_agree_on_some_tier_whatever_matters_to_the_buyer(
    issue: str, rounds: int
) -> None:
    weights = {"price": 100, "quality": 100, "latency": 100, "energy": 100, issue: 700}
    state, agreed = bargain(buyer(10_000_000, **weights), rounds=rounds)
    assert tier_of(agreed.issues, MENU) is not None
    assert agreed.issues.price_fals <= 3_000_000
    assert state.rounds <= rounds


def test_a_penalty_is_rounded_so_that_what_was_asked_for_is_met() -> None:
    seller = replace(SELLER, penalty=100, backing_fals=10**9)
    asked = replace(buyer(), mandate=mandate("buy", 3_000_000, min_penalty=100))
    state = talk(("buyer", cfp(rounds=20)))
    for _ in range(40):
        theirs = seller_move(state, seller, MOMENT)
        if isinstance(theirs, Commit):
            break
        assert isinstance(theirs, Say)
        assert isinstance(theirs.body, Quote | Counter), theirs
        state = hear(state, "seller", theirs.body)
        ours = buyer_move(state, asked, MOMENT)
        if isinstance(ours, Commit):
            break
        assert isinstance(ours, Say)
        assert isinstance(ours.body, Counter), ours
        state = hear(state, "buyer", ours.body)
    for said in (*state.asks, *state.bids):
        assert int(said.penalty) * 10 >= said.issues.price_fals


# The agent's side.


def shop(**tier: Any) -> Agent:
    agent = Agent("shop")

    @agent.offer(
        "text.upper", price="0.002", floor="0.001", tiers=[Tier(**{"price": "0.003", **tier})]
    )
    async def upper(text: str) -> str:
        return text.upper()

    return agent


def test_a_card_shows_the_tiers_and_not_their_floors() -> None:
    agent = shop(floor="0.0025", latency_ms=50, quality=800)
    spec = agent.offers["text.upper"]
    (tier,) = tiers_of(agent, spec)
    assert (tier.issues.latency_ms, tier.issues.quality) == (50, 800)
    assert tier.floor_fals == 2_500_000
    card = build_card(agent, "did:key:z6Mk", now_ms=0)
    assert card.skills[0].tiers == [tier.issues]
    assert b"2500000" not in msgspec.json.encode(card)


@pytest.mark.parametrize(
    "wrong", [{"floor": "0.004"}, {"quality": 1_001}, {"latency_ms": -1}, {"price": "x"}]
)
def test_a_tier_that_cannot_be_offered_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OfferDefinitionError):
        shop(**wrong)


def test_there_are_eight_tiers_at_most() -> None:
    async def upper(text: str) -> str:
        return text.upper()

    with pytest.raises(OfferDefinitionError, match="tiers"):
        Agent("shop").offer("text.upper", price="1", tiers=[Tier(price="1")] * 8)(upper)
