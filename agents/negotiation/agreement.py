"""The one document both sides sign; its digest is the deal id that holds and receipts name.

Both sides compute the same bytes from the same thread: who, which offer, which input. Neither
sends the agreement; each sends only its signature over what it computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from agents.negotiation.talk import Talk
from rahba.envelope import Signer, assemble, verify
from rahba.messages import AGREEMENT_TYPE, Agreement, Cfp, Offer


def build_agreement(*, thread: str, buyer: str, seller: str, cfp: Cfp, offer: Offer) -> Agreement:
    """Build the agreement on ``offer`` in ``thread``."""
    return Agreement(
        thread=thread,
        group=cfp.group,
        buyer=buyer,
        seller=seller,
        offer=offer,
        input_digest=cfp.input_digest,
    )


def agreement_of(talk: Talk, offer: Offer) -> Agreement:
    """Build the agreement on ``offer`` from what was said in ``talk``."""
    assert talk.cfp is not None
    return build_agreement(
        thread=talk.thread, buyer=talk.buyer, seller=talk.seller, cfp=talk.cfp, offer=offer
    )


def sign_agreement(agreement: Agreement, signer: Signer) -> str:
    """Return the signer's base64 signature over the agreement."""
    return signer.sign(AGREEMENT_TYPE, agreement.encoded())


def check_agreement(agreement: Agreement, party: str, signature: str) -> None:
    """Check one party's signature; raises ``BadSignatureError``."""
    verify(party, AGREEMENT_TYPE, agreement.encoded(), signature)


@dataclass(frozen=True, slots=True)
class SignedAgreement:
    """An agreement with both signatures verified: evidence for anybody."""

    agreement: Agreement
    digest: str
    raw: bytes


def both_signed(
    agreement: Agreement, *, buyer: str, seller: str, ours: str | None = None
) -> SignedAgreement:
    """Verify both signatures and put the agreement into one envelope.

    That of ``ours`` (a did) we made ourselves, so it is not verified.

    Raises:
        BadSignatureError: either side did not sign exactly this agreement.
    """
    payload = agreement.encoded()
    signatures = {agreement.buyer: buyer, agreement.seller: seller}
    for party, signature in signatures.items():
        if party != ours:
            verify(party, AGREEMENT_TYPE, payload, signature)
    raw = assemble(AGREEMENT_TYPE, payload, signatures)
    return SignedAgreement(agreement, agreement.digest(), raw)
