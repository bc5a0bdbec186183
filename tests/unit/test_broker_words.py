"""What a text says to the search."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.words import (
    MAX_QUERY_WORDS,
    card_words,
    fold_tag,
    marks_of,
    wanted_marks,
    wanted_words,
    words_of,
)
from tests.fixtures.listings import skill_offer, unsigned


def test_words_meet_across_plurals_tenses_cases_and_alphabets() -> None:
    assert words_of("Summaries summary") == words_of("SUMMARY  summaries")
    assert words_of("text.summarise") == words_of("Texts, summarised")
    assert words_of("Übersetzung 翻訳") == ["übersetzung", "翻訳"]


def test_the_name_of_a_skill_falls_apart_into_its_words() -> None:
    for name in (
        "pdf.extract-tables",
        "pdfExtractTables",
        "PDF_extract_tables",
        "PDFExtractTables",
    ):
        assert words_of(name) == words_of("pdf extract tables"), name


def test_what_every_request_says_is_no_word_of_it() -> None:
    asked = "Hi, could you please help me find somebody who translates Dutch? Thanks!"
    assert words_of(asked) == words_of("somebody translate dutch")
    assert wanted_words("Please, could you help me?") == []


def test_a_query_has_each_word_once_and_so_many_at_most() -> None:
    assert wanted_words("map maps MAP") == ["map"]
    assert len(wanted_words(" ".join(f"w{number}" for number in range(500)))) == MAX_QUERY_WORDS


def test_a_card_is_found_by_its_name_descriptions_skills_and_tags() -> None:
    one = unsigned(0, skill_offer(skill="pdf.merge", about="joins files", tags=("Office Work",)))
    words = card_words(one)
    for word in ("x", "pdf", "merg", "join", "fil", "offic", "work"):
        assert word in words
    assert words.count("pdf") == 2, "what it can do says most"
    assert marks_of(one) == ["s:pdf.merge", "t:office work"]
    assert wanted_marks("pdf.merge", ["office  WORK"]) == marks_of(one)
    assert fold_tag(" A  b ") == "a b"


@given(st.text(max_size=300))
def test_any_text_falls_into_short_words(text: str) -> None:
    assert all(0 < len(word) <= 40 for word in words_of(text))
