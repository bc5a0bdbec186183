"""Sees to it that no seller keeps money for what it did not deliver.

* A buyer's holds name a recourse, so that a capture can be challenged for some minutes. Every hold
  is watched from the moment it is made, until what was bought was verified or the hold is over.
  What was captured without that is challenged: its payee then puts the signed result into the
  ledger's log, or the ledger takes the money back.
* One look in a while for all holds together; nothing is asked while nothing is open.
* A hold of which nobody knows whether it was made, or that another process with this account made,
  is found in the account's own entries. Whether that one was delivered its thread tells.
* A challenge costs a fee. It never hurts a seller that delivered: it shows its result once more.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from agents.ports import Payer
from broker.ports import Threads, ThreadView
from rahba.clock import Clock
from rahba.encoding import unb64
from rahba.errors import RahbaError
from rahba.messages import Result, open_message, open_receipt
from wallet.errors import ChallengedError, PaymentRefusedError
from wallet.ports import HoldView, TxView
from wallet.transactions import Challenge, Recourse

USUAL: Final = Recourse(window_ms=5 * 60_000, answer_ms=10 * 60_000)
LOOKS_A_WINDOW: Final = 30
MAX_WATCHED: Final = 10_000
MAX_LOOKED_AT: Final = 1_000
PAGE: Final = 200
MAX_PAGES: Final = 5
PAST_MS: Final = 2 * 3_600_000  # no hold of a deal lasts as long, with its window

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Watched:
    """A hold of ours. ``ours`` says that this process bought by it, and will say if it got that."""

    agreement: str
    ours: bool
    captured: bool = False


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

    def watch(self, hold: str, agreement: str) -> None:
        """Keep an eye on a hold that was made just now."""
        self._watched[hold] = Watched(agreement, ours=True)
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
            RahbaError: ledger or broker are out of reach; what was not looked at is looked at next.
        """
        if self._read_until >= 0:
            await self._read()
            if self._read_until < self._clock.now_ms():
                self._read_until = -1
        challenged, watched = [], list(self._watched)
        for start in range(0, len(watched), MAX_LOOKED_AT):
            names = watched[start : start + MAX_LOOKED_AT]
            holds = await self._wallet.ledger.holds(names)
            for name, hold in zip(names, holds, strict=True):
                if await self._judge(name, hold):
                    challenged.append(name)
        return challenged

    # Inside.

    def _go_on(self) -> None:
        while len(self._watched) > MAX_WATCHED:
            _log.warning("more holds than can be watched: the oldest is left to itself")
            del self._watched[next(iter(self._watched))]
        if self._task is None or self._task.done():
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
        """Challenge a capture that was seen before and is not known to be delivered."""
        known = self._watched.get(name)
        if known is None:  # delivered meanwhile
            return False
        if hold is None or hold.status in {"challenged", "released"} or self._is_final(hold):
            del self._watched[name]
            return False
        if hold.status != "captured":
            return False
        if (
            not known.captured
        ):  # who has just been paid has just delivered, and we may not have read
            known.captured = True
            return False
        if not known.ours and await self._was_delivered(known.agreement):
            del self._watched[name]
            return False
        return await self._challenge(name, known)

    def _is_final(self, hold: HoldView) -> bool:
        until = hold.deadline_ms if hold.recourse is not None else None
        return hold.status == "captured" and (until is None or until < self._clock.now_ms())

    async def _challenge(self, name: str, known: Watched) -> bool:
        if self._watched.pop(name, None) is None:  # it was delivered while we asked
            return False
        try:
            _ = await self._wallet.do(Challenge, hold=name)
        except ChallengedError:  # by another process of this account
            return False
        except PaymentRefusedError as error:
            _log.warning("hold %s was captured and not delivered, and stays so: %s", name, error)
            return False
        except RahbaError:
            self._watched[name] = known
            raise
        _log.warning("hold %s was captured and nothing was delivered: challenged", name)
        return True

    async def _was_delivered(self, agreement: str) -> bool:
        return await result_for(agreement, self._threads) is not None

    async def _read(self) -> None:
        """Watch the account's holds of the last hours that nothing is known of."""
        before, since = None, self._clock.now_ms() - PAST_MS
        for _ in range(MAX_PAGES):
            page = await self._wallet.ledger.history(
                self._wallet.account, before=before, limit=PAGE
            )
            for entry in page:
                if self._is_ours(entry) and entry.id not in self._watched:
                    deal = str(entry.payload["agreement"])
                    self._watched[entry.id] = Watched(deal, ours=False)
            if len(page) < PAGE or page[-1].log_time < since:
                return
            before = page[-1].seq

    def _is_ours(self, entry: TxView) -> bool:
        said = entry.payload
        mine = said.get("type") == "hold" and said.get("account") == self._wallet.account
        return mine and said.get("recourse") is not None


async def result_for(agreement: str, threads: Threads) -> Result | None:
    """Return what was delivered for an agreement, with its seller's receipt for it.

    Raises:
        RahbaError: the broker is out of reach.
    """
    try:
        view = await threads.deal(agreement)
        return None if view is None else _delivered_in(view, agreement)
    except RahbaError as error:
        if error.retryable:
            raise
        return None  # what nobody can read was delivered to nobody


def _delivered_in(view: ThreadView, agreement: str) -> Result | None:
    for raw in reversed(view.transcript):
        message = open_message(raw, me=None, now_ms=0)
        if message.sender == view.seller and isinstance(message.body, Result):
            receipt = open_receipt(unb64(message.body.receipt), seller=view.seller)
            return message.body if receipt.agreement == agreement else None
    return None
