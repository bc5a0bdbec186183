"""Keeps a bridge on the market for as long as its other end answers, and not a lease longer.

* The lease of such an agent is renewed by an answered look and by nothing else, so that no listing
  is older than one lease. A look that failed is repeated sooner at first, then ever later.
* What will not pass by itself (another card than was listed) takes the agent off at once. It is
  looked at all the same, rarely: when it is again what it was, it comes back.
* Each look is written down for whoever asks how the bridge is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import msgspec

from agents.member import Member
from agents.ports import DeploymentStore, Vital
from rahba.clock import Clock
from rahba.errors import RahbaError

SLOWEST_S: Final = 600.0

_log: Final = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True):
    """How the last look went, and when (ms): ``latency_ms`` if it was answered, else the error."""

    checked: int
    failures: int = 0
    latency_ms: int | None = None
    code: str | None = None
    error: str | None = None


def pause_s(every_s: float, failures: int) -> float:
    """Return how long to wait before the next look: after failures a quarter, doubled each time.

    >>> [pause_s(20, failures) for failures in range(6)]
    [20, 5.0, 10.0, 20.0, 40.0, 80.0]
    """
    if failures == 0:
        return every_s
    doubled = 2.0 ** min(failures - 1, 32)
    return max(every_s / 4, min(SLOWEST_S, every_s / 4 * doubled))


class Pulse:
    """One bridge's sign of life. Runs until it is cancelled."""

    def __init__(
        self,
        member: Member,
        vital: Vital,
        clock: Clock,
        reports: DeploymentStore | None = None,
        key: str = "",
    ) -> None:
        """Look after ``member``; write to ``reports`` under ``key``."""
        self._member, self._vital, self._clock = member, vital, clock
        self._reports, self._key = reports, key
        self._failures = 0

    async def run(self) -> None:
        """Look, renew or withdraw, and wait, for ever."""
        while True:
            try:
                await self.beat()
            except RahbaError as error:  # broker or store are away: the next look will tell
                _log.info("%s: %s", self._member.agent.name, error)
            except Exception:  # noqa: BLE001  # the supervised boundary: a look must not end the pulse
                _log.exception("%s was not looked at", self._member.agent.name)
                self._failures += 1
            await asyncio.sleep(pause_s(self._vital.every_s, self._failures))

    async def beat(self) -> None:
        """Look once, and do what follows from it."""
        try:
            took_ms = await self._vital.check()
        except RahbaError as error:
            self._failures += 1
            _log.info("%s does not answer: %s", self._member.agent.name, error)
            if not error.retryable:
                with contextlib.suppress(RahbaError):
                    await self._member.withdraw()
            await self._tell(
                Report(
                    self._clock.now_ms(),
                    self._failures,
                    code=error.code,
                    error=error.message[:300],
                )
            )
            return
        self._failures = 0
        await self._member.renew()
        await self._tell(Report(self._clock.now_ms(), latency_ms=took_ms))

    async def _tell(self, report: Report) -> None:
        if self._reports is not None:
            await self._reports.put(self._key, msgspec.json.encode(report))
