"""Answers buyers that say they got nothing: what was delivered is put into the ledger's log.

* A challenge is an entry of the seller's account, and lasts minutes: a look every few seconds is
  soon enough. What there was to deliver is in the deal's thread, for days; so a seller that starts
  again, on another machine even, finds all it needs.
* Who delivered nothing has no answer, and the ledger gives the money back.
* The same parts are the same bytes whenever they are made, and the ledger takes each once.
"""

from __future__ import annotations

import logging
from typing import Final

from agents.ports import Till
from agents.recourse import delivered_in
from broker.ports import Threads
from wallet.errors import PaymentRefusedError

PART_CHARS: Final = 44_000  # of base64: with receipt and envelope a part stays below 64 KiB

_log: Final = logging.getLogger(__name__)


class Answers:
    """The challenged holds of one account; they are :meth:`noted` as its entries are read."""

    def __init__(self, account: str, *, threads: Threads, till: Till) -> None:
        """Answer for ``account``."""
        self._account = account
        self._threads = threads
        self._till = till
        self._open: dict[str, None] = {}

    def noted(self, hold: str) -> None:
        """Note that a hold was challenged."""
        self._open[hold] = None

    async def give(self) -> list[str]:
        """Answer what is open; returns the ids of the holds that were answered.

        Raises:
            RahbaError: broker or ledger are out of reach; the rest is answered next time.
        """
        answered = []
        for hold in list(self._open):
            if await self._answer(hold):
                answered.append(hold)
            del self._open[hold]
        return answered

    async def _answer(self, name: str) -> bool:
        hold = await self._till.look(name)
        if hold is None or hold.status != "challenged" or hold.payee != self._account:
            return False
        view = await self._threads.deal(hold.agreement)
        result = None if view is None or view.seller != self._account else delivered_in(view)
        if result is None:
            _log.warning("hold %s is challenged, and nothing was delivered for it", name)
            return False
        try:
            await self._till.deliver(hold, result.receipt, parts_of(result.output))
        except PaymentRefusedError as error:
            _log.warning("hold %s is challenged, and the answer was refused: %s", name, error)
            return False
        return True


def parts_of(output: str) -> list[str]:
    """Cut base64 into parts that a transaction has room for, each of them base64 by itself."""
    return [output[at : at + PART_CHARS] for at in range(0, len(output), PART_CHARS)]
