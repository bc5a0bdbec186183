"""What every broker does with the messages of a thread, whatever carries it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from broker.errors import FirstMessageError
from rahba.envelope import Signer
from rahba.errors import BadInputError, BadSignatureError, EnvelopeExpiredError
from rahba.messages import (
    Accept,
    Decommit,
    Failure,
    NotUnderstood,
    Offer,
    Refuse,
    Reject,
    Withdraw,
)
from rahba.money import BadAmountError
from tests.fixtures.broker import Stand
from tests.fixtures.market_messages import IDS, SKILL, Talk, offer, signed_card, signer


@pytest.fixture
def talk(stand: Stand) -> Talk:
    return Talk(clock=stand.clock)


async def verdict(stand: Stand, raw: bytes) -> str:
    return (await stand.broker.threads.post(raw)).verdict


async def opened(stand: Stand, talk: Talk, **cfp: int) -> None:
    assert await verdict(stand, talk.say(talk.buyer, talk.opening(**cfp))) == "OK"


async def quoted(stand: Stand, talk: Talk, price: int = 1_000, *, valid_ms: int = 30_000) -> Offer:
    await opened(stand, talk)
    asked = talk.offer(price, valid_ms=valid_ms)
    assert await verdict(stand, talk.say(talk.seller, talk.quote(asked))) == "OK"
    return asked


async def held(stand: Stand, talk: Talk, *, deadline_ms: int = 20_000) -> Offer:
    asked = await quoted(stand, talk)
    accept = talk.accept(asked, deadline_ms=deadline_ms)
    assert await verdict(stand, talk.say(talk.buyer, accept)) == "OK"
    return asked


async def kinds(stand: Stand) -> list[str]:
    return [event.kind for _, event in await stand.broker.feed.tail(100)]


async def test_a_bargain_goes_from_the_first_call_to_the_payment(stand: Stand, talk: Talk) -> None:
    post = stand.broker.threads.post
    asked = await quoted(stand, talk, 1_000)
    wanted = talk.offer(700)
    assert (await post(talk.say(talk.buyer, talk.counter(wanted)))).verdict == "OK"
    nod = await post(talk.say(talk.seller, talk.nod(wanted)))
    assert (nod.verdict, nod.state) == ("OK", "agreed")
    assert (await post(talk.say(talk.buyer, talk.job(wanted)))).state == "held"
    assert (await post(talk.say(talk.seller, talk.result(wanted)))).state == "delivered"
    ruling = await stand.broker.threads.settle(talk.thread, paid=700, tx="a" * 64)
    assert (ruling.verdict, ruling.state) == ("OK", "settled")

    agreement = talk.agreement(wanted).digest()
    view = await stand.broker.threads.deal(agreement)
    assert view is not None
    assert view == await stand.broker.threads.get(talk.thread)
    assert (view.buyer, view.seller) == (talk.buyer.did, talk.seller.did)
    facts = view.facts
    assert (facts["asked"], facts["agreed"], facts["paid"]) == ("1000", "700", "700")
    assert (facts["agreement"], facts["rounds"], facts["tx"]) == (agreement, "1", "a" * 64)
    assert (facts["group"], facts["skill"], facts["mode"]) == (talk.group, SKILL, "bargain")
    assert len(view.transcript) == 6
    assert asked.digest() != wanted.digest()
    assert await kinds(stand) == [
        "negotiation.opened", "offer", "offer", "accepted", "held", "delivered", "settled",
    ]  # fmt: skip


async def test_a_ruled_message_is_in_the_recipients_mailbox(stand: Stand, talk: Talk) -> None:
    raw = talk.say(talk.buyer, talk.opening())
    await stand.broker.threads.post(raw)
    reader = stand.broker.mailbox.receive([talk.seller.did], consumer="host")
    (delivery,) = await reader.next(wait_ms=1_000)
    assert (delivery.owner, delivery.raw) == (talk.seller.did, raw)
    await reader.close()


async def test_eight_accepts_at_once_have_exactly_one_winner(stand: Stand) -> None:
    for _ in range(50):
        talk = Talk(clock=stand.clock)
        asked = await quoted(stand, talk)
        raws = [talk.say(talk.buyer, talk.accept(asked), seq=2) for _ in range(8)]
        verdicts = await asyncio.gather(*(verdict(stand, raw) for raw in raws))
        assert sorted(verdicts) == ["CLOSED"] * 7 + ["OK"]


async def test_of_both_sides_accepting_at_once_one_wins(stand: Stand, talk: Talk) -> None:
    asked = await quoted(stand, talk)
    wanted = talk.offer(500)
    await stand.broker.threads.post(talk.say(talk.buyer, talk.counter(wanted)))
    verdicts = await asyncio.gather(
        verdict(stand, talk.say(talk.buyer, talk.accept(asked))),
        verdict(stand, talk.say(talk.seller, talk.nod(wanted))),
    )
    assert sorted(verdicts) == ["CLOSED", "OK"]


async def test_two_buyers_take_the_same_posted_offer_each_in_its_own_thread(stand: Stand) -> None:
    seller = signer()
    listing = await stand.broker.directory.publish(signed_card(seller, stand.clock.now_ms()))
    posted = listing.card.skills[0].posted
    assert posted is not None
    for _ in range(2):
        talk = Talk(seller=seller, clock=stand.clock)
        ruling = await stand.broker.threads.post(talk.say(talk.buyer, talk.take_posted(posted)))
        assert (ruling.verdict, ruling.state) == ("OK", "held")


async def test_a_second_buyer_cannot_accept_in_somebody_elses_thread(
    stand: Stand, talk: Talk
) -> None:
    asked = await quoted(stand, talk)
    stranger = signer()
    raw = talk.say(stranger, talk.accept(asked), seq=2, to=talk.seller.did)
    assert await verdict(stand, raw) == "NOT_PARTY"
    posted = talk.say(stranger, talk.take_posted(asked), seq=1, to=talk.seller.did)
    assert await verdict(stand, posted) == "NOT_PARTY"


async def test_a_repeated_message_gets_its_first_answer_and_is_delivered_again(
    stand: Stand, talk: Talk
) -> None:
    raw = talk.say(talk.buyer, talk.opening())
    assert await verdict(stand, raw) == "OK"
    again = await stand.broker.threads.post(raw)
    assert (again.verdict, again.first, again.ok) == ("DUP", "OK", True)
    assert await stand.broker.mailbox.depth(talk.seller.did) == 2
    view = await stand.broker.threads.get(talk.thread)
    assert view is not None
    assert view.transcript == (raw,)


async def test_a_repeated_refusal_stays_refused(stand: Stand, talk: Talk) -> None:
    await opened(stand, talk)
    gap = talk.say(talk.seller, talk.quote(talk.offer()), seq=5)
    assert await verdict(stand, gap) == "OUT_OF_ORDER"
    again = await stand.broker.threads.post(gap)
    assert (again.verdict, again.first, again.ok) == ("DUP", "OUT_OF_ORDER", False)
    assert await stand.broker.mailbox.depth(talk.buyer.did) == 0


async def test_a_flood_of_repetitions_is_not_delivered(stand: Stand, talk: Talk) -> None:
    raw = talk.say(talk.buyer, talk.opening())
    for _ in range(15):
        await stand.broker.threads.post(raw)
    assert await stand.broker.mailbox.depth(talk.seller.did) == 9


async def test_other_bytes_under_a_used_id_are_neither_heard_nor_delivered(
    stand: Stand, talk: Talk
) -> None:
    message_id = IDS.new()
    await opened(stand, talk)
    first = talk.say(talk.seller, talk.quote(talk.offer(900)), message_id=message_id)
    assert await verdict(stand, first) == "OK"
    other = talk.say(talk.seller, talk.quote(talk.offer(1)), message_id=message_id)
    assert await verdict(stand, other) == "OUT_OF_ORDER"
    assert await stand.broker.mailbox.depth(talk.buyer.did) == 1


async def test_a_late_message_is_refused(stand: Stand, talk: Talk) -> None:
    await opened(stand, talk)
    past = stand.clock.now_ms() - 50
    raw = talk.say(talk.seller, talk.quote(talk.offer()), reply_by=past)
    assert await verdict(stand, raw) == "LATE"


async def test_a_quote_after_the_window_has_closed_is_late(stand: Stand, talk: Talk) -> None:
    window = stand.clock.now_ms() + 150
    await stand.broker.threads.post(talk.say(talk.buyer, talk.opening(), reply_by=window))
    await stand.pause(200)
    assert await verdict(stand, talk.say(talk.seller, talk.quote(talk.offer()))) == "LATE"


async def test_a_result_after_the_deadline_is_late(stand: Stand, talk: Talk) -> None:
    asked = await held(stand, talk, deadline_ms=150)
    await stand.pause(200)
    assert await verdict(stand, talk.say(talk.seller, talk.result(asked))) == "LATE"


async def test_a_replayed_sequence_number_is_out_of_order(stand: Stand, talk: Talk) -> None:
    await quoted(stand, talk)
    raw = talk.say(talk.buyer, talk.counter(talk.offer()), seq=1)
    assert await verdict(stand, raw) == "OUT_OF_ORDER"


async def test_a_gap_in_the_sequence_is_out_of_order(stand: Stand, talk: Talk) -> None:
    await quoted(stand, talk)
    raw = talk.say(talk.buyer, talk.counter(talk.offer()), seq=3)
    assert await verdict(stand, raw) == "OUT_OF_ORDER"


async def test_a_stranger_is_not_heard(stand: Stand, talk: Talk) -> None:
    await opened(stand, talk)
    stranger = signer()
    raw = talk.say(stranger, talk.quote(talk.offer()), to=talk.buyer.did)
    assert await verdict(stand, raw) == "NOT_PARTY"
    past_the_other = talk.say(talk.seller, talk.quote(talk.offer()), to=stranger.did)
    assert await verdict(stand, past_the_other) == "NOT_PARTY"


async def test_an_unknown_thread_is_refused(stand: Stand, talk: Talk) -> None:
    assert await verdict(stand, talk.say(talk.seller, talk.quote(talk.offer()))) == "UNKNOWN_THREAD"
    assert (await stand.broker.threads.settle(IDS.new(), paid=1, tx="a" * 64)).verdict == (
        "UNKNOWN_THREAD"
    )
    assert await stand.broker.threads.get(talk.thread) is None
    assert await stand.broker.threads.deal("b" * 64) is None


async def test_an_offer_that_was_replaced_cannot_be_accepted(stand: Stand, talk: Talk) -> None:
    first = await quoted(stand, talk, 900)
    await stand.broker.threads.post(talk.say(talk.buyer, talk.counter(talk.offer(500))))
    await stand.broker.threads.post(talk.say(talk.seller, talk.counter(talk.offer(950))))
    assert await verdict(stand, talk.say(talk.buyer, talk.accept(first))) == "OFFER_CHANGED"


async def test_an_agreement_on_other_terms_is_refused(stand: Stand, talk: Talk) -> None:
    asked = await quoted(stand, talk)
    cheaper = talk.offer(1)
    raw = talk.say(talk.buyer, talk.accept(cheaper, digest=asked.digest()))
    assert await verdict(stand, raw) == "OFFER_CHANGED"


async def test_a_price_changed_on_the_card_is_noticed(stand: Stand, talk: Talk) -> None:
    now_ms = stand.clock.now_ms()
    old = await stand.broker.directory.publish(signed_card(talk.seller, now_ms, price=100))
    await stand.broker.directory.publish(signed_card(talk.seller, now_ms + 1, price=200))
    posted = old.card.skills[0].posted
    assert posted is not None
    raw = talk.say(talk.buyer, talk.take_posted(posted))
    assert await verdict(stand, raw) == "OFFER_CHANGED"


async def test_a_posted_offer_of_nobody_on_the_market_does_not_stand(
    stand: Stand, talk: Talk
) -> None:
    raw = talk.say(talk.buyer, talk.take_posted(talk.offer()))
    assert await verdict(stand, raw) == "NO_STANDING_OFFER"


async def test_an_expired_offer_cannot_be_accepted(stand: Stand, talk: Talk) -> None:
    asked = await quoted(stand, talk, valid_ms=150)
    await stand.pause(200)
    assert await verdict(stand, talk.say(talk.buyer, talk.accept(asked))) == "OFFER_EXPIRED"


async def test_a_withdrawn_offer_cannot_be_accepted(stand: Stand, talk: Talk) -> None:
    asked = await quoted(stand, talk)
    raw = talk.say(talk.seller, Withdraw(offer=asked.digest()))
    assert await verdict(stand, raw) == "OK"
    assert await verdict(stand, talk.say(talk.buyer, talk.accept(asked))) == "NO_STANDING_OFFER"


async def test_after_the_deal_nothing_more_is_bargained(stand: Stand, talk: Talk) -> None:
    asked = await held(stand, talk)
    for who, body in (
        (talk.buyer, talk.accept(asked)),
        (talk.seller, talk.quote(talk.offer())),
        (talk.buyer, Reject(reason="changed my mind")),
        (talk.seller, Withdraw(offer=asked.digest())),
    ):
        assert await verdict(stand, talk.say(who, body)) == "CLOSED"


async def test_offers_beyond_the_round_limit_are_refused(stand: Stand) -> None:
    talk = Talk(clock=stand.clock, rounds=2)
    await opened(stand, talk)
    for price in (900, 800):
        assert await verdict(stand, talk.say(talk.seller, talk.counter(talk.offer(price)))) == "OK"
        assert await verdict(stand, talk.say(talk.buyer, talk.counter(talk.offer(100)))) == "OK"
    raw = talk.say(talk.seller, talk.counter(talk.offer(700)))
    assert await verdict(stand, raw) == "ROUND_LIMIT"


async def test_a_side_that_talks_without_end_is_cut_off(stand: Stand, talk: Talk) -> None:
    await opened(stand, talk)
    verdicts = [
        await verdict(stand, talk.say(talk.buyer, NotUnderstood(code="what"))) for _ in range(32)
    ]
    assert verdicts == ["OK"] * 31 + ["ROUND_LIMIT"]


async def test_offers_alternate(stand: Stand, talk: Talk) -> None:
    await opened(stand, talk)
    assert await verdict(stand, talk.say(talk.buyer, talk.counter(talk.offer()))) == "OUT_OF_TURN"
    talk.seqs[talk.buyer.did] = 1
    assert await verdict(stand, talk.say(talk.seller, talk.quote(talk.offer()))) == "OK"
    assert await verdict(stand, talk.say(talk.seller, talk.quote(talk.offer()))) == "OUT_OF_TURN"


async def test_in_a_tender_each_seller_quotes_once(stand: Stand) -> None:
    talk = Talk(clock=stand.clock, mode="tender", rounds=5)
    await quoted(stand, talk)
    assert await verdict(stand, talk.say(talk.buyer, talk.counter(talk.offer()))) == "OUT_OF_TURN"
    assert await verdict(stand, talk.say(talk.seller, talk.quote(talk.offer()))) == "OUT_OF_TURN"


async def test_a_sealed_quote_is_public_only_once_its_thread_is_decided(stand: Stand) -> None:
    talk = Talk(clock=stand.clock, mode="tender", rounds=1)
    await quoted(stand, talk, 4_321)
    before = [event for _, event in await stand.broker.feed.tail(10)]
    assert not any("4321" in str(event.data) for event in before)
    await stand.broker.threads.post(talk.say(talk.buyer, Reject(reason="outbid")))
    after = {event.kind: event.data for _, event in await stand.broker.feed.tail(10)}
    assert after["offer.revealed"]["price"] == "4321"


async def test_a_buyer_who_has_not_secured_the_money_cannot_accept(
    stand: Stand, talk: Talk
) -> None:
    asked = await quoted(stand, talk)
    assert await verdict(stand, talk.say(talk.buyer, talk.nod(asked))) == "OUT_OF_TURN"


@pytest.mark.parametrize(
    ("make", "state", "kind"),
    [
        (lambda t: (t.buyer, Reject(reason="outbid")), "closed", "closed"),
        (lambda t: (t.seller, Refuse(code="busy")), "closed", "refused"),
    ],
)
async def test_either_side_can_end_a_thread_before_a_deal(
    stand: Stand, talk: Talk, make: Callable[[Talk], tuple[Signer, Reject]], state: str, kind: str
) -> None:
    await opened(stand, talk)
    ruling = await stand.broker.threads.post(talk.say(*make(talk)))
    assert (ruling.verdict, ruling.state) == ("OK", state)
    assert (await kinds(stand))[-1] == kind


async def test_a_failed_job_ends_the_thread_with_its_code(stand: Stand, talk: Talk) -> None:
    asked = await held(stand, talk)
    failure = Failure(agreement=talk.agreement(asked).digest(), code="handler_error")
    ruling = await stand.broker.threads.post(talk.say(talk.seller, failure))
    assert (ruling.verdict, ruling.state) == ("OK", "failed")
    view = await stand.broker.threads.get(talk.thread)
    assert view is not None
    assert view.facts["code"] == "handler_error"
    assert await verdict(stand, talk.say(talk.seller, talk.result(asked))) == "CLOSED"


async def test_a_result_for_another_agreement_is_refused(stand: Stand, talk: Talk) -> None:
    await held(stand, talk)
    other = talk.result(talk.offer(5))
    assert await verdict(stand, talk.say(talk.seller, other)) == "OFFER_CHANGED"


async def test_an_agreement_can_be_left_by_a_decommitment(stand: Stand, talk: Talk) -> None:
    asked = await held(stand, talk)
    leave = Decommit(agreement=talk.agreement(asked).digest())
    assert (await stand.broker.threads.post(talk.say(talk.buyer, leave))).state == "decommitted"


async def test_settling_twice_is_settling_once(stand: Stand, talk: Talk) -> None:
    asked = await held(stand, talk)
    threads = stand.broker.threads
    assert (await threads.settle(talk.thread, paid=1_000, tx="a" * 64)).verdict == "OUT_OF_TURN"
    await threads.post(talk.say(talk.seller, talk.result(asked)))
    assert (await threads.settle(talk.thread, paid=1_000, tx="a" * 64)).verdict == "OK"
    again = await threads.settle(talk.thread, paid=1_000, tx="a" * 64)
    assert (again.verdict, again.first, again.state) == ("DUP", "OK", "settled")
    assert (await threads.settle(talk.thread, paid=9_999, tx="b" * 64)).verdict == "CLOSED"
    assert (await threads.close(talk.thread, "failed")).verdict == "CLOSED"
    assert (await kinds(stand)).count("settled") == 1


async def test_a_thread_with_money_held_expires_only_after_its_deadline(
    stand: Stand, talk: Talk
) -> None:
    await held(stand, talk, deadline_ms=300)
    threads = stand.broker.threads
    assert (await threads.close(talk.thread, "expired")).verdict == "OUT_OF_TURN"
    await stand.pause(350)
    ruling = await threads.close(talk.thread, "expired")
    assert (ruling.verdict, ruling.state) == ("OK", "expired")
    assert (await threads.close(talk.thread, "expired")).verdict == "DUP"


async def test_a_delivered_job_cannot_be_called_expired(stand: Stand, talk: Talk) -> None:
    asked = await held(stand, talk)
    await stand.broker.threads.post(talk.say(talk.seller, talk.result(asked)))
    assert (await stand.broker.threads.close(talk.thread, "expired")).verdict == "CLOSED"


async def test_a_group_holds_its_buyers_threads_in_order(stand: Stand) -> None:
    buyer, group = signer(), IDS.new()
    talks = [Talk(buyer=buyer, group=group, clock=stand.clock) for _ in range(3)]
    for talk in talks:
        await opened(stand, talk)
    views = await stand.broker.threads.group(group)
    assert [view.id for view in views] == [talk.thread for talk in talks]
    assert await stand.broker.threads.recent(limit=5) == [group]
    before = int(views[0].facts["opened_ms"])
    assert await stand.broker.threads.recent(limit=5, before_ms=before) == []


async def test_nobody_joins_another_buyers_group(stand: Stand, talk: Talk) -> None:
    await opened(stand, talk)
    intruder = Talk(group=talk.group, clock=stand.clock)
    raw = intruder.say(intruder.buyer, intruder.opening())
    assert await verdict(stand, raw) == "NOT_PARTY"
    assert len(await stand.broker.threads.group(talk.group)) == 1


async def test_a_group_has_at_most_sixty_four_threads(stand: Stand) -> None:
    buyer, group = signer(), IDS.new()
    talks = [Talk(buyer=buyer, group=group, clock=stand.clock) for _ in range(65)]
    verdicts = [await verdict(stand, talk.say(buyer, talk.opening())) for talk in talks]
    assert verdicts == ["OK"] * 64 + ["ROUND_LIMIT"]


async def test_a_forged_message_changes_nothing(stand: Stand, talk: Talk) -> None:
    raw = talk.say(talk.buyer, talk.opening())
    forged = raw.replace(b'"sig":"', b'"sig":"AAAA', 1)
    with pytest.raises((BadSignatureError, BadInputError)):
        await stand.broker.threads.post(forged)
    assert await stand.broker.threads.get(talk.thread) is None
    assert await stand.broker.threads.recent(limit=1) == []


async def test_a_message_from_the_future_is_refused(stand: Stand, talk: Talk) -> None:
    ahead = stand.clock.now_ms() + 60_000
    with pytest.raises(EnvelopeExpiredError):
        await stand.broker.threads.post(talk.say(talk.buyer, talk.opening(), ts=ahead))


async def test_an_offer_at_no_amount_is_refused(stand: Stand, talk: Talk) -> None:
    await opened(stand, talk)
    bad = offer("-5", valid_until=stand.clock.now_ms() + 1_000)
    with pytest.raises(BadAmountError):
        await stand.broker.threads.post(talk.say(talk.seller, talk.quote(bad)))


async def test_a_posted_acceptance_without_an_order_is_refused(stand: Stand, talk: Talk) -> None:
    accept = Accept(offer="a" * 64, signature="", opening=talk.opening(mode="posted"))
    with pytest.raises(FirstMessageError):
        await stand.broker.threads.post(talk.say(talk.buyer, accept))


async def test_a_posted_acceptance_without_its_offer_is_refused(stand: Stand, talk: Talk) -> None:
    posted = offer(5, valid_until=stand.clock.now_ms() + 1_000)
    for repeated in (None, offer(6, valid_until=stand.clock.now_ms() + 1_000)):
        accept = msgspec.structs.replace(talk.take_posted(posted), posted=repeated)
        with pytest.raises(FirstMessageError):
            await stand.broker.threads.post(talk.say(talk.buyer, accept))


async def test_a_free_deal_needs_no_hold(stand: Stand, talk: Talk) -> None:
    asked = await quoted(stand, talk, 0)
    raw = talk.say(talk.buyer, talk.accept(asked, hold=None))
    assert await verdict(stand, raw) == "OK"
    view = await stand.broker.threads.get(talk.thread)
    assert view is not None
    assert (view.state, view.facts["agreed"], "hold" in view.facts) == ("held", "0", False)
