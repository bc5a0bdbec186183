"""How a job ended, as the feed tells it: a claim until the ledger bears it out; pure.

What is told on the feed is its teller's word, and prices are made of it. So a job's end is set
aside until whoever can ask the ledger says whether its hold is what the feed says: the same
agreement and payee, and of a job that was paid, so much captured. A job without a hold leaves
nothing to ask for, and teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from rahba.encoding import Json
from rahba.errors import RahbaError
from rahba.ids import check_digest
from rahba.money import parse_fals


class Ending(msgspec.Struct, frozen=True, array_like=True):
    """A job that is said to have ended so; ``paid_fals`` is ``None`` if it failed.

    ``counts`` says whether it tells of its seller: it was ordered before, as far as the feed knows.
    """

    at_ms: int
    skill: str
    buyer: str
    seller: str
    agreement: str
    hold: str
    paid_fals: int | None = None
    counts: bool = True


class Proofs(Protocol):
    """Whoever can ask the ledger."""

    async def borne_out(self, endings: Sequence[Ending]) -> list[bool]:
        """Say of each ending whether the ledger shows the same.

        Raises:
            RahbaError: the ledger cannot be asked now.
        """
        ...


def read_settled(data: dict[str, Json], *, at_ms: int, counts: bool) -> Ending | None:
    """Return what a ``settled`` event claims; ``None`` if the ledger cannot bear it out."""
    try:
        told = msgspec.convert(data, type=_Settled)
        paid = parse_fals(told.paid)
        hold, agreement = check_digest(told.hold), check_digest(told.agreement)
    except (msgspec.ValidationError, RahbaError):
        return None
    if not paid:
        return None
    return Ending(at_ms, told.skill, told.buyer, told.seller, agreement, hold, paid, counts)


class _Settled(msgspec.Struct, frozen=True):
    agreement: str
    skill: str
    buyer: str
    seller: str
    paid: str
    hold: str
