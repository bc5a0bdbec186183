"""What a message says to the rules, and what the public is told."""

from __future__ import annotations

import doctest

import pytest
from msgspec.structs import replace

import broker.thread
from broker.events import MAX_EVENT_BYTES, encode_event
from broker.mailboxes import MailboxLimits, check_message
from broker.said import Terms, rounds_of, said_of, terms_of_opening, told, told_at_end
from broker.thread import Header, Said, ThreadRecord, header_of, rule
from rahba.clock import ManualClock
from rahba.errors import BadInputError, TooLargeError
from rahba.ids import BadIdError
from rahba.messages import Body, Failure, Message, Result, Withdraw, open_message
from tests.fixtures.market_messages import Talk


@pytest.fixture
def talk() -> Talk:
    return Talk(clock=ManualClock())


def read(talk: Talk, raw: bytes) -> Message:
    return open_message(raw, me=None, now_ms=talk.clock.now_ms())


def test_the_example_of_the_rules_is_true() -> None:
    assert doctest.testmod(broker.thread).failed == 0


def test_the_agreement_an_offer_makes_is_the_one_that_both_sides_sign(talk: Talk) -> None:
    offered = talk.offer(5)
    opening = read(talk, talk.say(talk.buyer, talk.opening()))
    terms = terms_of_opening(opening)
    assert terms is not None
    quote = read(talk, talk.say(talk.seller, talk.quote(offered)))
    assert said_of(quote, "d", terms=terms).makes == talk.agreement(offered).digest()
    accept = said_of(read(talk, talk.say(talk.buyer, talk.accept(offered))), "d")
    assert accept.agreement == talk.agreement(offered).digest()
    assert terms_of_opening(quote) is None


def test_a_posted_acceptance_carries_what_the_card_says(talk: Talk) -> None:
    posted = talk.offer(77)
    message = read(talk, talk.say(talk.buyer, talk.take_posted(posted)))
    said = said_of(message, "d", terms=terms_of_opening(message), posted=posted)
    assert (said.posted, said.offer, said.price) == (posted.digest(), posted.digest(), "77")
    assert said.makes == said.agreement
    assert said_of(message, "d").posted == ""


@pytest.mark.parametrize(
    "body",
    [
        Withdraw(offer="short"),
        Failure(agreement="../..", code="x"),
        Result(agreement="A" * 64, signature="", output="", receipt=""),
        Result(agreement="a" * 64, signature="", output="", receipt="not base64"),
    ],
)
def test_malformed_digests_in_a_body_are_refused(talk: Talk, body: Body) -> None:
    with pytest.raises(BadInputError):
        said_of(read(talk, talk.say(talk.seller, body)), "d")


def test_a_recipient_that_is_no_key_is_refused(talk: Talk) -> None:
    with pytest.raises(BadIdError):
        said_of(read(talk, talk.say(talk.buyer, talk.opening(), to="nobody")), "d")


def heard(talk: Talk, *raws: bytes) -> tuple[ThreadRecord, Said]:
    record, said = None, None
    terms: Terms | None = None
    for raw in raws:
        message = read(talk, raw)
        terms = terms_of_opening(message) or terms
        said = said_of(message, "d", terms=terms)
        decision = rule(record, said, talk.clock.now_ms())
        assert decision.verdict == "OK"
        record = decision.record
    assert record is not None
    assert said is not None
    return record, said


def test_the_public_is_told_of_a_deal_with_its_figures(talk: Talk) -> None:
    asked, wanted = talk.offer(1_000), talk.offer(800)
    record, said = heard(
        talk,
        talk.say(talk.buyer, talk.opening()),
        talk.say(talk.seller, talk.quote(asked)),
        talk.say(talk.buyer, talk.counter(wanted)),
        talk.say(talk.seller, talk.nod(wanted)),
    )
    ((kind, data),) = told(talk.thread, said, header_of(record))
    assert kind == "accepted"
    assert (data["price"], data["asked"], data["rounds"]) == ("800", "1000", 1)
    assert data["agreement"] == talk.agreement(wanted).digest()


def test_a_sealed_quote_is_told_without_its_price(talk: Talk) -> None:
    talk.mode = "tender"
    raws = [
        talk.say(talk.buyer, talk.opening()),
        talk.say(talk.seller, talk.quote(talk.offer(1_000))),
    ]
    record, said = heard(talk, *raws)
    ((kind, data),) = told(talk.thread, said, header_of(record))
    assert (kind, data["sealed"], "price" in data) == ("offer", 1, False)
    header = replace(header_of(record), state="expired", code="expired")
    assert [kind for kind, _ in told_at_end(talk.thread, header)] == ["offer.revealed", "closed"]


def test_a_posted_deal_takes_one_round() -> None:
    assert rounds_of(Header(buyer="b", seller="s")) == 1
    assert rounds_of(Header(buyer="b", seller="s", buyer_offers=3, seller_offers=4)) == 4


def test_an_event_and_a_message_have_a_greatest_size() -> None:
    with pytest.raises(TooLargeError):
        encode_event("x", {"text": "y" * MAX_EVENT_BYTES}, 0)
    with pytest.raises(TooLargeError):
        check_message(b"xx", MailboxLimits(message_bytes=1))
