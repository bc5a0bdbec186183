"""Cards and their leases in one process's memory; see :mod:`broker.transports.memory`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from typing_extensions import override

from broker.cards import CardStore, Changes, Entry, Put
from rahba.clock import Clock
from rahba.messages import Card

MAX_CHANGES: Final = 10_000


@dataclass(slots=True)
class _Listed:
    card: Card
    raw: bytes
    digest: str
    lease_until_ms: int


class MemoryCardStore(CardStore):
    """Cards and leases in dictionaries."""

    def __init__(self, clock: Clock) -> None:
        """Judge leases by ``clock``."""
        self._clock = clock
        self._listed: dict[str, _Listed] = {}
        self._left: dict[str, int] = {}
        self._changes: list[tuple[str, str]] = []
        self._count = 0

    @override
    async def put(self, card: Card, raw: bytes, digest: str) -> Put:
        now_ms, before = self._clock.now_ms(), self._listed.get(card.agent)
        floor = self._left.get(card.agent, -1)
        if card.issued <= floor or (before is not None and card.issued < before.card.issued):
            return Put("stale", 0)
        lease_until_ms = now_ms + card.ttl_ms
        self._listed[card.agent] = _Listed(card, raw, digest, lease_until_ms)
        outcome: Literal["new", "changed", "returned", "same"] = "new"
        if before is not None:
            outcome = "same" if before.digest == digest else "changed"
            if before.lease_until_ms <= now_ms:
                outcome = "returned"
        if outcome != "same":
            self._note("listed", card.agent)
        return Put(outcome, lease_until_ms)

    @override
    async def touch(self, agents: Sequence[str]) -> list[str]:
        now_ms, gone = self._clock.now_ms(), []
        for agent in agents:
            listed = self._listed.get(agent)
            if listed is None or listed.lease_until_ms <= now_ms:
                gone.append(agent)
            else:
                listed.lease_until_ms = now_ms + listed.card.ttl_ms
        return gone

    @override
    async def drop(self, agent: str) -> bool:
        listed = self._listed.pop(agent, None)
        if listed is not None:
            self._left[agent] = listed.card.issued
            self._note("left", agent)
        return listed is not None

    @override
    async def present(self, agents: Sequence[str]) -> list[Entry | None]:
        now_ms = self._clock.now_ms()
        found = [(agent, self._listed.get(agent)) for agent in agents]
        return [
            Entry(agent, listed.digest, listed.lease_until_ms)
            if listed is not None and listed.lease_until_ms > now_ms
            else None
            for agent, listed in found
        ]

    @override
    async def look(self, after: str, agents: Sequence[str]) -> tuple[bool, list[Entry | None]]:
        return after == await self.position(), await self.present(agents)

    @override
    async def position(self) -> str:
        return f"{self._count}-0"

    @override
    async def changes(self, after: str) -> Changes:
        missed = self._count - int(after.removesuffix("-0"))
        if not 0 <= missed <= len(self._changes):
            return Changes([], after, lost=True)
        return Changes(self._changes[len(self._changes) - missed :], f"{self._count}-0")

    @override
    async def scan(self, cursor: str) -> tuple[str, list[tuple[str, bytes]]]:
        return "0", [(agent, listed.raw) for agent, listed in self._listed.items()]

    @override
    async def count(self) -> int:
        now_ms = self._clock.now_ms()
        return sum(listed.lease_until_ms > now_ms for listed in self._listed.values())

    @override
    async def cards(self, agents: Sequence[str]) -> list[bytes | None]:
        found = [self._listed.get(agent) for agent in agents]
        return [listed.raw if listed is not None else None for listed in found]

    @override
    async def sweep(self) -> list[str]:
        now_ms = self._clock.now_ms()
        gone = [name for name, listed in self._listed.items() if listed.lease_until_ms <= now_ms]
        for agent in gone:
            del self._listed[agent]
            self._note("left", agent)
        return gone

    def _note(self, kind: str, agent: str) -> None:
        self._count += 1
        self._changes.append((kind, agent))
        del self._changes[:-MAX_CHANGES]
