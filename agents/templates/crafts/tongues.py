"""Tells which language a text is in, and knows the words that say nothing in each.

How: letters decide the script. Where a script belongs to one language, that is the answer; for the
others, the text's letter triples are compared with profiles made from a short text and the most
frequent words of each language (``languages.json``).

* Confidence is honest: it falls with short texts, with rivals close by, and above all with triples
  that the winner's profile does not know. A language without a profile ends as ``und``.

    >>> detect("Le marché ouvre demain matin et nous y serons.").language
    'fr'
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from agents.templates.crafts.prose import check, words

UNKNOWN: Final = "und"
MAX_CHARS: Final = 20_000
_LEAST_CONFIDENCE: Final = 0.5
_SMOOTHING: Final = 0.3
_TEMPER: Final = 3.0  # neighbouring triples share letters: they are not three witnesses but one
_KNOWN_SHARE: Final = 0.62
_BY_SCRIPT: Final = {
    "GREEK": "el",
    "HEBREW": "he",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "DEVANAGARI": "hi",
    "THAI": "th",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
}
_SCRIPTS: Final = {"ar": "ARABIC", "ru": "CYRILLIC"}


class Language(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a language: its name, its words that say nothing, a sample of it."""

    name: str
    stop: str
    sample: str


@dataclass(frozen=True, slots=True)
class Detection:
    """The language (ISO 639-1, or ``und``), how sure that is, and the runners-up."""

    language: str
    confidence: float
    script: str
    candidates: tuple[tuple[str, float], ...]


@cache
def languages() -> dict[str, Language]:
    """Return every language that has a profile, by its ISO 639-1 code."""
    raw = Path(__file__).with_name("languages.json").read_bytes()
    return msgspec.json.decode(raw, type=dict[str, Language])


@cache
def stop_words(language: str) -> frozenset[str]:
    """Return the words that say nothing in ``language``; none for one without a profile."""
    known = languages().get(language)
    return frozenset(known.stop.split()) if known else frozenset()


def detect(text: str) -> Detection:
    """Tell the language of ``text`` by its first ``MAX_CHARS`` characters.

    Raises:
        BadInputError: no words, or too long a text.
    """
    sample = check(text)[:MAX_CHARS]
    script, share = _script(sample)
    if script in _BY_SCRIPT:
        language = _BY_SCRIPT[script]
        return Detection(language, round(share, 3), script.title(), ((language, round(share, 3)),))
    rivals = [code for code in languages() if _SCRIPTS.get(code, "LATIN") == script]
    found = _triples(sample)
    if not rivals or not found:
        return Detection(UNKNOWN, 0.0, script.title(), ())
    candidates = _compare(found, rivals, share)
    best, confidence = candidates[0]
    return Detection(
        best if confidence >= _LEAST_CONFIDENCE else UNKNOWN,
        confidence,
        script.title(),
        tuple(candidates[:3]),
    )


def _script(text: str) -> tuple[str, float]:
    """Return the script of most letters and its share; any kana makes Chinese signs Japanese."""
    seen = Counter(
        unicodedata.name(char, "UNKNOWN").partition(" ")[0] for char in text if char.isalpha()
    )
    if not seen:
        return "UNKNOWN", 0.0
    total = seen.total()
    kana = seen["HIRAGANA"] + seen["KATAKANA"]
    if kana and seen["CJK"]:
        seen["HIRAGANA"] = kana + seen.pop("CJK")
    script, count = seen.most_common(1)[0]
    return script, count / total


def _triples(text: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for word in words(text):
        if not word[0].isdigit():
            padded = f" {word} "
            found.update(padded[at : at + 3] for at in range(len(padded) - 2))
    return found


@cache
def _profile(code: str) -> tuple[Counter[str], int]:
    known = languages()[code]
    profile = _triples(f"{known.sample} {known.sample} {known.stop}")
    return profile, profile.total()


def _compare(found: Counter[str], rivals: list[str], share: float) -> list[tuple[str, float]]:
    """Return the rivals with their tempered posterior, lowered by what they do not know."""
    vocabulary = len({triple for code in rivals for triple in _profile(code)[0]}) + 1
    likelihood: dict[str, float] = {}
    familiar: dict[str, float] = {}
    total = found.total()
    for code in rivals:
        profile, size = _profile(code)
        scale = size + _SMOOTHING * vocabulary
        likelihood[code] = sum(
            times * math.log((profile[triple] + _SMOOTHING) / scale)
            for triple, times in found.items()
        )
        familiar[code] = sum(times for triple, times in found.items() if profile[triple]) / total
    highest = max(likelihood.values())
    posterior = {code: math.exp((likelihood[code] - highest) / _TEMPER) for code in rivals}
    whole = sum(posterior.values())
    certainty = total / (total + _TEMPER)
    return sorted(
        (
            (
                code,
                round(
                    posterior[code]
                    / whole
                    * min(1.0, familiar[code] / _KNOWN_SHARE)
                    * certainty
                    * share,
                    3,
                ),
            )
            for code in rivals
        ),
        key=lambda candidate: -candidate[1],
    )
