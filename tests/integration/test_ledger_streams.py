"""Streams of submissions: a real server, lines without end, and clients of all kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import psutil
import pytest

from api.ledger_http import serve
from api.ledger_stream import IDLE_S, MAX_LINE_BYTES, Lines
from tests.fixtures.wallet import LedgerRig, did
from wallet.transports.http import HttpLedger

NDJSON = {"content-type": "application/x-ndjson", "accept": "application/x-ndjson"}
MIB = 1024 * 1024


@dataclass
class Site:
    url: str
    rig: LedgerRig

    async def raws(self, count: int) -> list[bytes]:
        amina = self.rig.wallet("amina")
        return [await amina.sign_transfer(did("brahim"), 1) for _ in range(count)]


@pytest.fixture
async def site(sqlite_rig: LedgerRig) -> AsyncIterator[Site]:
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(sqlite_rig.ledger, "127.0.0.1", 0, ready=address.set_result)
    )
    await sqlite_rig.funded("amina", 10**11)
    yield Site(await address, sqlite_rig)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def told(site: Site, body: Any, query: str = "") -> list[dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as web,
        web.post(f"{site.url}/v1/transactions{query}", data=body, headers=NDJSON) as reply,
    ):
        assert (reply.status, reply.content_type) == (200, "application/x-ndjson")
        return [orjson.loads(line) async for line in reply.content]


async def test_answers_come_while_the_body_still_does(site: Site) -> None:
    raws = await site.raws(3)
    answered: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        for raw in raws:
            yield raw + b"\n"
            assert (await answered.get())["outcome"] == "logged"

    async with (
        aiohttp.ClientSession() as web,
        web.post(f"{site.url}/v1/transactions", data=body(), headers=NDJSON) as reply,
    ):
        count = 0
        async for line in reply.content:
            await answered.put(orjson.loads(line))
            count += 1
    assert count == 3


async def test_twenty_thousand_in_one_stream_are_answered_in_order_within_bounds(
    site: Site,
) -> None:
    raws = await site.raws(1_000)
    before = psutil.Process().memory_info().rss

    async def body() -> AsyncIterator[bytes]:
        for turn in range(20):
            yield b"".join(raw + b"\n" for raw in raws[turn * 50 :] + raws[: turn * 50])

    found = await told(site, body())
    assert len(found) == 20_000
    assert {answer["outcome"] for answer in found[:1_000]} == {"logged"}
    assert {answer["outcome"] for answer in found[1_000:]} == {"exists"}
    first = [answer["id"] for answer in found[:1_000]]
    assert [answer["id"] for answer in found[1_000:2_000]] == first[50:] + first[:50]
    assert psutil.Process().memory_info().rss - before < 120 * MIB


async def test_a_broken_line_is_answered_and_its_neighbours_do_not_notice(site: Site) -> None:
    one, two, three = await site.raws(3)
    lines = [one, b"nonsense", b"", b"x" * (MAX_LINE_BYTES + 9), two, b"{}", three[:-1], three]
    found = await told(site, b"\r\n".join(lines))
    assert [answer["outcome"] for answer in found] == [
        "logged",
        "invalid",
        "invalid",
        "logged",
        "invalid",
        "invalid",
        "logged",
    ]
    assert found[2]["code"] == "too_large"


async def test_a_stream_gives_receipts_if_asked(site: Site) -> None:
    (raw,) = await site.raws(1)
    (answer,) = await told(site, raw + b"\n", "?receipt=1")
    assert "payloadType" in answer["receipt"]
    assert await told(site, b"") == []


async def test_a_client_that_dies_leaves_a_ledger_that_goes_on(site: Site) -> None:
    raws = await site.raws(200)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    head = "POST /v1/transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in NDJSON.items())
    body = b"".join(raw + b"\n" for raw in raws)
    writer.write(f"{head}\r\n{len(body):x}\r\n".encode() + body + b"\r\n")
    await writer.drain()
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    assert len(await told(site, b"\n".join(await site.raws(5)))) == 5
    again = await told(site, body)
    assert {answer["outcome"] for answer in again} <= {"exists", "logged"}
    assert await site.rig.available("brahim") == 205


async def test_a_client_that_does_not_read_is_waited_for_and_not_buffered_for(site: Site) -> None:
    raws = await site.raws(100)
    port = int(site.url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
    head = "POST /v1/transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in NDJSON.items())
    writer.write(f"{head}\r\n".encode())
    body = b"".join(raw + b"\n" for raw in raws)
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n"
    before = psutil.Process().memory_info().rss
    sent = 0
    try:
        async with asyncio.timeout(3):
            for _ in range(2_000):
                writer.write(chunk)
                await writer.drain()
                sent += len(chunk)
    except TimeoutError:
        pass
    assert sent < 2_000 * len(chunk), "the server read on although nobody reads its answers"
    assert psutil.Process().memory_info().rss - before < 100 * MIB
    writer.transport.abort()
    assert len(await told(site, b"\n".join(await site.raws(5)))) == 5


async def test_when_the_ledger_stops_the_last_line_says_so(site: Site) -> None:
    raws = await site.raws(2)
    stopped = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield raws[0] + b"\n"
        await stopped.wait()
        yield raws[1] + b"\n"

    async with (
        aiohttp.ClientSession() as web,
        web.post(f"{site.url}/v1/transactions", data=body(), headers=NDJSON) as reply,
    ):
        assert orjson.loads(await reply.content.readline())["outcome"] == "logged"
        await site.rig.ledger.close()
        stopped.set()
        last = orjson.loads(await reply.content.readline())
    assert last["error"]["code"] == "ledger_unavailable"
    assert last["error"]["retryable"] is True


async def test_the_clients_stream_answers_everything_once_and_in_order(site: Site) -> None:
    raws = await site.raws(2_500)
    asked = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal asked
        for raw in raws:
            asked += 1
            yield raw

    async with HttpLedger(site.url) as ledger:
        found = []
        async for answer in ledger.stream(source()):
            found.append(answer)
            assert asked - len(found) <= 2_500
    assert [answer.outcome for answer in found] == ["logged"] * 2_500
    assert [answer.seq for answer in found] == sorted(answer.seq or 0 for answer in found)


def test_lines_are_cut_wherever_the_pieces_end() -> None:
    body = b"one\n\ntwo\r\n" + b"y" * (MAX_LINE_BYTES + 1) + b"\nthree"
    for size in (1, 2, 3, 7, 4_096, len(body)):
        lines, found = Lines(), []
        for at in range(0, len(body), size):
            found += lines.feed(body[at : at + size])
        found += lines.end()
        assert found == [b"one", b"two", None, b"three"]
    assert IDLE_S > 0
