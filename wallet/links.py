"""Links from an entry to the previous one of each account that it concerns.

So an account's history is a list that is read from its newest entry backwards, at a cost that does
not grow with the log. A link is 12 bytes, big-endian: the account's position (4) and the sequence
number of its previous entry + 1 (8), where 0 ends the list.

    >>> links = pack_links([2, 0, 5, 18])
    >>> previous(links, 5), previous(links, 2), previous(links, 3)
    (18, 0, 0)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

_LINK: Final = Struct(">IQ")


def pack_links(links: Sequence[int]) -> bytes:
    """Write the position and the last entry + 1 of each account, one after another."""
    return _several(len(links)).pack(*links)


@lru_cache(maxsize=128)
def _several(numbers: int) -> Struct:
    return Struct(">" + "IQ" * (numbers // 2))


def concerns(links: bytes, position: int) -> bool:
    """Say whether the entry concerns the account."""
    return any(found == position for found, _ in _LINK.iter_unpack(links))


def previous(links: bytes, position: int) -> int:
    """Return the sequence number + 1 of the account's entry before this one; 0: there is none."""
    for at in range(0, len(links) - _LINK.size + 1, _LINK.size):
        found, last = _LINK.unpack_from(links, at)
        if found == position:
            return int(last)
    return 0
