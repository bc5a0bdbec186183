"""A witness over HTTP (C2SP ``tlog-witness``), as a log sees it."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from rahba.errors import BadInputError, RemoteError

MAX_ANSWER_BYTES: Final = 64 * 1024
TIMEOUT_S: Final = 5.0


class WitnessUnreachableError(RemoteError):
    """A witness did not answer, or not as one."""

    code = "witness_unreachable"
    retryable = True


class HttpWitness:
    """The witness whose submission prefix is ``url``."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Talk to ``url``; nothing is sent yet."""
        if urlsplit(url).scheme not in {"http", "https"}:
            raise BadInputError("a witness's address is http or https", url=url[:200])
        self._url = url.rstrip("/") + "/add-checkpoint"
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def add_checkpoint(self, body: bytes) -> tuple[int, str]:
        """Send a request; returns status and body.

        Raises:
            WitnessUnreachableError: no answer in time, or too long a one.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with self._session.post(
                self._url, data=body, timeout=self._timeout, allow_redirects=False
            ) as reply:
                raw = await reply.content.read(MAX_ANSWER_BYTES)
                return reply.status, raw.decode()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            raise WitnessUnreachableError(f"{self._url}: {error!r}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)
