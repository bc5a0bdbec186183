"""Events of the feed: their limits, their ids, their bytes."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from broker.errors import BadCursorError
from rahba.encoding import Json
from rahba.errors import TooLargeError
from rahba.messages import Event

MAX_EVENTS: Final = 10_000
MAX_EVENT_BYTES: Final = 16 * 1024
_EVENT_ID: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}", re.ASCII)


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
