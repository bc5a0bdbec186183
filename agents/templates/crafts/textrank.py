"""TextRank: a sentence matters when sentences that matter say similar things.

The text becomes a graph: sentences are nodes, shared words are edges. A random reader who mostly
follows edges (``damping``) and sometimes jumps spends its time on the sentences that sum the text
up. That share of time is the rank, found by power iteration until it moves less than ``TOLERANCE``.

* Two measures of similarity: ``overlap`` (shared words over the logarithms of both lengths) and
  ``cosine`` (of tf-idf weights: words that are everywhere count little).
* Chosen one by one: each further sentence pays for what it repeats (``novelty``, as in maximal
  marginal relevance). The summary keeps the order of the text.
* Edges are found through an index of words, not by comparing all pairs; words that are in a large
  part of the sentences make no edges. No language is assumed: stop words only sharpen.

    >>> summary("Figs are sweet. Figs are dried in the sun. Rain fell.", Settings(max_sentences=1))
    Summary(text='Figs are sweet.', …)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from agents.templates.crafts.prose import Sentence, sentences, words

TOLERANCE: Final = 1e-6
_COMMON_SHARE: Final = 0.3
_COMMON_LEAST: Final = 12
_COMMON_MOST: Final = 60  # a word makes an edge of every pair of its sentences: mind the square
_MAX_STEPS: Final = 20_000_000  # edges walked in all iterations together: a few seconds
_LEAST_WORDS: Final = 3
_FULL_WORDS: Final = 7  # a sentence with fewer telling words says too little to stand alone

Weights = dict[str, float]
Edges = list[dict[int, float]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a summary is made; the fields are what competing summarisers differ in."""

    ratio: float = 0.15
    max_sentences: int = 12
    damping: float = 0.85
    max_iterations: int = 60
    similarity: Literal["overlap", "cosine"] = "cosine"
    novelty: float = 0.3
    lead: float = 0.1


@dataclass(frozen=True, slots=True)
class Summary:
    """The chosen sentences in the order of the text, and what they were chosen from."""

    text: str
    chosen: tuple[Sentence, ...]
    ranks: tuple[float, ...]
    of_sentences: int
    iterations: int


def summary(text: str, settings: Settings, stop_words: Collection[str] = ()) -> Summary:
    """Sum ``text`` up.

    Raises:
        BadInputError: no words, too long, or too many sentences.
    """
    split = sentences(text)
    candidates = _candidates(split)
    bags = [_bag(sentence, stop_words) for sentence in candidates]
    weights = _overlap(bags) if settings.similarity == "overlap" else _tf_idf(bags)
    edges = _edges(weights, settings.similarity)
    ranks, iterations = rank(edges, settings.damping, settings.max_iterations)
    leading = [
        value * (1 + settings.lead / (1 + place)) * min(1.0, bag.total() / _FULL_WORDS)
        for place, (value, bag) in enumerate(zip(ranks, bags, strict=True))
    ]
    wanted = min(settings.max_sentences, max(1, math.ceil(len(candidates) * settings.ratio)))
    places = sorted(_choose(leading, edges, wanted, settings.novelty))
    chosen = tuple(candidates[place] for place in places)
    return Summary(
        text=" ".join(sentence.text for sentence in chosen),
        chosen=chosen,
        ranks=tuple(round(ranks[place], 6) for place in places),
        of_sentences=len(split),
        iterations=iterations,
    )


def rank(edges: Edges, damping: float, max_iterations: int) -> tuple[list[float], int]:
    """Return the rank of every node (they sum to 1) and how many iterations it took."""
    count = len(edges)
    walked = sum(map(len, edges)) + count
    max_iterations = max(1, min(max_iterations, _MAX_STEPS // walked))
    strength = [sum(row.values()) for row in edges]
    ranks = [1.0 / count] * count
    for iteration in range(1, max_iterations + 1):
        stranded = sum(ranks[node] for node in range(count) if not strength[node])
        base = (1 - damping + damping * stranded) / count
        shares = [
            damping * value / total if total else 0.0
            for value, total in zip(ranks, strength, strict=True)
        ]
        moved = [
            base + sum(shares[other] * weight for other, weight in row.items()) for row in edges
        ]
        change = sum(abs(new - old) for new, old in zip(moved, ranks, strict=True))
        ranks = moved
        if change < TOLERANCE:
            return ranks, iteration
    return ranks, max_iterations


def _candidates(split: Sequence[Sentence]) -> list[Sentence]:
    """Prefer full sentences; a text of headings and scraps is summed up by those."""
    full = [
        sentence
        for sentence in split
        if not sentence.heading and len(words(sentence.text)) >= _LEAST_WORDS
    ]
    return full or list(split)


def _bag(sentence: Sentence, stop_words: Collection[str]) -> Counter[str]:
    return Counter(word for word in words(sentence.text) if word not in stop_words)


def _overlap(bags: Sequence[Counter[str]]) -> list[Weights]:
    return [dict.fromkeys(bag, 1.0) for bag in bags]


def _tf_idf(bags: Sequence[Counter[str]]) -> list[Weights]:
    holding = Counter(word for bag in bags for word in bag)
    inverse = {word: math.log(1 + len(bags) / count) for word, count in holding.items()}
    weighted = [{word: times * inverse[word] for word, times in bag.items()} for bag in bags]
    return [_unit(weights) for weights in weighted]


def _unit(weights: Weights) -> Weights:
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {word: weight / length for word, weight in weights.items()} if length else weights


def _edges(weights: Sequence[Weights], similarity: Literal["overlap", "cosine"]) -> Edges:
    """Join the sentences that share words: only those, through an index from word to sentences."""
    index: dict[str, list[int]] = {}
    for place, bag in enumerate(weights):
        for word in bag:
            index.setdefault(word, []).append(place)
    common = min(_COMMON_MOST, max(_COMMON_LEAST, int(len(weights) * _COMMON_SHARE)))
    edges: Edges = [{} for _ in weights]
    for word, places in index.items():
        if len(places) > common:
            continue
        for position, left in enumerate(places):
            row, own = edges[left], weights[left][word]
            for right in places[position + 1 :]:
                row[right] = row.get(right, 0.0) + own * weights[right][word]
    for left, row in enumerate(edges):
        for right in [place for place in row if place > left]:
            if similarity == "overlap":
                row[right] /= math.log(2 + len(weights[left])) + math.log(2 + len(weights[right]))
            edges[right][left] = row[right]
    return edges


def _choose(ranks: Sequence[float], edges: Edges, wanted: int, novelty: float) -> list[int]:
    """Take the best sentence, then again, each time less for what resembles those taken."""
    highest = max(ranks)
    scale = max((weight for row in edges for weight in row.values()), default=1.0) or 1.0
    repeated = [0.0] * len(ranks)
    open_places = set(range(len(ranks)))
    taken: list[int] = []
    while open_places and len(taken) < wanted:
        best = max(
            open_places,
            key=lambda place: (
                (1 - novelty) * ranks[place] / highest - novelty * repeated[place],
                -place,
            ),
        )
        taken.append(best)
        open_places.remove(best)
        for other, weight in edges[best].items():
            repeated[other] = max(repeated[other], weight / scale)
    return taken
