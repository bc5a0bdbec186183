"""Sees to it that no seller keeps money for what it did not deliver.

* A buyer's holds name a recourse, so that a capture can be challenged for some minutes. Every hold
  is watched from the moment it is made, until what was bought was verified or the hold is over.
  What was captured without that is challenged, unless its thread shows what was delivered: its
  payee then puts the signed result into the ledger's log, or the ledger takes the money back.
* One look in a while for all holds together; nothing is asked while nothing is open. One that
  cannot be judged now keeps nobody from judging the others.
* A hold of which nobody knows whether it was made, or that another process with this account made,
  is found in the account's own entries of the last hour.
* What the ledger refuses is tried again, until it says that the time is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agents.answers import what_answers
from agents.ports import Payer
from broker.ports import Threads
from rahba.clock import Clock
from rahba.errors import RahbaError
from wallet.errors import ChallengedError, NotContestableError, PaymentRefusedError
from wallet.ports import HoldView
from wallet.transactions import Challenge, Recourse

USUAL: Final = Recourse(window_ms=5 * 60_000, answer_ms=10 * 60_000)
LOOKS_A_WINDOW: Final = 30
MAX_WATCHED: Final = 10_000
MAX_LOOKED_AT: Final = 1_000
PAGE: Final = 1_000
MAX_PAGES: Final = 100
PAST_MS: Final = 65 * 60_000  # no hold of a deal lasts as long, with its window
MAX_MISSES: Final = 3

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
    """A hold of ours: whether it was captured when last seen, and how often it was not there."""

    agreement: str
    captured: bool = False
    misses: int = 0
    told: bool = False


class HoldWatch:
    """Watches the holds of one account as their payer. :meth:`look` is one turn of it."""

    def __init__(
        self, wallet: Payer, threads: Threads, clock: Clock, recourse: Recourse = USUAL
    ) -> None:
        """Challenge for the account of ``wallet`` what ``recourse`` allows to."""
        self.recourse = recourse
        self._wallet = wallet
        self._threads = threads
        self._clock = clock
        self._watched: dict[str, Watched] = {}
        self._read_until = -1
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def busy(self) -> bool:
        """Say whether there is anything to watch."""
        return self._task is not None and not self._task.done()

    def watch(self, hold: str, agreement: str) -> None:
        """Keep an eye on a hold that was made just now."""
        self._watched[hold] = Watched(agreement)
        self._go_on()

    def delivered(self, hold: str) -> None:
        """Note that what was bought by this hold was verified."""
        self._watched.pop(hold, None)

    def look_back(self, *, until_ms: int = 0) -> None:
        """Find what earlier processes held, and what nobody knows whether it was until that time.

        Done in the background, once at least.
        """
        self._read_until = max(self._read_until, until_ms)
        self._go_on()

    def stop(self) -> None:
        """Watch nothing more: the next process that acts for the account looks back."""
        self._stopped = True
        self._watched.clear()
        if self._task is not None:
            self._task.cancel()

    async def over(self) -> None:
        """Wait until there is nothing to watch; a process that ends earlier watches nothing."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def look(self) -> list[str]:
        """Look at all holds once; returns the ids of those that were challenged.

        Raises:
            RahbaError: ledger or broker were out of reach for one of them; it is looked at again.
        """
        failure: RahbaError | None = None
        if self._read_until >= 0:
            try:
                await self._read()
            except RahbaError as error:
                failure = error
            else:
                if self._read_until < self._clock.now_ms():
                    self._read_until = -1
        challenged, watched = [], list(self._watched)
        for start in range(0, len(watched), MAX_LOOKED_AT):
            names = watched[start : start + MAX_LOOKED_AT]
            holds = await self._wallet.ledger.holds(names)
            for name, hold in zip(names, holds, strict=True):
                try:
                    if await self._judge(name, hold):
                        challenged.append(name)
                except RahbaError as error:
                    failure = error
        if failure is not None and not challenged:
            raise failure
        return challenged

    # Inside.

    def _go_on(self) -> None:
        while len(self._watched) > MAX_WATCHED:
            _log.warning("more holds than can be watched: the oldest is left to itself")
            del self._watched[next(iter(self._watched))]
        if not self._stopped and not self.busy:
            self._task = asyncio.create_task(self._run(), name="hold-watch")

    async def _run(self) -> None:
        pause_s = self.recourse.window_ms / LOOKS_A_WINDOW / 1_000
        while self._watched or self._read_until >= 0:
            await asyncio.sleep(pause_s)
            try:
                _ = await self.look()
            except RahbaError as error:
                _log.warning("holds are looked at again: %s", error)
            except Exception:  # noqa: BLE001  # the supervised boundary: money is at stake
                _log.exception("holds are looked at again")

    async def _judge(self, name: str, hold: HoldView | None) -> bool:
        """Challenge a capture that was seen before, if its thread shows nothing delivered."""
        known = self._watched.get(name)
        if known is None:  # delivered meanwhile
            return False
        if hold is None:
            known.misses += 1
        over = known.misses >= MAX_MISSES if hold is None else _is_over(hold)
        if over:
            del self._watched[name]
        if hold is None or hold.status != "captured" or over:
            return False
        if not known.captured:
            known.captured = True  # who was paid just now has just delivered: it may be unread
            return False
        if await self._was_earned(hold, known.agreement):
            self._watched.pop(name, None)
            return False
        return name in self._watched and await self._challenge(name, known)

    async def _challenge(self, name: str, known: Watched) -> bool:
        try:
            _ = await self._wallet.do(Challenge, hold=name)
        except (ChallengedError, NotContestableError) as error:  # by another process; too late
            self._watched.pop(name, None)
            _log.info("hold %s was captured and not delivered: %s", name, error)
            return False
        except PaymentRefusedError as error:
            if not known.told:
                _log.warning("hold %s was not delivered, and cannot be challenged: %s", name, error)
            known.told = True
            return False
        self._watched.pop(name, None)
        _log.warning("hold %s was captured and nothing was delivered: challenged", name)
        return True

    async def _was_earned(self, hold: HoldView, agreement: str) -> bool:
        try:
            view = await self._threads.deal(agreement)
        except RahbaError as error:
            if error.retryable:
                raise
            return False  # nobody can read it
        found = None if view is None else what_answers(view, agreement)
        return found is not None and (found[1] is not None or hold.captured <= hold.bail)

    async def _read(self) -> None:
        """Watch the account's holds of the last hour that nothing is known of."""
        before, since = None, self._clock.now_ms() - PAST_MS
        for _ in range(MAX_PAGES):
            page = await self._wallet.ledger.history(
                self._wallet.account, before=before, limit=PAGE
            )
            for entry in page:
                said, room = entry.payload, len(self._watched) < MAX_WATCHED
                if self._is_ours(said) and entry.id not in self._watched and room:
                    self._watched[entry.id] = Watched(str(said["agreement"]))
            if len(page) < PAGE or page[-1].log_time < since:
                return
            before = page[-1].seq
            await asyncio.sleep(0)
        _log.warning("the account has more entries than are looked through for its holds")

    def _is_ours(self, said: Mapping[str, object]) -> bool:
        mine = said.get("type") == "hold" and said.get("account") == self._wallet.account
        return mine and said.get("recourse") is not None


def _is_over(hold: HoldView) -> bool:
    """Say whether a hold's payer can do nothing more about it."""
    final = hold.status == "captured" and (hold.recourse is None or hold.deadline_ms is None)
    return final or hold.status in {"challenged", "released"}
