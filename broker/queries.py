"""What a query may ask; pure."""

from __future__ import annotations

from typing import Final

from broker.errors import BadQueryError
from broker.ports import Query
from rahba.ids import check_skill, key_of

MAX_LIMIT: Final = 100
MAX_TEXT: Final = 2_000
MAX_TAGS: Final = 8
MAX_TAG: Final = 64
MAX_WEIGHT: Final = 1_000_000


def check_query(query: Query) -> None:
    """Check the fields of a query but for its cursor.

    Raises:
        BadQueryError: a field is out of its range.
        BadInputError: the skill is no name of a skill, or the agent no key.
    """
    if not 1 <= query.limit <= MAX_LIMIT:
        raise BadQueryError("limit out of range", limit=query.limit, most=MAX_LIMIT)
    if query.text is not None and len(query.text) > MAX_TEXT:
        raise BadQueryError("text too long", limit=MAX_TEXT)
    if len(query.tags) > MAX_TAGS or any(not tag or len(tag) > MAX_TAG for tag in query.tags):
        raise BadQueryError("too many tags, or one of no fitting length", most=MAX_TAGS)
    for name in ("max_price", "max_latency_ms", "min_quality", "max_energy"):
        if (getattr(query, name) or 0) < 0:
            raise BadQueryError(f"{name} is negative")
    weights = query.weights
    shares = (weights.price, weights.latency, weights.quality, weights.energy)
    if not sum(shares) or not all(0 <= share <= MAX_WEIGHT for share in shares):
        raise BadQueryError("weights are whole numbers from 0, not all 0", most=MAX_WEIGHT)
    if query.skill is not None:
        check_skill(query.skill)
    if query.agent is not None:
        key_of(query.agent)
