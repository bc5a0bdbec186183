"""The window of a stream: what is unanswered, in order, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from rahba.merkle import leaf_hash
from wallet.ports import Answer
from wallet.transports.window import (
    MAX_BYTES,
    MAX_LINE_BYTES,
    MAX_LINES,
    STAND_IN,
    Window,
    lines_of,
)
from wallet.wire import LedgerAnswerError


def logged(raw: bytes) -> Answer:
    return Answer("logged", leaf_hash(raw).hex(), 1)


async def endless(raw: bytes) -> AsyncIterator[bytes]:
    while True:
        yield raw


async def given(raws: list[bytes]) -> AsyncIterator[bytes]:
    for raw in raws:
        yield raw


@pytest.mark.parametrize("raw", [b"x", b"x" * 60_000])
async def test_an_endless_source_is_asked_for_no_more_than_the_window_holds(raw: bytes) -> None:
    window = Window(endless(raw))
    assert await window.something()
    await asyncio.sleep(0)
    assert 0 < len(window) == min(MAX_LINES, MAX_BYTES // len(raw))
    await window.close()


async def test_what_is_unanswered_leaves_again_on_a_new_connection() -> None:
    window = Window(given([b"a", b"b", b"c"]))
    assert await window.something()
    assert await anext(window.chunks()) == b"a\nb\nc\n"
    assert window.settle(logged(b"a")).ok
    window.rewind()
    assert await anext(window.chunks()) == b"b\nc\n"


@pytest.mark.parametrize("raw", [b"b", b"never asked"])
async def test_an_answer_to_anything_but_the_oldest_line_is_refused(raw: bytes) -> None:
    window = Window(given([b"a", b"b"]))
    assert await window.something()
    with pytest.raises(LedgerAnswerError):
        window.settle(logged(b"a"))  # it has not left
    assert await anext(window.chunks())
    with pytest.raises(LedgerAnswerError):
        window.settle(logged(raw))


async def test_a_stand_in_travels_for_what_is_no_line() -> None:
    window = Window(given([b"a\nb"]))
    assert await window.something()
    assert await anext(window.chunks()) == STAND_IN + b"\n"
    answer = window.settle(Answer("invalid", leaf_hash(STAND_IN).hex()))
    assert (answer.id, answer.code) == (leaf_hash(b"a\nb").hex(), "bad_encoding")
    assert not await window.something()
    assert window.done


async def test_an_abandoned_window_tells_whoever_waits() -> None:
    window = Window(endless(b"a"))
    assert await window.something()
    await window.abandon(LookupError("closed"))
    with pytest.raises(LookupError):
        window.settle(logged(b"a"))
    with pytest.raises(LookupError):
        await window.something()


def reader() -> aiohttp.StreamReader:
    protocol = aiohttp.client_proto.ResponseHandler(asyncio.get_running_loop())
    protocol.transport = asyncio.Transport()
    return aiohttp.StreamReader(protocol, 2**16, loop=asyncio.get_running_loop())


async def test_a_ledger_that_owes_an_answer_may_not_be_silent() -> None:
    window = Window(given([b"a"]))
    assert await window.something()
    with pytest.raises(TimeoutError):
        await anext(lines_of(reader(), window, 0.05))


async def test_a_ledger_that_owes_nothing_may_be_silent_for_longer() -> None:
    window, content = Window(given([])), reader()
    line = asyncio.ensure_future(anext(lines_of(content, window, 0.02)))
    await asyncio.wait({line}, timeout=0.1)
    assert not line.done()
    content.feed_data(b"one\n")
    assert await line == b"one"


async def test_an_answer_without_an_end_is_refused() -> None:
    content = reader()
    content.feed_data(b"x" * (MAX_LINE_BYTES + 1))
    with pytest.raises(LedgerAnswerError):
        await anext(lines_of(content, Window(given([])), 1))
