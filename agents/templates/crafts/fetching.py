"""Fetches one public web page, within limits, without being led astray.

* Every URL on the way, redirects included, passes :mod:`agents.templates.crafts.addresses`.
* Names are resolved here and checked; the connection goes to the very addresses that were checked,
  so that a second answer of a hostile name server is never asked for.
* Size counts after unpacking, time counts from the first byte sent to the last received.
* No cookies, no proxy, no credentials: nothing of ours goes along.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from typing_extensions import override
from yarl import URL

from agents.templates.crafts.addresses import check_address, check_literal, check_url
from agents.templates.crafts.bodies import read_body
from agents.templates.crafts.refusals import (
    PageUnavailableError,
    TooComplexError,
    UnsafeAddressError,
)

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TEXTUAL: Final = ("text/html", "application/xhtml+xml", "text/plain")
_HEADERS: Final = {
    "User-Agent": "rahba-web-to-markdown/1",
    "Accept": "text/html,application/xhtml+xml,text/plain;q=0.5",
    "Accept-Encoding": "gzip",
}


@dataclass(frozen=True, slots=True)
class Page:
    """What came back, and from where in the end."""

    url: str
    html: str


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses to name any address that is not public."""

    def __init__(self, *, allow_loopback: bool = False, allow_private: bool = False) -> None:
        """Refuse loopback and private networks too, unless told otherwise."""
        self._inner = ThreadedResolver()
        self._allow_loopback = allow_loopback
        self._allow_private = allow_private

    @override
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Resolve ``host``; one bad address among its answers refuses them all."""
        found = await self._inner.resolve(host, port, _family(family))
        for entry in found:
            check_address(
                entry["host"],
                allow_loopback=self._allow_loopback,
                allow_private=self._allow_private,
            )
        return found

    @override
    async def close(self) -> None:
        """Close the resolver underneath."""
        await self._inner.close()


async def fetch(
    address: str, *, max_bytes: int, timeout_s: float, allow_loopback: bool = False
) -> Page:
    """Fetch the page at ``address``.

    Raises:
        UnsafeAddressError: the URL, or one it redirects to, is not a public web page's.
        PageUnavailableError: no answer, an error, or nothing to read.
        TooLargeError: more than ``max_bytes``.
    """
    resolver = PublicResolver(allow_loopback=allow_loopback)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
                raise_for_status=False,
            ) as session,
        ):
            return await _follow(session, address, max_bytes, allow_loopback=allow_loopback)
    except TimeoutError as error:
        raise PageUnavailableError("the page took too long", limit_s=str(timeout_s)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise PageUnavailableError(f"no answer: {type(error).__name__}") from error
    finally:
        await resolver.close()


async def _follow(
    session: aiohttp.ClientSession, address: str, max_bytes: int, *, allow_loopback: bool
) -> Page:
    """Ask, and go where redirects lead, checking each step as if it were the first."""
    url = check_url(address)
    for _ in range(MAX_REDIRECTS + 1):
        check_literal(url, allow_loopback=allow_loopback)
        async with session.get(url, allow_redirects=False) as response:
            if response.status in REDIRECTS:
                url = next_url(url, response.headers.get("Location", ""))
                continue
            return Page(str(url), await _read(response, max_bytes))
    raise TooComplexError("too many redirects", limit=MAX_REDIRECTS)


def next_url(url: URL, location: str) -> URL:
    """Return where a redirect from ``url`` leads, checked as if it were the first."""
    try:
        return check_url(str(url.join(URL(location))))
    except ValueError as error:
        raise UnsafeAddressError("redirected to what is no URL") from error


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> str:
    if response.status != 200:
        raise PageUnavailableError("the server refused", status=response.status)
    if response.content_type not in _TEXTUAL:
        raise PageUnavailableError("not a page of text", content_type=response.content_type[:64])
    return _text(await read_body(response, max_bytes), response.charset)


def _text(raw: bytes, charset: str | None) -> str:
    try:
        return raw.decode(charset or "utf-8", errors="replace")
    except LookupError:
        return raw.decode(errors="replace")


def _family(family: int) -> socket.AddressFamily:
    return socket.AddressFamily(family)
