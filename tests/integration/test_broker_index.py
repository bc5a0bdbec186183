"""The local index over a real server: fresh, complete, and never beyond a lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from api.embedded_redis import EmbeddedRedis
from broker import Broker, index
from broker.cards import Changes
from broker.directory import CardDirectory
from broker.errors import BadQueryError, BrokerUnreachableError
from broker.ports import Query
from broker.stores.tantivy import TantivyIndex
from broker.transports.redis import connect
from broker.transports.redis.directory import KEYS, RedisCardStore
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from rahba.errors import BadInputError
from tests.fixtures.broker import Stand, kill_now
from tests.fixtures.listings import skill_offer
from tests.fixtures.market_messages import SKILL, signed_card, signer

CHANGES = KEYS[5]


@pytest_asyncio.fixture
async def other(empty_redis: str, broker: Broker) -> AsyncIterator[Broker]:
    """Return the broker of a second process on the same server."""
    connected = await connect(empty_redis, SystemClock())
    yield connected
    await connected.close()


@pytest_asyncio.fixture
async def wire(empty_redis: str) -> AsyncIterator[Wire]:
    made = Wire(empty_redis)
    yield made
    await made.close()


async def listed(broker: Broker, about: str = "", **changes: object) -> str:
    owner = signer()
    now_ms = SystemClock().now_ms()
    entry = skill_offer(100, about=about)
    await broker.directory.publish(signed_card(owner, now_ms, **({"skills": [entry]} | changes)))
    return owner.did


async def found(broker: Broker, query: Query) -> list[str]:
    return [one.card.agent for one in (await broker.directory.find(query)).listings]


async def test_what_another_process_lists_is_found_by_the_next_search(
    broker: Broker, other: Broker
) -> None:
    assert await found(broker, Query()) == []
    for number in range(20):
        agent = await listed(other, f"unheard{number}")
        assert await found(broker, Query(text=f"unheard{number}")) == [agent]
        await other.directory.remove(agent)
        assert await found(broker, Query(text=f"unheard{number}")) == []


async def test_a_card_that_changes_is_found_by_its_new_words_and_not_by_the_old(
    stand: Stand,
) -> None:
    owner, now_ms, directory = signer(), stand.clock.now_ms(), stand.broker.directory
    for number, about in enumerate(("weather forecasts", "tax returns")):
        entry = skill_offer(100, about=about, tags=(about.split()[0],))
        await directory.publish(signed_card(owner, now_ms + number, skills=[entry]))
        assert await found(stand.broker, Query(text=about)) == [owner.did]
        assert await found(stand.broker, Query(tags=(about.split()[0],))) == [owner.did]
    assert await found(stand.broker, Query(text="weather forecasts")) == []
    assert await found(stand.broker, Query(tags=("weather",))) == []


async def test_nothing_is_returned_whose_lease_is_over_though_nobody_swept(stand: Stand) -> None:
    now_ms, directory = stand.clock.now_ms(), stand.broker.directory
    for number in range(60):
        ttl_ms = 1_000 if number % 2 else 10_000
        entry = skill_offer(number, about="maps", tags=("maps",))
        await directory.publish(signed_card(signer(), now_ms, ttl_ms=ttl_ms, skills=[entry]))
    assert len(await found(stand.broker, Query(skill=SKILL, limit=100))) == 60
    await stand.pause(1_100)
    for query in (Query(skill=SKILL), Query(text="maps"), Query(tags=("maps",)), Query()):
        page = await directory.find(query)
        prices = [one.card.skills[0].posted for one in page.listings]
        assert [posted.issues.price_fals for posted in prices if posted] == list(range(0, 40, 2))
        assert page.next_cursor is not None
    assert await directory.count() == 30


async def test_the_index_catches_up_after_changes_were_lost(
    broker: Broker, other: Broker, wire: Wire
) -> None:
    gone, kept = await listed(other, "maps"), await listed(other, "maps")
    assert set(await found(broker, Query(text="maps"))) == {gone, kept}
    await other.directory.remove(gone)
    new = [await listed(other, "songs") for _ in range(5)]
    await wire.call("XTRIM", CHANGES, "MAXLEN", 2)
    assert await found(broker, Query(text="maps")) == [kept]
    assert set(await found(broker, Query(text="songs"))) == set(new)
    await wire.call("FLUSHALL")
    assert await found(broker, Query()) == []
    again = await listed(other, "anew")
    assert await found(broker, Query()) == [again]


async def test_a_store_tells_changes_in_order_and_when_some_are_lost(stand: Stand) -> None:
    directory = stand.broker.directory
    assert isinstance(directory, CardDirectory)
    store, now_ms = directory._store, stand.clock.now_ms()
    position = await store.position()
    assert await store.changes(position) == Changes([], position)
    owners = [signer() for _ in range(3)]
    raws = [signed_card(owner, now_ms) for owner in owners]
    for raw in (*raws, raws[0]):  # the same card again is no change
        await directory.publish(raw)
    await directory.remove(owners[1].did)
    news = await store.changes(position)
    expected = [("listed", owner.did) for owner in owners] + [("left", owners[1].did)]
    assert (news.changes, news.lost) == (expected, False)
    assert (await store.changes(news.position)).changes == []
    assert (await store.changes("99-0")).lost
    fresh, entries = await store.look(news.position, [owner.did for owner in owners])
    assert fresh
    assert [entry is not None for entry in entries] == [True, False, True]
    assert not (await store.look(position, []))[0]


async def test_a_process_that_was_killed_finds_everything_again(
    empty_redis: str, broker: Broker
) -> None:
    agents = {await listed(broker, "maps") for _ in range(700)}
    restarted = await connect(empty_redis, SystemClock())
    seen: set[str] = set()
    cursor = None
    while True:
        page = await restarted.directory.find(Query(text="maps", limit=100, cursor=cursor))
        seen |= {one.card.agent for one in page.listings}
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == agents
    await restarted.close()


async def test_a_server_that_was_killed_is_read_on_where_it_was(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    try:
        broker = await connect(server.url, SystemClock(), patience_s=10)
        before = await listed(broker, "maps")
        assert await found(broker, Query(text="maps")) == [before]
        kill_now(server)
        server.start()
        with contextlib.suppress(BrokerUnreachableError):  # what was in flight is lost
            await broker.directory.count()
        after = await listed(broker, "maps")
        assert set(await found(broker, Query(text="maps"))) == {before, after}
        await broker.close()
    finally:
        server.stop()


async def test_pages_show_nobody_twice_and_nobody_who_stays_is_missed_while_cards_come_and_go(
    stand: Stand,
) -> None:
    now_ms, directory = stand.clock.now_ms(), stand.broker.directory
    staying, leaving = [], []
    for number in range(300):
        owner = signer()
        entry = skill_offer(1_000 + number, about="maps " * (1 + number % 9))
        await directory.publish(signed_card(owner, now_ms, skills=[entry], ttl_ms=60_000))
        (leaving if number % 3 == 0 else staying).append(owner.did)
    for query in (Query(skill=SKILL, limit=7), Query(text="maps", limit=7)):
        seen: list[str] = []
        cursor, left = None, iter(leaving)
        while True:
            page = await directory.find(
                Query(skill=query.skill, text=query.text, limit=7, cursor=cursor)
            )
            seen += [one.card.agent for one in page.listings]
            cursor = page.next_cursor
            if cursor is None:
                break
            if (gone := next(left, None)) is not None and query.skill:
                await directory.remove(gone)
            newcomer = skill_offer(len(seen), about="maps maps")
            await directory.publish(signed_card(signer(), now_ms, skills=[newcomer]))
        assert len(seen) == len(set(seen)), "nobody twice"
        assert set(staying) <= set(seen), "nobody who stays is missed"


async def test_searches_together_ask_once_and_each_sees_what_was_before_it(
    empty_redis: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await found(broker, Query())
    agent = await listed(broker, "maps")
    asked: list[str] = []
    do = RedisCardStore._do

    async def counted(self: RedisCardStore, operation: str, *more: object) -> object:
        asked.append(operation)
        return await do(self, operation, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(RedisCardStore, "_do", counted)
    pages = await asyncio.gather(*(found(broker, Query(text="maps")) for _ in range(50)))
    assert pages == [[agent]] * 50
    assert asked.count("changes") <= 4
    asked.clear()
    assert await found(broker, Query(text="maps")) == [agent]
    assert asked == ["look"], "one question when nothing has changed"


HOSTILE = [
    '"', "'", "*", "a*", "NOT", "AND OR NOT", "NEAR(a b)", "w:maps", "maps^9", "-maps", "(((((",
    "maps\x00maps", "\x00", "%", "\\", "\ud800", "🗺" * 300, "ﷺ" * 100, "a" * 2_000,
    " ".join("ab"[n % 2] * (n % 7 + 1) for n in range(400)), "'; DROP TABLE cards; --", "\u202e",
]  # fmt: skip


@pytest.mark.parametrize("engine", ["plain", "tantivy"])
async def test_hostile_queries_find_nothing_or_are_refused_and_disturb_nobody(
    broker: Broker, engine: str
) -> None:
    directory = broker.directory
    assert isinstance(directory, CardDirectory)
    if engine == "tantivy":
        directory._index._make_text = lambda _: TantivyIndex()
    agent = await listed(broker, "maps")
    for words in HOSTILE:
        for query in (Query(text=words), Query(text=words, skill=SKILL)):
            page = await directory.find(query)
            assert {one.card.agent for one in page.listings} <= {agent}
    for words in ("x" * 1_000_000, "\x00" * 5_000, "maps " * 100_000):
        with pytest.raises(BadQueryError):
            await directory.find(Query(text=words))
    for tag in ("\x00", "*", "t:maps", "\ud800"):
        assert (await directory.find(Query(tags=(tag,)))).listings == ()
    with pytest.raises(BadInputError):
        await directory.find(Query(skill="maps*"))
    assert await found(broker, Query(text="maps")) == [agent]


async def test_hostile_cards_are_found_like_others_and_disturb_nobody(stand: Stand) -> None:
    directory, now_ms = stand.broker.directory, stand.clock.now_ms()
    about = ["\x00", '"*', "a" * 500, "w:maps^9", "🗺" * 200, "maps " * 99]
    for words in about:
        entry = skill_offer(5, about=words, tags=(words[:60],))
        await directory.publish(signed_card(signer(), now_ms, skills=[entry]))
    assert len(await found(stand.broker, Query(text="maps"))) == 2
    assert len(await found(stand.broker, Query())) == len(about)


async def test_an_index_that_grew_or_wore_out_is_made_anew_beside_the_searches(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "REBUILD_AT", 20)
    directory = broker.directory
    assert isinstance(directory, CardDirectory)
    await found(broker, Query())
    owner, now_ms = signer(), SystemClock().now_ms()
    for number in range(60):
        entry = skill_offer(5, about=f"maps {number}")
        await directory.publish(signed_card(owner, now_ms + number, skills=[entry]))
        assert await found(broker, Query(text="maps")) == [owner.did]
    catalogue = directory._index.catalogue
    assert catalogue is not None
    assert catalogue.struck < 60
    await directory.close()


async def test_an_index_that_follows_has_what_is_new_before_anybody_searches(
    broker: Broker, other: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "FOLLOW_EVERY_S", 0.01)
    directory = broker.directory
    assert isinstance(directory, CardDirectory)
    following = asyncio.create_task(directory.follow())
    agent = await listed(other, "maps")
    async with asyncio.timeout(5):
        while (seen := directory._index.catalogue) is None or seen.place_of(agent) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_an_index_goes_on_following_after_the_server_was_away(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    try:
        broker = await connect(server.url, SystemClock(), patience_s=0.1)
        following = asyncio.create_task(broker.directory.follow())
        await asyncio.sleep(0.1)
        kill_now(server)
        await asyncio.sleep(1.2)
        assert not following.done()
        server.start()
        agent = await listed(broker, "maps")
        assert await found(broker, Query(text="maps")) == [agent]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await broker.close()
    finally:
        server.stop()


async def test_only_so_many_cards_and_searches_are_kept(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.directory._CARDS_KEPT", 5)
    monkeypatch.setattr("broker.directory._SEARCHES_KEPT", 2)
    directory = stand.broker.directory
    assert isinstance(directory, CardDirectory)
    for number in range(12):
        entry = skill_offer(number, about="maps")
        raw = signed_card(signer(), stand.clock.now_ms(), skills=[entry])
        await directory.publish(raw)
    cursors = [(await directory.find(Query(skill=SKILL, limit=5))).next_cursor for _ in range(4)]
    assert len(directory._verified) <= 5
    assert len(directory._searches) == 2
    for cursor in cursors:  # forgotten ones are searched again, from where they were
        page = await directory.find(Query(skill=SKILL, limit=5, cursor=cursor))
        prices = [one.card.skills[0].posted for one in page.listings]
        assert [each.issues.price_fals for each in prices if each] == [5, 6, 7, 8, 9]


async def test_an_agent_asked_for_by_name_is_held_to_the_query(stand: Stand) -> None:
    owner = signer()
    entry = skill_offer(50, about="maps of towns", tags=("maps",))
    await stand.broker.directory.publish(signed_card(owner, stand.clock.now_ms(), skills=[entry]))
    page = await stand.broker.directory.find(Query(agent=owner.did, text="town maps"))
    assert page.reasons[0][0] == "relevance: 2 words shared"
    for query in (
        Query(agent=owner.did, text="songs"),
        Query(agent=owner.did, max_latency_ms=1),
        Query(agent=owner.did, tags=("songs",)),
        Query(agent=signer().did),
    ):
        assert (await stand.broker.directory.find(query)).listings == ()
