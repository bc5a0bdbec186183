"""Threads that lead to no deal are ended together, on every server alike."""

from __future__ import annotations

from tests.fixtures.broker import Stand
from tests.fixtures.market_messages import Talk


async def test_threads_that_lead_to_no_deal_are_released_at_once(stand: Stand) -> None:
    threads = stand.broker.threads
    talks = [Talk(clock=stand.clock, mode="tender", rounds=1) for _ in range(4)]
    for talk in talks:
        await threads.post(talk.say(talk.buyer, talk.opening()))
    for talk in talks[:3]:
        await threads.post(talk.say(talk.seller, talk.quote(talk.offer(700))))
    taken = talks[2]
    offer = taken.offer(500)
    held = Talk(clock=stand.clock)
    await threads.post(held.say(held.buyer, held.opening()))
    await threads.post(held.say(held.seller, held.quote(offer)))
    await threads.post(held.say(held.buyer, held.accept(offer)))
    names = [talk.thread for talk in talks]
    await threads.release([*names, held.thread, "f" * 32], "not_chosen")
    states = await threads.states([*names, held.thread, "f" * 32])
    assert states == ["closed"] * 4 + ["held", None]
    view = await threads.get(names[0])
    assert view is not None
    assert view.facts["code"] == "not_chosen"
    events = [(one.kind, one.data) for _, one in await stand.broker.feed.tail(20)]
    closed = [data for kind, data in events if kind == "closed"]
    assert [data["thread"] for data in closed] == names
    assert {data["code"] for data in closed} == {"not_chosen"}
    revealed = [data["thread"] for kind, data in events if kind == "offer.revealed"]
    assert revealed == names[:3], "a sealed price is told once it cannot be taken any more"
    await threads.release(names, "again")
    assert len(await stand.broker.feed.tail(50)) == len(events)
    late = await threads.post(talks[3].say(talks[3].seller, talks[3].quote(talks[3].offer())))
    assert late.verdict == "CLOSED"
