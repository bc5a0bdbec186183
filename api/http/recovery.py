"""What a thread shows of a purchase whose gateway died before it could take delivery.

Nothing here trusts the broker's notes: the transcript is folded by the rules that both sides use,
the delivery passes the same checks as a buyer's own (``agents.delivery``), and what was paid is
what the ledger shows of the hold that the buyer's order named.
"""

from __future__ import annotations

from dataclasses import dataclass

from agents.delivery import Goods, verify_delivery
from agents.errors import BadResultError
from agents.negotiation.agreement import agreement_of
from agents.negotiation.talk import Talk
from api.http.negotiations import talk_of
from broker.ports import ThreadView
from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.errors import RahbaError
from rahba.messages import Agreement
from wallet.ports import Ledger


@dataclass(frozen=True, slots=True)
class Paid:
    """What the ledger shows of a purchase's hold; ``tx`` is the capture, once it is known."""

    fals: int
    hold: str | None
    tx: str | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """A delivery that stands."""

    talk: Talk
    agreement: Agreement
    goods: Goods

    @property
    def price_fals(self) -> int:
        """Return the price agreed upon."""
        return self.agreement.offer.issues.price_fals

    def outcome(self, paid: Paid) -> dict[str, object]:
        """Return it as a call's outcome."""
        talk, offer, cfp = self.talk, self.agreement.offer, self.talk.cfp
        first = talk.asks[0] if talk.asks else offer
        return {
            "skill": offer.skill,
            "mode": None if cfp is None else cfp.mode,
            "rounds": talk.rounds,
            "seller": talk.seller,
            "thread": talk.thread,
            "agreement": self.goods.deal.digest,
            "asked_fals": first.issues.price,
            "agreed_fals": offer.issues.price,
            "paid_fals": str(paid.fals),
            "hold": paid.hold,
            "capture_tx": paid.tx,
            "receipt": b64(self.goods.receipt),
            "receipt_verified": True,
            "deal": b64(self.goods.deal.raw),
            "output": self.goods.output,
        }


def recover(view: ThreadView, group: str, signer: Signer) -> Recovered:
    """Take delivery from a thread of the request ``group`` for the buyer ``signer``.

    Raises:
        BadResultError: what was delivered is not what was agreed, or not to this buyer.
    """
    talk = talk_of(view)
    if talk.agreed is None or talk.cfp is None or talk.order is None or talk.result is None:
        raise BadResultError("the transcript shows no delivery", check=1, seller=view.seller)
    if talk.buyer != signer.did or talk.cfp.group != group:
        raise BadResultError("the delivery belongs to another request", check=1, seller=view.seller)
    agreement = agreement_of(talk, talk.agreed)
    return Recovered(talk, agreement, verify_delivery(talk, agreement, signer))


async def paid_for(ledger: Ledger, view: ThreadView, found: Recovered) -> Paid:
    """Return what the ledger shows to be paid; nothing while it cannot be asked."""
    order = found.talk.order
    if order is None or order.hold is None:
        return Paid(0, None, None)
    try:
        shown = await ledger.hold(order.hold)
        if shown is None or shown.agreement != found.goods.deal.digest:
            return Paid(0, order.hold, None)
        tx = view.facts.get("tx") if shown.captured else None
        logged = await ledger.transaction(tx) if tx else None
        captures = logged is not None and logged.payload.get("hold") == order.hold
    except RahbaError:
        return Paid(0, order.hold, None)
    return Paid(shown.captured, order.hold, tx if captures else None)
