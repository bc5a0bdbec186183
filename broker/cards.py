"""What the directory needs of whatever keeps cards and leases, and a quick look into a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from rahba.encoding import unb64
from rahba.errors import BadInputError
from rahba.messages import Card


@dataclass(frozen=True, slots=True)
class Entry:
    """Who is listed, under which card, until when."""

    agent: str
    digest: str
    lease_until_ms: int


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a publication; ``returned``: the old lease had run out unnoticed."""

    outcome: Literal["new", "changed", "returned", "same", "stale"]
    lease_until_ms: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Who was listed or has left, in order, up to ``position``.

    ``lost``: what followed the position asked for is not known any more.
    """

    changes: list[tuple[str, str]]
    position: str
    lost: bool = False


class CardStore(Protocol):
    """Where cards and leases are kept; each method is atomic, by the server's clock."""

    async def put(self, card: Card, raw: bytes, digest: str) -> Put:
        """List a card for its ``ttl_ms`` unless a newer one is known."""
        ...

    async def touch(self, agents: Sequence[str]) -> list[str]:
        """Renew the leases that still run; return the agents whose don't."""
        ...

    async def drop(self, agent: str) -> bool:
        """Take an agent off; say whether it was listed."""
        ...

    async def present(self, agents: Sequence[str]) -> list[Entry | None]:
        """Return who of these is listed now; ``None`` for whose lease does not run."""
        ...

    async def look(self, after: str, agents: Sequence[str]) -> tuple[bool, list[Entry | None]]:
        """Say whether nothing changed after a position, and who of these is listed, at once."""
        ...

    async def position(self) -> str:
        """Return the newest position in the stream of changes."""
        ...

    async def changes(self, after: str) -> Changes:
        """Return the next changes after a position, at most some hundred at a time."""
        ...

    async def scan(self, cursor: str) -> tuple[str, list[tuple[str, bytes]]]:
        """Return the next cursor and some (agent, signed card); begins and ends with ``0``.

        Whoever stays listed all the while is returned, maybe more than once.
        """
        ...

    async def count(self) -> int:
        """Return how many leases run."""
        ...

    async def cards(self, agents: Sequence[str]) -> list[bytes | None]:
        """Return the signed cards of agents; ``None`` for who has left."""
        ...

    async def sweep(self) -> list[str]:
        """Remove the entries whose lease is over and return them, each to one caller only."""
        ...


class _Carrier(msgspec.Struct, frozen=True):
    payload: str


_carriers: Final = msgspec.json.Decoder(_Carrier)
_cards: Final = msgspec.json.Decoder(Card)


def peek_card(raw: bytes) -> Card:
    """Read a signed card **without** verifying it, for lookups whose finds are verified after.

    Raises:
        BadInputError: the bytes hold no card.
    """
    try:
        card = _cards.decode(unb64(_carriers.decode(raw).payload))
    except (msgspec.DecodeError, ValueError) as error:
        raise BadInputError("the bytes hold no card") from error
    for entry in card.skills:
        if entry.posted is not None:
            _ = entry.posted.issues.price_fals
    return card
