"""Entries packed into blocks: what the PostgreSQL store keeps as one row.

A row costs a database as much as what is in it, so entries that are committed together share
rows, up to ``MAX_ENTRIES`` or about ``MAX_BYTES`` each. An entry is a head (lengths of its bytes
and links, time, leaf hash), its bytes, its links; its place follows from the block's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct, error
from typing import Final

from wallet.errors import StoreError
from wallet.ports import Entry

MAX_ENTRIES: Final = 256
MAX_BYTES: Final = 256 * 1024
_HEAD: Final = Struct(">IIq32s")


def pack(entries: Sequence[Entry]) -> Iterator[tuple[Sequence[Entry], bytes]]:
    """Cut entries into blocks; give each with its bytes."""
    head, begin, size = _HEAD.pack, 0, 0
    parts: list[bytes] = []
    for at, (_, raw, leaf, log_time, links) in enumerate(entries, 1):
        parts += (head(len(raw), len(links), log_time, leaf), raw, links)
        size += len(raw)
        if at - begin == MAX_ENTRIES or size >= MAX_BYTES or at == len(entries):
            yield entries[begin:at], b"".join(parts)
            begin, parts, size = at, [], 0


def unpack(first: int, body: bytes) -> Iterator[Entry]:
    """Return the entries of the block whose first one is ``first``.

    Raises:
        StoreError: these are not the bytes of a block.
    """
    at, seq = 0, first
    while at < len(body):
        try:
            raw_bytes, links_bytes, log_time, leaf = _HEAD.unpack_from(body, at)
        except error as damage:
            raise StoreError("a block is damaged", first=first) from damage
        middle = at + _HEAD.size + raw_bytes
        end = middle + links_bytes
        if end > len(body):
            raise StoreError("a block is damaged", first=first)
        yield Entry(seq, body[at + _HEAD.size : middle], leaf, log_time, body[middle:end])
        at, seq = end, seq + 1
