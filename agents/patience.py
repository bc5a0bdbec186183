"""Repeating a call while the broker or the ledger is away for a moment.

Only for calls that may be repeated, as every call to either may: messages are told apart by their
ids, transactions by their bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from agents.courier import BACKOFF_S
from broker.errors import MailboxFullError, SenderQuotaError
from rahba.errors import RahbaError

T = TypeVar("T")
UNREAD: Final = (MailboxFullError, SenderQuotaError)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what ``call`` gives, asking again for about four seconds while it may help.

    Nobody waits for a counterparty that does not read its mail: it would cost more than a message.

    Raises:
        RahbaError: one that is not ``retryable`` or says so at once, the last one in the end.
    """
    for pause_s in BACKOFF_S:
        try:
            return await call()
        except RahbaError as error:
            if not error.retryable or isinstance(error, UNREAD):
                raise
            await asyncio.sleep(pause_s)
    return await call()
