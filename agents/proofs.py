"""What the feed says of payments, compared with the ledger.

observer = Observer(broker.feed, clock, LedgerProofs(ledger))
"""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from broker.knowledge.endings import Ending, Proofs
from wallet.ports import HoldView, Ledger


class LedgerProofs(Proofs):
    """Asks a ledger for the holds of many jobs at once, and believes nobody else.

    Buyers pay from accounts that the feed does not name, so the payer is not compared.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Ask ``ledger``."""
        self._ledger = ledger

    @override
    async def borne_out(self, endings: Sequence[Ending]) -> list[bool]:
        holds = await self._ledger.holds([ending.hold for ending in endings])
        return [
            hold is not None and bears_out(hold, ending)
            for hold, ending in zip(holds, endings, strict=True)
        ]


def bears_out(hold: HoldView, ending: Ending) -> bool:
    """Say whether a hold shows that a job ended as it is told.

    1. The hold is for this very agreement and seller.
    2. Of a job that was paid, exactly so much was captured.
    3. Of a job that failed, the seller took less than half: who takes more calls it delivered.
    """
    if (hold.agreement, hold.payee) != (ending.agreement, ending.seller):  # 1
        return False
    if ending.paid_fals is not None:  # 2
        return hold.captured == ending.paid_fals
    return 2 * hold.captured < hold.amount  # 3
