"""Splits text into sentences and words, in any language that ends its sentences with a mark.

* Sentences end at ``. ! ? …`` and their kin of other scripts, or at an empty line. A full stop
  after a title, an initial or inside a number ends none.
* A heading (a short line of its own with no end mark) is kept apart: no summary swallows it.
* A sentence longer than ``MAX_SENTENCE_CHARS`` is cut at a space: nothing grows without limit.

    >>> [s.text for s in sentences("Dr. Alami paid 3.5 dirhams. Why? Nobody knows.")]
    ['Dr. Alami paid 3.5 dirhams.', 'Why?', 'Nobody knows.']
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agents.templates.crafts.refusals import NothingToDoError, TooComplexError
from rahba.errors import TooLargeError

MAX_TEXT_CHARS: Final = 400_000
MAX_SENTENCES: Final = 4_000
MAX_SENTENCE_CHARS: Final = 2_000
_HEADING_WORDS: Final = 12

# By number, as many look like others: the full stops of CJK and Devanagari, Arabic marks, quotes.
_FULL_WIDTH: Final = "\u3002\uff01\uff1f\u0964"
_MARKS: Final = ".!?\u2026\u061f\u06d4" + _FULL_WIDTH
_CLOSING: Final = "\"'\u201d\u2019\u00bb)\\]\u300d\u300f"
_PARAGRAPH: Final = re.compile(r"(?:\r?\n[ \t]*){2,}")
_END: Final = re.compile(f"[{_MARKS}]+[{_CLOSING}]*(?=\\s|$)|[{_FULL_WIDTH}]+[{_CLOSING}]*")
_WORD: Final = re.compile("[^\\W\\d_]+(?:['\u2019-][^\\W\\d_]+)*|\\d+(?:[.,]\\d+)*")
_BEFORE_NAMES: Final = frozenset(
    {"dr", "gen", "mlle", "mme", "mr", "mrs", "ms", "prof", "rev", "sr", "sra", "st"}
)
_BEFORE_NUMBERS: Final = frozenset(
    {"apr", "art", "aug", "bd", "ca", "cf", "ch", "dec", "feb", "fig", "figs", "jan", "jul"}
    | {"jun", "mar", "no", "nos", "nov", "nr", "oct", "p", "pp", "sec", "sep", "vol"}
)
_ENDS_LINE: Final = (*_MARKS, ":", ";", ",", "\u060c")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence and its place in the text; a heading is no candidate for a summary."""

    index: int
    text: str
    heading: bool = False


def check(text: str) -> str:
    """Return ``text`` if it is within the limits and says something.

    Raises:
        NothingToDoError: there is no word in it.
        TooLargeError: over ``MAX_TEXT_CHARS``.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise TooLargeError("text too long", size_chars=len(text), limit_chars=MAX_TEXT_CHARS)
    if _WORD.search(text) is None:
        raise NothingToDoError("there are no words in the text")
    return text


def words(text: str) -> list[str]:
    """Return the words and numbers of ``text`` in lower case, in order."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def sentences(text: str) -> list[Sentence]:
    """Split ``text``; white space inside a sentence becomes single spaces.

    Raises:
        TooComplexError: over ``MAX_SENTENCES``.
    """
    found: list[Sentence] = []
    for piece, heading in _pieces(check(text)):
        if len(found) >= MAX_SENTENCES:
            raise TooComplexError("too many sentences", limit=MAX_SENTENCES)
        found.append(Sentence(len(found), piece, heading))
    return found


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    for paragraph in _PARAGRAPH.split(text):
        flat = " ".join(paragraph.split())
        if not flat:
            continue
        if flat.startswith("#") or _is_heading(flat):
            yield flat.lstrip("# "), True
            continue
        for piece in _cut_at_ends(flat):
            yield from ((part, False) for part in _cut_to_length(piece))


def _is_heading(line: str) -> bool:
    return not line.endswith(_ENDS_LINE) and len(line.split()) <= _HEADING_WORDS


def _cut_at_ends(flat: str) -> Iterator[str]:
    start = 0
    for match in _END.finditer(flat):
        if _goes_on(flat, start, match):
            continue
        piece = flat[start : match.end()].strip()
        start = match.end()
        if piece:
            yield piece
    if rest := flat[start:].strip():
        yield rest


def _goes_on(flat: str, start: int, match: re.Match[str]) -> bool:
    """Say whether this full stop belongs to an abbreviation or an initial."""
    if match.group().strip("."):
        return False
    before = flat[start : match.start()].rpartition(" ")[2].lower().lstrip("([\"'")
    after = flat[match.end() : match.end() + 2].strip()[:1]
    if not after:
        return False
    if after.isdigit() and before in _BEFORE_NUMBERS:
        return True
    is_initial = len(before) == 1 and before.isalpha()
    is_dotted = "." in before and before.replace(".", "").isalpha()
    return after.islower() or is_initial or is_dotted or before in _BEFORE_NAMES


def _cut_to_length(piece: str) -> Iterator[str]:
    while len(piece) > MAX_SENTENCE_CHARS:
        at = piece.rfind(" ", 1, MAX_SENTENCE_CHARS)
        at = MAX_SENTENCE_CHARS if at < 0 else at
        yield piece[:at]
        piece = piece[at:].lstrip()
    if piece:
        yield piece
