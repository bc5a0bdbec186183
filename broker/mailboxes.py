"""What all mailboxes have in common: their limits and the names of their owners."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from broker.errors import BadOwnerError, MailboxFullError, SenderQuotaError
from rahba.errors import TooLargeError
from rahba.messages import MAX_MESSAGE_BYTES

MAX_OWNERS: Final = 4_096
MAX_DEAD: Final = 1_000
_OWNER: Final = re.compile(r"[A-Za-z0-9:._-]{1,128}", re.ASCII)


RETRY_AFTER_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """How much a mailbox takes, how long a reader may hold a message, how often it is tried.

    A reader takes up to ``batch`` messages of each mailbox at a time, fewer where they are large.
    ``sender_messages`` and ``sender_bytes`` are how much of one sender may lie unacknowledged in
    one mailbox: a flooder fills its own share and no more.
    """

    lease_ms: int = 15_000
    depth: int = 10_000
    sender_messages: int = 1_000
    sender_bytes: int = 64 * 1024 * 1024
    message_bytes: int = MAX_MESSAGE_BYTES
    deliveries: int = 5
    batch: int = 64


def check_owner(owner: str) -> str:
    """Return ``owner`` if it can own a mailbox."""
    if _OWNER.fullmatch(owner) is None:
        raise BadOwnerError(f"not a mailbox owner: {owner[:64]!r}")
    return owner


def refusal(
    owner: str, sender: str, *, full: bool, limits: MailboxLimits
) -> MailboxFullError | SenderQuotaError:
    """Return the error for a message that finds no room: all is full, or the sender's share is."""
    if full:
        return MailboxFullError(
            "the mailbox is full", owner=owner, depth=limits.depth, retry_after_ms=RETRY_AFTER_MS
        )
    return SenderQuotaError(
        "too much of this sender waits unread",
        owner=owner,
        sender=sender,
        messages=limits.sender_messages,
        bytes=limits.sender_bytes,
        retry_after_ms=RETRY_AFTER_MS,
    )


def check_message(raw: bytes, limits: MailboxLimits) -> bytes:
    """Return ``raw`` if it is within the limit of one message."""
    check_size(len(raw), limits)
    return raw


def check_size(size_bytes: int, limits: MailboxLimits) -> None:
    """Refuse a message that is empty or beyond the limit of one message."""
    if not 0 < size_bytes <= limits.message_bytes:
        raise TooLargeError(
            "message too large", size_bytes=size_bytes, limit_bytes=limits.message_bytes
        )
