"""What all mailboxes have in common: their limits and the names of their owners."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from broker.errors import BadOwnerError
from rahba.errors import TooLargeError
from rahba.messages import MAX_MESSAGE_BYTES

MAX_OWNERS: Final = 4_096
MAX_DEAD: Final = 1_000
_OWNER: Final = re.compile(r"[A-Za-z0-9:._-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """How much a mailbox takes, how long a reader may hold a message, how often it is tried."""

    lease_ms: int = 15_000
    depth: int = 10_000
    message_bytes: int = MAX_MESSAGE_BYTES
    deliveries: int = 5
    batch: int = 16


def check_owner(owner: str) -> str:
    """Return ``owner`` if it can own a mailbox."""
    if _OWNER.fullmatch(owner) is None:
        raise BadOwnerError(f"not a mailbox owner: {owner[:64]!r}")
    return owner


def check_message(raw: bytes, limits: MailboxLimits) -> bytes:
    """Return ``raw`` if it is within the limit of one message."""
    if not 0 < len(raw) <= limits.message_bytes:
        raise TooLargeError(
            "message too large", size_bytes=len(raw), limit_bytes=limits.message_bytes
        )
    return raw
