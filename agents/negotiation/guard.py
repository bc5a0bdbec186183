"""The one gate between a strategy (or a model) and the owner's signature and money.

It reads typed fields only and knows no text: whatever a counterparty writes in a note, the same
offer gets the same verdict. ``admit`` asks whether an offer may be considered at all; ``authorise``
whether it may bind the owner, by being sent or by being accepted.
"""

from __future__ import annotations

from typing import Final

from agents.errors import MandateExceededError, OfferInadmissibleError
from agents.negotiation.mandate import Mandate
from agents.negotiation.menu import is_too_open, serves
from rahba.messages import Offer
from rahba.money import parse_fals

MAX_VALIDITY_MS: Final = 24 * 3_600_000
MAX_SALT_CHARS: Final = 64


def admit(offer: Offer, *, skill: str, now_ms: int) -> None:
    """Check that an incoming offer can be considered.

    1. It is for the skill that was asked for.
    2. Its amounts are amounts.
    3. It is firm.
    4. It stands now, and not for longer than a day.
    5. Its salt is a salt, not a letter.

    Raises:
        OfferInadmissibleError: with the number of the check in ``facts["check"]``.
    """
    if offer.skill != skill:  # 1
        raise OfferInadmissibleError("an offer for another skill", check=1, skill=offer.skill)
    _ = offer.issues.price_fals, parse_fals(offer.penalty)  # 2
    if not offer.firm:  # 3
        raise OfferInadmissibleError("the offer does not bind its maker", check=3)
    if not now_ms < offer.valid_until <= now_ms + MAX_VALIDITY_MS:  # 4
        raise OfferInadmissibleError(
            "the offer does not stand now", check=4, valid_until=offer.valid_until
        )
    if len(offer.salt) > MAX_SALT_CHARS or not offer.salt.isalnum():  # 5
        raise OfferInadmissibleError("the salt is malformed", check=5)


def authorise(offer: Offer, mandate: Mandate, *, party: str, now_ms: int) -> None:
    """Check that ``offer`` may bind the owner towards ``party``.

    1. The mandate is in force, and for this skill.
    2. The other side is one that the owner allows (and is not the agent itself).
    3. The price keeps the owner's limit; the penalty is not above the price, nor below the share
       of it that the owner asks for.
    4. Latency, quality and energy keep the owner's limits.
    5. The input is treated at least as privately as the owner asks.

    Raises:
        MandateExceededError: with the number of the check in ``facts["check"]``.
    """
    if now_ms > mandate.valid_until or offer.skill != mandate.skill:  # 1
        raise MandateExceededError("the mandate is over, or for another skill", check=1)
    if party in {mandate.agent, mandate.owner}:  # 2
        raise MandateExceededError("an agent does not trade with itself", check=2)
    if mandate.parties is not None and party not in mandate.parties:
        raise MandateExceededError("the owner did not allow this party", check=2, party=party)
    price, limit = offer.issues.price_fals, mandate.limit_fals  # 3
    if price > limit if mandate.side == "buy" else price < limit:
        raise MandateExceededError("the price passes the owner's limit", check=3, price=str(price))
    penalty = parse_fals(offer.penalty)
    if penalty > price:
        raise MandateExceededError("the penalty is above the price", check=3)
    if penalty * 1_000 < price * mandate.min_penalty:
        raise MandateExceededError("the penalty is below what the owner asks for", check=3)
    if mandate.side == "buy":
        _authorise_service(offer, mandate)


def _authorise_service(offer: Offer, mandate: Mandate) -> None:
    if is_too_open(offer.issues, mandate.needs):  # 5
        raise MandateExceededError("the input would not be private enough", check=5)
    if not serves(offer.issues, mandate.needs):  # 4
        raise MandateExceededError("the service is not what the owner asks for", check=4)
