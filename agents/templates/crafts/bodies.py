"""Reads the body of an HTTP answer within its limit, which counts what comes out of the packing."""

from __future__ import annotations

import zlib
from typing import Final

import aiohttp

from agents.templates.crafts.refusals import PageUnavailableError
from rahba.errors import TooLargeError

_CHUNK_BYTES: Final = 64 * 1024


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the bytes of an answer that was asked for plain or gzipped.

    Raises:
        PageUnavailableError: it is packed otherwise, or damaged.
        TooLargeError: more than ``max_bytes``, after unpacking.
    """
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in {"gzip", "identity"}:
        raise PageUnavailableError("packed in a way that was not asked for")
    unpack = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    parts: list[bytes] = []
    left = max_bytes
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        try:
            part = unpack.decompress(chunk, left + 1) if unpack else chunk
        except zlib.error as error:
            raise PageUnavailableError("the page is damaged") from error
        left -= len(part)
        if left < 0:
            raise TooLargeError("page too large", limit_bytes=max_bytes)
        parts.append(part)
    return b"".join(parts)
