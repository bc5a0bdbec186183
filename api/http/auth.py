"""Who asks: from the Authorization header to a principal that can sign for its session.

Opened keys are remembered for a moment (``key_cache_ms``), so that a call does not read the store
twice; a revoked key therefore still passes here for that moment, but the ledger refuses its money
at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from api.keys import (
    Box,
    KeyExpiredError,
    KeyRequiredError,
    KeyRevokedError,
    KeyUnknownError,
    find_key,
    parse_token,
)
from broker.transports.redis.wire import Wire
from rahba.clock import Clock
from rahba.envelope import Signer

_MAX_CACHED: Final = 1_024


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever presented a valid key: pays from ``account``, signs as its session ``signer``."""

    hash: str
    account: str
    label: str
    expires_ms: int
    signer: Signer = field(repr=False)
    box: Box = field(repr=False)


class Keyring:
    """Opens tokens. Refuses unknown, expired and revoked ones with a 401 that says which."""

    def __init__(self, wire: Wire, clock: Clock, *, network: str, cache_ms: int) -> None:
        """Read keys of ``network`` from ``wire``."""
        self._wire, self._clock, self._network = wire, clock, network
        self._cache_ms = cache_ms
        self._opened: OrderedDict[str, tuple[int, Principal]] = OrderedDict()

    async def principal(self, request: Request) -> Principal:
        """Return who asks.

        Raises:
            KeyRequiredError: the request has no Authorization header of type Bearer.
            KeyUnknownError: no such key, also when it is of another network.
            KeyExpiredError: it is past its time.
            KeyRevokedError: its owner ended it.
        """
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise KeyRequiredError("this needs an API key")
        return await self.open(text.strip())

    async def open(self, text: str) -> Principal:
        """Return the principal of a token; see :meth:`principal`."""
        token = parse_token(text)
        now_ms = self._clock.now_ms()
        cached = self._opened.get(token.hash)
        if cached is not None and now_ms < min(cached[0], cached[1].expires_ms):
            return cached[1]
        record = await find_key(self._wire, token.hash)
        if record is None or record.network != self._network:
            raise KeyUnknownError("no such API key")
        if record.revoked is not None:
            raise KeyRevokedError("this API key was revoked", revoked=record.revoked)
        if record.expires <= now_ms:
            raise KeyExpiredError("this API key is past its time", expired=record.expires)
        box = token.box()
        principal = Principal(
            hash=record.hash,
            account=record.account,
            label=record.label,
            expires_ms=record.expires,
            signer=cached[1].signer if cached else Signer(box.open(record.sealed)),
            box=box,
        )
        self._opened[token.hash] = (now_ms + self._cache_ms, principal)
        if len(self._opened) > _MAX_CACHED:
            self._opened.popitem(last=False)
        return principal
