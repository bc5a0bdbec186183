"""What the catalogue needs of whatever searches its words, and the one that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from broker.postings import Postings


class TextIndex(Protocol):
    """Documents by words; a document is added once, and a change is a new document."""

    def __len__(self) -> int:
        """Return how many documents are in."""
        ...

    @property
    def struck(self) -> int:
        """Return how many removed documents still take room."""
        ...

    def add(self, doc: int, words: Sequence[str], marks: Sequence[str]) -> None:
        """Put a document in; it is found from the next search on, once loading has ended."""
        ...

    def remove(self, doc: int) -> None:
        """Take a document out at once."""
        ...

    def settle(self) -> None:
        """End the loading of many documents."""
        ...

    def search(
        self, words: Sequence[str], marks: Sequence[str], limit: int
    ) -> list[tuple[float, int]]:
        """Return the best (BM25 score, document) that have all ``marks``, best first."""
        ...


class PlainIndex(TextIndex):
    """Posting lists in memory: exact, at once, at home up to some ten thousand cards."""

    def __init__(self) -> None:
        """Begin empty."""
        self._postings = Postings()

    @override
    def __len__(self) -> int:
        return len(self._postings)

    @property
    @override
    def struck(self) -> int:
        return self._postings.struck

    @override
    def add(self, doc: int, words: Sequence[str], marks: Sequence[str]) -> None:
        self._postings.add(doc, words, marks)

    @override
    def remove(self, doc: int) -> None:
        self._postings.remove(doc)

    @override
    def settle(self) -> None:
        """Do nothing: every document is found at once."""

    @override
    def search(
        self, words: Sequence[str], marks: Sequence[str], limit: int
    ) -> list[tuple[float, int]]:
        return self._postings.search(words, marks, limit)
