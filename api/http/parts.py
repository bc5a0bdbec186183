"""What a gateway is made of: the parts that ``api.bootstrap`` builds and hands in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agents.brains.clerk import Clerk, RuleClerk
from agents.courier import Courier
from api.http.settings import GatewaySettings
from broker import Broker
from broker.transports.redis.wire import Wire
from rahba.clock import Clock
from rahba.ids import Ids
from wallet.ports import Ledger


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """What the gateway needs of others.

    The gateway starts and stops ``courier``; everything else is closed by who made it.
    ``ledger_url`` is the ledger's own HTTP door: log tiles are fetched through
    it, and without it they are not served. ``clerk`` writes down what wishes ask for. With
    ``reputation_file`` the next gateway need not read the whole log again before it knows
    anybody's reputation.
    """

    ledger: Ledger
    broker: Broker
    courier: Courier
    wire: Wire
    clock: Clock
    ids: Ids
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    clerk: Clerk = field(default_factory=RuleClerk)
    ledger_url: str | None = None
    reputation_file: Path | None = None
