"""Speaks JSON with a stranger's server: one question, one answer, both within limits.

* The rules for URLs, addresses and redirects are those of :mod:`agents.templates.crafts.fetching`:
  names are resolved here, every address is checked, and the checked one is connected to.
* A question that carries anything (POST) follows no redirects.
* Time counts from the first byte to the last, size after unpacking, depth level by level.
* No cookies, no proxy, no credentials: nothing of ours goes along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from agents.foreign.errors import (
    BadForeignCardError,
    ForeignAnswerError,
    ForeignUnreachableError,
    NoForeignCardError,
)
from agents.templates.crafts.addresses import check_literal, check_url
from agents.templates.crafts.bodies import read_body
from agents.templates.crafts.fetching import REDIRECTS, PublicResolver, next_url
from agents.templates.crafts.refusals import PageUnavailableError, TooComplexError
from rahba.errors import RahbaError, TooLargeError

MAX_DEPTH: Final = 32
MAX_REDIRECTS: Final = 3
_ABSENT: Final = frozenset({401, 403, 404, 405, 406, 410})
_HEADERS: Final = {
    "User-Agent": "rahba-bridge/1",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a question goes: its limits, and whether our own networks are within them."""

    max_bytes: int
    timeout_s: float
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """JSON, and where it was found in the end."""

    url: str
    value: Any


async def get_json(address: str, reach: Reach) -> Found:
    """Fetch JSON from ``address``, going where redirects lead.

    Raises:
        UnsafeAddressError: the URL, or one it redirects to, may not be asked.
        NoForeignCardError: there is nothing, or nothing for us, at the end.
        BadForeignCardError: it is not JSON.
        ForeignUnreachableError: no answer in time, or an error of the server.
        TooLargeError, TooComplexError: it exceeds a limit.
    """
    async with _session(reach) as session:
        url = check_url(address)
        for _ in range(MAX_REDIRECTS + 1):
            check_literal(url, allow_private=reach.allow_private)
            async with session.get(url, allow_redirects=False) as response:
                if response.status in REDIRECTS:
                    url = next_url(url, response.headers.get("Location", ""))
                    continue
                return Found(str(url), await _card_of(response, url, reach))
        raise TooComplexError("too many redirects", limit=MAX_REDIRECTS)


async def post_json(
    address: str, question: Mapping[str, Any], reach: Reach, headers: Mapping[str, str]
) -> Any:
    """Send ``question`` to ``address`` and return the JSON that comes back.

    Raises:
        UnsafeAddressError: the URL may not be asked.
        ForeignUnreachableError: no answer in time, or an error of the server.
        ForeignAnswerError: it is not JSON, or leads elsewhere.
        TooLargeError: it exceeds a limit.
    """
    url = check_url(address)
    check_literal(url, allow_private=reach.allow_private)
    sent = {"Content-Type": "application/json", **headers}
    async with (
        _session(reach) as session,
        session.post(
            url, data=orjson.dumps(question), headers=sent, allow_redirects=False
        ) as response,
    ):
        if response.status >= 500 or response.status == 429:
            raise ForeignUnreachableError("the server fails", status=response.status)
        if not _is_json(response):
            raise ForeignAnswerError("the answer is not JSON", status=response.status)
        raw = await _body(response, reach)
        try:
            return plain_json(raw)
        except ValueError as error:
            raise ForeignAnswerError("the answer is not JSON", status=response.status) from error


def plain_json(raw: bytes) -> Any:
    """Decode JSON that is no deeper than ``MAX_DEPTH``.

    Raises:
        ValueError: it is not JSON.
        TooComplexError: it is deeper.
    """
    value = orjson.loads(raw)
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for inner in level for item in _items(inner)]
        if not level:
            return value
    raise TooComplexError("nested too deeply", limit=MAX_DEPTH)


def _items(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


async def _card_of(response: aiohttp.ClientResponse, url: URL, reach: Reach) -> Any:
    if response.status in _ABSENT:
        raise NoForeignCardError("no card there", status=response.status, url=str(url)[:200])
    if response.status != 200:
        raise ForeignUnreachableError("the server fails", status=response.status)
    if not _is_json(response):
        raise NoForeignCardError(
            "what is there is no JSON", content_type=response.content_type[:64]
        )
    raw = await _body(response, reach)
    try:
        return plain_json(raw)
    except ValueError as error:
        raise BadForeignCardError("it says it is JSON, and is not") from error


def _is_json(response: aiohttp.ClientResponse) -> bool:
    kind = response.content_type
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


async def _body(response: aiohttp.ClientResponse, reach: Reach) -> bytes:
    try:
        return await read_body(response, reach.max_bytes)
    except PageUnavailableError as error:
        raise ForeignAnswerError(error.message) from error
    except TooLargeError as error:
        raise TooLargeError("the answer is too large", limit_bytes=reach.max_bytes) from error


@contextlib.asynccontextmanager
async def _session(reach: Reach) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a session for one question; what the network does is told in our own words."""
    resolver = PublicResolver(allow_private=reach.allow_private)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    try:
        async with (
            asyncio.timeout(reach.timeout_s),
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                auto_decompress=False,
                raise_for_status=False,
            ) as session,
        ):
            yield session
    except TimeoutError as error:
        raise ForeignUnreachableError("no whole answer in time") from error
    except RahbaError:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise ForeignUnreachableError(f"no answer: {type(error).__name__}") from error
    finally:
        await resolver.close()
