"""HTTP/1.1 for a ledger's clients: small requests, whole answers, on connections that are kept.

What it leaves out is what makes a general client dear, and what nobody asks of a ledger: redirects,
cookies, compression, answers that stream. An exchange costs a third of one over ``aiohttp``.

* One exchange at a time on a connection; at most ``MAX_OPEN`` exchanges at a time, the rest wait.
* A connection is kept for the next exchange only if the answer says so, ended where it said, and
  nothing came after it. One that was kept and is found closed before anything of the answer came
  is replaced at once: whoever uses this sends only what may be sent twice.
* A name may lead to several addresses: each but the last has ``ADDRESS_S`` to answer.
* An answer is bounded in bytes, an exchange in time. Whatever breaks one closes its connection.
* The length of an answer must be told: what merely ends may have been cut off.

    async with contextlib.aclosing(Exchange(max_answer_bytes=1_000)) as exchange:
        status, body = await exchange.ask("GET", "http://127.0.0.1:8701/healthz", limit_s=5.0)
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from functools import lru_cache
from typing import Final, NamedTuple, cast
from urllib.parse import quote, unquote, urlsplit

import httptools
from typing_extensions import override

MAX_OPEN: Final = 16
MAX_HEAD_BYTES: Final = 64 * 1024
KEPT_S: Final = 15.0
MAX_ADDRESSES: Final = 4
ADDRESS_S: Final = 1.0
_PORTS: Final = {"http": 80, "https": 443}
_SAFE: Final = "/:@!$&'()*+,;=~%"


class BrokenExchangeError(ConnectionError):
    """No whole answer came: the request may have arrived or not."""


class AnswerTooLargeError(Exception):
    """The answer is larger than whoever asked wants to hear."""


class Place(NamedTuple):
    """Where a URL leads: the peer, and what precedes the path and follows it in a request."""

    secure: bool
    host: str
    port: int
    prefix: str
    headers: str


@lru_cache(maxsize=64)
def place_of(base: str) -> Place:
    """Take the address of a server apart, perhaps with a path and with ``user:password@``.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(base)
    if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an address looks like http://127.0.0.1:8701")
    port = parts.port or _PORTS[parts.scheme]
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    name = name if port == _PORTS[parts.scheme] else f"{name}:{port}"
    headers = f"host: {name.encode('idna').decode('ascii')}\r\naccept: */*\r\n"
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers += f"authorization: Basic {base64.b64encode(secret).decode('ascii')}\r\n"
    prefix = quote(parts.path.rstrip("/"), safe=_SAFE)
    return Place(parts.scheme == "https", parts.hostname, port, prefix, headers)


class Exchange:
    """A client for any number of tasks of one event loop."""

    def __init__(self, *, max_answer_bytes: int) -> None:
        """Hear answers of up to ``max_answer_bytes``; nothing is opened yet."""
        self._max_bytes = max_answer_bytes
        self._room = asyncio.Semaphore(MAX_OPEN)
        self._kept: dict[Place, list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._closed = False
        self._security: ssl.SSLContext | None = None

    async def aclose(self) -> None:
        """Close all connections; whoever waits for an answer is told, and nobody asks again."""
        self._closed = True
        for connection in tuple(self._open):
            connection.drop()
        self._kept.clear()
        await asyncio.sleep(0)

    async def ask(
        self,
        method: str,
        base: str,
        path: str,
        *,
        limit_s: float,
        body: bytes | None = None,
        kind: str = "",
    ) -> tuple[int, bytes]:
        """Send one request and return the status and the body of its answer.

        Args:
            method: ``GET`` or ``POST``.
            base: the server's address (:func:`place_of`).
            path: the rest of the address: printable ASCII, quoted already.
            limit_s: how long all of it may take, waiting for room included.
            body: what is sent; may be sent twice.
            kind: the body's media type.

        Raises:
            OSError: the server cannot be reached, or broke off (:class:`BrokenExchangeError`).
            TimeoutError: ``limit_s`` is over.
            AnswerTooLargeError: the answer is beyond the limit.
        """
        place = place_of(base)
        head = f"{method} {place.prefix}{path} HTTP/1.1\r\n{place.headers}"
        if body is not None:
            head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        message = f"{head}\r\n".encode("ascii") + (body or b"")
        async with asyncio.timeout(limit_s), self._room:
            self._check_open()
            while (connection := self._take(place)) is not None:
                try:
                    return await self._on(connection, message)
                except _StaleError:
                    continue
            return await self._on(await self._connect(place), message)

    def _take(self, place: Place) -> _Connection | None:
        """Return a kept connection that is still open, the last used first."""
        kept = self._kept.get(place, [])
        while kept:
            connection = kept.pop()
            if connection.fresh(KEPT_S):
                return connection
            connection.drop()
        return None

    async def _on(self, connection: _Connection, message: bytes) -> tuple[int, bytes]:
        try:
            answer = await connection.exchange(message)
        finally:
            if connection.reusable and not self._closed:
                self._kept.setdefault(connection.place, []).append(connection)
            else:
                connection.drop()
        return answer

    async def _connect(self, place: Place) -> _Connection:
        loop = asyncio.get_running_loop()
        if place.secure and self._security is None:
            self._security = await asyncio.to_thread(ssl.create_default_context)
        try:
            found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a host's name that is none
            raise BrokenExchangeError(f"no such host: {error}") from error
        hosts = list(dict.fromkeys(str(info[4][0]) for info in found))[:MAX_ADDRESSES]
        for host in hosts[:-1]:
            with contextlib.suppress(OSError):  # a time-out is one: the next address may answer
                async with asyncio.timeout(ADDRESS_S):
                    return await self._connect_to(host, place)
        return await self._connect_to(hosts[-1], place)

    async def _connect_to(self, host: str, place: Place) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(place, loop, self._max_bytes, self._open),
            host,
            place.port,
            ssl=self._security if place.secure else None,
            server_hostname=place.host if place.secure else None,
        )
        if self._closed:
            connection.drop()
        self._check_open()
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise BrokenExchangeError("the client was closed")


class _StaleError(BrokenExchangeError):
    """A connection that had been kept was closed before anything of an answer came."""


class _Connection(asyncio.Protocol):
    """One connection; the parser calls its ``on_`` methods."""

    def __init__(
        self,
        place: Place,
        loop: asyncio.AbstractEventLoop,
        max_bytes: int,
        others: set[_Connection],
    ) -> None:
        self.place = place
        self.reusable = False
        self._loop = loop
        self._max_bytes = max_bytes
        self._others = others
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._used = False
        self._since = 0.0
        self._begin()

    def _begin(self) -> None:
        """Forget the last answer."""
        self._status = 0
        self._heard = False
        self._broken = False
        self._head_bytes = 0
        self._size = 0
        self._body = bytearray()

    async def exchange(self, message: bytes) -> tuple[int, bytes]:
        """Send a request and wait for its answer."""
        self._begin()
        if self._transport is None or self._transport.is_closing():
            raise self._gone()
        self.reusable = False
        self._waiting = self._loop.create_future()
        self._transport.write(message)
        try:
            return await self._waiting
        finally:
            self._waiting = None
            self._used, self._since = True, self._loop.time()

    def fresh(self, kept_s: float) -> bool:
        """Say whether it can be used once more."""
        return self.reusable and self._loop.time() - self._since < kept_s

    def drop(self) -> None:
        """Close it."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # -- what the loop says ----------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._others.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # nothing was asked
            self.drop()
            return
        self._heard = True
        if not self._status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BrokenExchangeError(f"not an answer in HTTP: {error!r}"))
            return
        if self._size > self._max_bytes:
            self._fail(AnswerTooLargeError(f"more than {self._max_bytes} bytes"))
        elif self._broken or (not self._status and self._head_bytes > MAX_HEAD_BYTES):
            self._fail(BrokenExchangeError("more came than an answer"))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._others.discard(self)
        self._fail(self._gone())

    # -- what the parser says --------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._waiting is None or self._waiting.done():
            self._broken = True

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= self._max_bytes:
            self._body += chunk

    def on_message_complete(self) -> None:
        if self._status < 200:  # the answer is still to come
            self._status = 0
        elif self._size <= self._max_bytes:
            self.reusable = self._parser.should_keep_alive()
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result((self._status, bytes(self._body)))

    def _fail(self, error: Exception) -> None:
        self.reusable = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
        if self._transport is not None:
            self._transport.abort()

    def _gone(self) -> BrokenExchangeError:
        if self._used and not self._heard:
            return _StaleError("the connection was closed")
        return BrokenExchangeError("the connection was closed")
