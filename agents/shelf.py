"""What an agent shows and what it would settle for: its card, its posted offers, its policies.

* A posted offer is firm for a window of ``WINDOW_MS`` and the next: it is the same bytes for
  everybody and after a restart, so a host finds its own word again without keeping a copy.
* The price that shows is the asking price; the floor stays in the mandate, whose salted digest is
  all that offers carry.

    >>> spec_price, window = 2_000_000, posted_until(0)
    >>> window
    2400000
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.agent import Agent, OfferSpec
from agents.negotiation import Mandate, SellerPolicy, menu
from agents.strategies import make_strategy
from rahba.encoding import sha256_hex
from rahba.messages import Card, Issues, Offer, SkillOffer
from rahba.money import parse_rhb, wire_fals

WINDOW_MS: Final = 20 * 60 * 1_000
CARD_TTL_MS: Final = 10_000
OFFER_TTL_MS: Final = 60_000
DEFAULT_STRATEGY: Final = "best"
_MANDATE_MS: Final = 24 * 3_600 * 1_000


def lease_ms(every_s: float) -> int:
    """Return how long a lease lasts that is renewed every so many seconds: three times that."""
    return max(1_000, int(3_000 * every_s))


def posted_until(now_ms: int) -> int:
    """Return until when an offer posted now is firm: 20 to 40 minutes from now."""
    return (now_ms // WINDOW_MS + 2) * WINDOW_MS


def terms(agent: Agent, spec: OfferSpec) -> Issues:
    """Return the public terms of an offer, at its asking price."""
    return Issues(
        price=wire_fals(spec.price_fals),
        latency_ms=spec.latency_ms,
        quality=spec.quality,
        privacy=agent.data_policy,
        energy=spec.energy,
    )


def tiers_of(agent: Agent, spec: OfferSpec) -> tuple[menu.Tier, ...]:
    """Return what else can be had of an offer, with the floors that only its seller knows."""
    base = terms(agent, spec)
    return tuple(
        menu.Tier(
            msgspec.structs.replace(
                base,
                price=wire_fals(parse_rhb(tier.price)),
                latency_ms=spec.latency_ms if tier.latency_ms is None else tier.latency_ms,
                quality=spec.quality if tier.quality is None else tier.quality,
                privacy=tier.privacy or agent.data_policy,
                energy=tier.energy or spec.energy,
            ),
            parse_rhb(tier.floor or tier.price),
        )
        for tier in spec.tiers
    )


def posted_offer(agent: Agent, spec: OfferSpec, did: str, *, until: int) -> Offer:
    """Return the firm offer that stands on the card of ``did`` until ``until``."""
    return Offer(
        skill=spec.skill,
        issues=terms(agent, spec),
        valid_until=until,
        salt=sha256_hex(f"{did}:{spec.skill}:{until}".encode())[:32],
    )


def find_posted(agent: Agent, did: str, digest: str, *, at_ms: int) -> Offer | None:
    """Return the posted offer of that digest, if it was on the card around ``at_ms``."""
    until = posted_until(at_ms)
    for spec in agent.offers.values():
        for when in (until, until - WINDOW_MS, until + WINDOW_MS):
            offer = posted_offer(agent, spec, did, until=when)
            if offer.digest() == digest:
                return offer
    return None


def build_card(agent: Agent, did: str, *, now_ms: int, ttl_ms: int = CARD_TTL_MS) -> Card:
    """Return the card to sign and list."""
    until = posted_until(now_ms)
    return Card(
        agent=did,
        name=agent.name,
        description=agent.description,
        version=agent.version,
        template=agent.template,
        skills=[
            SkillOffer(
                skill=spec.skill,
                description=spec.description,
                tags=list(spec.tags),
                posted=posted_offer(agent, spec, did, until=until),
                negotiable=spec.negotiable,
                input_schema=spec.signature.input_schema,
                output_schema=spec.signature.output_schema,
                tiers=[tier.issues for tier in tiers_of(agent, spec)],
            )
            for spec in agent.offers.values()
        ],
        data_policy=agent.data_policy,
        issued=now_ms,
        ttl_ms=ttl_ms,
    )


def seller_policy(
    agent: Agent, spec: OfferSpec, did: str, *, now_ms: int, salt: str, backing_fals: int = 0
) -> SellerPolicy:
    """Return how ``did`` bargains over ``spec``: from the posted price down to the floor.

    ``backing_fals`` is what its account can set aside: each of the jobs that it takes at once gets
    the same part of it.
    """
    tiers = tiers_of(agent, spec)
    floors = [spec.floor_fals, *(tier.floor_fals for tier in tiers)]
    return SellerPolicy(
        mandate=Mandate(
            owner=did,
            agent=did,
            side="sell",
            skill=spec.skill,
            limit=wire_fals(min(floors)),
            valid_until=now_ms + _MANDATE_MS,
            salt=salt,
        ),
        posted=terms(agent, spec),
        strategy=make_strategy(spec.strategy or DEFAULT_STRATEGY),
        offer_ttl_ms=OFFER_TTL_MS,
        penalty=spec.penalty,
        backing_fals=backing_fals // (agent.capacity + agent.backlog),
        tiers=tiers,
        floor_fals=spec.floor_fals,
    )
