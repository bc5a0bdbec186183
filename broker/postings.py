"""Posting lists of our own: BM25 over words in memory, exact, at once up to date; pure.

A document is a number, its words (as often as they occur) and its marks. Nothing is pruned: every
posting of every word of a query counts, so that the answer is that of the formula (Robertson and
Zaragoza 2009, k1 = 1.2, b = .75, the idf that never is negative). A search costs time in the number
of postings of its words; see ``docs/adr/0021`` for where another engine takes over.

A removed document is only struck out; :attr:`Postings.struck` tells how many, so that the owner can
build anew in time.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

K1: Final = 1.2
B: Final = 0.75
_MAX_OFTEN: Final = 255
_DRIFT: Final = 1.1

# How many documents hold a word, for whoever weighs words over more than these documents.
HeldBy = Callable[[str], int]


class Postings:
    """Documents by their words. Numbers are given by the caller, each once."""

    def __init__(self) -> None:
        """Begin empty."""
        self._words: dict[str, tuple[array[int], array[int]]] = {}
        self._marks: dict[str, array[int]] = {}
        self._lengths: dict[int, int] = {}
        self._damping: dict[int, float] = {}
        self._total = 0
        self._average = 0.0
        self.struck = 0

    def __len__(self) -> int:
        """Return how many documents are in."""
        return len(self._lengths)

    def __contains__(self, doc: object) -> bool:
        """Say whether a document is in."""
        return doc in self._lengths

    @property
    def words_in_all(self) -> int:
        """Return how many words all documents have together."""
        return self._total

    def add(self, doc: int, words: Sequence[str], marks: Sequence[str]) -> None:
        """Put a document in."""
        for word, often in Counter(words).items():
            entry = self._words.get(word)
            if entry is None:
                entry = self._words[word] = (array("I"), array("B"))
            entry[0].append(doc)
            entry[1].append(min(often, _MAX_OFTEN))
        for mark in marks:
            self._marks.setdefault(mark, array("I")).append(doc)
        length = self._lengths[doc] = measured(len(words))
        self._total += length
        self._damping[doc] = self._damp(length) if self._average else 0.0

    def remove(self, doc: int) -> None:
        """Strike a document out; nothing happens if it is not in."""
        length = self._lengths.pop(doc, None)
        if length is not None:
            del self._damping[doc]
            self._total -= length
            self.struck += 1

    def held_by(self, word: str) -> int:
        """Return how many documents hold a word, struck ones included."""
        entry = self._words.get(word)
        return len(entry[0]) if entry is not None else 0

    def search(
        self,
        words: Sequence[str],
        marks: Sequence[str],
        limit: int,
        *,
        beside: tuple[int, float, HeldBy] | None = None,
    ) -> list[tuple[float, int]]:
        """Return the best (score, document), best first, the smaller number first among equals.

        Args:
            words: what is wanted; each counts once.
            marks: what a document must have, all of it.
            limit: how many at most.
            beside: number of documents, average length and holders of a word elsewhere, if these
                documents are a part of more.
        """
        if not self._lengths:
            return []
        count, held = len(self._lengths), self.held_by
        average = self._total / count
        if beside is not None:
            others, elsewhere, holders = beside
            count, average = count + others, elsewhere or average
            self._average = 0.0
            held = lambda word: self.held_by(word) + holders(word)  # noqa: E731
        self._set_average(average)
        scores = self._scores(words, count, held)
        if marks:
            allowed = self._marked(marks)
            found = [(-score, doc) for doc, score in scores.items() if doc in allowed]
        else:
            alive = self._lengths
            found = [(-score, doc) for doc, score in scores.items() if doc in alive]
        best = heapq.nsmallest(limit, found) if limit * 4 < len(found) else sorted(found)[:limit]
        return [(-score, doc) for score, doc in best]

    def _scores(self, words: Sequence[str], count: int, held: HeldBy) -> dict[int, float]:
        scores: dict[int, float] = {}
        damping, known = self._damping.get, scores.get
        for word in dict.fromkeys(words):
            entry = self._words.get(word)
            if entry is None:
                continue
            holders = held(word)
            rarity = math.log(1 + max(count - holders + 0.5, 0.5) / (holders + 0.5)) * (K1 + 1)
            for doc, often in zip(*entry, strict=True):
                scores[doc] = known(doc, 0.0) + rarity * often / (often + damping(doc, 1.0))
        return scores

    def _marked(self, marks: Sequence[str]) -> set[int]:
        lists = sorted((self._marks.get(mark, array("I")) for mark in marks), key=len)
        allowed = set(lists[0])
        for more in lists[1:]:
            allowed.intersection_update(more)
        return {doc for doc in allowed if doc in self._lengths}

    def _damp(self, length: int) -> float:
        return K1 * (1 - B + B * length / self._average)

    def _set_average(self, average: float) -> None:
        """Damp anew once the average length has moved by a tenth: scores keep still until then."""
        average = max(average, 1.0)
        if self._average and average / _DRIFT <= self._average <= average * _DRIFT:
            return
        self._average = average
        self._damping = {doc: self._damp(length) for doc, length in self._lengths.items()}


def measured(length: int) -> int:
    """Return a length to four binary digits beyond 24 words, as Lucene and tantivy keep it.

    A card must weigh the same in whichever engine it lies.
    """
    more = length - 24
    shift = max(more.bit_length() - 4, 0) if more > 0 else 0
    return 24 + (more >> shift << shift) if more > 0 else length
