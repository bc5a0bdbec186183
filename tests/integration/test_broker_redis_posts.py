"""What one call of the script writes together: pairs, groups, lifetimes, events, accounts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from broker.errors import DamagedThreadError, TooManyThreadsError
from broker.events import FeedLimits
from broker.ports import Ruling
from broker.thread import Ending, Header, Said
from broker.threads import THREAD_TTL_MS, Posting, ThreadLimits
from broker.transports import redis
from broker.transports.redis.feed import KEY as FEED
from broker.transports.redis.feed import RedisFeed
from broker.transports.redis.mailbox import charges_of, stream_of
from broker.transports.redis.threads import (
    GROUPS,
    RedisThreadStore,
    group_of,
    open_between,
    pack,
    read_header,
    thread_of,
)
from broker.transports.redis.wire import Wire
from rahba.clock import SystemClock
from rahba.ids import RandomIds
from tests.fixtures.broker import SERVERS

HOUR_MS = 3_600_000
FAR = 9_000_000_000_000
NEW = RandomIds().new
CODES = [
    '"',
    "\\",
    'a"b\\c/d',
    "\n\t\r\0\x1f\x7f",
    "überfüllt مشغول 忙 🛑",
    "</script>",
    '","x":"',
    "",
]


@pytest_asyncio.fixture(params=SERVERS)
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    """Return a connection to each real server in turn, empty."""
    made = Wire(request.getfixturevalue(SERVERS[request.param]).url)
    await made.call("FLUSHALL")
    yield made
    await made.close()


def store_on(
    wire: Wire, *, events: int = 10_000, open_threads: int = 512
) -> tuple[RedisThreadStore, RedisFeed]:
    feed = RedisFeed(wire, SystemClock(), FeedLimits(events=events))
    limits = ThreadLimits(open_threads=open_threads)
    return RedisThreadStore(wire, feed, SystemClock(), limits=limits), feed


def cfp(thread: str, *, buyer: str = "ann", seller: str = "bob", group: str = "g") -> Posting:
    said = Said(
        id=NEW(), digest="d", sender=buyer, to=seller, type="cfp", seq=1, reply_by=FAR,
        group=group, skill="text.a", mode="tender", rounds=1, deadline=FAR, input_digest="i",
    )  # fmt: skip
    return Posting(thread, said, b"raw")


async def verdicts(store: RedisThreadStore, *postings: Posting) -> list[object]:
    outcomes = await store.post(postings)
    return [one.verdict if isinstance(one, Ruling) else type(one) for one in outcomes]


async def test_many_threads_join_a_group_in_one_call_and_strangers_stay_out(wire: Wire) -> None:
    store, _ = store_on(wire)
    names = [f"t{number}" for number in range(70)]
    strange = [cfp("s1", buyer="eve"), cfp("s2", buyer="eve"), cfp("s3", buyer="eve", group="h")]
    first = [cfp(name, seller=f"bob{name}") for name in names[:3]]
    assert await verdicts(store, *first, *strange) == ["OK"] * 3 + ["NOT_PARTY"] * 2 + ["OK"]
    assert await store.members("g") == names[:3]
    assert await store.members("h") == ["s3"]
    rest = [cfp(name, seller=f"bob{name}") for name in names[3:]]
    ruled = await verdicts(store, *rest[:60])
    assert ruled == ["OK"] * 60
    assert await verdicts(store, *rest[60:]) == ["OK"] + ["ROUND_LIMIT"] * 6, "64 a group"
    assert await store.members("g") == names[:64]
    assert sorted(await store.recent(9, None)) == ["g", "h"]
    assert await wire.call("LINDEX", group_of("g"), 0) == b"ann"
    assert await wire.call("EXISTS", thread_of("s1"), thread_of("s2")) == 0
    left_ms = await wire.call("PTTL", group_of("g"))
    assert THREAD_TTL_MS + HOUR_MS - 60_000 < left_ms <= THREAD_TTL_MS + HOUR_MS


async def test_a_stranger_who_comes_twice_opens_nothing_in_a_group_that_is_there(
    wire: Wire,
) -> None:
    store, _ = store_on(wire)
    assert await verdicts(store, cfp("t1")) == ["OK"]
    late = [cfp("s1", buyer="eve"), cfp("s2", buyer="eve"), cfp("t2")]
    assert await verdicts(store, *late) == ["NOT_PARTY", "NOT_PARTY", "OK"]
    assert await store.members("g") == ["t1", "t2"]


async def test_places_are_counted_within_a_call_and_one_that_is_freed_is_taken(wire: Wire) -> None:
    store, _ = store_on(wire, open_threads=2)
    pair = open_between("ann", "bob")
    full = await verdicts(store, cfp("t1"), cfp("t2"), cfp("t3"), cfp("u1", seller="carol"))
    assert full == ["OK", "OK", TooManyThreadsError, "OK"]
    assert await wire.call("ZCARD", pair) == 2
    ended, ruled = await asyncio.gather(
        store.end(["t1"], Ending(kind="closed")),
        verdicts(store, cfp("t4"), cfp("t5")),
    )
    assert [one.verdict for one in ended] == ["OK"]
    assert ruled == ["OK", TooManyThreadsError]
    assert set(await wire.call("ZRANGE", pair, 0, -1)) == {b"t2", b"t4"}
    posted = asyncio.create_task(verdicts(store, cfp("v1", seller="dan")))
    await asyncio.sleep(0)
    closed = await store.end(["v1"], Ending(kind="closed"))
    assert (await posted, closed[0].verdict) == (["OK"], "OK")
    assert await wire.call("EXISTS", open_between("ann", "dan")) == 0
    left_ms = await wire.call("PTTL", pair)
    assert THREAD_TTL_MS - 60_000 < left_ms <= THREAD_TTL_MS + HOUR_MS


async def test_what_fails_leaves_no_thread_and_no_place_and_hurts_nobody_else(wire: Wire) -> None:
    store, feed = store_on(wire)
    await wire.call("SET", group_of("bad"), "no list")
    outcomes = await store.post([cfp("t1"), cfp("t2", group="bad"), cfp("t3")])
    assert isinstance(outcomes[1], DamagedThreadError)
    assert [one.verdict for one in outcomes[::2] if isinstance(one, Ruling)] == ["OK", "OK"]
    assert await store.members("g") == ["t1", "t3"]
    assert set(await wire.call("ZRANGE", open_between("ann", "bob"), 0, -1)) == {b"t1", b"t3"}
    assert await wire.call("EXISTS", thread_of("t2")) == 0
    assert [event.data["thread"] for _, event in await feed.tail(9)] == ["t1", "t3"]
    whole = await wire.call("HGET", thread_of("t1"), "h")
    await wire.call("HSET", thread_of("t1"), "h", whole[:-1])
    told = await wire.call("XLEN", FEED)
    with pytest.raises(DamagedThreadError):
        await store.end(["t1"], Ending(kind="closed"))
    assert await wire.call("HGET", thread_of("t1"), "h") == whole[:-1]
    assert await wire.call("XLEN", FEED) == told


@pytest.mark.parametrize("damaged", ["pair", "charges", "groups"])
async def test_a_key_that_is_damaged_spoils_nothing_that_others_wrote_in_the_call(
    wire: Wire, damaged: str
) -> None:
    store, feed = store_on(wire)
    await store.post([cfp("t1")])
    keys = {"pair": open_between("ann", "bob"), "charges": charges_of("bob"), "groups": GROUPS}
    await wire.call("DEL", keys[damaged])
    await wire.call("SET", keys[damaged], "of another kind")
    ended, ruled = await asyncio.gather(
        store.end(["t1"], Ending(kind="closed")),
        verdicts(store, cfp("x1", buyer="eve", seller="dan", group="other")),
    )
    assert [one.verdict for one in ended] == ["OK"]
    assert ruled == ["OK"]
    assert await store.members("other") == ["x1"]
    assert await wire.call("ZRANGE", open_between("eve", "dan"), 0, -1) == [b"x1"]
    assert await wire.call("PTTL", stream_of("dan")) > 0
    assert await wire.call("HGET", charges_of("dan"), "n:eve") == b"1"
    told = [event.data["thread"] for _, event in await feed.tail(9)]
    assert told == ["t1", "t1", "x1"]


async def test_codes_are_told_as_they_were_said_whatever_is_in_them(wire: Wire) -> None:
    store, feed = store_on(wire)
    for number, code in enumerate(CODES):
        refused, closed = f"r{number}", f"c{number}"
        await store.post([cfp(refused), cfp(closed)])
        said = Said(
            id=NEW(), digest="d", sender="bob", to="ann", type="refuse", seq=1, reply_by=FAR,
            code=code,
        )  # fmt: skip
        assert await verdicts(store, Posting(refused, said, b"raw")) == ["OK"]
        await store.end([closed], Ending(kind="closed", code=code))
        (_, one), (_, other) = await feed.tail(2)
        assert (one.kind, one.data) == (
            "refused",
            {"group": "g", "thread": refused, "from": "bob", "code": code},
        )
        told = {"group": "g", "thread": closed, "code": code or "closed"}
        assert (other.kind, other.data) == ("closed", told)
        (header,) = await store.headers([closed])
        assert header is not None
        assert header.code == (code or "closed")


async def test_a_thread_lasts_a_week_after_its_last_message_however_old_it_is(wire: Wire) -> None:
    store, _ = store_on(wire)
    key = thread_of("t")

    async def say(seq: int) -> int:
        said = Said(
            id=NEW(), digest="d", sender="bob", to="ann", type="not_understood", seq=seq,
            reply_by=FAR,
        )  # fmt: skip
        assert await verdicts(store, Posting("t", said, b"raw")) == ["OK"]
        return int(await wire.call("PTTL", key))

    assert await verdicts(store, cfp("t")) == ["OK"]
    fresh_ms = await wire.call("PTTL", key)
    assert THREAD_TTL_MS + HOUR_MS - 60_000 < fresh_ms <= THREAD_TTL_MS + HOUR_MS
    assert THREAD_TTL_MS < await say(1) <= fresh_ms, "young: not renewed"
    for number, ages_ms in enumerate((59 * 60_000, 61 * 60_000, 5 * 24 * HOUR_MS)):
        header = read_header(await wire.call("HGET", key, "h"))
        await wire.call(
            "HSET", key, "h",
            pack(replace(header, opened_ms=SystemClock().now_ms() - ages_ms)),
        )  # fmt: skip
        await wire.call("PEXPIRE", key, THREAD_TTL_MS + HOUR_MS - ages_ms)
        assert await say(2 + number) >= THREAD_TTL_MS - 1_000, ages_ms


async def test_a_feed_that_posts_fill_stays_about_as_long_as_it_may(wire: Wire) -> None:
    store, _ = store_on(wire, events=100)
    for block in range(20):
        names = [f"{block}.{number}" for number in range(40)]
        await store.post([cfp(name, group=name) for name in names])
        await store.end(names, Ending(kind="closed"))
    assert 100 <= await wire.call("XLEN", FEED) < 100 + 100 + 2 * 64
    assert await wire.call("ZCARD", GROUPS) == 800


def test_fields_are_packed_in_the_order_of_their_classes() -> None:
    text = (Path(redis.__file__).parent / "packed.lua").read_text("utf-8")
    read = re.findall(
        r"^    ([a-z]\.[^{}]*?) = cmsgpack\.unpack\(packed\)", text, re.MULTILINE | re.DOTALL
    )
    orders = [re.findall(r"\b[a-z]\.(\w+)", names) for names in read]
    assert orders == [list(kind.__struct_fields__) for kind in (Said, Ending, Header)]
    (written,) = re.findall(r"cmsgpack\.pack\((.*?)\)\n", text, re.DOTALL)
    assert re.findall(r"\bt\.(\w+)", written) == list(Header.__struct_fields__)
    (blank,) = re.findall(r"return \{(.*?)\}", text, re.DOTALL)
    assert re.findall(r"(\w+) =", blank) == list(Header.__struct_fields__)
    (first,) = re.findall(r"local SAID = \{(.*?)\}", text, re.DOTALL)
    assert re.findall(r"(\w+) =", first) == list(Said.__struct_fields__)


def test_what_is_packed_is_read_again() -> None:
    header = Header(buyer="ann", seller="bob", code="ü", deadline=FAR, messages=3)
    assert read_header(pack(header)) == header
    assert pack(Ending(kind="settled", tx="x")) == b"\xa7settled\xa0\xa0\xa1x"
