"""The ledger client's own HTTP on real sockets: what it sends, what it believes and keeps."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rahba.clock import SystemClock
from wallet.transports.exchange import (
    MAX_HEAD_BYTES,
    MAX_OPEN,
    AnswerTooLargeError,
    BrokenExchangeError,
    Exchange,
    place_of,
)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
MAX_BYTES = 10_000
Answering = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """A server that answers each request head with the next of ``answers``, the last for ever."""

    answers: list[bytes]
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    close_after: int = 10**9
    came: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def asked(self, count: int) -> None:
        """Wait until so many requests have come."""
        async with asyncio.timeout(5):
            while len(self.heads) < count:
                self.came.clear()
                await self.came.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for _ in range(self.close_after):
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.came.set()
                self.bodies.append(await reader.readexactly(int(length or b"0")))
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        writer.close()


@contextlib.asynccontextmanager
async def peer(*answers: bytes, security: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    one = Peer(list(answers))
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=security)
    scheme = "https" if security else "http"
    one.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
        for writer in one.writers:
            writer.close()
        await server.wait_closed()


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    one = Exchange(max_answer_bytes=MAX_BYTES)
    yield one
    await one.aclose()


async def get(exchange: Exchange, url: str, path: str = "/x") -> tuple[int, bytes]:
    return await exchange.ask("GET", url, path, limit_s=5.0)


async def test_a_request_says_where_it_goes_and_what_it_brings(exchange: Exchange) -> None:
    async with peer(OK) as one:
        base = one.url.replace("://", "://amina:p%40ss@") + "/a b/"
        answer = await exchange.ask("POST", base, "/v1?q=1", limit_s=5, body=b"hm", kind="text/x")
        assert answer == (200, b"ok")
        line, *fields = one.heads[0].decode().rstrip().split("\r\n")
        assert line == "POST /a%20b/v1?q=1 HTTP/1.1"
        assert set(fields) == {
            f"host: {one.url.removeprefix('http://')}",
            "accept: */*",
            "authorization: Basic YW1pbmE6cEBzcw==",
            "content-type: text/x",
            "content-length: 2",
        }
        assert one.bodies == [b"hm"]


async def test_a_connection_is_kept_and_one_that_ended_meanwhile_is_replaced(
    exchange: Exchange,
) -> None:
    async with peer(OK) as one:
        for _ in range(3):
            assert await get(exchange, one.url) == (200, b"ok")
        assert len(one.writers) == 1
        one.writers[0].close()
        await asyncio.sleep(0.05)
        assert await get(exchange, one.url) == (200, b"ok")
        assert len(one.writers) == 2


async def test_a_kept_connection_that_ends_under_a_request_is_replaced_at_once(
    exchange: Exchange,
) -> None:
    async with peer(OK) as one:
        one.close_after = 1  # it ends the connection at the moment in which the next request comes
        for _ in range(20):
            assert await get(exchange, one.url) == (200, b"ok")


async def test_a_new_connection_that_ends_without_an_answer_is_not_tried_again(
    exchange: Exchange,
) -> None:
    async with peer(b"") as one:
        one.close_after = 1
        with pytest.raises(BrokenExchangeError):
            await get(exchange, one.url)
        assert len(one.heads) == 1


KEPT = [
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", True),
    (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, True),
    (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nok", True),
    (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", False),
    (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
    (OK + b"x", False),
    (OK + OK, False),
]


@pytest.mark.parametrize(("answer", "kept"), KEPT)
async def test_a_whole_answer_is_taken_and_what_comes_after_it_never_is(
    exchange: Exchange, answer: bytes, kept: bool
) -> None:
    async with peer(answer) as one:
        status, body = await get(exchange, one.url)
        assert (status, body) == (404 if b"404" in answer else 200, b"ok")
        await asyncio.sleep(0.02)
        one.answers = [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext"]
        assert await get(exchange, one.url) == (200, b"next")
        assert (len(one.writers) == 1) is kept


async def test_an_answer_that_comes_late_is_nobodys(exchange: Exchange) -> None:
    async with peer(b"HTTP/1.1 200 OK\r\ncontent-le", OK) as one:
        with pytest.raises(TimeoutError):
            await exchange.ask("GET", one.url, "/slow", limit_s=0.05)
        one.writers[0].write(b"ngth: 4\r\n\r\nlate")
        assert await get(exchange, one.url) == (200, b"ok")
        assert len(one.writers) == 2


BROKEN = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nok",
    b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEAD_BYTES + 400_000),
]


@pytest.mark.parametrize("answer", BROKEN)
async def test_what_is_no_answer_in_http_breaks_the_exchange(
    exchange: Exchange, answer: bytes
) -> None:
    async with peer(answer, OK) as one:
        with pytest.raises(BrokenExchangeError):
            await get(exchange, one.url)
        assert await get(exchange, one.url) == (200, b"ok")


async def test_an_answer_that_merely_ends_may_have_been_cut_off(exchange: Exchange) -> None:
    for head in (b"", b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n"):
        async with peer(
            b"HTTP/1.1 200 OK\r\n" + head + b"\r\n2\r\nok\r\n"[3 * (not head) :]
        ) as one:
            one.close_after = 1
            with pytest.raises(BrokenExchangeError):
                await get(exchange, one.url)


async def test_an_answer_beyond_the_limit_is_not_heard_to_its_end(exchange: Exchange) -> None:
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
    async with peer(whole % MAX_BYTES + bytes(MAX_BYTES)) as one:
        assert await get(exchange, one.url) == (200, bytes(MAX_BYTES))
    for size in (MAX_BYTES + 1, 10**9):
        async with peer(whole % size + bytes(MAX_BYTES + 1)) as one:
            with pytest.raises(AnswerTooLargeError):
                await get(exchange, one.url)


async def test_no_more_than_so_many_connections_are_open_and_the_rest_wait(
    exchange: Exchange,
) -> None:
    async with peer(b"") as one:
        many = [asyncio.create_task(get(exchange, one.url)) for _ in range(3 * MAX_OPEN)]
        await one.asked(MAX_OPEN)
        await asyncio.sleep(0.05)
        assert len(one.heads) == MAX_OPEN
        one.answers = [OK]
        for writer in tuple(one.writers):
            writer.write(OK)
        assert await asyncio.gather(*many) == [(200, b"ok")] * 3 * MAX_OPEN
        assert len(one.writers) == MAX_OPEN


async def test_closing_tells_whoever_waits(exchange: Exchange) -> None:
    async with peer(b"") as one:
        waiting = asyncio.create_task(get(exchange, one.url))
        await one.asked(1)
        await exchange.aclose()
        with pytest.raises(BrokenExchangeError):
            await waiting


async def test_nobody_there_is_an_error_of_the_system(exchange: Exchange) -> None:
    for url in ("http://127.0.0.1:1", "http://nobody.invalid"):
        with pytest.raises(OSError, match=r".") as caught:
            await get(exchange, url)
        assert not isinstance(caught.value, TimeoutError)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 that signs itself, and its key beside it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), SystemClock().now_ms() // 1_000
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ledger")])
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime.fromtimestamp(now - 3_600, UTC))
        .not_valid_after(datetime.fromtimestamp(now + 3_600, UTC))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    path.with_name("key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    exchange: Exchange, certificate: Path
) -> None:
    security = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    security.load_cert_chain(certificate, certificate.with_name("key.pem"))
    async with peer(OK, security=security) as one:
        with pytest.raises(ssl.SSLCertVerificationError):
            await get(exchange, one.url)
        trusting = Exchange(max_answer_bytes=MAX_BYTES)
        trusting._security = ssl.create_default_context(cafile=certificate)
        assert await get(trusting, one.url) == (200, b"ok")
        assert await get(trusting, one.url) == (200, b"ok")
        assert len(one.heads) == 2
        await trusting.aclose()


NO_ADDRESSES = """\
127.0.0.1:8701 ftp://x http:// http://x:99999 http://x:y http://a..b http://x?q=1 http://x#y
http://[::1"""


@pytest.mark.parametrize("address", ["", *NO_ADDRESSES.split(), "http://" + "a" * 64])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        place_of(address)


def test_an_address_is_taken_apart() -> None:
    assert place_of("https://[::1]/ledger/")[:4] == (True, "::1", 443, "/ledger")
    assert place_of("https://[::1]/ledger/").headers.startswith("host: [::1]\r\n")
    assert place_of("http://münchen.test:80").headers.startswith("host: xn--mnchen-3ya.test\r\n")


async def test_a_name_whose_first_address_is_dead_leads_to_the_next(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    asked: list[str] = []

    async def two(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        addresses = ("192.0.2.1", "127.0.0.1")  # the first is of a net that is nowhere (RFC 5737)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    async with peer(OK) as one:
        monkeypatch.setattr(type(loop), "getaddrinfo", staticmethod(two))
        assert await get(exchange, one.url.replace("127.0.0.1", "ledger.test")) == (200, b"ok")
    assert asked == ["ledger.test"]


async def test_a_client_that_was_closed_asks_nobody(exchange: Exchange) -> None:
    async with peer(OK) as one:
        assert await get(exchange, one.url) == (200, b"ok")
        await exchange.aclose()
        with pytest.raises(BrokenExchangeError, match="closed"):
            await get(exchange, one.url)
        assert len(one.heads) == 1


async def test_an_answer_in_tiny_pieces_costs_no_more_than_its_bytes(exchange: Exchange) -> None:
    pieces = b"".join(b"2\r\nab\r\n" for _ in range(MAX_BYTES // 2))
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    async with peer(head + pieces + b"0\r\n\r\n") as one:
        status, body = await get(exchange, one.url)
    assert (status, body) == (200, b"ab" * (MAX_BYTES // 2))
