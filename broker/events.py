"""Events of the feed: their limits, their ids, their bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from broker.errors import BadCursorError
from rahba.encoding import Json
from rahba.errors import TooLargeError
from rahba.messages import Event

MAX_EVENTS: Final = 10_000
MAX_AGE_MS: Final = 7 * 24 * 3_600 * 1_000
MAX_EVENT_BYTES: Final = 16 * 1024
_EVENT_ID: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """How many events are kept, and for how long; the oldest go first."""

    events: int = MAX_EVENTS
    age_ms: int = MAX_AGE_MS

    def young(self, events: list[tuple[str, Event]], now_ms: int) -> list[tuple[str, Event]]:
        """Return the events that are still to be told."""
        return [item for item in events if item[1].ts >= now_ms - self.age_ms]


def check_event_id(text: str) -> str:
    """Return ``text`` if it has the form of an event id."""
    if _EVENT_ID.fullmatch(text) is None:
        raise BadCursorError(f"not an event id: {text[:64]!r}")
    return text


def encode_event(kind: str, data: dict[str, Json], ts: int) -> bytes:
    """Encode an event within the limit of one."""
    raw = msgspec.json.encode(Event(kind=kind, ts=ts, data=data))
    if len(raw) > MAX_EVENT_BYTES:
        raise TooLargeError("event too large", size_bytes=len(raw), limit_bytes=MAX_EVENT_BYTES)
    return raw
