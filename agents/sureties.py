"""Looks after a seller's money: no hold that nobody ordered by may cost it its bail.

* A pledge stands in the thread for its buyer to use. One who opens the hold and never sends the
  order would get the bail for nothing, once the hold expires in silence: so the seller is not
  silent. What no thread knows of is given back, at no cost to either.
* An order follows its hold within moments; ``PATIENCE_MS`` is long after that, and well before the
  shortest hold with a bail ends (:data:`wallet.effects.MIN_BAIL_MS`).
* A buyer that challenges what was captured is an entry among the others: :mod:`agents.answers`.
* Nothing is kept that matters: a seller that starts again reads its newest entries anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agents.answers import Answers
from agents.ports import Till
from broker.ports import Threads
from rahba.clock import Clock
from wallet.ports import Ledger

PATIENCE_MS: Final = 3_000
PAGE: Final = 200
FIRST_MS: Final = 65 * 60_000  # no buyer waits longer for an answer
MAX_PAGES: Final = 500
ENDINGS: Final = frozenset({"capture", "release", "expire"})
MAX_WATCHED: Final = 10_000

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """A hold with a bail of ours in it, and when it was noticed."""

    agreement: str
    since_ms: int


class Sureties:
    """The bails of one account; :meth:`look` is to be called every few seconds."""

    def __init__(
        self, account: str, *, ledger: Ledger, threads: Threads, till: Till, clock: Clock
    ) -> None:
        """Watch the holds whose payee is ``account``."""
        self._account = account
        self._ledger = ledger
        self._threads = threads
        self._till = till
        self._clock = clock
        self._answers = Answers(account, threads=threads, till=till)
        self._read_to = -1
        self._watched: dict[str, Watched] = {}

    async def look(self) -> list[str]:
        """Give back what nobody ordered by; returns the ids of those holds.

        Raises:
            RahbaError: broker or ledger are out of reach; what was not looked at is looked at next
                time.
        """
        await self._read()
        await self._answers.give()
        returned = []
        for hold_id, watched in list(self._watched.items()):
            view = await self._threads.deal(watched.agreement)
            if view is not None and view.facts.get("hold") == hold_id:
                del self._watched[hold_id]  # the order is there: the seller's own work ends it
            elif self._clock.now_ms() >= watched.since_ms + PATIENCE_MS:
                if await self._return(hold_id):
                    returned.append(hold_id)
                del self._watched[hold_id]
        return returned

    async def _read(self) -> None:
        """Note the holds in the account's new entries that none of the entries ends."""
        before, newest, ended = None, self._read_to, set[str]()
        now_ms, first = self._clock.now_ms(), self._read_to < 0
        for _ in range(MAX_PAGES):
            page = await self._ledger.history(self._account, before=before, limit=PAGE)
            fresh = [entry for entry in page if entry.seq > self._read_to]
            for entry in fresh:  # the newest first: what ends a hold comes before it
                newest = max(newest, entry.seq)
                said = entry.payload
                if said.get("type") in ENDINGS:
                    ended.add(str(said.get("hold") or said.get("subject")))
                elif said.get("type") == "challenge":
                    self._answers.noted(str(said.get("hold")))
                elif entry.id not in ended and self._is_ours(said):
                    self._watched.setdefault(entry.id, Watched(str(said["agreement"]), now_ms))
            if len(fresh) < PAGE or (first and fresh[-1].log_time < now_ms - FIRST_MS):
                break
            before = fresh[-1].seq
        self._read_to = newest
        while len(self._watched) > MAX_WATCHED:
            _log.warning("more holds than can be watched: the oldest is left to its expiry")
            del self._watched[next(iter(self._watched))]

    def _is_ours(self, said: Mapping[str, object]) -> bool:
        mine = said.get("type") == "hold" and said.get("payee") == self._account
        return mine and said.get("bail") is not None

    async def _return(self, hold_id: str) -> bool:
        hold = await self._till.look(hold_id)
        if hold is None or hold.status != "open":
            return False
        await self._till.release(hold)
        return True
