"""Answers buyers that say they got nothing: what was delivered is put into the ledger's log.

* A challenge is an entry of the seller's account, and lasts minutes: a look every few seconds is
  soon enough. What there was to deliver is in the deal's thread, for days; so a seller that starts
  again, on another machine even, finds all it needs.
* For the penalty of a buyer that left, the answer is the buyer's own signed word.
* Who delivered nothing has no answer, and the ledger gives the money back.
* The same parts are the same bytes whenever they are made, and the ledger takes each once.
"""

from __future__ import annotations

import logging
from typing import Final

from agents.ports import Till
from broker.ports import Threads, ThreadView
from rahba.encoding import b64, unb64
from rahba.errors import RahbaError
from rahba.messages import Decommit, Result, open_message, open_receipt
from wallet.ports import HoldView

PART_CHARS: Final = 44_000  # of base64: with receipt and envelope a part stays below 64 KiB

_log: Final = logging.getLogger(__name__)


class Answers:
    """The challenged holds of one account; they are :meth:`noted` as its entries are read."""

    def __init__(self, account: str, *, threads: Threads, till: Till) -> None:
        """Answer for ``account``."""
        self._account = account
        self._threads = threads
        self._till = till
        self._open: set[str] = set()

    def noted(self, hold: str) -> None:
        """Note that a hold was challenged."""
        self._open.add(hold)

    async def give(self) -> list[str]:
        """Answer what is open, the most urgent first; returns the ids of what was answered.

        What broker or ledger are not there for now is answered next time.

        Raises:
            RahbaError: the ledger is out of reach.
        """
        waiting, answered = list[HoldView](), list[str]()
        for name in list(self._open):
            hold = await self._till.look(name)
            if hold is None or hold.status != "challenged" or hold.payee != self._account:
                self._open.discard(name)
            else:
                waiting.append(hold)
        for hold in sorted(waiting, key=lambda each: each.deadline_ms or 0):
            try:
                if await self._answer(hold):
                    answered.append(hold.id)
            except RahbaError as error:
                _log.warning("hold %s is challenged, and not answered yet: %s", hold.id, error)
                if error.retryable:
                    continue
            self._open.discard(hold.id)
        return answered

    async def _answer(self, hold: HoldView) -> bool:
        view = await self._threads.deal(hold.agreement)
        found = None if view is None else what_answers(view, hold.agreement)
        if found is None:
            _log.warning("hold %s is challenged, and nothing was delivered for it", hold.id)
            return False
        shown, output = found
        await self._till.deliver(hold, shown, [None] if output is None else parts_of(output))
        return True


def what_answers(view: ThreadView, agreement: str) -> tuple[str, str | None] | None:
    """Return what a deal's thread has to show that its seller earned something, as base64.

    The seller's receipt for the agreement and the sealed output; or the message by which the buyer
    left, and ``None``. Nobody was delivered what nobody can read.
    """
    for raw in reversed(view.transcript):
        try:
            message = open_message(raw, me=None, now_ms=0)
            body = message.body
            if message.sender == view.seller and isinstance(body, Result):
                receipt = open_receipt(unb64(body.receipt), seller=view.seller)
                return (body.receipt, body.output) if receipt.agreement == agreement else None
        except RahbaError:
            return None
        if message.sender == view.buyer and isinstance(body, Decommit):
            return (b64(raw), None) if body.agreement == agreement else None
    return None


def parts_of(output: str) -> list[str]:
    """Cut base64 into parts that a transaction has room for, each of them base64 by itself."""
    return [output[at : at + PART_CHARS] for at in range(0, len(output), PART_CHARS)]
