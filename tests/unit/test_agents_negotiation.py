"""The pure parts of a negotiation: talk, mandate, guard, agreement, goods, line, score, moves."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.errors import (
    BadResultError,
    MandateExceededError,
    OfferInadmissibleError,
    OutOfPlaceError,
)
from agents.negotiation.agreement import agreement_of, both_signed, check_agreement, sign_agreement
from agents.negotiation.goods import (
    MAX_GOODS_BYTES,
    pack_input,
    pack_output,
    seal_goods,
    unpack_input,
    unpack_output,
)
from agents.negotiation.guard import MAX_VALIDITY_MS, admit, authorise
from agents.negotiation.line import Line
from agents.negotiation.machine import (
    acceptable,
)
from agents.negotiation.mandate import open_mandate, sign_mandate
from agents.negotiation.talk import OVER, STEPS, Talk, hear, replay
from rahba.clock import ManualClock
from rahba.encoding import sha256_hex
from rahba.envelope import open_envelope
from rahba.errors import BadInputError, BadSignatureError, RahbaError, TooLargeError
from rahba.ids import RandomIds
from rahba.messages import (
    AGREEMENT_TYPE,
    Accept,
    Counter,
    Decommit,
    Energy,
    Failure,
    Issues,
    Job,
    Offer,
    Quote,
    Refuse,
    Reject,
    Result,
    open_message,
)
from tests.fixtures.talks import (
    BUYER,
    LATER,
    NOW,
    PLAIN,
    SELLER,
    SKILL,
    THIRD,
    cfp,
    mandate,
    offer,
    order,
    talk,
)

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
    start = msgspec.structs.replace(talk(), posted=posted)
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
    sealed = seal_goods(SELLER.did, PLAIN, sender="me")
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
        unpack_input(seal_goods(SELLER.did, plain, sender="me"), SELLER, digest=sha256_hex(plain))


def test_output_is_any_json_and_is_the_one_on_the_receipt() -> None:
    plain = pack_output({"b": 1.5, "a": [None, "é"]})
    sealed = seal_goods(BUYER.did, plain, sender="me")
    assert unpack_output(sealed, BUYER, digest=sha256_hex(plain)) == {"b": 1.5, "a": [None, "é"]}
    with pytest.raises(BadResultError):
        unpack_output(sealed, BUYER, digest="0" * 64)
    with pytest.raises(BadResultError):
        unpack_output(sealed, THIRD, digest=sha256_hex(plain))
    with pytest.raises(BadResultError):
        unpack_output("not base64!", BUYER, digest="0" * 64)
    for odd in (b"[1]", b"nonsense", b'{"output":1,"more":2}'):
        with pytest.raises(BadResultError):
            unpack_output(seal_goods(BUYER.did, odd, sender="me"), BUYER, digest=sha256_hex(odd))


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


def test_the_docs_are_what_the_tables_say() -> None:
    path = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("talks", path / "tools" / "thread_diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    tool: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written = (path / "docs" / "negotiation-states.md").read_text("utf-8")
    assert written == tool.document(), "write it: python tools/thread_diagrams.py"
    talk = written.partition("## At both sides")[2].splitlines()
    for (state, side, kind), after in STEPS.items():
        (line,) = [each for each in talk if f"    {state} --> {after}: " in each]
        assert f"{side} " in line
        assert kind in line
