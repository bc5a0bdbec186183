"""Follows the feed and knows what it teaches: prices, how jobs end, what looks odd.

* Nothing that the feed says of money counts before the ledger bears it out: that is asked for many
  jobs at once, while the feed is read on. As long as the ledger is away it waits, within limits.
* One task a process (``run``); everything else is asked of it and answered from memory at once.
* The state is kept now and then, and a process that starts goes on from there: the feed itself
  forgets sooner. What happened in between, and is still on the feed, is folded in.
* With ``tells`` the observer puts anomalies on the feed. Every process that folds finds the same
  ones; each is claimed first, so that one of them tells it. One that dies between the claim and
  the telling leaves it untold: flags are hints.

    observer = Observer(broker.feed, clock, LedgerProofs(ledger), store=RedisKnowledgeStore(wire))
    view = observer.prices("text.summarise")
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from hiredis import ReplyError

from broker.knowledge.endings import Proofs
from broker.knowledge.flags import FLAG_MS, Flag
from broker.knowledge.fold import KINDS, MAX_SKILLS, Knowledge, Notice
from broker.knowledge.forecast import Forecast, PriceView, course_for, outlook, price_view
from broker.knowledge.history import History
from broker.knowledge.outcomes import Evidence
from broker.ports import Feed
from rahba.clock import Clock
from rahba.errors import RahbaError

SAVE_EVERY_MS: Final = 60_000
READ_EVERY_MS: Final = 250
MOST_ASKED: Final = 500
_PAUSE_S: Final = 1.0

Step = tuple[int, int]

_log: Final = logging.getLogger(__name__)


class KnowledgeStore(Protocol):
    """Where the state is kept, and who tells which notice is decided."""

    async def load(self) -> bytes | None:
        """Return the state kept last."""
        ...

    async def save(self, raw: bytes, last_id: str) -> bool:
        """Keep a state that knows the feed up to ``last_id``; false if more is known already."""
        ...

    async def claim(self, name: str, lasts_ms: int) -> bool:
        """Say whether the caller is the first to claim ``name`` within ``lasts_ms``."""
        ...


class Observer:
    """What this process knows of the market. Knows nothing before ``run`` has caught up."""

    def __init__(
        self,
        feed: Feed,
        clock: Clock,
        proofs: Proofs,
        *,
        store: KnowledgeStore | None = None,
        tells: bool = False,
        save_every_ms: int = SAVE_EVERY_MS,
    ) -> None:
        """Follow ``feed`` from where ``store`` is; keep the state there if this one ``tells``.

        What the feed says of payments counts as far as ``proofs`` bear it out.
        """
        self._feed, self._clock, self._proofs = feed, clock, proofs
        self._store, self._tells = store, tells
        self._save_every_ms, self._saved_ms = save_every_ms, clock.now_ms()
        self._known = Knowledge()
        self._news = asyncio.Event()
        self._flags: tuple[str, dict[str, list[Flag]]] = ("", {})
        self._outlooks: dict[str, tuple[Step, Forecast | None]] = {}
        self._views: dict[str, tuple[int, Forecast | None, PriceView | None]] = {}

    async def run(self) -> None:
        """Follow the feed until cancelled, over whatever outage of the broker and the ledger."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(), name="read-the-feed")
            tasks.create_task(self._prove(), name="ask-the-ledger")

    def history(self, skill: str) -> History | None:
        """Return the price history of a skill, if it was ever traded."""
        known = self._known.skills.get(skill)
        return None if known is None else known.history

    def outlook(self, skill: str) -> Forecast | None:
        """Return the forecast of a skill's price; it is made once a step."""
        history = self.history(skill)
        if history is None:
            return None
        now_ms, width_ms = self._clock.now_ms(), course_for(history).width_ms
        step = (width_ms, now_ms // width_ms)
        made, found = self._outlooks.get(skill, (None, None))
        if made != step:
            found = outlook(history, now_ms=now_ms)
            if len(self._outlooks) >= MAX_SKILLS:
                self._outlooks.clear()
            self._outlooks[skill] = step, found
        return found

    def prices(self, skill: str) -> PriceView | None:
        """Return what strategies are offered about a skill's price."""
        history = self.history(skill)
        if history is None:
            return None
        found = self.outlook(skill)
        deals, made_of, view = self._views.get(skill, (0, None, None))
        if deals != history.deals or made_of is not found:
            view = price_view(skill, history, now_ms=self._clock.now_ms(), found=found)
            if len(self._views) >= MAX_SKILLS:
                self._views.clear()
            self._views[skill] = history.deals, found, view
        return view

    def evidence(self, skill: str, seller: str) -> Evidence:
        """Return how a seller's jobs ended lately."""
        return self._known.outcomes.evidence(skill, seller)

    def flags(self, agent: str) -> list[Flag]:
        """Return the flags on a key that have not expired, newest first."""
        if self._flags[0] != self._known.last_id:  # a page of agents asks for each of them
            self._flags = self._known.last_id, self._known.board.by_agent()
        now_ms = self._clock.now_ms()
        return [flag for flag in self._flags[1].get(agent, []) if flag.until_ms > now_ms]

    async def keep(self) -> None:
        """Keep the state now."""
        if self._store is not None and self._tells:
            self._saved_ms = self._clock.now_ms()
            await self._store.save(self._known.dump(), self._known.last_id)

    async def _read(self) -> None:
        loaded = False
        while True:
            try:
                if not loaded and self._store is not None:
                    raw = await self._store.load()
                    self._known = self._known if raw is None else Knowledge.restore(raw)
                loaded = True
                self._news.set()
                await self._follow()
            except (RahbaError, ReplyError) as error:
                _log.warning("cannot follow the feed: %s", error)
                await asyncio.sleep(_PAUSE_S)

    async def _follow(self) -> None:
        feed = self._feed.subscribe(after=self._known.last_id, kinds=KINDS, every_ms=READ_EVERY_MS)
        async for batch in feed:
            for event in batch:
                self._known.note(*event)
            self._news.set()
            while self._known.is_full:  # the feed keeps what comes meanwhile longer than we could
                _log.warning("too many payments wait for the ledger: the feed is not read on")
                await asyncio.sleep(_PAUSE_S)
            if self._clock.now_ms() >= self._saved_ms + self._save_every_ms:
                await self.keep()

    async def _prove(self) -> None:
        """Ask for what waits, the oldest first, whenever there is something new."""
        while True:
            await self._news.wait()
            self._news.clear()
            while asked := self._known.waiting[:MOST_ASKED]:
                try:
                    answers = await self._proofs.borne_out(asked)
                except RahbaError as error:
                    _log.warning("payments wait for the ledger: %s", error)
                    await asyncio.sleep(_PAUSE_S)
                    continue
                notices = self._known.count(answers)
                self._flags = "", {}
                await self._tell_all(notices)

    async def _tell_all(self, notices: Sequence[Notice]) -> None:
        if not self._tells:
            return
        try:
            for notice in notices:
                await self._tell(notice)
        except (RahbaError, ReplyError) as error:  # flags are hints
            _log.warning("a flag was not told: %s", error)

    async def _tell(self, notice: Notice) -> None:
        if self._store is None or await self._store.claim(notice.name, FLAG_MS):
            _ = await self._feed.publish(notice.kind, notice.data)
