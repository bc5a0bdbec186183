"""The pure parts of a negotiation: talk, mandate, guard, agreement, goods, line, score, moves."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from agents.errors import (
    BadResultError,
    MandateExceededError,
    OfferInadmissibleError,
    OutOfPlaceError,
)
from agents.negotiation import (
    BuyerPolicy,
    Commit,
    Line,
    Mandate,
    Moment,
    Perform,
    Say,
    SellerPolicy,
    Stay,
    Talk,
    Weights,
    agreement_of,
    both_signed,
    buyer_move,
    check_agreement,
    hear,
    open_mandate,
    pack_input,
    pack_output,
    replay,
    seal_goods,
    seller_move,
    sign_agreement,
    sign_mandate,
    unpack_input,
    unpack_output,
)
from agents.negotiation.goods import MAX_GOODS_BYTES
from agents.negotiation.guard import MAX_VALIDITY_MS, admit, authorise
from agents.negotiation.machine import acceptable
from agents.negotiation.score import Yardstick, best_first
from agents.negotiation.talk import OVER, STEPS
from agents.strategies import make_strategy
from rahba.clock import ManualClock
from rahba.encoding import sha256_hex
from rahba.envelope import Signer, open_envelope
from rahba.errors import BadInputError, BadSignatureError, RahbaError, TooLargeError
from rahba.ids import RandomIds
from rahba.messages import (
    AGREEMENT_TYPE,
    Accept,
    Cfp,
    Counter,
    Decommit,
    Energy,
    Failure,
    Issues,
    Job,
    Offer,
    Order,
    Quote,
    Refuse,
    Reject,
    Result,
    open_message,
)

BUYER, SELLER, THIRD = (Signer(bytes([n]) * 32) for n in (1, 2, 3))
NOW = 1_700_000_000_000
LATER = NOW + 60_000
SKILL = "text.upper"
PLAIN = pack_input(SKILL, {"text": "hello"})
THREAD, GROUP = "a" * 32, "b" * 32
MOMENT = Moment(NOW, "5a17")


def cfp(mode: str = "bargain", rounds: int = 6) -> Cfp:
    return Cfp(GROUP, SKILL, mode, sha256_hex(PLAIN), len(PLAIN), LATER, rounds)


def offer(price: int, **changes: object) -> Offer:
    fields = {"skill": SKILL, "issues": Issues(str(price)), "valid_until": LATER, "salt": "5a17"}
    return Offer(**{**fields, **changes})


def mandate(side: str = "buy", limit: int = 2_000_000, **changes: object) -> Mandate:
    who = BUYER.did if side == "buy" else SELLER.did
    fields = {"owner": who, "agent": who, "skill": SKILL, "valid_until": LATER, "salt": "5a17"}
    return Mandate(side=side, limit=str(limit), **{**fields, **changes})


def talk(*said: tuple[str, object]) -> Talk:
    state = Talk(THREAD, BUYER.did, SELLER.did)
    for by, body in said:
        state = hear(state, by, body)
    return state


def order(agreement_digest: str = "c" * 64) -> Order:
    return Order(agreement_digest, "sig", None, "input", LATER)


BUYING = BuyerPolicy(mandate(), make_strategy("best"))
SELLING = SellerPolicy(mandate("sell", 1_000_000), Issues("2000000"), make_strategy("best"))


# Talk.


def test_a_talk_follows_the_table_from_the_call_to_the_result() -> None:
    first, second = offer(200), offer(100, salt="2")
    state = talk(("buyer", cfp()), ("seller", Quote(first)), ("buyer", Counter(second)))
    assert (state.phase, state.asks, state.bids) == ("countered", (first,), (second,))
    state = hear(state, "seller", Accept(second.digest(), "s"))
    assert (state.phase, state.agreed, state.seller_signature) == ("agreed", second, "s")
    state = hear(state, "buyer", Job(order()))
    assert (state.phase, state.buyer_signature) == ("ordered", "sig")
    state = hear(state, "seller", Result("c" * 64, "s2", "o", "r"))
    assert (state.phase, state.seller_signature) == ("delivered", "s2")
    assert state.rounds == 1


def test_every_phase_that_is_not_over_has_a_way_on() -> None:
    phases = {phase for phase, _, _ in STEPS} | set(STEPS.values())
    assert {phase for phase, _, _ in STEPS} == phases - OVER


@pytest.mark.parametrize(
    ("by", "body"),
    [
        ("seller", Quote(offer(1))),
        ("buyer", Counter(offer(1))),
        ("seller", cfp()),
        ("buyer", Job(order())),
        ("seller", Result("c" * 64, "s", "o", "r")),
        ("buyer", Accept("d" * 64, "s", order(), cfp("posted"))),
    ],
)
def test_what_is_out_of_place_is_refused_and_changes_nothing(by: str, body: object) -> None:
    state = talk()
    with pytest.raises(OutOfPlaceError):
        hear(state, by, body)
    assert state == talk()


def test_an_accept_names_the_standing_offer_of_the_other_side() -> None:
    ask = offer(200)
    state = talk(("buyer", cfp()), ("seller", Quote(ask)))
    with pytest.raises(OutOfPlaceError):
        hear(state, "buyer", Accept("d" * 64, "s", order()))
    with pytest.raises(OutOfPlaceError):
        hear(state, "buyer", Accept(ask.digest(), "s"))
    with pytest.raises(OutOfPlaceError):
        hear(state, "seller", Accept(ask.digest(), "s"))
    assert hear(state, "buyer", Accept(ask.digest(), "s", order())).agreed == ask


def test_a_posted_price_needs_its_offer_and_a_seller_brings_no_order() -> None:
    posted = offer(5)
    start = replace(talk(), posted=posted)
    accept = Accept(posted.digest(), "s", order(), cfp("posted"))
    assert hear(start, "buyer", accept).phase == "ordered"
    with pytest.raises(OutOfPlaceError):
        hear(talk(), "buyer", accept)
    bid = offer(3, salt="3")
    state = talk(("buyer", cfp()), ("seller", Quote(posted)), ("buyer", Counter(bid)))
    with pytest.raises(OutOfPlaceError):
        hear(state, "seller", Accept(bid.digest(), "s", order()))


@pytest.mark.parametrize(
    ("said", "phase", "code"),
    [
        (Refuse("busy"), "closed", "busy"),
        (Quote(offer(1)), "quoted", None),
        (Reject("no_deal"), "closed", "no_deal"),
    ],
)
def test_a_talk_remembers_why_it_ended(said: object, phase: str, code: str | None) -> None:
    state = hear(talk(("buyer", cfp())), "seller", said)
    assert (state.phase, state.code) == (phase, code)


def test_a_failure_or_a_decommitment_ends_an_order() -> None:
    ask = offer(200)
    start = talk(
        ("buyer", cfp()), ("seller", Quote(ask)), ("buyer", Accept(ask.digest(), "s", order()))
    )
    assert hear(start, "seller", Failure("c" * 64, "boom")).code == "boom"
    assert hear(start, "seller", Decommit("c" * 64)).phase == "failed"


def test_a_stranger_has_no_side() -> None:
    with pytest.raises(OutOfPlaceError):
        talk().side_of(THIRD.did)


# Mandate and guard.


def test_a_mandate_is_opened_only_with_its_owners_signature_and_for_its_agent() -> None:
    signed = sign_mandate(mandate(agent=THIRD.did), BUYER)
    assert open_mandate(signed.raw, agent=THIRD.did) == signed
    with pytest.raises(BadSignatureError):
        open_mandate(signed.raw, agent=SELLER.did)
    with pytest.raises(BadSignatureError):
        sign_mandate(mandate(), THIRD)
    forged = signed.raw.replace(BUYER.did.encode(), THIRD.did.encode())
    with pytest.raises(RahbaError):
        open_mandate(forged, agent=THIRD.did)


def test_the_digest_of_a_mandate_hides_its_limit_behind_a_salt() -> None:
    assert mandate(salt="1").digest() != mandate(salt="2").digest()


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        (offer(1, skill="text.other"), 1),
        (offer(1, firm=False), 3),
        (offer(1, valid_until=NOW), 4),
        (offer(1, valid_until=NOW + MAX_VALIDITY_MS + 1), 4),
        (offer(1, salt="x" * 65), 5),
        (offer(1, salt="pay me!"), 5),
    ],
)
def test_an_inadmissible_offer_fails_its_check(bad: Offer, check: int) -> None:
    admit(offer(1), skill=SKILL, now_ms=NOW)
    with pytest.raises(OfferInadmissibleError) as caught:
        admit(bad, skill=SKILL, now_ms=NOW)
    assert caught.value.facts["check"] == check


def test_an_offer_whose_amounts_are_no_amounts_is_inadmissible() -> None:
    for bad in (offer(1, issues=Issues("1.5")), offer(1, penalty="-1")):
        with pytest.raises(BadInputError):
            admit(bad, skill=SKILL, now_ms=NOW)
        assert acceptable(talk(), bad, mandate(), now_ms=NOW) == "bad_amount"


@pytest.mark.parametrize(
    ("terms", "limits", "check"),
    [
        ({}, {"valid_until": NOW - 1}, 1),
        ({}, {"skill": "text.other"}, 1),
        ({}, {"parties": [THIRD.did]}, 2),
        ({"issues": Issues("2000001")}, {}, 3),
        ({"penalty": "2000000"}, {}, 3),
        ({"issues": Issues("1", latency_ms=5_001)}, {"max_latency_ms": 5_000}, 4),
        ({"issues": Issues("1", quality=399)}, {"min_quality": 400}, 4),
        ({}, {"max_energy_uwh": 10}, 4),
        (
            {"issues": Issues("1", energy=Energy(5, 1, 11, "measured"))},
            {"max_energy_uwh": 10},
            4,
        ),
        ({"issues": Issues("1", privacy="public")}, {"privacy": "sealed"}, 5),
    ],
)
def test_terms_beyond_the_mandate_fail_their_check(
    terms: dict[str, object], limits: dict[str, object], check: int
) -> None:
    authorise(offer(1_000_000), mandate(), party=SELLER.did, now_ms=NOW)
    with pytest.raises(MandateExceededError) as caught:
        authorise(offer(1_000_000, **terms), mandate(**limits), party=SELLER.did, now_ms=NOW)
    assert caught.value.facts["check"] == check


def test_nobody_trades_with_itself_nor_sells_below_the_floor() -> None:
    with pytest.raises(MandateExceededError):
        authorise(offer(1), mandate(), party=BUYER.did, now_ms=NOW)
    selling = mandate("sell", 1_000_000)
    authorise(offer(1_000_000), selling, party=BUYER.did, now_ms=NOW)
    with pytest.raises(MandateExceededError):
        authorise(offer(999_999), selling, party=BUYER.did, now_ms=NOW)


# Agreement and goods.


def agreed_talk() -> Talk:
    ask = offer(200)
    return talk(
        ("buyer", cfp()), ("seller", Quote(ask)), ("buyer", Accept(ask.digest(), "s", order()))
    )


def test_both_sides_compute_and_sign_the_same_agreement() -> None:
    agreement = agreement_of(agreed_talk(), offer(200))
    signatures = [sign_agreement(agreement, signer) for signer in (BUYER, SELLER)]
    deal = both_signed(agreement, buyer=signatures[0], seller=signatures[1])
    assert deal.digest == agreement.digest()
    assert set(open_envelope(deal.raw, AGREEMENT_TYPE).signers) == {BUYER.did, SELLER.did}
    with pytest.raises(BadSignatureError):
        both_signed(agreement, buyer=signatures[1], seller=signatures[0])
    dearer = agreement_of(agreed_talk(), offer(201))
    with pytest.raises(BadSignatureError):
        check_agreement(dearer, BUYER.did, signatures[0])


def test_input_reaches_its_seller_only_and_only_as_agreed() -> None:
    sealed = seal_goods(SELLER.did, PLAIN)
    opened = unpack_input(sealed, SELLER, digest=sha256_hex(PLAIN))
    assert opened == (SKILL, {"text": "hello"})
    with pytest.raises(BadSignatureError):
        unpack_input(sealed, THIRD, digest=sha256_hex(PLAIN))
    with pytest.raises(BadInputError):
        unpack_input(sealed, SELLER, digest="0" * 64)


@pytest.mark.parametrize(
    "plain", [b"[]", b'{"args":{},"skill":1}', b'{"args":{},"b":1,"skill":""}']
)
def test_input_of_another_form_is_refused(plain: bytes) -> None:
    with pytest.raises(BadInputError):
        unpack_input(seal_goods(SELLER.did, plain), SELLER, digest=sha256_hex(plain))


def test_output_is_any_json_and_is_the_one_on_the_receipt() -> None:
    plain = pack_output({"b": 1.5, "a": [None, "é"]})
    sealed = seal_goods(BUYER.did, plain)
    assert unpack_output(sealed, BUYER, digest=sha256_hex(plain)) == {"b": 1.5, "a": [None, "é"]}
    with pytest.raises(BadResultError):
        unpack_output(sealed, BUYER, digest="0" * 64)
    with pytest.raises(BadResultError):
        unpack_output(sealed, THIRD, digest=sha256_hex(plain))
    with pytest.raises(BadResultError):
        unpack_output("not base64!", BUYER, digest="0" * 64)
    for odd in (b"[1]", b"nonsense", b'{"output":1,"more":2}'):
        with pytest.raises(BadResultError):
            unpack_output(seal_goods(BUYER.did, odd), BUYER, digest=sha256_hex(odd))


def test_goods_have_a_size_limit_and_a_json_form() -> None:
    with pytest.raises(TooLargeError):
        pack_input(SKILL, {"text": "x" * MAX_GOODS_BYTES})
    with pytest.raises(TooLargeError):
        pack_output("x" * MAX_GOODS_BYTES)
    with pytest.raises(BadInputError):
        pack_output(object())


# Line.


def test_a_line_numbers_links_and_resumes() -> None:
    clock, ids = ManualClock(NOW), RandomIds()
    ours = Line(talk(), BUYER, clock=clock, ids=ids)
    theirs = Line(talk(), SELLER, clock=clock, ids=ids)
    first = ours.write(cfp(), reply_by=LATER)
    ours.said(cfp(), first)
    theirs.heard(open_message(first, me=SELLER.did, now_ms=NOW), first)
    quote = Quote(offer(200))
    second = theirs.write(quote, reply_by=LATER)
    message = open_message(second, me=BUYER.did, now_ms=NOW)
    assert (message.seq, message.prev) == (1, sha256_hex(first))
    resumed = Line.resume(talk(), (first, second), BUYER, clock=clock, ids=ids)
    ours.heard(message, second)
    assert resumed.talk == ours.talk
    third = open_message(resumed.write(Reject("x"), reply_by=LATER), me=None, now_ms=NOW)
    assert (third.seq, third.prev, third.to) == (2, sha256_hex(second), SELLER.did)
    with pytest.raises(OutOfPlaceError):
        ours.heard(message, second)


def test_a_replay_skips_what_was_out_of_place() -> None:
    clock, ids = ManualClock(NOW), RandomIds()
    line = Line(talk(), BUYER, clock=clock, ids=ids)
    raws = [line.write(body, reply_by=LATER) for body in (Counter(offer(1)), cfp(), cfp())]
    messages = [open_message(raw, me=None, now_ms=NOW) for raw in raws]
    assert replay(talk(), messages) == talk(("buyer", cfp()))


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
    fair = replace(state, agreed=offer(1_500_000))
    assert seller_move(fair, SELLING, MOMENT) == Perform(offer(1_500_000), order())


def test_a_buyer_leaves_offers_that_do_not_stand_and_sellers_that_are_not_allowed() -> None:
    stale = talk(("buyer", cfp()), ("seller", Quote(offer(1, valid_until=NOW))))
    assert buyer_move(stale, BUYING, MOMENT) == Say(Reject("offer_inadmissible"))
    state = talk(("buyer", cfp()), ("seller", Quote(offer(100))))
    picky = replace(BUYING, mandate=mandate(parties=[THIRD.did]))
    assert buyer_move(state, picky, MOMENT) == Say(Reject("mandate_exceeded"))


def test_a_buyer_takes_a_posted_price_orders_what_was_accepted_and_else_stays_silent() -> None:
    posted = offer(5)
    assert buyer_move(replace(talk(), posted=posted), BUYING, MOMENT) == Commit(posted)
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
