"""Many cards at once: verified off the loop, each on its own.

Signatures are checked in threads (libsodium gives the interpreter free meanwhile), a slice of cards
at a time, so that the loop goes on serving; listing the good ones is one pipeline a slice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from broker.ports import Listing, Published
from rahba.errors import RahbaError, TooLargeError
from rahba.messages import MAX_CARD_BYTES, Card, open_card

MAX_AT_ONCE: Final = 10_000
SLICE: Final = 64
THREADS: Final = 2


async def verify_many(
    raws: Sequence[bytes],
    publish: Callable[[bytes, Card], Awaitable[Listing]],
    *,
    now_ms: int,
) -> list[Published]:
    """Verify cards and ``publish`` those that stand; returns what became of each, in order.

    Of several cards of one agent the later in order stands, as if published one after another.
    """
    done: list[Published] = []
    for begin in range(0, len(raws), SLICE * THREADS):
        some = [raws[at : at + SLICE] for at in range(begin, begin + SLICE * THREADS, SLICE)]
        verified = await asyncio.gather(
            *(asyncio.to_thread(_open, part, now_ms) for part in some if part)
        )
        cards = [card for part in verified for card in part]
        chunk = raws[begin : begin + SLICE * THREADS]
        done += await asyncio.gather(
            *(
                _list(begin + place, raw, card, publish)
                for place, (raw, card) in enumerate(zip(chunk, cards, strict=True))
            )
        )
    return done


def _open(raws: Sequence[bytes], now_ms: int) -> list[Card | RahbaError]:
    return [_open_one(raw, now_ms) for raw in raws]


def _open_one(raw: bytes, now_ms: int) -> Card | RahbaError:
    if len(raw) > MAX_CARD_BYTES:
        return TooLargeError("card too large", size_bytes=len(raw), limit_bytes=MAX_CARD_BYTES)
    try:
        return open_card(raw, now_ms=now_ms)
    except RahbaError as error:
        return error


async def _list(
    place: int,
    raw: bytes,
    card: Card | RahbaError,
    publish: Callable[[bytes, Card], Awaitable[Listing]],
) -> Published:
    if isinstance(card, RahbaError):
        return Published(place, None, card.code, str(card))
    try:
        return Published(place, await publish(raw, card))
    except RahbaError as error:
        return Published(place, None, error.code, str(error))
