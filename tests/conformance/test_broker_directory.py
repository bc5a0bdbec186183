"""What every directory does with cards and leases, whatever keeps them."""

from __future__ import annotations

import pytest

from broker.errors import BadCursorError, BadQueryError, StaleCardError
from broker.ports import Query
from rahba.encoding import canonical
from rahba.envelope import assemble, seal
from rahba.errors import (
    BadInputError,
    BadSignatureError,
    EnvelopeExpiredError,
    TooLargeError,
    UnknownFieldError,
)
from rahba.messages import CARD_TYPE, SkillOffer
from rahba.money import BadAmountError
from tests.fixtures.broker import Stand
from tests.fixtures.market_messages import SKILL, card, signed_card, signer


async def events(stand: Stand) -> list[tuple[str, str]]:
    return [
        (event.kind, str(event.data["agent"])) for _, event in await stand.broker.feed.tail(100)
    ]


async def test_a_published_agent_is_found_by_skill_text_and_id(stand: Stand) -> None:
    owner = signer()
    raw = signed_card(owner, stand.clock.now_ms())
    listing = await stand.broker.directory.publish(raw)
    assert listing.raw == raw
    for query in (
        Query(skill=SKILL),
        Query(text="summaries"),
        Query(agent=owner.did),
        Query(),
        Query(skill=SKILL, text="shorten text", agent=owner.did, max_price=1_000),
    ):
        page = await stand.broker.directory.find(query)
        assert [found.card.agent for found in page.listings] == [owner.did], query
        assert page.reasons[0]
    assert await stand.broker.directory.get(owner.did) == listing
    for query in (Query(skill="text.translate"), Query(text="weather")):
        assert (await stand.broker.directory.find(query)).listings == ()


async def test_an_agent_without_heartbeat_vanishes_with_its_lease(stand: Stand) -> None:
    dead, alive = signer(), signer()
    for owner in (dead, alive):
        await stand.broker.directory.publish(signed_card(owner, stand.clock.now_ms(), ttl_ms=1_000))
    await stand.pause(600)
    assert await stand.broker.directory.heartbeat([alive.did]) == []
    await stand.pause(600)
    page = await stand.broker.directory.find(Query(skill=SKILL))
    assert [found.card.agent for found in page.listings] == [alive.did]
    assert await stand.broker.directory.get(dead.did) is None
    assert await stand.broker.directory.heartbeat([dead.did, alive.did]) == [dead.did]


async def test_the_dead_are_swept_once_and_announced_once(stand: Stand) -> None:
    owner = signer()
    await stand.broker.directory.publish(signed_card(owner, stand.clock.now_ms(), ttl_ms=1_000))
    assert await stand.broker.directory.sweep() == []
    await stand.pause(1_100)
    assert await stand.broker.directory.sweep() == [owner.did]
    assert await stand.broker.directory.sweep() == []
    assert await events(stand) == [("agent.listed", owner.did), ("agent.left", owner.did)]


async def test_an_agent_that_leaves_is_gone_at_once_and_cannot_be_replayed(stand: Stand) -> None:
    owner, now_ms = signer(), stand.clock.now_ms()
    raw = signed_card(owner, now_ms)
    await stand.broker.directory.publish(raw)
    await stand.broker.directory.remove(owner.did)
    await stand.broker.directory.remove(owner.did)
    assert (await stand.broker.directory.find(Query())).listings == ()
    with pytest.raises(StaleCardError):
        await stand.broker.directory.publish(raw)
    await stand.broker.directory.publish(signed_card(owner, now_ms + 1))
    assert [kind for kind, _ in await events(stand)] == [
        "agent.listed", "agent.left", "agent.listed",
    ]  # fmt: skip


async def test_an_agent_is_announced_when_it_is_new_or_changed_only(stand: Stand) -> None:
    owner, now_ms = signer(), stand.clock.now_ms()
    raw = signed_card(owner, now_ms)
    await stand.broker.directory.publish(raw)
    await stand.broker.directory.publish(raw)
    await stand.broker.directory.publish(signed_card(owner, now_ms + 1, price=2))
    assert await events(stand) == [("agent.listed", owner.did)] * 2


async def test_an_older_card_does_not_replace_a_newer_one(stand: Stand) -> None:
    owner, now_ms = signer(), stand.clock.now_ms()
    await stand.broker.directory.publish(signed_card(owner, now_ms, price=200))
    with pytest.raises(StaleCardError):
        await stand.broker.directory.publish(signed_card(owner, now_ms - 1, price=1))
    listing = await stand.broker.directory.get(owner.did)
    assert listing is not None
    assert listing.card.skills[0].posted is not None
    assert listing.card.skills[0].posted.issues.price == "200"


async def test_a_changed_card_leaves_its_old_skills(stand: Stand) -> None:
    owner, now_ms = signer(), stand.clock.now_ms()
    await stand.broker.directory.publish(signed_card(owner, now_ms, skill="text.old"))
    await stand.broker.directory.publish(signed_card(owner, now_ms + 1, skill="text.new"))
    assert (await stand.broker.directory.find(Query(skill="text.old"))).listings == ()
    assert len((await stand.broker.directory.find(Query(skill="text.new"))).listings) == 1


async def test_a_card_that_does_not_verify_is_not_listed(stand: Stand) -> None:
    owner, thief, now_ms = signer(), signer(), stand.clock.now_ms()
    honest = card(owner, now_ms)
    payload = canonical(honest)
    forged = {
        "signed by another": (seal(CARD_TYPE, honest, thief), BadSignatureError),
        "signature of another text": (
            assemble(CARD_TYPE, payload, {owner.did: owner.sign(CARD_TYPE, b"{}")}),
            BadSignatureError,
        ),
        "another type": (seal("application/x-other", honest, owner), BadSignatureError),
        "unknown field": (seal(CARD_TYPE, {"v": 1, "fake": True}, owner), UnknownFieldError),
        "expired": (signed_card(owner, now_ms - 20_000), EnvelopeExpiredError),
        "from the future": (signed_card(owner, now_ms + 60_000), EnvelopeExpiredError),
        "no price": (signed_card(owner, now_ms, price=-1), BadAmountError),
        "no skill name": (signed_card(owner, now_ms, skill="Not A Skill"), BadInputError),
        "no card": (b"{}", BadInputError),
    }
    for raw, error in forged.values():
        with pytest.raises(error):
            await stand.broker.directory.publish(raw)
    assert (await stand.broker.directory.find(Query())).listings == ()
    assert await events(stand) == []


async def test_an_oversized_card_is_not_listed(stand: Stand) -> None:
    owner = signer()
    entries = [SkillOffer(f"text.s{n}", "x", [], None, True, " " * 16_000, "{}") for n in range(5)]
    raw = seal(CARD_TYPE, card(owner, stand.clock.now_ms(), skills=entries), owner)
    with pytest.raises(TooLargeError):
        await stand.broker.directory.publish(raw)
    assert await stand.broker.directory.get(owner.did) is None


async def test_a_skill_is_listed_once_a_card(stand: Stand) -> None:
    owner, now_ms = signer(), stand.clock.now_ms()
    twice = card(owner, now_ms).skills * 2
    with pytest.raises(BadInputError):
        await stand.broker.directory.publish(signed_card(owner, now_ms, skills=twice))


async def test_pages_show_every_listing_once_cheapest_first(stand: Stand) -> None:
    prices = [50, 10, 30, None, 20, 10, 40]
    for price in prices:
        await stand.broker.directory.publish(
            signed_card(signer(), stand.clock.now_ms(), price=price)
        )
    seen, cursor = [], None
    while True:
        page = await stand.broker.directory.find(Query(skill=SKILL, limit=3, cursor=cursor))
        seen += page.listings
        cursor = page.next_cursor
        if cursor is None:
            break
    found = [listing.card.skills[0].posted for listing in seen]
    assert [posted.issues.price_fals if posted else None for posted in found] == [
        10, 10, 20, 30, 40, 50, None,
    ]  # fmt: skip
    assert len({listing.card.agent for listing in seen}) == len(prices)


async def test_a_greatest_price_leaves_out_what_costs_more(stand: Stand) -> None:
    now_ms, firm, cheap, open_to_talk = stand.clock.now_ms(), signer(), signer(), signer()
    fixed = card(firm, now_ms, price=500).skills[0]
    rigid = SkillOffer(SKILL, "x", [], fixed.posted, False, "{}", "{}")
    await stand.broker.directory.publish(signed_card(firm, now_ms, skills=[rigid]))
    await stand.broker.directory.publish(signed_card(cheap, now_ms, price=100))
    await stand.broker.directory.publish(signed_card(open_to_talk, now_ms, price=None))
    page = await stand.broker.directory.find(Query(skill=SKILL, max_price=200))
    assert [found.card.agent for found in page.listings] == [cheap.did, open_to_talk.did]


@pytest.mark.parametrize("cursor", ["!", "bm90IGpzb24=", "x" * 1_000, "WzFd"])
async def test_a_made_up_cursor_is_refused(stand: Stand, cursor: str) -> None:
    with pytest.raises(BadCursorError):
        await stand.broker.directory.find(Query(cursor=cursor))


async def test_a_malformed_query_is_refused(stand: Stand) -> None:
    for query in (
        Query(limit=0),
        Query(limit=101),
        Query(text="x" * 2_001),
        Query(max_price=-1),
        Query(skill="Not A Skill"),
        Query(agent="nobody"),
    ):
        with pytest.raises(BadInputError):
            await stand.broker.directory.find(query)
    assert issubclass(BadQueryError, BadInputError)
