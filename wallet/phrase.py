"""The words from which all keys of a wallet come back: BIP-39.

* A new phrase has 24 English words (256 random bits and a checksum). Any language of BIP-39 is
  read; letters of either case, any spaces, composed or decomposed (NFKD) are the same phrase.
* A passphrase beside it is optional and part of the seed: another one gives other keys, and
  nothing can tell which was meant.
* No error repeats a word of what was typed: it says at which place the fault is.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

from mnemonic import Mnemonic

from rahba.errors import BadInputError
from rahba.ids import Ids

LENGTHS: Final = (12, 15, 18, 21, 24)
MAX_CHARS: Final = 1_024
_SPACES: Final = re.compile(r"\s+")


class BadPhraseError(BadInputError):
    """What was typed is no recovery phrase: the number of words, one of them or the checksum."""

    code = "bad_phrase"
    hint = "compare with what you wrote down: 12 to 24 words of one list, in their order"


def new_phrase(ids: Ids) -> str:
    """Return 24 fresh words."""
    entropy = bytes.fromhex(ids.new() + ids.new())
    return str(Mnemonic("english").to_mnemonic(entropy))


def check_phrase(text: str) -> str:
    """Return the phrase in its one spelling: NFKD, lower case, single spaces.

    Raises:
        BadPhraseError: it is none.
    """
    if len(text) > MAX_CHARS:
        raise BadPhraseError(f"a phrase has at most {MAX_CHARS} characters")
    phrase = _SPACES.sub(" ", Mnemonic.normalize_string(text)).strip().lower()
    words = phrase.split(" ") if phrase else []
    if len(words) not in LENGTHS:
        raise BadPhraseError(f"a phrase has {', '.join(map(str, LENGTHS))} words, not {len(words)}")
    languages = sorted(Mnemonic.list_languages(), key=lambda name: name != "english")
    if any(_checks(language, words) for language in languages):
        return phrase
    unknown = min((_strangers(language, words) for language in languages), key=len)
    if unknown:
        raise BadPhraseError("not in the list of words: " + ", ".join(f"word {n}" for n in unknown))
    raise BadPhraseError("all words are known, but the checksum is wrong: one is another's")


def seed_of(phrase: str, passphrase: str = "") -> bytes:
    """Return the 64-byte seed of a phrase and its optional passphrase.

    Raises:
        BadPhraseError: the phrase is none.
    """
    return Mnemonic.to_seed(check_phrase(phrase), passphrase)


def _checks(language: str, words: list[str]) -> bool:
    """Say whether the words are of that list and their last bits are the others' checksum."""
    known = _known(language)
    if not known.keys() >= set(words):
        return False
    bits = 0
    for word in words:
        bits = bits << 11 | known[word]
    width = len(words) * 11 // 33
    entropy = (bits >> width).to_bytes(4 * width, "big")
    return hashlib.sha256(entropy).digest()[0] >> (8 - width) == bits & ((1 << width) - 1)


def _strangers(language: str, words: list[str]) -> list[int]:
    known = _known(language)
    return [place for place, word in enumerate(words, 1) if word not in known]


@lru_cache(maxsize=16)
def _known(language: str) -> dict[str, int]:
    """Return the places of a list's words by their NFKD spelling (two lists are composed)."""
    words = Mnemonic(language).wordlist
    return {Mnemonic.normalize_string(word): place for place, word in enumerate(words)}
