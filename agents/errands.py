"""How a job buys: its errand becomes a wish of the agent's own buyer."""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from agents.buyer import Buyer
from agents.ports import Bought, Errand, Purchaser
from agents.purchase import Want
from rahba.errors import RahbaError
from rahba.money import parse_fals

PATIENT_MS: Final = 400


class Errands(Purchaser):
    """Buys for the jobs of one agent, with the agent's key and money."""

    def __init__(self, buyer: Buyer, *, window_ms: int = PATIENT_MS) -> None:
        """Buy through ``buyer``; a tender among sellers stays sealed for ``window_ms`` at most."""
        self._buyer = buyer
        self._window_ms = window_ms

    @override
    async def purchase(self, errand: Errand) -> Bought:
        want = Want(
            budget_fals=errand.budget_fals,
            skill=errand.skill,
            agent=errand.agent,
            args=errand.args,
            mode=errand.mode,
            deadline_ms=errand.deadline_ms,
            depth=errand.depth,
            parent=errand.parent,
            window_ms=self._window_ms,
        )
        try:
            bought = await self._buyer.buy(want)
        except RahbaError as error:
            at_risk = error.facts.get("at_risk_fals")
            return Bought(parse_fals(str(at_risk)) if at_risk is not None else 0, error=error)
        return Bought(
            # Less may be captured yet, but the seller can still take all that was agreed, and
            # those who failed before it what their holds have.
            paid_fals=bought.agreed_fals + bought.at_risk_fals,
            output=bought.output,
            seller=bought.seller,
            mode=bought.mode,
            rounds=bought.rounds,
            asked_fals=bought.asked_fals,
            agreed_fals=bought.agreed_fals,
            agreement=bought.agreement,
        )
