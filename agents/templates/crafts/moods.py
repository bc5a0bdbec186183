"""Tells how a text feels: by its English words (VADER's lexicon and rules), sentence by sentence.

* A score runs from -1 to 1; beyond ±0.05 it is called positive or negative, as VADER's authors do.
* The whole is the mean over the sentences that feel anything, so that a long neutral report with
  one angry line is neither neutral nor furious, and the share of each label is told.
* English only: :func:`mood` says how many of its words the lexicon knows, and that is the honest
  measure of how much to believe.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # type: ignore[import-untyped]

from agents.templates.crafts.prose import sentences, words

THRESHOLD: Final = 0.05
Label = Literal["positive", "neutral", "negative"]


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence and how it feels."""

    text: str
    score: float
    label: Label


@dataclass(frozen=True, slots=True)
class Mood:
    """How the whole feels, how its sentences do, and how much of it was understood."""

    score: float
    label: Label
    shares: dict[str, float]
    known_words: float
    lines: tuple[Line, ...]


def mood(text: str) -> Mood:
    """Tell how ``text`` feels.

    Raises:
        BadInputError: no words, too long, or too many sentences.
    """
    judge = _judge()
    lines = []
    for sentence in sentences(text):
        score = round(float(judge.polarity_scores(sentence.text)["compound"]), 4)
        lines.append(Line(sentence.text, score, label(score)))
    felt = [line.score for line in lines if line.label != "neutral"]
    score = round(sum(felt) / len(felt), 4) if felt else 0.0
    counts = Counter(line.label for line in lines)
    spoken = words(text)
    known = sum(word in judge.lexicon for word in spoken)
    names: tuple[Label, ...] = ("positive", "neutral", "negative")
    return Mood(
        score=score,
        label=label(score),
        shares={name: round(counts[name] / len(lines), 4) for name in names},
        known_words=round(known / len(spoken), 4),
        lines=tuple(lines),
    )


def label(score: float) -> Label:
    """Name a score."""
    if score >= THRESHOLD:
        return "positive"
    return "negative" if score <= -THRESHOLD else "neutral"


@cache
def _judge() -> Any:
    return SentimentIntensityAnalyzer()
