"""Where the next page of a search begins, as an opaque text; pure.

A cursor says which query it belongs to, which tier the page is in, behind which place it begins,
and what the first page measured by, so that places do not move between pages. It is no secret and
no credential: a made-up one finds at most what any search finds.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from broker.errors import BadCursorError
from broker.finding import Measures, Start
from broker.ports import Query
from broker.ranking import Best
from rahba.encoding import sha256_hex

MAX_CHARS: Final = 512
_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A place in the pages of one search; ``key`` and ``agent`` are null at the head of a tier."""

    query: Annotated[str, msgspec.Meta(max_length=16)]
    seed: Annotated[str, msgspec.Meta(max_length=32)]
    search: Annotated[str, msgspec.Meta(max_length=32)]
    after_value: int | float | None
    after_agent: Annotated[str, msgspec.Meta(max_length=128)]
    depth: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
    key: float | None
    agent: Annotated[str, msgspec.Meta(max_length=128)]
    price: _Whole | None
    latency_ms: _Whole | None
    energy_uwh: _Whole | None
    top_score: float | None

    @property
    def start(self) -> Start:
        """Return where the tier begins."""
        after = None if self.after_value is None else (self.after_value, self.after_agent)
        return Start(after, self.depth)

    @property
    def measures(self) -> Measures:
        """Return what the first page measured by."""
        return Measures(Best(self.price, self.latency_ms, self.energy_uwh), self.top_score)

    @property
    def place(self) -> tuple[float, str] | None:
        """Return behind which place the page begins, if it is not the first of its tier."""
        if not self.agent:
            return None
        return (math.inf if self.key is None else self.key, self.agent)


@lru_cache(maxsize=256)
def fingerprint(query: Query) -> str:
    """Return what tells a search from others, whatever its page."""
    return sha256_hex(repr(replace(query, cursor=None, limit=1)).encode("utf-8", "replace"))[:16]


def cursor_of(
    query: str,
    seed: str,
    search: str,
    *,
    start: Start,
    place: tuple[float, str] | None,
    measures: Measures,
) -> str:
    """Write a cursor."""
    key, agent = place if place is not None else (None, "")
    value, after = start.after if start.after is not None else (None, "")
    best = measures.best
    cursor = Cursor(
        query, seed, search, value, after, start.depth, None if key == math.inf else key, agent,
        best.price, best.latency_ms, best.energy_uwh, measures.top_score,
    )  # fmt: skip
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode("ascii")


def read_cursor(text: str, query: Query) -> Cursor:
    """Read the cursor of a query.

    Raises:
        BadCursorError: it is none, or belongs to another query.
    """
    if len(text) > MAX_CHARS:
        raise BadCursorError("not a cursor of this directory")
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=Cursor)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise BadCursorError("not a cursor of this directory") from error
    if cursor.query != fingerprint(query):
        raise BadCursorError("the cursor belongs to another query")
    return cursor
