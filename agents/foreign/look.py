"""Looks at a foreign agent: its card fetched, read and verified, its door knocked at.

What is found is a :class:`Sight`; of a listing it is pinned by :attr:`Sight.pin`, so that an agent
that later shows another name, endpoint, skill or key is not sold on as the one that was listed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from yarl import URL

from agents.foreign.card import ForeignCard, read_card
from agents.foreign.errors import ForeignUnreachableError, NoForeignCardError
from agents.foreign.rpc import Target, probe
from agents.foreign.seals import Seal, check_seals
from agents.foreign.web import Found, Reach, get_json
from agents.templates.crafts.addresses import check_literal, check_url
from rahba.encoding import digest

MAX_CARD_BYTES: Final = 256 * 1024
MAX_ANSWER_BYTES: Final = 1024 * 1024
SEE_S: Final = 20.0
CARD_S: Final = 10.0
PROBE_S: Final = 5.0
WELL_KNOWN: Final = ("/.well-known/agent-card.json", "/.well-known/agent.json")


@dataclass(frozen=True, slots=True)
class Sight:
    """A foreign agent as it showed itself: where its card was, the card, and what it is worth."""

    url: str
    card: ForeignCard
    seal: Seal
    key: str

    @property
    def pin(self) -> str:
        """Return the digest of what may not change while the agent is listed."""
        card = self.card
        return digest(
            {
                "name": card.name,
                "endpoint": card.endpoint,
                "protocol": card.protocol,
                "tenant": card.tenant,
                "skills": sorted(skill.id for skill in card.skills),
                "key": self.key,
            }
        )


async def see(url: str, *, allow_private: bool = False) -> Sight:
    """Fetch, read and verify the card that ``url`` leads to; its endpoint is one we may speak to.

    Raises:
        NoForeignCardError: there is no card at the well-known places, or at ``url`` itself.
        UnsafeAddressError: the URL, a redirect, the keys or the endpoint lead where they must not.
        BadForeignCardError, BadCardSignatureError, UnsupportedProtocolError: what was found.
        ForeignUnreachableError, TooLargeError, TooComplexError: it was not found within limits.
    """
    reach = Reach(MAX_CARD_BYTES, CARD_S, allow_private=allow_private)
    try:
        async with asyncio.timeout(SEE_S):
            return await _see(url, reach)
    except TimeoutError as error:
        raise ForeignUnreachableError("card and keys took too long") from error


async def _see(url: str, reach: Reach) -> Sight:
    found = await _find(url, reach)
    card = found.value if isinstance(found.value, dict) else {}

    async def fetch_keys(jku: str) -> Any:
        try:
            keys = await get_json(jku, reach)
        except NoForeignCardError as error:
            raise ForeignUnreachableError("the card's keys are not where it says") from error
        return keys.value if URL(keys.url).origin() == URL(jku).origin() else None

    sealed = await check_seals(card, found.url, fetch_keys, allow_private=reach.allow_private)
    read = read_card(sealed.card)
    check_literal(check_url(read.endpoint), allow_private=reach.allow_private)
    return Sight(found.url, read, sealed.seal, sealed.key)


async def knock(card: ForeignCard, *, allow_private: bool = False) -> int:
    """Probe the agent behind ``card``; return how long it took in milliseconds.

    Raises:
        ForeignUnreachableError, ForeignAnswerError, UnsafeAddressError: it is not there.
    """
    reach = Reach(MAX_ANSWER_BYTES, PROBE_S, allow_private=allow_private)
    begun = time.perf_counter_ns()
    await probe(Target(card.endpoint, card.protocol, card.tenant, reach))
    return (time.perf_counter_ns() - begun) // 1_000_000


async def _find(url: str, reach: Reach) -> Found:
    """Return what is at the first of the places where a card may be."""
    given = check_url(url)
    places = [str(given.with_query(None).with_fragment(None)).rstrip("/") + at for at in WELL_KNOWN]
    if given.path.endswith(".json"):
        places = []
    for place in places:
        try:
            return await get_json(place, reach)
        except NoForeignCardError:
            continue
    try:
        return await get_json(url, reach)
    except NoForeignCardError as error:
        raise NoForeignCardError("the URL leads to no agent card", url=url[:200]) from error
