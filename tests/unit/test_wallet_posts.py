"""Submissions that travel together: who is told what, and when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from rahba.errors import RahbaError
from wallet.ports import Answer
from wallet.transports.posts import ENOUGH, MAX_ITEMS, MAX_POST_BYTES, Posts


class ClosedError(RahbaError):
    code = "closed"


@dataclass
class Ledger:
    """Answers a POST when its door is opened."""

    posted: list[list[bytes]] = field(default_factory=list)
    doors: list[asyncio.Event] = field(default_factory=list)
    error: RahbaError | None = None

    async def post(self, raws: list[bytes]) -> list[Answer]:
        door = asyncio.Event()
        self.posted.append(raws)
        self.doors.append(door)
        await door.wait()
        if self.error is not None:
            raise self.error
        return [Answer("logged", raw.decode()) for raw in raws]


def posts_to(ledger: Ledger) -> Posts:
    return Posts(ledger.post, lambda: ClosedError("closed"))


def sent(posts: Posts, *raws: bytes) -> asyncio.Task[list[Answer]]:
    return asyncio.create_task(posts.submit(list(raws)))


async def some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_each_is_told_what_became_of_its_own() -> None:
    ledger = Ledger()
    posts = posts_to(ledger)
    first, second, third = sent(posts, b"a"), sent(posts, b"b", b"c"), sent(posts, b"d")
    await some_turns()
    assert ledger.posted == [[b"a", b"b", b"c", b"d"]]
    second.cancel()
    await some_turns()
    ledger.doors[0].set()
    assert [answer.id for answer in await first + await third] == ["a", "d"]


async def test_what_is_sent_while_a_post_is_away_shares_the_next_one() -> None:
    ledger = Ledger()
    posts = posts_to(ledger)
    first = sent(posts, b"a")
    await some_turns()
    later = [sent(posts, b"b"), sent(posts, b"c")]
    await some_turns()
    assert ledger.posted == [[b"a"]]
    ledger.doors[0].set()
    await first
    await some_turns()
    assert ledger.posted == [[b"a"], [b"b", b"c"]]
    ledger.doors[1].set()
    assert [answer.id for one in later for answer in await one] == ["b", "c"]


async def test_a_post_is_limited_in_items_and_bytes_and_a_full_one_does_not_wait() -> None:
    ledger = Ledger()
    posts = posts_to(ledger)
    large = bytes([65]) * (MAX_POST_BYTES // 2)
    waiting = [
        sent(posts, b"a"),
        sent(posts, *[b"b"] * (MAX_ITEMS - 1)),
        sent(posts, large, *[b"c"] * ENOUGH),
        sent(posts, large, *[b"d"] * ENOUGH),
    ]
    await some_turns()
    assert [len(raws) for raws in ledger.posted] == [MAX_ITEMS, ENOUGH + 1, ENOUGH + 1]
    for door in ledger.doors:
        door.set()
    assert [len(await one) for one in waiting] == [1, MAX_ITEMS - 1, ENOUGH + 1, ENOUGH + 1]


async def test_a_failure_is_told_to_all_who_travelled_and_to_nobody_else() -> None:
    ledger = Ledger(error=ClosedError("out of reach"))
    posts = posts_to(ledger)
    together = [sent(posts, b"a"), sent(posts, b"b")]
    await some_turns()
    ledger.doors[0].set()
    for one in together:
        with pytest.raises(ClosedError, match="out of reach"):
            await one
    ledger.error = None
    after = sent(posts, b"c")
    await some_turns()
    ledger.doors[1].set()
    assert [answer.id for answer in await after] == ["c"]


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_closing_tells_everybody_however_far_their_post_has_come(turns: int) -> None:
    ledger = Ledger()
    posts = posts_to(ledger)
    waiting = [sent(posts, b"a")]
    await some_turns()
    waiting.append(sent(posts, b"b"))
    for _ in range(turns):
        await asyncio.sleep(0)
    await posts.close()
    waiting.append(sent(posts, b"c"))
    async with asyncio.timeout(5):
        for one in waiting:
            with pytest.raises(ClosedError):
                await one
    assert ledger.posted == [[b"a"]]


async def test_closing_in_the_tick_in_which_a_post_is_made_tells_its_callers() -> None:
    posts = posts_to(Ledger())
    one = sent(posts, b"a")
    await asyncio.sleep(0)
    posts._convoy._dispatch()
    await posts.close()
    async with asyncio.timeout(5):
        with pytest.raises(ClosedError):
            await one
