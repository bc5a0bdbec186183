"""Text work: sentences, summaries, keyphrases, moods and languages, on real prose."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.templates.crafts import prose, textrank
from agents.templates.crafts.keyphrases import keyphrases
from agents.templates.crafts.moods import label, mood
from agents.templates.crafts.refusals import NothingToDoError, TooComplexError
from agents.templates.crafts.textrank import Settings, rank, summary
from agents.templates.crafts.tongues import detect, languages, stop_words
from agents.templates.summarise import PRESETS, summed_up
from rahba.errors import TooLargeError

DOCUMENTS = Path(__file__).parents[2] / "examples/documents"
ESSAY = (DOCUMENTS / "the-square-and-the-road.txt").read_text()
REVIEWS = (DOCUMENTS / "reviews.txt").read_text()


def texts(text: str) -> list[str]:
    return [sentence.text for sentence in prose.sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Dr. Alami paid 3.5 dirhams. Why? Nobody knows.",
            ["Dr. Alami paid 3.5 dirhams.", "Why?", "Nobody knows."],
        ),
        (
            "J. R. Smith met Mr. Ali (see fig. 3). The answer is no. We left.",
            ["J. R. Smith met Mr. Ali (see fig. 3).", "The answer is no.", "We left."],
        ),
        (
            "The U.S. Army came... and left! He saw it.",
            ["The U.S. Army came... and left!", "He saw it."],
        ),
        ("هل وصلت القافلة؟ نعم، وصلت.", ["هل وصلت القافلة؟", "نعم، وصلت."]),
        ("船は出た。港は静かだ。", ["船は出た。", "港は静かだ。"]),
    ],
)
def test_a_sentence_ends_where_a_reader_would_end_it(text: str, expected: list[str]) -> None:
    assert texts(text)[: len(expected)] == expected


def test_a_heading_is_no_part_of_the_sentence_after_it() -> None:
    found = prose.sentences("# Salt\n\nGold and salt\n\nThe road was long.\nIt was hot.")
    assert [(line.text, line.heading) for line in found] == [
        ("Salt", True),
        ("Gold and salt", True),
        ("The road was long.", False),
        ("It was hot.", False),
    ]


def test_a_sentence_without_an_end_is_cut_and_none_of_it_lost() -> None:
    text = "word " * 2_000
    pieces = texts(text)
    assert max(map(len, pieces)) <= prose.MAX_SENTENCE_CHARS
    assert " ".join(pieces) == text.strip()


def test_text_beyond_the_limits_is_refused() -> None:
    with pytest.raises(TooLargeError):
        prose.sentences("a" * (prose.MAX_TEXT_CHARS + 1))
    with pytest.raises(TooComplexError):
        prose.sentences("Go on. " * (prose.MAX_SENTENCES + 1))
    for nothing in ("", " \n", "…!?"):
        with pytest.raises(NothingToDoError):
            prose.sentences(nothing)


@given(st.text(min_size=1, max_size=400))
@settings(max_examples=150, deadline=None)
def test_no_text_breaks_the_splitter_and_no_letter_is_lost(text: str) -> None:
    try:
        found = prose.sentences(text)
    except NothingToDoError:
        return
    joined = "".join("".join(line.text.split()) for line in found)
    assert joined.replace("#", "") == "".join(text.split()).replace("#", "")


def test_the_rank_of_a_star_is_highest_in_its_middle_and_all_ranks_sum_to_one() -> None:
    star: textrank.Edges = [{1: 1.0, 2: 1.0, 3: 1.0}, {0: 1.0}, {0: 1.0}, {0: 1.0}, {}]
    ranks, iterations = rank(star, 0.85, 200)
    assert ranks[0] == max(ranks)
    assert ranks[4] == min(ranks)
    assert ranks[1] == pytest.approx(ranks[3])
    assert sum(ranks) == pytest.approx(1.0)
    assert iterations < 200
    # By hand, for the middle: r0 = base + d * 3 * r1, with r1 = base + d * r0 / 3.
    base = (0.15 + 0.85 * ranks[4]) / 5
    assert ranks[0] == pytest.approx(base + 0.85 * 3 * ranks[1], abs=1e-5)
    assert ranks[1] == pytest.approx(base + 0.85 * ranks[0] / 3, abs=1e-5)


def test_power_iteration_stops_at_its_limit() -> None:
    chain: textrank.Edges = [{1: 1.0}, {0: 1.0, 2: 3.0}, {1: 3.0}]
    assert rank(chain, 0.999, 3)[1] == 3


def test_a_summary_holds_the_sentence_that_all_others_speak_of() -> None:
    text = (
        "The river flooded the lower town. Bread was cheap that year. The river flooded twice. "
        "In the lower town people fled from the river. A cat slept. The flooded town was rebuilt "
        "above the river by its people."
    )
    made = summary(text, Settings(max_sentences=2, ratio=1, novelty=0, lead=0), stop_words("en"))
    assert "river" in made.text
    assert "cat" not in made.text
    assert "Bread" not in made.text


def test_novelty_keeps_a_summary_from_saying_one_thing_twice() -> None:
    text = (
        "The caravan brought salt and gold from the desert road to the market. "
        "The caravan brought salt and gold from the desert road to the old market. "
        "Copper from the desert mines was melted near the market by smiths of the town. "
        "Smiths of the town melted silver. Cats slept near a quiet wall in the sun."
    )
    repeating = summary(text, Settings(max_sentences=2, ratio=1, novelty=0, lead=0))
    varied = summary(text, Settings(max_sentences=2, ratio=1, novelty=0.6, lead=0))
    assert [sentence.index for sentence in repeating.chosen] == [0, 1]
    assert varied.chosen[0].index in {0, 1}
    assert varied.chosen != repeating.chosen


@pytest.mark.parametrize("quality", list(PRESETS))
def test_each_quality_sums_the_essay_up_in_its_own_sentences(quality: str) -> None:
    preset = PRESETS[quality]  # type: ignore[index]
    made = summed_up(ESSAY, preset, preset.max_sentences)
    flat = " ".join(ESSAY.split())
    places = [point["index"] for point in made["sentences"]]
    assert made["language"] == "en"
    assert len(places) == preset.max_sentences
    assert places == sorted(places)
    assert all(point["text"] in flat for point in made["sentences"])
    assert len(made["summary"]) < len(ESSAY) / 4
    # What the essay is about by any reading: prices, strangers, what the market needs.
    assert "an overheard price is a stolen price" in made["summary"]
    assert "old traders solved" in made["summary"]


def test_the_qualities_differ_and_each_is_the_same_every_time() -> None:
    made = {
        name: summed_up(ESSAY, preset, preset.max_sentences)["summary"]
        for name, preset in PRESETS.items()
    }
    assert len(set(made.values())) == 3
    assert made["thorough"] == summed_up(ESSAY, PRESETS["thorough"], 9)["summary"]


@pytest.mark.parametrize("variety", [1, 13, 97, 600])
def test_the_longest_text_is_summed_up_in_seconds_however_alike_its_sentences(
    variety: int,
) -> None:
    lines = (
        f"Line {n} of the w{n % variety} log is v{n % 7}x{n % 45} u{n % 40}." for n in range(3_900)
    )
    started = time.process_time()
    made = summary(" ".join(lines), PRESETS["thorough"])
    assert made.of_sentences == 3_900
    assert time.process_time() - started < 15


def test_keyphrases_are_what_the_text_is_about() -> None:
    found = keyphrases(ESSAY, 10)
    phrases = [entry.phrase.lower() for entry in found]
    assert {"square", "market", "price", "gold"} <= set(phrases)
    assert found[0].score == 1.0
    assert [entry.score for entry in found] == sorted((e.score for e in found), reverse=True)
    assert not set(phrases) & stop_words("en")


def test_keyphrases_keep_their_capitals_and_their_count() -> None:
    text = "The Atlantic Ocean is cold. We love the Atlantic Ocean. The Atlantic Ocean again."
    assert keyphrases(text, 1)[0] == keyphrases(text, 5)[0]
    best = keyphrases(text, 1)[0]
    assert (best.phrase, best.count) == ("Atlantic Ocean", 3)


def test_keyphrases_work_without_stop_words_too() -> None:
    text = "Laiva lähti ja laiva palasi ja satama oli hiljaa ja laiva lähti. " * 5
    assert keyphrases(text, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I love this wonderful place!", "positive"),
        ("The food was awful and the staff was rude.", "negative"),
        ("The room has a bed and a desk.", "neutral"),
        ("It is not good at all.", "negative"),
    ],
)
def test_a_mood_has_the_right_sign(text: str, expected: str) -> None:
    assert mood(text).label == expected


def test_the_moods_of_the_reviews_are_those_a_reader_finds() -> None:
    felt = mood(REVIEWS)
    by_start = {line.text[:14]: line.label for line in felt.lines}
    assert by_start["We loved every"] == "positive"
    assert by_start["Terrible night"] == "negative"
    assert by_start["Horrible exper"] == "negative"
    assert by_start["Rooms have a b"] == "neutral"
    assert felt.label == "positive"
    assert sum(felt.shares.values()) == pytest.approx(1, abs=0.001)
    assert 0.05 < felt.known_words < 0.5
    assert mood("Der Zug fährt um acht Uhr ab.").known_words == 0


def test_the_label_changes_at_the_threshold() -> None:
    assert [label(score) for score in (0.05, 0.049, -0.049, -0.05)] == [
        "positive",
        "neutral",
        "neutral",
        "negative",
    ]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The ship left the harbour at dawn and nobody saw it again."),
        ("fr", "La facture est payable sous trente jours."),
        ("es", "El barco salió del puerto al amanecer."),
        ("de", "Das Schiff verließ den Hafen bei Tagesanbruch."),
        ("it", "La nave lasciò il porto all'alba."),
        ("pt", "O navio saiu do porto ao amanhecer."),
        ("nl", "De factuur moet binnen dertig dagen betaald worden."),
        ("sv", "Fakturan ska betalas inom trettio dagar."),
        ("pl", "Faktura jest płatna w ciągu trzydziestu dni."),
        ("tr", "Fatura otuz gün içinde ödenmelidir."),
        ("ar", "غادرت السفينة الميناء عند الفجر."),
        ("ru", "Корабль вышел из порта на рассвете."),
        ("el", "Το πλοίο έφυγε από το λιμάνι."),  # noqa: RUF001 -- Greek is meant
        ("ja", "船は夜明けに港を出た。"),
        ("zh", "船在黎明时离开了港口。"),
        ("ko", "배는 새벽에 항구를 떠났다."),
        ("he", "הספינה עזבה את הנמל עם שחר."),
    ],
)
def test_a_sentence_is_enough_to_tell_its_language(language: str, text: str) -> None:
    found = detect(text)
    assert found.language == language
    assert found.confidence >= 0.5


@pytest.mark.parametrize(
    "text",
    [
        "Laiva lähti satamasta aamunkoitteessa, ja kaikki olivat hyvin väsyneitä.",
        "A hajó hajnalban elhagyta a kikötőt, és mindenki nagyon fáradt volt.",
        "Con tàu rời cảng vào lúc bình minh và mọi người đều mệt.",
        "Sxkq wvzt bnmp qqrt lkjh",
        "ok",
        "12345",
    ],
)
def test_an_unknown_language_is_not_guessed(text: str) -> None:
    found = detect(text)
    assert found.language == "und"
    assert found.confidence < 0.5


def test_confidence_grows_with_the_text() -> None:
    sure = [detect(text).confidence for text in ("Bonjour", "Bonjour tout le monde", ESSAY)]
    assert sure == sorted(sure)
    assert sure[-1] > 0.95


def test_every_language_has_enough_words_that_say_nothing() -> None:
    assert set(languages()) == {
        *["en", "fr", "es", "de", "it", "pt", "nl", "sv", "pl", "tr", "ar", "ru"]
    }
    assert all(len(stop_words(code)) > 80 for code in languages())
    assert stop_words("und") == frozenset()
