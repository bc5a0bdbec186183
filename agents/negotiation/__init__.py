"""What is said in a thread, and what each side may say: pure, but for the keys that sign."""

from agents.negotiation.agreement import (
    SignedAgreement,
    agreement_of,
    both_signed,
    build_agreement,
    check_agreement,
    sign_agreement,
)
from agents.negotiation.goods import (
    pack_input,
    pack_output,
    seal_goods,
    unpack_input,
    unpack_output,
)
from agents.negotiation.line import Line
from agents.negotiation.machine import (
    BuyerPolicy,
    Commit,
    Moment,
    Move,
    Perform,
    Say,
    SellerPolicy,
    Stay,
    buyer_move,
    seller_move,
)
from agents.negotiation.mandate import (
    Mandate,
    SignedMandate,
    Weights,
    open_mandate,
    sign_mandate,
)
from agents.negotiation.talk import Talk, hear, replay

__all__ = [
    "BuyerPolicy",
    "Commit",
    "Line",
    "Mandate",
    "Moment",
    "Move",
    "Perform",
    "Say",
    "SellerPolicy",
    "SignedAgreement",
    "SignedMandate",
    "Stay",
    "Talk",
    "Weights",
    "agreement_of",
    "both_signed",
    "build_agreement",
    "buyer_move",
    "check_agreement",
    "hear",
    "open_mandate",
    "pack_input",
    "pack_output",
    "replay",
    "seal_goods",
    "seller_move",
    "sign_agreement",
    "sign_mandate",
    "unpack_input",
    "unpack_output",
]
