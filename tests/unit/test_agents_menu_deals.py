"""Two of our own agree whenever they can, on whatever menu and in however few rounds."""

from __future__ import annotations

import random
from typing import Final

import msgspec
import pytest

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
from agents.negotiation.menu import Tier, buying, serves, tier_of
from agents.negotiation.score import Yardstick
from agents.negotiation.talk import Talk, hear
from agents.strategies import make_strategy
from rahba.messages import Counter, Energy, Issues, Offer, Quote
from tests.fixtures.talks import MOMENT, cfp, mandate, offer, talk

MENUS: Final = 400
STRATEGIES: Final = ["boulware", "linear", "conceder", "stochastic", "tit_for_tat", "micro"]


class Case:
    """A menu with its floors, and a buyer with its limit, needs and weights; drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        rows = [self._tier() for _ in range(rng.randint(1, 7))]
        alike = {msgspec.structs.replace(tier.issues, price="0"): tier for tier in rows}
        self.tiers = list(alike.values())
        asks = [tier.ask_fals for tier in self.tiers]
        near, far = rng.choice(asks) * rng.uniform(0.3, 1.3), max(asks) * rng.uniform(1, 3)
        self.limit = max(int(rng.choice([near, near, far, rng.choice(asks)])), 1)
        weights = {
            name: rng.choice([0, 100, 300, 700]) for name in ("quality", "latency", "energy")
        }
        self.weights = Weights(price=rng.choice([100, 300, 600, 1_000]), **weights)
        self.mandate = mandate(
            "buy",
            self.limit,
            weights=self.weights,
            min_quality=rng.choice([0, 0, 0, 400]),
            privacy=rng.choice(["public", "public", "sealed"]),
        )
        self.backing = rng.choice([0, 1_000, 100_000, 250_000, 10**9])

    def _tier(self) -> Tier:
        rng = self.rng
        ask = rng.randint(1_500_000, 4_000_000) if rng.random() < 0.7 else rng.randint(1, 10**7)
        uwh = rng.choice([0, 5, 500, 100_000])
        issues = Issues(
            str(ask),
            latency_ms=rng.choice([50, 1_000, 5_000, 30_000, 60_000]),
            quality=rng.choice([100, 400, 500, 800, 950]),
            privacy=rng.choice(["sealed", "sealed", "logged", "public"]),
            energy=Energy(uwh, 0, uwh, "declared") if rng.random() < 0.5 else Energy(),
        )
        return Tier(issues, max(int(ask * rng.choice([1, 0.95, 0.8, 0.6, 0.2, rng.random()])), 1))

    @property
    def possible(self) -> bool:
        """Say whether some tier serves the buyer and can be sold within its limit."""
        needs = self.mandate.needs
        return any(
            tier.floor_fals <= self.limit for tier in self.tiers if serves(tier.issues, needs)
        )

    def buyer(self, strategy: str = "best") -> BuyerPolicy:
        first, latencies = self.tiers[0], [tier.issues.latency_ms for tier in self.tiers]
        scale = min(self.limit, 2 * first.ask_fals)
        return BuyerPolicy(
            self.mandate,
            make_strategy(strategy, seed=1),
            menu=tuple(tier.issues for tier in self.tiers),
            yardstick=Yardstick(self.weights, scale, max(latencies)),
        )

    def seller(self, strategy: str = "best") -> SellerPolicy:
        first, *others = self.tiers
        return SellerPolicy(
            mandate("sell", min(tier.floor_fals for tier in self.tiers)),
            first.issues,
            make_strategy(strategy, seed=2),
            tiers=tuple(others),
            floor_fals=first.floor_fals,
            penalty=100,
            backing_fals=self.backing,
        )

    def bargain(self, rounds: int, buyer: str = "best", seller: str = "best") -> Offer | None:
        """Return what the two agree on."""
        buying_side, selling_side = self.buyer(buyer), self.seller(seller)
        opened = msgspec.structs.replace(cfp(rounds=rounds), needs=self.mandate.needs)
        state = talk(("buyer", opened))
        while True:
            theirs = seller_move(state, selling_side, MOMENT)
            if isinstance(theirs, Commit):
                return theirs.offer
            assert isinstance(theirs, Say)
            if not isinstance(theirs.body, Quote | Counter):
                return None
            state = hear(state, "seller", theirs.body)
            ours = buyer_move(state, buying_side, MOMENT)
            if isinstance(ours, Commit):
                return ours.offer
            assert isinstance(ours, Say)
            if not isinstance(ours.body, Counter):
                return None
            state = hear(state, "buyer", ours.body)


def check(case: Case, agreed: Offer | None) -> None:
    """Neither side goes beyond what it said in private."""
    assert agreed is not None
    place = tier_of(agreed.issues, case.tiers)
    assert place is not None
    assert serves(agreed.issues, case.mandate.needs)
    assert case.tiers[place].floor_fals <= agreed.issues.price_fals <= case.limit


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_two_of_our_own_agree_whenever_a_tier_is_acceptable_to_both(rounds: int) -> None:
    cases = [Case(seed) for seed in range(MENUS)]
    hopeless = [case for case in cases if not case.possible]
    assert len(hopeless) > MENUS // 40
    unsure = 0
    for case in cases:
        agreed = case.bargain(rounds)
        if not case.possible:
            assert agreed is None
            continue
        check(case, agreed)
        unsure += all(tier.ask_fals > case.limit for tier in case.tiers)
    assert unsure > MENUS // 40, "some of them where everything is asked too much for"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_whatever_the_strategy_of_one_side_a_possible_deal_is_made(strategy: str) -> None:
    for seed in range(60):
        case = Case(1_000_000 + seed)
        if case.possible:
            for rounds in (1, 2, 4, 7):
                check(case, case.bargain(rounds, buyer=strategy))
                check(case, case.bargain(rounds, seller=strategy))


def test_longer_bargains_do_not_fail_for_the_last_part_of_what_they_could_save() -> None:
    for seed in range(100):
        case = Case(2_000_000 + seed)
        if case.possible:
            for rounds in (6, 12, 20):
                check(case, case.bargain(rounds))


PLAIN = Issues("2000000", quality=400)
FINE = Issues("5000000", quality=950)


def test_what_is_asked_more_for_than_the_limit_is_no_reason_to_refuse_what_is_not() -> None:
    keen = Yardstick(Weights(price=100, quality=900), 3_000_000)
    wishes = buying([Tier(PLAIN), Tier(FINE)], keen, limit_fals=3_000_000, here=0)
    assert wishes.acceptable((2_000_000, "0"))
    assert wishes.worth((3_000_000, "1")) > wishes.worth((2_000_000, "0"))
    dear = buying([Tier(PLAIN), Tier(FINE)], keen, limit_fals=1_000_000, here=0)
    assert dear.acceptable((1_000_000, "0"))
    assert dear.acceptable((1_000_000, "1"))
    assert not dear.acceptable((1_000_001, "1"))


def heard(*asks: tuple[Issues, int, int], rounds: int) -> Talk:
    """Return a talk in which so much was asked, at such penalties, and the buyer bid low."""
    state = talk(("buyer", cfp(rounds=rounds)))
    for number, (issues, price, penalty) in enumerate(asks):
        if number:
            bid = offer(1_000, issues=msgspec.structs.replace(issues, price="1000"))
            state = hear(state, "buyer", Counter(bid))
        asked = offer(
            price,
            issues=msgspec.structs.replace(issues, price=str(price)),
            penalty=str(penalty),
        )
        state = hear(state, "seller", Counter(asked) if number else Quote(asked))
    return state


def shopper(limit: int, **changes: int) -> BuyerPolicy:
    wishes = mandate("buy", limit, weights=Weights(price=100, quality=900), **changes)
    yardstick = Yardstick(wishes.weights, limit)
    return BuyerPolicy(wishes, make_strategy("best"), menu=(PLAIN, FINE), yardstick=yardstick)


def test_a_last_bid_is_the_least_that_was_asked_for_the_best_that_can_be_had() -> None:
    state = heard((PLAIN, 1_500_000, 0), (FINE, 4_900_000, 0), rounds=2)
    move = buyer_move(state, shopper(3_000_000), MOMENT)
    assert isinstance(move, Say)
    assert isinstance(move.body, Counter)
    assert move.body.offer.issues == msgspec.structs.replace(PLAIN, price="1500000")


def test_what_stands_at_the_end_and_is_no_worse_than_no_deal_is_taken() -> None:
    state = heard((FINE, 5_000_000, 0), (PLAIN, 1_900_000, 0), rounds=2)
    assert buyer_move(state, shopper(3_000_000), MOMENT) == Commit(state.asks[-1])


def test_a_bid_asks_for_no_penalty_that_its_seller_cannot_put_up() -> None:
    state = heard((PLAIN, 2_000_000, 150_000), (FINE, 5_000_000, 150_000), rounds=2)
    for limit, most in ((4_000_000, 150_000), (1_000_000, 75_000)):
        move = buyer_move(state, shopper(limit), MOMENT)
        assert isinstance(move, Say)
        assert isinstance(move.body, Counter)
        assert int(move.body.offer.penalty) <= most
    wanted = shopper(4_000_000, min_penalty=500)
    move = buyer_move(state, wanted, MOMENT)
    assert isinstance(move, Say)
    assert isinstance(move.body, Counter)
    assert 2 * int(move.body.offer.penalty) >= move.body.offer.issues.price_fals


def test_a_seller_ends_with_what_it_can_sell_for_the_least_unless_more_was_bid() -> None:
    seller = SellerPolicy(
        mandate("sell", 400_000),
        FINE,
        make_strategy("best"),
        tiers=(menu.Tier(PLAIN, 400_000),),
        floor_fals=1_000_000,
    )
    for bid, tiers in ((900_000, {400}), (1_000_000, {400, 950})):
        state = talk(("buyer", cfp(rounds=2)))
        first = seller_move(state, seller, MOMENT)
        assert isinstance(first, Say)
        state = hear(state, "seller", first.body)
        low = offer(bid, issues=msgspec.structs.replace(FINE, price=str(bid)))
        state = hear(state, "buyer", Counter(low))
        last = seller_move(state, seller, MOMENT)
        if isinstance(last, Commit):
            assert bid == 1_000_000
            continue
        assert isinstance(last, Say)
        assert isinstance(last.body, Counter)
        assert last.body.offer.issues.quality in tiers
        assert last.body.offer.issues.price_fals >= 400_000
