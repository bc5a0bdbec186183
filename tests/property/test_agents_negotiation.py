"""Whatever the other side offers: no move goes beyond the mandate, and the same gets the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agents.errors import OutOfPlaceError
from agents.negotiation import (
    BuyerPolicy,
    Commit,
    Mandate,
    Moment,
    Say,
    SellerPolicy,
    Talk,
    buyer_move,
    hear,
    seller_move,
)
from agents.negotiation.talk import STEPS
from agents.strategies import STRATEGIES, make_strategy
from broker.knowledge.forecast import PriceView
from broker.thread import STEPS as BROKER_STEPS
from rahba.envelope import Signer
from rahba.messages import Accept, Cfp, Counter, Issues, Offer, Order, Quote

BUYER, SELLER = Signer(b"1" * 32).did, Signer(b"2" * 32).did
NOW = 1_700_000_000_000
SKILL = "text.upper"
prices = st.integers(0, 5_000_000)
names = st.sampled_from(sorted(STRATEGIES))
views = st.none() | st.builds(
    PriceView,
    skill=st.just(SKILL),
    deals=prices,
    last=prices,
    median=prices,
    forecast=prices,
    low=prices,
    high=prices,
    naive=prices,
    method=st.just("naive"),
    width_ms=st.just(60_000),
)


@given(prices, prices, views)
def test_a_sealed_quote_lies_between_floor_and_posted_price_whatever_the_market_pays(
    one: int, other: int, known: PriceView | None
) -> None:
    floor, posted = sorted((one, other))
    policy = SellerPolicy(
        mandate("sell", floor), Issues(str(posted)), make_strategy("best"), prices=known
    )
    call = Cfp("b" * 32, SKILL, "tender", "c" * 64, 10, NOW + 60_000, 1)
    move = seller_move(hear(Talk("a" * 32, BUYER, SELLER), "buyer", call), policy, Moment(NOW, "s"))
    assert isinstance(move, Say)
    assert isinstance(move.body, Quote)
    assert floor <= move.body.offer.issues.price_fals <= posted


def mandate(side: str, limit: int) -> Mandate:
    who = BUYER if side == "buy" else SELLER
    return Mandate(who, who, side, SKILL, str(limit), NOW + 60_000, "5a17")


def offer(price: int, salt: int) -> Offer:
    return Offer(SKILL, Issues(str(price)), NOW + 60_000, f"{salt}")


class Bargain(RuleBasedStateMachine):
    """One side plays by policy, the other says anything that is in place."""

    @initialize(
        limit=prices,
        posted=prices,
        rounds=st.integers(1, 20),
        name=names,
        seed=st.integers(0, 99),
        known=views,
    )
    def open_thread(  # noqa: PLR0917  # one parameter a draw
        self, limit: int, posted: int, rounds: int, name: str, seed: int, known: PriceView | None
    ) -> None:
        call = Cfp("b" * 32, SKILL, "bargain", "c" * 64, 10, NOW + 60_000, rounds)
        self.buying = self.selling = hear(Talk("a" * 32, BUYER, SELLER), "buyer", call)
        self.limit, self.floor, self.posted = limit, min(limit, posted), max(limit, posted)
        strategy = make_strategy(name, seed=seed)
        self.buyer = BuyerPolicy(mandate("buy", limit), strategy, prices=known)
        floor, terms = mandate("sell", self.floor), Issues(str(self.posted))
        self.seller = SellerPolicy(floor, terms, strategy, prices=known)
        self.salt = 0

    @rule()
    def time_passes(self) -> None:
        """Let a thread that is over stay over."""
        self.salt += 1

    @precondition(lambda self: self.buying.phase in {"asked", "countered"})
    @rule(price=prices)
    def the_seller_asks_anything_and_the_buyer_answers(self, price: int) -> None:
        self.salt += 1
        ask = offer(price, self.salt)
        self.buying = hear(self.buying, "seller", Counter(ask) if self.buying.asks else Quote(ask))
        moment = Moment(NOW, f"b{self.salt}")
        move = buyer_move(self.buying, self.buyer, moment)
        assert move == buyer_move(self.buying, self.buyer, moment)
        match move:
            case Say(Counter(bid)):
                assert bid.issues.price_fals <= self.limit
                self.buying = hear(self.buying, "buyer", move.body)
            case Say(body):
                self.buying = hear(self.buying, "buyer", body)
            case Commit(taken):
                assert taken == ask
                assert taken.issues.price_fals <= self.limit
                order = Order("c" * 64, "s", None, "i", NOW)
                self.buying = hear(self.buying, "buyer", Accept(ask.digest(), "s", order))

    @precondition(lambda self: self.selling.phase in {"asked", "quoted"})
    @rule(price=prices)
    def the_buyer_bids_anything_and_the_seller_answers(self, price: int) -> None:
        self.salt += 1
        if self.selling.phase == "quoted":
            bid = Offer(SKILL, Issues(str(price)), NOW + 60_000, f"{self.salt}")
            self.selling = hear(self.selling, "buyer", Counter(bid))
        moment = Moment(NOW, f"s{self.salt}")
        move = seller_move(self.selling, self.seller, moment)
        assert move == seller_move(self.selling, self.seller, moment)
        match move:
            case Say(Quote(ask) | Counter(ask)):
                assert self.floor <= ask.issues.price_fals <= max(self.posted, 1)
                self.selling = hear(self.selling, "seller", move.body)
            case Say(body):
                self.selling = hear(self.selling, "seller", body)
            case Commit(taken):
                assert taken.issues.price_fals >= self.floor
                self.selling = hear(self.selling, "seller", Accept(taken.digest(), "s"))

    @invariant()
    def nobody_makes_more_offers_than_there_are_rounds(self) -> None:
        if hasattr(self, "buying"):
            assert len(self.buying.bids) <= self.buying.cfp.rounds
            assert len(self.selling.asks) <= self.selling.cfp.rounds


TestBargain = Bargain.TestCase
TestBargain.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


@given(
    floor=st.integers(1, 2_000_000),
    above=st.integers(0, 2_000_000),
    budget=st.integers(1, 5_000_000),
    rounds=st.integers(1, 20),
    names=st.tuples(names, names),
)
@settings(max_examples=60, deadline=None)
def test_two_machines_agree_whenever_best_meets_best_and_never_outside_both_mandates(
    floor: int, above: int, budget: int, rounds: int, names: tuple[str, str]
) -> None:
    call = Cfp("b" * 32, SKILL, "bargain", "c" * 64, 10, NOW + 60_000, rounds)
    talk = hear(Talk("a" * 32, BUYER, SELLER), "buyer", call)
    buyer = BuyerPolicy(mandate("buy", budget), make_strategy(names[0]))
    posted = Issues(str(floor + above))
    seller = SellerPolicy(mandate("sell", floor), posted, make_strategy(names[1]))
    deal = None
    for turn in range(2 * rounds + 2):
        moment = Moment(NOW, f"{turn}")
        seller_turn = turn % 2 == 0
        policy_move = (
            seller_move(talk, seller, moment) if seller_turn else buyer_move(talk, buyer, moment)
        )
        if isinstance(policy_move, Commit):
            deal = policy_move.offer
            break
        if not isinstance(policy_move, Say):
            break
        talk = hear(talk, "seller" if seller_turn else "buyer", policy_move.body)
    if deal is not None:
        assert floor <= deal.issues.price_fals <= budget
    elif names == ("best", "best"):
        assert budget < floor


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_talk_never_changes_on_a_message_that_is_out_of_place(data: st.DataObject) -> None:
    talk = Talk("a" * 32, BUYER, SELLER, posted=offer(5, 0))
    order = Order("c" * 64, "s", None, "i", NOW)
    bodies = st.sampled_from(
        [
            Cfp("b" * 32, SKILL, "bargain", "c" * 64, 10, NOW, 3),
            Quote(offer(5, 1)),
            Counter(offer(4, 2)),
            Accept(offer(4, 2).digest(), "s"),
            Accept(offer(5, 1).digest(), "s", order),
        ]
    )
    for by, body in data.draw(st.lists(st.tuples(st.sampled_from(["buyer", "seller"]), bodies))):
        before = talk
        try:
            talk = hear(talk, by, body)
        except OutOfPlaceError:
            assert talk is before
        else:
            assert talk != before


def test_every_step_that_the_broker_lets_stand_is_one_that_a_talk_understands() -> None:
    """But for two words that change nothing that either side decides upon."""
    inside: dict[str, set[str]] = {
        "open": {"asked", "quoted", "countered"},
        "agreed": {"agreed"},
        "held": {"ordered"},
    }
    ends = {"delivered": {"delivered"}, "held": {"ordered"}, "agreed": {"agreed"}}
    over = {"failed", "closed"}
    for (state, role, said), after in BROKER_STEPS.items():
        if said in {"not_understood", "withdraw"}:
            continue
        phases = {
            STEPS[key] for key in STEPS if key[0] in inside[state] and key[1:] == (role, said)
        }
        assert phases, (state, role, said)
        assert phases <= ends.get(after, inside.get(after, over)), (state, role, said)
