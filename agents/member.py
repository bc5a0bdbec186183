"""One agent on a host: its key, its money, its card, its seller and the buyer for its jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Final

from agents.agent import Agent
from agents.buyer import Buyer
from agents.courier import Courier
from agents.errands import Errands
from agents.ports import Observations
from agents.seller import Seller
from agents.shelf import CARD_TTL_MS, build_card, lease_ms, posted_until
from agents.source import Source
from agents.sureties import Sureties
from agents.till import LedgerTill
from agents.work import WorkDesk
from broker import Broker
from rahba.clock import Clock
from rahba.envelope import Signer, seal
from rahba.errors import RahbaError
from rahba.ids import Ids
from rahba.messages import CARD_TYPE
from rahba.money import FALS_PER_RHB
from wallet.account import Wallet
from wallet.ports import Ledger

FUNDING_FALS: Final = 10 * FALS_PER_RHB
LOW_WATER_FALS: Final = FALS_PER_RHB

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a host lends to its agents. ``faucet`` says whether the network gives test money."""

    broker: Broker
    ledger: Ledger
    courier: Courier
    clock: Clock
    ids: Ids
    faucet: bool = False
    desk: WorkDesk | None = None
    observations: Observations | None = None


class Member:
    """An agent that is, or was, on the market. Joins and leaves once."""

    def __init__(self, agent: Agent, signer: Signer, source: Source, around: Surroundings) -> None:
        """Prepare; nobody sees the agent before :meth:`join`."""
        self.agent = agent
        self.signer = signer
        self._around = around
        self._wallet = Wallet(around.ledger, signer, clock=around.clock, ids=around.ids)
        till = LedgerTill(around.ledger, signer, clock=around.clock, ids=around.ids)
        self._buyer = Buyer(
            signer,
            self._wallet,
            around.broker,
            around.courier,
            clock=around.clock,
            ids=around.ids,
            observations=around.observations,
        )
        self.seller = Seller(
            agent,
            signer,
            source=source,
            broker=around.broker,
            till=till,
            clock=around.clock,
            ids=around.ids,
            purchaser=Errands(self._buyer),
            desk=around.desk,
            observations=around.observations,
        )
        self.sureties = Sureties(
            signer.did,
            ledger=around.ledger,
            threads=around.broker.threads,
            till=till,
            clock=around.clock,
        )
        self._shown_until = 0

    @property
    def did(self) -> str:
        """Return who the agent is."""
        return self.signer.did

    async def join(self) -> None:
        """Fund the account if need be, take letters, list the card.

        Something vital elsewhere is looked at first: see :class:`agents.pulse.Pulse`.
        """
        await self.fund()
        self._buyer.holds.look_back()
        self._around.courier.serve(self.did, self.seller.handle)
        if self.agent.vital is None:
            await self.publish()

    async def fund(self) -> None:
        """Ask the faucet when the account runs low; an empty faucet is no reason to stay away."""
        account = await self._around.ledger.account(self.did)
        available = 0 if account is None else account.available
        self.seller.backing_fals = available
        if not self._around.faucet or available >= LOW_WATER_FALS:
            return
        try:
            _ = await self._wallet.faucet(FUNDING_FALS)
            self.seller.backing_fals = available + FUNDING_FALS
        except RahbaError as error:
            if error.retryable:
                raise
            _log.warning("%s was not funded: %s", self.agent.name, error)

    async def publish(self) -> None:
        """Sign a fresh card and list it."""
        now_ms, vital = self._around.clock.now_ms(), self.agent.vital
        ttl_ms = CARD_TTL_MS if vital is None else lease_ms(vital.every_s)
        card = build_card(self.agent, self.did, now_ms=now_ms, ttl_ms=ttl_ms)
        _ = await self._around.broker.directory.publish(seal(CARD_TYPE, card, self.signer))
        self._shown_until = posted_until(now_ms)

    async def renew(self) -> None:
        """Renew the lease; list the card again where it fell off or its offers are the last's."""
        gone = await self._around.broker.directory.heartbeat([self.did])
        if (gone or self.is_outdated) and not self.seller.closing:
            await self.publish()

    async def withdraw(self) -> None:
        """Take the card off the market; whoever knows the agent may still write to it."""
        await self._around.broker.directory.remove(self.did)

    @property
    def is_outdated(self) -> bool:
        """Say whether the posted offers on the card are the last window's."""
        return posted_until(self._around.clock.now_ms()) != self._shown_until

    async def leave(self, *, grace_s: float) -> None:
        """Leave the market: take no new work, finish what runs within ``grace_s``."""
        self.seller.closing = True
        with contextlib.suppress(RahbaError):  # the broker may be gone already
            await self._around.broker.directory.remove(self.did)
        try:
            async with asyncio.timeout(grace_s):
                await self.seller.bench.idle()
        except TimeoutError:
            _log.warning("%s leaves %d jobs behind", self.agent.name, self.seller.bench.load)
        self._around.courier.dismiss(self.did)
