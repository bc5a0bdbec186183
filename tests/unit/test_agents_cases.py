"""What a seller knows of its threads: enough to answer what follows, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from agents.attendance import Letter
from agents.cases import MAX_CASES, Case, Cases
from agents.negotiation import Line, Talk
from rahba.clock import SystemClock
from rahba.ids import RandomIds
from rahba.messages import (
    Accept,
    Body,
    Counter,
    Decommit,
    Job,
    Offer,
    Quote,
    Reject,
    message_digest,
    open_message,
)
from tests.fixtures.market_messages import Talk as Said

CLOCK, IDS = SystemClock(), RandomIds()


@dataclass
class Thread:
    """A thread as the buyer speaks in it, and the seller's cases."""

    said: Said = field(default_factory=Said)

    def __post_init__(self) -> None:
        self.cases = Cases(self.said.seller, clock=CLOCK, ids=IDS)
        talk = Talk(self.said.thread, self.said.buyer.did, self.said.seller.did)
        self.buyer = Line(talk, self.said.buyer, clock=CLOCK, ids=IDS)

    def letter(self, body: Body, *, token: int = 1, **changes: object) -> Letter:
        """Return the buyer's next message as it reaches the seller."""
        message = self.buyer.next(body, reply_by=CLOCK.now_ms() + 10_000)
        message = msgspec.structs.replace(message, **changes)
        return Letter(self.said.seller.did, message, b"raw %d" % message.seq, token)

    def asked(self) -> Case:
        """Open the thread on both sides."""
        letter = self.letter(self.said.opening())
        self.buyer.said(letter.message.body, letter.raw)
        case = self.cases.take(letter)
        assert case is not None
        return case

    def quoted(self, case: Case, body: Quote | Counter) -> Offer:
        """Have the seller offer something, and keep the case."""
        raw = case.line.write(body, reply_by=CLOCK.now_ms() + 10_000)
        case.line.said(body, raw)
        self.buyer.heard(open_message(raw, me=None, now_ms=0), raw)
        assert self.buyer.next(Reject("x"), reply_by=0).prev == message_digest(raw)
        self.cases.keep(case)
        return body.offer


def test_a_call_is_all_that_is_needed_to_answer_it() -> None:
    thread = Thread()
    case = thread.asked()
    view = case.view
    assert (view.state, view.buyer, view.id) == ("open", thread.said.buyer.did, thread.said.thread)
    assert view.facts["mode"] == "bargain"
    assert case.line.talk.phase == "asked"


def test_what_follows_is_known_without_another_look() -> None:
    thread = Thread()
    offer = thread.quoted(thread.asked(), Quote(thread.said.offer()))
    counter = thread.letter(Counter(thread.said.offer()))
    thread.buyer.said(counter.message.body, counter.raw)
    case = thread.cases.take(counter)
    assert case is not None
    assert (case.view.state, case.line.talk.phase) == ("open", "countered")
    offer = thread.quoted(case, Counter(thread.said.offer(900)))
    order = thread.said.order(offer)
    accept = thread.letter(Accept(offer.digest(), order.signature, order))
    case = thread.cases.take(accept)
    assert case is not None
    assert case.view.state == "held"
    assert case.view.facts["hold"] == order.hold
    assert case.view.facts["agreement"] == order.agreement
    assert case.line.talk.order == order


def test_a_word_of_farewell_closes_a_case() -> None:
    thread = Thread()
    _ = thread.quoted(thread.asked(), Quote(thread.said.offer()))
    case = thread.cases.take(thread.letter(Reject("not_chosen")))
    assert case is not None
    assert case.view.state == "closed"
    assert thread.cases.take(thread.letter(Reject("not_chosen"))) is None, "it is kept no longer"


def test_whatever_does_not_follow_makes_the_seller_look() -> None:
    strange: list[tuple[Body, dict[str, object]]] = [
        (Reject("x"), {"seq": 3}),
        (Reject("x"), {"seq": 1}),
        (Reject("x"), {"prev": "0" * 64}),
        (Reject("x"), {"prev": None}),
        (Reject("x"), {"sender": "did:key:zSomebody"}),
        (Decommit("0" * 64), {}),
        (Job(Said().order(Said().offer())), {}),
        (Accept("0" * 64, "s"), {}),
    ]
    for body, changes in strange:
        thread = Thread()
        _ = thread.quoted(thread.asked(), Quote(thread.said.offer()))
        assert thread.cases.take(thread.letter(body, **changes)) is None, (body, changes)


def test_what_was_delivered_before_makes_the_seller_look() -> None:
    thread = Thread()
    assert thread.cases.take(thread.letter(thread.said.opening(), token=2)) is None
    assert thread.cases.take(thread.letter(Reject("unknown"), seq=2)) is None
    _ = thread.quoted(thread.asked(), Quote(thread.said.offer()))
    assert thread.cases.take(thread.letter(Reject("x"), token=2)) is None


def test_a_seller_has_a_bounded_number_of_threads_in_hand() -> None:
    cases = Thread().cases
    first, last = Thread().asked(), Thread().asked()
    cases.keep(first)
    for number in range(MAX_CASES):
        view = replace(last.view, id=f"{number}")
        cases.keep(Case(view, last.line))
    assert len(cases._cases) == MAX_CASES
    assert first.view.id not in cases._cases
