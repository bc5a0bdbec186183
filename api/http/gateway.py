"""The gateway as its routes see it: who asks, what it may, and the parts of the market.

Nothing here is global: ``create_app`` keeps one on ``app.state``, and a process can hold several.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import aiohttp
from starlette.requests import Request

from agents.deployments import Deployments
from agents.proofs import LedgerProofs
from agents.stores.redis import REPORTS_KEY, RedisRecords
from api.http.auth import Keyring, Principal
from api.http.calls import Calls
from api.http.errors import UnavailableError
from api.http.idempotency import Idempotency
from api.http.metrics import Metrics
from api.http.parts import GatewayParts
from api.http.rates import Rates
from api.http.sse import Hub, Seats
from api.http.visits import Visits
from broker.observer import Observer
from broker.transports.redis.knowledge import RedisKnowledgeStore
from rahba.errors import RahbaError
from wallet.reputation import Reputations


class Gateway:
    """Everything the routes work with; lives from ``create_app`` to the end of the lifespan."""

    def __init__(self, parts: GatewayParts) -> None:
        """Build from ``parts``; nothing runs yet."""
        settings = parts.settings
        self.parts, self.settings = parts, settings
        self.metrics = Metrics()
        self.keyring = Keyring(
            parts.wire, parts.clock, network=settings.network, cache_ms=settings.key_cache_ms
        )
        self.rates = Rates(per_s=settings.rate_per_s, burst=settings.rate_burst, clock=parts.clock)
        self.idempotency = Idempotency(
            parts.wire, parts.ids, settings.reservation_ms, settings.answer_kept_s
        )
        self.hub = Hub(
            parts.broker.feed,
            self.metrics,
            kept=settings.feed_kept,
            every_ms=settings.batch_every_ms,
            heartbeat_ms=settings.heartbeat_ms,
        )
        self.seats = Seats(settings.max_streams, self.metrics)
        self.observer = Observer(
            parts.broker.feed,
            parts.clock,
            LedgerProofs(parts.ledger),
            store=RedisKnowledgeStore(parts.wire),
            tells=True,
        )
        self.calls = Calls(parts, self.metrics, self.observer)
        self.records = RedisRecords(parts.wire)
        self.reputations = Reputations(parts.ledger, file=parts.reputation_file)
        self.reports = RedisRecords(parts.wire, REPORTS_KEY)
        self.visits = Visits(settings.max_visits)
        parts.broker.directory.judge_by(self.reputations)
        self.web: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Run what the gateway owns: mail, feed, calls, what both logs teach, the tiles."""
        await self.parts.courier.start()
        jobs = (self.hub.run(), self.observer.run(), self.calls.run(), self.reputations.run())
        tasks = [asyncio.create_task(job) for job in jobs]
        async with aiohttp.ClientSession() as self.web:
            try:
                yield
            finally:
                self.drain()
                await self.calls.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.reputations.save()
                with contextlib.suppress(RahbaError):  # the broker may be gone already
                    await self.observer.keep()
                await self.parts.courier.stop()

    def drain(self) -> None:
        """End the event streams, so that a stopping server need not wait for them."""
        self.hub.close()

    async def spender(self, request: Request) -> tuple[Principal, dict[str, str]]:
        """Return who asks for a write, and the header fields that say how often it may.

        Raises:
            KeyRequiredError: and its like, if there is no valid key.
            RateLimitedError: the key spent its requests for now.
        """
        principal = await self.keyring.principal(request)
        return principal, self.rates.take(principal.hash)

    def session(self) -> aiohttp.ClientSession:
        """Return the HTTP client of the lifespan."""
        if self.web is None:
            raise UnavailableError("the gateway is not running yet")
        return self.web

    def deployments(self) -> Deployments:
        """Return the deployments."""
        parts = self.parts
        return Deployments(self.records, parts.broker.mailbox, parts.clock, parts.ids)


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that serves a request."""
    gateway = request.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway
