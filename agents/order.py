"""The checks a seller makes before it works: is the deal ours, and is the money there?

Pure: what the ledger and the clock say comes in as arguments. Each refusal is an error whose
``code`` travels to the buyer in the ``failure`` message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agents.agent import Agent, OfferSpec
from agents.job import MAX_DEPTH
from agents.negotiation import Talk, agreement_of, check_agreement, unpack_input
from agents.perform import JobDeadlineError, UnknownOfferError
from rahba.envelope import Signer
from rahba.errors import RemoteError, TooLargeError
from rahba.messages import Agreement, Order
from rahba.money import parse_fals
from wallet.ports import HoldView

MAX_DEADLINE_MS: Final = 50 * 60 * 1_000
MIN_GRACE_MS: Final = 5_000
MAX_HOLD_AHEAD_MS: Final = 55 * 60 * 1_000
MAX_WINDOW_MS: Final = 15 * 60 * 1_000
MIN_ANSWER_MS: Final = 10 * 60 * 1_000


class BadOrderError(RemoteError):
    """The order is not for the deal that the thread led to."""

    code = "bad_order"


class BadHoldError(RemoteError):
    """The hold does not secure the price; ``facts["check"]`` says which condition fails."""

    code = "bad_hold"
    hint = "hold the agreed price for the seller, bound to the agreement, past the deadline"


class TooDeepError(RemoteError):
    """The order is more purchases deep than sellers accept."""

    code = "depth_exceeded"


@dataclass(frozen=True, slots=True)
class Commission:
    """An order that passed every check: what to do, for whom, at what price."""

    agreement: Agreement
    digest: str
    order: Order
    spec: OfferSpec
    args: dict[str, Any]
    bytes_in: int
    price_fals: int


def examine(talk: Talk, agent: Agent, signer: Signer, *, now_ms: int) -> Commission:
    """Check an order, all but its money.

    1. The thread led to a deal with us and to an order.
    2. The order names exactly the agreement that the thread makes, and the buyer signed it.
    3. It is for a skill we sell.
    4. It is not too deep, and its deadline is ahead, but not too far.
    5. The input opens with our key, is the one agreed upon, for this skill, within its limit.

    Whether the agreed offer is ours is the talk's to say: it holds only offers of this thread, and
    the posted one that its owner put there.
    """
    order, offer = talk.order, talk.agreed  # 1
    if order is None or offer is None or talk.cfp is None or talk.seller != signer.did:
        raise BadOrderError("there is no order for us in this thread")
    agreement = agreement_of(talk, offer)  # 2
    digest = agreement.digest()
    if order.agreement != digest:
        raise BadOrderError("the order names another agreement", expected=digest)
    check_agreement(agreement, talk.buyer, order.signature)
    if talk.buyer_signature is not None and talk.buyer_signature != order.signature:
        check_agreement(agreement, talk.buyer, talk.buyer_signature)
    spec = agent.offers.get(offer.skill)  # 3
    if spec is None:
        raise UnknownOfferError(f"{agent.name} does not sell {offer.skill}")
    if order.depth > MAX_DEPTH:  # 4
        raise TooDeepError("too many purchases deep", depth=order.depth, limit=MAX_DEPTH)
    if not now_ms < order.deadline <= now_ms + MAX_DEADLINE_MS:
        raise JobDeadlineError("the deadline is over, or too far ahead", deadline=order.deadline)
    if talk.cfp.input_bytes > spec.max_input_bytes:  # 5
        raise TooLargeError("the input is too large", limit_bytes=spec.max_input_bytes)
    skill, args = unpack_input(order.input, signer, digest=talk.cfp.input_digest)
    bytes_in = len(order.input) * 3 // 4
    if skill != spec.skill:
        raise BadOrderError("the input is for another skill", skill=skill[:64])
    if bytes_in > spec.max_input_bytes + 1_024:
        raise TooLargeError("the input is too large", limit_bytes=spec.max_input_bytes)
    return Commission(
        agreement=agreement,
        digest=digest,
        order=order,
        spec=spec,
        args=args,
        bytes_in=bytes_in,
        price_fals=offer.issues.price_fals,
    )


def check_hold(commission: Commission, hold: HoldView | None, *, now_ms: int) -> HoldView | None:
    """Check that the price is secured; returns the hold (``None`` for a free job).

    1. A paid job names a hold that the ledger knows; a free job names none.
    2. It is open, and ours to capture.
    3. It holds at least the price.
    4. It is bound to this agreement, so that it pays for nothing else.
    5. It outlasts the deadline, with some seconds to capture.
    6. It ends within the hour for which a capture can be signed.
    7. It names no arbiter: an agreement knows of none, so it would be the buyer's own.
    8. What we capture can be challenged for some minutes at most, and we have the time to answer.
    9. It has what we put up, neither more nor less: that is what its buyer owes for leaving.
    """
    if commission.price_fals == 0 and commission.order.hold is None:  # 1
        return None
    if hold is None or hold.id != commission.order.hold:
        raise BadHoldError("the ledger knows no such hold", check=1)
    if hold.status != "open" or hold.payee != commission.agreement.seller:  # 2
        raise BadHoldError("the hold is not open for us", check=2, status=hold.status)
    if hold.amount - hold.captured < commission.price_fals:  # 3
        raise BadHoldError("the hold is below the price", check=3, amount=str(hold.amount))
    if hold.agreement != commission.digest:  # 4
        raise BadHoldError("the hold is for another agreement", check=4)
    if hold.expires_ms < max(commission.order.deadline, now_ms) + MIN_GRACE_MS:  # 5
        raise BadHoldError("the hold ends too early", check=5, expires=hold.expires_ms)
    if hold.expires_ms > now_ms + MAX_HOLD_AHEAD_MS:  # 6
        raise BadHoldError("the hold ends too late", check=6, expires=hold.expires_ms)
    if hold.arbiter is not None:  # 7
        raise BadHoldError("the hold names an arbiter that was not agreed on", check=7)
    _check_leaving(hold, parse_fals(commission.agreement.offer.penalty))
    return hold


def _check_leaving(hold: HoldView, penalty: int) -> None:
    recourse = hold.recourse  # 8
    if recourse is not None and (
        recourse.window_ms > MAX_WINDOW_MS or recourse.answer_ms < MIN_ANSWER_MS
    ):
        raise BadHoldError("the hold may be challenged for too long, or answered too late", check=8)
    if hold.bail != penalty:  # 9
        raise BadHoldError("the hold is without our pledge", check=9, bail=str(hold.bail))
