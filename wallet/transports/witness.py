"""A witness over HTTP (C2SP ``tlog-witness``), as a log sees it."""

from __future__ import annotations

from typing import Final

from rahba.errors import BadInputError, RemoteError
from wallet.transports.exchange import AnswerTooLargeError, Exchange, place_of
from wallet.witness import origin_hash

MAX_ANSWER_BYTES: Final = 64 * 1024
TIMEOUT_S: Final = 5.0
BINARY: Final = "application/octet-stream"


class WitnessUnreachableError(RemoteError):
    """A witness did not answer, or not as one."""

    code = "witness_unreachable"
    retryable = True


class HttpWitness:
    """The witness whose submission prefix is ``url``."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Talk to ``url``; nothing is sent yet."""
        self._url = url.rstrip("/")
        try:
            place_of(self._url)
        except ValueError as error:
            raise BadInputError("a witness's address is http or https", url=url[:200]) from error
        self._timeout_s = timeout_s
        self._exchange = Exchange(max_answer_bytes=MAX_ANSWER_BYTES)

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
        try:
            status, raw = await self._exchange.ask(
                method, self._url, path, limit_s=self._timeout_s, body=body, kind=BINARY
            )
            return status, raw.decode()
        except AnswerTooLargeError as error:
            raise WitnessUnreachableError(f"{self._url}: the answer is too long") from error
        except (TimeoutError, OSError, UnicodeDecodeError) as error:
            raise WitnessUnreachableError(f"{self._url}{path}: {error!r}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.aclose()
