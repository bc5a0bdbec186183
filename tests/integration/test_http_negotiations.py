"""Negotiations and deals over HTTP: every offer, every signature, every proof."""

from __future__ import annotations

import asyncio

from api.http.documents import CallDocument, DealDocument, NegotiationDocument, NegotiationPage
from api.http.negotiations import messages_of, rounds_of, summary
from rahba.encoding import unb64
from rahba.messages import open_message
from tests.fixtures.gateway import Site


async def test_a_negotiation_shows_every_offer_of_both_sides(stall: Site) -> None:
    call = (await stall.call(mode="bargain", budget="2500000", agent=await did(stall))).json
    CallDocument.model_validate(call)
    listed = await stall.ask("GET", "/v1/negotiations")
    assert NegotiationPage.model_validate(listed.json).negotiations[0].group == call["group"]
    answer = await stall.ask("GET", f"/v1/negotiations/{call['group']}?raw=1")
    talk = NegotiationDocument.model_validate(answer.json)
    thread = talk.threads[0]
    assert talk.state == "settled"
    assert talk.paid_fals == call["paid_fals"]
    sides = [offer.side for offer in thread.offers]
    assert sides[:2] == ["seller", "buyer"]
    assert all(offer.verified for offer in thread.offers)
    assert thread.offers[-1].price == call["agreed_fals"] or "accepted" in {
        offer.state for offer in thread.offers
    }
    assert thread.transcript is not None
    for raw in thread.transcript:
        assert open_message(unb64(raw), me=None, now_ms=0).thread == thread.thread
    plain = await stall.ask("GET", f"/v1/negotiations/{call['group']}")
    assert plain.json["threads"][0].get("transcript") is None


async def test_negotiations_page_newest_first(stall: Site) -> None:
    made = [(await stall.call()).json["group"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await stall.ask("GET", f"/v1/negotiations?limit=2{cursor}")).json
        seen += [item["group"] for item in page["negotiations"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == made[::-1]


async def test_a_deal_carries_everything_that_proves_it(stall: Site) -> None:
    call = (await stall.call()).json
    for _ in range(20):
        answer = await stall.ask("GET", f"/v1/deals/{call['agreement']}")
        deal = DealDocument.model_validate(answer.json)
        if deal.inclusion is not None:
            break
        await asyncio.sleep(0.1)
    assert deal.state == "settled"
    assert deal.signatures.buyer is not None
    assert deal.signatures.buyer.verified
    assert deal.signatures.seller is not None
    assert deal.signatures.seller.verified
    assert deal.receipt is not None
    assert deal.receipt.verified
    assert deal.hold is not None
    assert (deal.hold.status, deal.hold.captured) == ("captured", call["paid_fals"])
    assert deal.inclusion is not None
    assert deal.inclusion.leaf_hash == deal.capture_tx


async def test_a_summary_follows_the_thread_that_went_furthest(stall: Site) -> None:
    call = (await stall.call(mode="tender", deadline_ms=20_000)).json
    threads = await stall.parts.broker.threads.group(call["group"])
    assert {view.state for view in threads} == {"settled", "closed"}
    for order in (threads, threads[::-1]):
        told = summary(call["group"], order)
        assert (told["state"], told["seller"]) == ("settled", call["seller"])
        assert told["agreed_fals"] == call["agreed_fals"]


async def test_a_message_that_was_altered_is_shown_as_unverified(stall: Site) -> None:
    from dataclasses import replace

    from api.http.negotiations import negotiation

    call = (await stall.call()).json
    view = (await stall.parts.broker.threads.group(call["group"]))[0]
    forged = replace(view, transcript=(view.transcript[0][:-4] + b'xx"}', *view.transcript[1:]))
    assert len(messages_of(forged)) == len(view.transcript) - 1
    assert rounds_of(messages_of(view)) == 1
    shown = negotiation(call["group"], [forged], raw=False)
    messages = shown["threads"][0]["messages"]  # type: ignore[index]
    assert [item["verified"] for item in messages] == [False] + [True] * (len(messages) - 1)


async def did(site: Site, name: str = "thrush") -> str:
    agents = (await site.ask("GET", "/v1/agents")).json["agents"]
    return next(agent["id"] for agent in agents if agent["name"] == name)
