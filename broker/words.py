"""What a text says to the search: folded words, cut to light stems, without the empty ones; pure.

A name such as ``text.summariseMany_pages`` falls apart into its words. Words that every request
holds ("please find me a ...") are left out on both sides: they say nothing about what is wanted,
and weigh on short descriptions most of all.

    >>> words_of("Could you please find me PDF summaries?")
    ['pdf', 'summar']
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from rahba.messages import Card

MAX_QUERY_WORDS: Final = 64
MAX_CARD_WORDS: Final = 2_000
SKILL_MARK: Final = "s:"
TAG_MARK: Final = "t:"
_WORD: Final = re.compile(r"[^\W_]+", re.UNICODE)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MAX_WORD: Final = 40
_EMPTY: Final = frozenset(
    """
    a about above after again against all also am an and any are aren as at be because been before
    being below between both but by can cannot could couldn d did didn do does doesn doing don
    done down during each either else ever every few for from further had has have having he her
    here hers him his how i if in into is isn it its itself just know let like ll m made make
    makes many may me might more most much must my myself no nor not now of off on once one only
    or other our ours out over own re s same she should show so some such t than that the their
    theirs them then there these they this those through to too under until up us use used using
    ve very via was we were what when where whether which while who whom whose why will with
    within without won would yes yet you your yours yourself able assist find get gets getting
    give given go going got hello help hey hi kindly looking look need needs please provide
    provided provides tell thank thanks want wants wish
    """.split()  # noqa: SIM905  # words read best as words
)
_ENDINGS: Final = ("ies", "ing", "ers", "es", "ed", "er", "s", "y", "e")


def words_of(text: str) -> list[str]:
    """Return the words of a text that say something, folded and cut to light stems, in order."""
    found = _WORD.findall(_HUMP.sub(" ", text).casefold())
    return [_stem(word[:_MAX_WORD]) for word in found if word not in _EMPTY]


def wanted_words(text: str) -> list[str]:
    """Return the different words of a query, the first ``MAX_QUERY_WORDS`` of them."""
    return list(dict.fromkeys(words_of(text)))[:MAX_QUERY_WORDS]


def text_of(card: Card) -> str:
    """Return what a card says about itself, the names of its skills twice.

    What an agent can do says more about it than how it is called.
    """
    parts = [card.name, card.description]
    for entry in card.skills:
        parts += [entry.skill, entry.skill, entry.description, *entry.tags]
    return " ".join(parts)


def card_words(card: Card) -> list[str]:
    """Return the words by which a card is found by text."""
    return words_of(text_of(card))[:MAX_CARD_WORDS]


def marks_of(card: Card) -> list[str]:
    """Return the marks by which a text search is narrowed to skills and tags."""
    tags = {tag for entry in card.skills for tag in entry.tags}
    return [f"{SKILL_MARK}{entry.skill}" for entry in card.skills] + [
        f"{TAG_MARK}{fold_tag(tag)}" for tag in sorted(tags)
    ]


def wanted_marks(skill: str | None, tags: Iterable[str]) -> list[str]:
    """Return the marks that a card must have for a query."""
    marks = [f"{TAG_MARK}{fold_tag(tag)}" for tag in tags]
    return marks if skill is None else [f"{SKILL_MARK}{skill}", *marks]


def fold_tag(tag: str) -> str:
    """Return a tag as tags are compared: folded, trimmed."""
    return " ".join(tag.casefold().split())


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    """Cut a word to a crude stem so that plurals and tenses meet."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
