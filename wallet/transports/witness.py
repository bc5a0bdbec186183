"""A witness over HTTP (C2SP ``tlog-witness``), as a log sees it."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from rahba.errors import BadInputError, RemoteError
from wallet.witness import origin_hash

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
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def add_checkpoint(self, body: bytes) -> tuple[int, str]:
        """Send a request; returns status and body.

        Raises:
            WitnessUnreachableError: no answer in time.
        """
        return await self._ask("POST", "/add-checkpoint", body)

    async def checkpoint(self, origin: str) -> str | None:
        """Return the newest checkpoint that it cosigned of a log, if it shows one.

        Raises:
            WitnessUnreachableError: no answer in time.
        """
        status, note = await self._ask("GET", f"/{origin_hash(origin)}/checkpoint", None)
        return note if status == 200 else None

    async def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with self._session.request(
                method,
                self._url + path,
                data=body,
                timeout=self._timeout,
                allow_redirects=False,
            ) as reply:
                raw = bytearray()
                async for chunk in reply.content.iter_any():
                    raw += chunk
                    if len(raw) > MAX_ANSWER_BYTES:
                        raise WitnessUnreachableError(f"{self._url}: the answer is too long")
                return reply.status, raw.decode()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            raise WitnessUnreachableError(f"{self._url}{path}: {error!r}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)
