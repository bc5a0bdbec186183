"""The owner's signed word on what an agent may agree to, fixed before anybody else is heard.

* A buyer's mandate caps the price and names what matters; a seller's gives its floor.
* Offers carry its digest, never its content: the salt keeps the limit from being guessed.
* Only a new signature by the owner can widen it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Literal

import msgspec

from rahba.encoding import canonical, decode_as, sha256_hex
from rahba.envelope import Signer, open_envelope, seal
from rahba.errors import BadSignatureError
from rahba.ids import check_skill
from rahba.messages import Count, Doc, Millis, Name, Needs
from rahba.money import parse_fals

MANDATE_TYPE: Final = "application/vnd.rahba.mandate+json"
Share = Annotated[int, msgspec.Meta(ge=0, le=1000)]
Privacy = Literal["sealed", "logged", "public"]


class Weights(Doc, frozen=True):
    """What matters how much, in thousandths of any sum."""

    price: Share = 600
    quality: Share = 200
    latency: Share = 150
    energy: Share = 50


class Mandate(Doc, frozen=True, dict=True):
    """Limits on what ``agent`` may agree to for ``owner``.

    ``limit`` is in fals: the highest price when buying, the lowest when selling. A buyer asks for
    a penalty of ``min_penalty`` thousandths of the price or more.
    """

    owner: str
    agent: str
    side: Literal["buy", "sell"]
    skill: Name
    limit: str
    valid_until: Millis
    salt: str
    parties: Annotated[list[str], msgspec.Meta(max_length=64)] | None = None
    weights: Weights = Weights()
    max_latency_ms: Millis | None = None
    min_quality: Share = 0
    min_penalty: Share = 0
    max_energy_uwh: Count | None = None
    privacy: Privacy = "public"
    rounds: Annotated[int, msgspec.Meta(ge=1, le=20)] = 20
    v: Literal[1] = 1

    @property
    def limit_fals(self) -> int:
        """Return the limit as an integer of fals."""
        return parse_fals(self.limit)

    @property
    def needs(self) -> Needs:
        """Return what a service must be like, as it is told to sellers."""
        return Needs(
            max_latency_ms=self.max_latency_ms,
            min_quality=self.min_quality,
            privacy=self.privacy,
            max_energy_uwh=self.max_energy_uwh,
        )

    def digest(self) -> str:
        """Return the digest that offers carry."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return sha256_hex(canonical(self))


@dataclass(frozen=True, slots=True)
class SignedMandate:
    """A mandate whose signature was checked, or just made."""

    mandate: Mandate
    raw: bytes
    digest: str


def sign_mandate(mandate: Mandate, owner: Signer) -> SignedMandate:
    """Sign a mandate by the key of its owner."""
    if owner.did != mandate.owner:
        raise BadSignatureError("a mandate is signed by its owner")
    return _signed(mandate, seal(MANDATE_TYPE, mandate, owner))


def open_mandate(raw: bytes, *, agent: str) -> SignedMandate:
    """Verify a mandate that ``agent`` wants to act upon."""
    opened = open_envelope(raw, MANDATE_TYPE)
    mandate = decode_as(opened.payload, Mandate)
    if opened.signers != (mandate.owner,):
        raise BadSignatureError("the mandate is not signed by its owner")
    if mandate.agent != agent:
        raise BadSignatureError("the mandate is for another agent", agent=mandate.agent)
    return _signed(mandate, raw)


def _signed(mandate: Mandate, raw: bytes) -> SignedMandate:
    check_skill(mandate.skill)
    _ = mandate.limit_fals
    return SignedMandate(mandate, raw, mandate.digest())
