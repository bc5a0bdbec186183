"""Which engine searches the words of a market, by its size; see ``docs/adr/0021``."""

from __future__ import annotations

from typing import Final

from broker.stores.tantivy import TantivyIndex, available
from broker.textindex import PlainIndex, TextIndex

PLAIN_UP_TO: Final = 10_000


def make_text(cards: int) -> TextIndex:
    """Return an empty index for a market of so many cards.

    Beyond ``PLAIN_UP_TO`` it is tantivy, if the extra ``search`` is installed; without it a search
    finds the same and takes longer.
    """
    if cards > PLAIN_UP_TO and available():
        return TantivyIndex()
    return PlainIndex()
