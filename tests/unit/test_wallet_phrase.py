"""Recovery phrases: the vectors of BIP-39, any language and spelling, and mistakes that are told.

Vectors: https://github.com/trezor/python-mnemonic (vectors.json, passphrase TREZOR) and
https://github.com/bip32JP/bip32JP.github.io (test_JP_BIP39.json, with a passphrase to normalise).
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import orjson
import pytest
from mnemonic import Mnemonic

from rahba.ids import RandomIds
from wallet.phrase import BadPhraseError, check_phrase, new_phrase, seed_of

ABOUT = "abandon " * 11 + "about"
VECTORS = orjson.loads((Path(__file__).parents[1] / "fixtures/bip39.json").read_bytes())


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_the_official_vectors_give_their_seeds_in_every_spelling(vector: dict[str, str]) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        words = [unicodedata.normalize(form, vector[name]) for name in ("phrase", "passphrase")]
        assert seed_of(*words).hex() == vector["seed"]


@pytest.mark.parametrize("language", sorted(Mnemonic.list_languages()))
@pytest.mark.parametrize("entropy", [bytes(16), b"\xff" * 20, b"\x21" * 24, b"\x80" * 32])
def test_every_language_of_the_standard_is_read(language: str, entropy: bytes) -> None:
    phrase = Mnemonic(language).to_mnemonic(entropy)
    assert seed_of(phrase) == Mnemonic.to_seed(phrase)
    assert seed_of(unicodedata.normalize("NFC", phrase).title()) == Mnemonic.to_seed(phrase)


def test_a_fresh_phrase_has_24_words_and_is_never_the_same() -> None:
    first, second = new_phrase(RandomIds()), new_phrase(RandomIds())
    assert len(first.split()) == 24
    assert first != second
    assert check_phrase(first) == first


def test_case_and_spaces_do_not_matter() -> None:
    assert check_phrase("\n  " + ABOUT.replace(" ", " \t ").upper() + " ") == ABOUT


@pytest.mark.parametrize("count", [0, 1, 11, 13, 23, 25])
def test_another_number_of_words_is_no_phrase(count: int) -> None:
    with pytest.raises(BadPhraseError, match=f"not {count}"):
        check_phrase(" ".join(["abandon"] * count))


def test_a_mistake_is_told_by_its_place_and_not_by_its_word() -> None:
    with pytest.raises(BadPhraseError, match="word 3, word 12") as caught:
        check_phrase(ABOUT.replace("abandon", "abandom", 3).replace("abandom", "abandon", 2) + "t")
    assert "abandom" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(BadPhraseError, match="checksum"):
        check_phrase("abandon " * 12)
    with pytest.raises(BadPhraseError, match="characters"):
        check_phrase("abandon " * 1_000)


def test_words_of_two_languages_are_no_phrase() -> None:
    mixed = Mnemonic("spanish").to_mnemonic(bytes(16)).split()[:6] + ABOUT.split()[6:]
    with pytest.raises(BadPhraseError):
        check_phrase(" ".join(mixed))
