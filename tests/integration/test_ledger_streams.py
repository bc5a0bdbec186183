"""Streams of submissions: a real server, lines without end, and clients of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
import pytest

from api.door import serve_app
from api.ledger_http import serve
from api.ledger_stream import IDLE_S, MAX_LINE_BYTES, Lines, answer_stream
from rahba.clock import SystemClock
from rahba.envelope import Signer
from rahba.ids import RandomIds
from rahba.merkle import leaf_hash
from tests.fixtures.ledger_server import LedgerProcess
from tests.fixtures.serving import serving
from tests.fixtures.wallet import LedgerRig, did, signer_of
from wallet.audit import audit_entries
from wallet.ports import Answer
from wallet.stores.readonly import ReadOnlyLog
from wallet.transactions import EXPIRING_LANE, AnyTx, Faucet, Transfer, seal_transaction
from wallet.transports.http import HttpLedger, LedgerUnreachableError
from wallet.transports.window import MAX_LINES

NDJSON = {"content-type": "application/x-ndjson", "accept": "application/x-ndjson"}
MIB = 1024 * 1024
ALICE, BOB = Signer(bytes([2]) * 32), Signer(bytes([3]) * 32)
CLOCK, IDS = SystemClock(), RandomIds()


def seal(form: Any, chain: str, **words: str) -> bytes:
    tx: AnyTx = form(
        account=ALICE.did,
        chain=chain,
        fee="1000",
        fee_payer=None,
        lane=EXPIRING_LANE,
        seq=IDS.salt(),
        valid_until=CLOCK.now_ms() + 120_000,
        **words,
    )
    return seal_transaction(tx, ALICE)


def transfer(chain: str, fals: int) -> bytes:
    return seal(Transfer, chain, to=BOB.did, amount=str(fals))


async def fund(ledger: HttpLedger) -> str:
    chain = await ledger.chain()
    assert (await ledger.submit(seal(Faucet, chain, amount=str(10**9)))).ok
    return chain


@dataclass
class Site:
    url: str
    rig: LedgerRig

    async def raws(self, count: int) -> list[bytes]:
        amina = self.rig.wallet("amina")
        return [await amina.sign_transfer(did("brahim"), 1) for _ in range(count)]


@pytest.fixture
async def site(sqlite_rig: LedgerRig) -> AsyncIterator[Site]:
    await sqlite_rig.funded("amina", 10**11)
    async with serving(partial(serve, sqlite_rig.ledger, "127.0.0.1", 0)) as url:
        yield Site(url, sqlite_rig)


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


@pytest.mark.long
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


async def test_a_stream_whose_ledger_stopped_ends_although_its_body_does_not(site: Site) -> None:
    raws = await site.raws(20)
    stopped = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield raws[0] + b"\n"
        await stopped.wait()
        for raw in raws[1:]:
            yield raw + b"\n"
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    async with (
        aiohttp.ClientSession() as web,
        web.post(f"{site.url}/v1/transactions", data=body(), headers=NDJSON) as reply,
    ):
        assert orjson.loads(await reply.content.readline())["outcome"] == "logged"
        await site.rig.ledger.close()
        stopped.set()
        async with asyncio.timeout(10):
            (last,) = (await reply.content.read()).splitlines()
    assert orjson.loads(last)["error"]["code"] == "ledger_unavailable"


@asynccontextmanager
async def impatient(ledger: Any, done: asyncio.Event) -> AsyncIterator[str]:
    """Serve streams that nobody may leave idle for more than half a second."""

    async def app(_: Any, receive: Any, send: Any) -> None:
        try:
            await answer_stream(ledger, receive, send, receipt=False, idle_s=0.5)
        finally:
            done.set()

    async with serving(partial(serve_app, app, "127.0.0.1", 0)) as url:
        yield url


async def test_who_sends_nothing_for_too_long_is_told_so(site: Site) -> None:
    (raw,) = await site.raws(1)

    async def body() -> AsyncIterator[bytes]:
        yield raw + b"\n"
        await asyncio.Event().wait()

    async with (
        impatient(site.rig.ledger, asyncio.Event()) as url,
        aiohttp.ClientSession() as web,
        web.post(url, data=body(), headers=NDJSON) as reply,
        asyncio.timeout(10),
    ):
        first, last = map(orjson.loads, (await reply.content.read()).splitlines())
    assert first["outcome"] == "logged"
    assert last["error"]["code"] == "stream_idle"


@pytest.mark.long
async def test_who_reads_nothing_for_too_long_loses_the_stream(site: Site) -> None:
    body = b"".join(raw + b"\n" for raw in await site.raws(100))
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n"
    done = asyncio.Event()
    async with impatient(site.rig.ledger, done) as url:
        port = int(url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                while not done.is_set():
                    writer.write(chunk)
                    drain = asyncio.ensure_future(writer.drain())
                    ended = asyncio.ensure_future(done.wait())
                    await asyncio.wait({drain, ended}, return_when="FIRST_COMPLETED")
                    for task in (drain, ended):
                        task.cancel()
                    await asyncio.gather(drain, ended, return_exceptions=True)
        assert done.is_set()
        writer.transport.abort()


class Defect:
    """A ledger with a defect."""

    async def submit_many(self, raws: list[bytes], *, receipt: bool = False) -> list[Any]:
        raise RuntimeError("a defect")


async def test_a_defect_is_told_in_the_last_line_and_says_nothing_of_itself() -> None:
    async with (
        impatient(Defect(), asyncio.Event()) as url,
        aiohttp.ClientSession() as web,
        web.post(url, data=b"x\n", headers=NDJSON) as reply,
    ):
        (last,) = (await reply.content.read()).splitlines()
    assert orjson.loads(last)["error"]["code"] == "stream_broken"
    assert b"a defect" not in last


async def test_an_endless_address_opens_no_stream(site: Site) -> None:
    async with (
        aiohttp.ClientSession() as web,
        web.post(
            f"{site.url}/v1/transactions?x={'y' * 2_000}", data=b"x\n", headers=NDJSON
        ) as reply,
    ):
        assert reply.status == 413


async def listed(raws: list[bytes]) -> AsyncIterator[bytes]:
    for raw in raws:
        yield raw


async def test_the_clients_stream_answers_everything_once_and_in_order(site: Site) -> None:
    raws = await site.raws(5_000)
    asked = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal asked
        for raw in raws:
            asked += 1
            yield raw

    async with HttpLedger(site.url) as ledger:
        found = []
        async for answer in ledger.stream(source()):
            assert asked - len(found) <= MAX_LINES + 1
            found.append(answer)
    assert [answer.outcome for answer in found] == ["logged"] * 5_000
    assert [answer.id for answer in found] == [leaf_hash(raw).hex() for raw in raws]
    assert [answer.seq for answer in found] == sorted(answer.seq or 0 for answer in found)


async def test_the_clients_stream_sends_what_it_has_and_waits_for_no_more(site: Site) -> None:
    raws = await site.raws(3)
    answered: asyncio.Queue[Answer] = asyncio.Queue()

    async def source() -> AsyncIterator[bytes]:
        for raw in raws:
            yield raw
            assert (await answered.get()).ok

    async with HttpLedger(site.url) as ledger, asyncio.timeout(10):
        async for answer in ledger.stream(source(), receipt=True):
            assert answer.receipt is not None
            await answered.put(answer)


async def test_a_lane_that_spans_many_groups_arrives_in_its_order(site: Site) -> None:
    chain, until = await site.rig.ledger.chain(), site.rig.clock.now_ms() + 60_000
    signer, common = signer_of("amina"), {"fee": "1000", "fee_payer": None, "lane": 7}
    raws = [
        seal_transaction(
            Transfer(
                account=signer.did,
                chain=chain,
                seq=seq,
                valid_until=until,
                to=did("brahim"),
                amount="1",
                **common,
            ),
            signer,
        )
        for seq in range(1, 3_001)
    ]
    async with HttpLedger(site.url) as ledger:
        outcomes = [answer.outcome async for answer in ledger.stream(listed(raws))]
    assert outcomes == ["logged"] * 3_000


async def test_what_cannot_be_a_line_is_answered_in_its_turn(site: Site) -> None:
    one, two = await site.raws(2)
    wrong = [b"", b"a\nb", b" ", b"x" * (MAX_LINE_BYTES + 1), b"{}"]
    async with HttpLedger(site.url) as ledger:
        found = [answer async for answer in ledger.stream(listed([one, *wrong, two]))]
    assert [answer.outcome for answer in found] == ["logged", *["invalid"] * 5, "logged"]
    assert [answer.id for answer in found[1:6]] == [leaf_hash(raw).hex() for raw in wrong]
    assert [answer.code for answer in found[1:5]] == [*["bad_encoding"] * 3, "too_large"]


async def test_a_source_that_fails_does_so_after_the_answers_to_what_it_gave(site: Site) -> None:
    raws = await site.raws(2)

    async def source() -> AsyncIterator[bytes]:
        for raw in raws:
            yield raw
        raise LookupError("nothing more to sell")

    async with HttpLedger(site.url) as ledger:
        stream = ledger.stream(source())
        assert [(await anext(stream)).outcome for _ in raws] == ["logged"] * 2
        with pytest.raises(LookupError):
            await anext(stream)


async def test_a_client_that_is_closed_tells_its_streams(site: Site) -> None:
    (raw,) = await site.raws(1)

    async def source() -> AsyncIterator[bytes]:
        yield raw
        await asyncio.Event().wait()

    ledger = HttpLedger(site.url)
    stream = ledger.stream(source())
    assert (await anext(stream)).ok
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    await ledger.close()
    with pytest.raises(LedgerUnreachableError):
        async with asyncio.timeout(5):
            await waiting


async def test_a_ledger_that_cannot_be_reached_is_told_after_patience_is_over() -> None:
    async with HttpLedger("http://127.0.0.1:9", patience_s=0.3) as ledger:
        with pytest.raises(LedgerUnreachableError):
            await anext(ledger.stream(listed([b"{}"])))


async def test_a_stream_asks_whoever_serves_the_ledger(site: Site) -> None:
    raws = await site.raws(3)
    async with HttpLedger(f"http://127.0.0.1:9,{site.url}") as ledger:
        assert [a.outcome async for a in ledger.stream(listed(raws))] == ["logged"] * 3


async def test_a_ledger_killed_mid_stream_pays_nothing_twice_and_loses_nothing(
    tmp_path: Path,
) -> None:
    process = LedgerProcess(tmp_path / "ledger.db")
    process.start()
    found: list[Answer] = []
    kills = (500, 1_500, 2_600)
    try:
        async with HttpLedger(process.url, patience_s=20, attempt_s=3) as ledger:
            chain = await fund(ledger)
            raws = [transfer(chain, 1) for _ in range(4_000)]
            async for answer in ledger.stream(listed(raws)):
                found.append(answer)
                if len(found) in kills:
                    process.kill()
                    await asyncio.to_thread(process.start)
            bob = await ledger.account(BOB.did)
            supply = await ledger.supply()
        assert [answer.id for answer in found] == [leaf_hash(raw).hex() for raw in raws]
        assert all(answer.ok for answer in found)
        assert len({answer.seq for answer in found}) == 4_000
        assert bob is not None
        assert bob.posted == 4_000
        assert supply.equal
    finally:
        process.kill()
    with ReadOnlyLog(process.path) as log:
        report = audit_entries(log, log.checkpoint)
    assert report.ok, report.problems
    assert report.transactions == 4_000 + 1


def test_lines_are_cut_wherever_the_pieces_end() -> None:
    body = b"one\n\ntwo\r\n" + b"y" * (MAX_LINE_BYTES + 1) + b"\nthree"
    for size in (1, 2, 3, 7, 4_096, len(body)):
        lines, found = Lines(), []
        for at in range(0, len(body), size):
            found += lines.feed(body[at : at + size])
        found += lines.end()
        assert found == [b"one", b"two", None, b"three"]
    assert IDLE_S > 0
