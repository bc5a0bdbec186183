"""Finds the phrases a text is about: runs of telling words, scored by the company they keep.

Stop words, marks and numbers cut each sentence into runs. A word scores by how much longer its runs
are than its count (degree over frequency, as RAKE has it), a phrase by the words in it and by how
often it comes back; a phrase that is part of a better one gives way.

* The language is detected if it is not named; without stop words for it, words that are in more
  than a third of the sentences stand in for them.
* A phrase keeps its most frequent spelling, so that names keep their capitals.

    >>> [p.phrase for p in keyphrases("Mint tea. We drank mint tea in the old market.", limit=1)]
    ['mint tea']
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agents.templates.crafts.prose import check, sentences, words
from agents.templates.crafts.tongues import detect, stop_words

MAX_LIMIT: Final = 50
_MAX_PHRASE_WORDS: Final = 4
_LEAST_CHARS: Final = 3
_CHANCE: Final = 0.4  # three words side by side once: more likely a sentence than a term
_COMMON_SHARE: Final = 1 / 3
_COMMON_LEAST: Final = 6
_PART: Final = re.compile("[^\\W\\d_]+(?:['\u2019-][^\\W\\d_]+)*|\\d+|[^\\w\\s]")

Phrase = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keyphrase:
    """A phrase, its score (the best has 1) and how often it occurs."""

    phrase: str
    score: float
    count: int


def keyphrases(text: str, limit: int = 10, language: str | None = None) -> list[Keyphrase]:
    """Return the ``limit`` best phrases, best first.

    Raises:
        BadInputError: no words, too long, or too many sentences.
    """
    lines = [sentence.text for sentence in sentences(check(text))]
    stops = stop_words(language or detect(text).language) or _common(lines)
    counts: Counter[Phrase] = Counter()
    spellings: defaultdict[Phrase, Counter[str]] = defaultdict(Counter)
    for line in lines:
        for run in _runs(line, stops):
            phrase = tuple(word.lower() for word in run)
            counts[phrase] += 1
            spellings[phrase][" ".join(run)] += 1
    scores = _scores(counts)
    best = _without_parts(sorted(scores, key=lambda phrase: (-scores[phrase], phrase)))[:limit]
    highest = max((scores[phrase] for phrase in best), default=1.0)
    return [
        Keyphrase(_spelling(spellings[phrase]), round(scores[phrase] / highest, 4), counts[phrase])
        for phrase in best
    ]


def _common(lines: Sequence[str]) -> frozenset[str]:
    holding = Counter(word for line in lines for word in set(words(line)))
    least = max(_COMMON_LEAST, len(lines) * _COMMON_SHARE)
    return frozenset(word for word, count in holding.items() if count >= least)


def _runs(line: str, stops: Collection[str]) -> Iterator[list[str]]:
    """Yield the runs of telling words; longer ones than a phrase may be are cut."""
    run: list[str] = []
    for part in [*_PART.findall(line), "."]:
        telling = part[0].isalpha() and part.lower().replace("\u2019", "'") not in stops
        if telling and len(part) >= _LEAST_CHARS and len(run) < _MAX_PHRASE_WORDS:
            run.append(part)
            continue
        if run:
            yield run
        run = [part] if telling and len(part) >= _LEAST_CHARS else []


def _scores(counts: Counter[Phrase]) -> dict[Phrase, float]:
    frequency: Counter[str] = Counter()
    degree: Counter[str] = Counter()
    for phrase, count in counts.items():
        for word in phrase:
            frequency[word] += count
            degree[word] += count * len(phrase)
    worth = {
        word: degree[word] / frequency[word] * math.log2(1 + frequency[word]) for word in degree
    }
    return {
        phrase: math.log2(1 + count)
        * sum(worth[word] for word in phrase)
        / math.sqrt(len(phrase))
        * (_CHANCE if count == 1 and len(phrase) > 2 else 1.0)
        for phrase, count in counts.items()
    }


def _without_parts(ranked: Sequence[Phrase]) -> list[Phrase]:
    """Drop every phrase whose words are all in a better one."""
    kept: list[Phrase] = []
    covered: set[str] = set()
    for phrase in ranked:
        if not covered.issuperset(phrase):
            kept.append(phrase)
            covered.update(phrase)
    return kept


def _spelling(seen: Counter[str]) -> str:
    return min(seen, key=lambda spelling: (-seen[spelling], spelling))
