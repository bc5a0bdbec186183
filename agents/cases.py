"""The threads that a seller has in hand, so that most letters are answered without another look.

A thread is noted from its first message on, or from what the broker has of it. A letter that
follows on all that is noted (its link says so) is taken as it is; any other, and one that was
delivered before, makes the seller look at the thread as the broker has it. Nothing here matters:
what is forgotten is read again, and the broker judges whatever is said.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from agents.attendance import Letter
from agents.errors import OutOfPlaceError
from agents.negotiation import Line, Talk
from broker.ports import ThreadView
from rahba.clock import Clock
from rahba.envelope import Signer
from rahba.ids import Ids
from rahba.messages import Accept, Cfp, Counter, Job, Reject

MAX_CASES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Case:
    """A thread as far as it is known, and our end of it; one in hand has no transcript."""

    view: ThreadView
    line: Line


class Cases:
    """The newest threads of one seller."""

    def __init__(self, signer: Signer, *, clock: Clock, ids: Ids) -> None:
        """Speak as ``signer``."""
        self._signer = signer
        self._clock = clock
        self._ids = ids
        self._cases: OrderedDict[str, Case] = OrderedDict()

    def take(self, letter: Letter) -> Case | None:
        """Return the thread after this letter if that is known without another look.

        What is returned is not kept: :meth:`keep` it when what is said in it stands.
        """
        message = letter.message
        case = self._cases.pop(message.thread, None)
        if letter.token != 1:
            return None
        if case is None:
            return self._begun(letter)
        if message.sender != case.view.buyer or not case.line.is_next(message):
            return None
        try:
            case.line.heard(message, letter.raw)
        except OutOfPlaceError:
            return None
        return self._after(case, letter)

    def keep(self, case: Case) -> None:
        """Note a thread in which the seller's answer stands."""
        self._cases[case.view.id] = case
        if len(self._cases) > MAX_CASES:
            _ = self._cases.popitem(last=False)

    def _begun(self, letter: Letter) -> Case | None:
        message = letter.message
        cfp = message.body
        if not isinstance(cfp, Cfp) or message.seq != 1:
            return None
        view = ThreadView(
            id=message.thread,
            buyer=message.sender,
            seller=message.to,
            state="open",
            facts={"group": cfp.group, "skill": cfp.skill, "mode": cfp.mode},
        )
        talk = Talk(thread=message.thread, buyer=message.sender, seller=message.to)
        line = Line(talk, self._signer, clock=self._clock, ids=self._ids)
        line.heard(message, letter.raw)
        return Case(view, line)

    def _after(self, case: Case, letter: Letter) -> Case | None:
        """Return the thread after a letter that follows on it."""
        view, body = case.view, letter.message.body
        order = body.order if isinstance(body, Accept | Job) else None
        if order is not None:
            deal = {"agreement": order.agreement, "hold": order.hold or ""}
            return Case(replace(view, state="held", facts={**view.facts, **deal}), case.line)
        if isinstance(body, Counter):
            return case
        if isinstance(body, Reject):
            return Case(replace(view, state="closed"), case.line)
        return None
