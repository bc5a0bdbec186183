"""Taking delivery: what the seller sent is what it signed for, and the money went where it should.

Nothing here trusts the seller's word: every digest is computed again, every signature verified,
and what was paid is what the ledger shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.errors import BadResultError
from agents.negotiation.agreement import SignedAgreement, both_signed
from agents.negotiation.goods import unpack_output
from agents.negotiation.talk import Talk
from agents.parley import Parley
from agents.purchase import Purchase
from rahba.encoding import unb64
from rahba.envelope import Signer
from rahba.errors import RahbaError
from rahba.messages import Agreement, Receipt, open_receipt


@dataclass(frozen=True, slots=True)
class Goods:
    """A verified delivery."""

    output: Any
    deal: SignedAgreement
    receipt: bytes


def verify_delivery(talk: Talk, agreement: Agreement, signer: Signer) -> Goods:
    """Check the result in ``talk`` against what was agreed; ``signer`` opens the output.

    1. It names the agreement, and the seller signed exactly that.
    2. The receipt is the seller's, and says what was agreed: parties, skill, input, price.
    3. The output was sealed for this buyer, and is the one on the receipt.

    Raises:
        BadResultError: with the number of the check in ``facts["check"]``.
    """
    result = talk.result
    assert result is not None
    signature = talk.buyer_signature
    assert signature is not None
    if result.agreement != agreement.digest():
        raise BadResultError("a result for another agreement", check=1, seller=talk.seller)
    try:  # 1
        deal = both_signed(agreement, buyer=signature, seller=result.signature, ours=signer.did)
    except RahbaError as error:
        raise BadResultError(
            "the seller did not sign the agreement", check=1, seller=talk.seller
        ) from error
    try:  # 2
        raw = unb64(result.receipt)
        receipt = open_receipt(raw, seller=talk.seller)
    except RahbaError as error:
        raise BadResultError("the receipt does not verify", check=2, seller=talk.seller) from error
    if not _says_what_was_agreed(receipt, agreement):
        raise BadResultError("the receipt says something else", check=2, seller=talk.seller)
    try:  # 3
        output = unpack_output(result.output, signer, digest=receipt.output_digest)
    except BadResultError as error:
        error.facts |= {"check": 3, "seller": talk.seller}
        raise
    return Goods(output, deal, raw)


def _says_what_was_agreed(receipt: Receipt, agreement: Agreement) -> bool:
    offer = agreement.offer
    return (
        receipt.agreement,
        receipt.skill,
        receipt.buyer,
        receipt.seller,
        receipt.input_digest,
        receipt.price,
    ) == (
        agreement.digest(),
        offer.skill,
        agreement.buyer,
        agreement.seller,
        agreement.input_digest,
        offer.issues.price,
    )


async def take_delivery(parley: Parley, agreement: Agreement) -> Purchase:
    """Verify the result, see the payment through, and return the purchase."""
    talk, request = parley.talk, parley.request
    goods = verify_delivery(talk, agreement, parley.desk.signer)
    if parley.hold is not None and parley.hold.id is not None:
        parley.desk.watch.delivered(parley.hold.id)
    request.tell("delivered", thread=talk.thread, agreement=goods.deal.digest)
    paid, tx = await _see_payment(parley)
    assert talk.cfp is not None
    first = talk.asks[0] if talk.asks else agreement.offer
    purchase = Purchase(
        output=goods.output,
        skill=request.skill,
        buyer=talk.buyer,
        seller=talk.seller,
        mode=talk.cfp.mode,
        group=request.group,
        thread=talk.thread,
        agreement=goods.deal.digest,
        rounds=talk.rounds,
        asked_fals=first.issues.price_fals,
        agreed_fals=agreement.offer.issues.price_fals,
        paid_fals=paid,
        hold=None if parley.hold is None else parley.hold.id,
        capture_tx=tx,
        receipt=goods.receipt,
        receipt_verified=True,
        deal=goods.deal.raw,
    )
    request.tell("settled", thread=talk.thread, agreement=purchase.agreement, paid=str(paid))
    return purchase


async def _see_payment(parley: Parley) -> tuple[int, str | None]:
    """Wait a little for the capture; what is paid is what the ledger says."""
    hold, desk = parley.hold, parley.desk
    if hold is None or hold.id is None:
        return 0, None
    try:
        wait_ms = parley.request.want.settle_wait_ms
        tx = await desk.threads.settlement(parley.talk.thread, wait_ms=wait_ms) or None
    except RahbaError:
        tx = None
    try:
        shown = await desk.wallet.ledger.hold(hold.id)
    except RahbaError:
        return 0, tx
    return (shown.captured if shown is not None else 0), tx
