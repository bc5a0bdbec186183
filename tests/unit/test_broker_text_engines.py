"""Both engines search alike: posting lists of our own, and tantivy."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest

from broker.postings import K1, B, Postings, measured
from broker.stores import tantivy
from broker.stores.tantivy import MERGE_AT, TantivyIndex
from broker.stores.texts import PLAIN_UP_TO, make_text
from broker.textindex import PlainIndex, TextIndex

WORDS = [f"w{number}" for number in range(60)]
Make = Callable[[], TextIndex]
both = pytest.mark.parametrize("make", [PlainIndex, TantivyIndex])


def documents(count: int, seed: int = 1) -> list[list[str]]:
    rng = random.Random(seed)
    weights = [1 / (number + 1) for number in range(len(WORDS))]
    return [rng.choices(WORDS, weights, k=rng.randint(1, 90)) for _ in range(count)]


def filled(make: Make, docs: list[list[str]], marks: Callable[[int], list[str]]) -> TextIndex:
    index = make()
    for number, words in enumerate(docs):
        index.add(number, words, marks(number))
    index.settle()
    return index


def by_the_formula(docs: dict[int, list[str]], query: list[str]) -> dict[int, float]:
    lengths = {doc: measured(len(words)) for doc, words in docs.items()}
    average = sum(lengths.values()) / len(docs)
    scores: dict[int, float] = {}
    for word in set(query):
        holders = [doc for doc, words in docs.items() if word in words]
        rarity = math.log(1 + (len(docs) - len(holders) + 0.5) / (len(holders) + 0.5))
        for doc in holders:
            often = Counter(docs[doc])[word]
            damping = K1 * (1 - B + B * lengths[doc] / average)
            scores[doc] = scores.get(doc, 0) + rarity * often * (K1 + 1) / (often + damping)
    return scores


@both
def test_a_search_finds_what_the_formula_says(make: Make) -> None:
    docs = documents(300)
    index = filled(make, docs, lambda _: [])
    for seed in range(20):
        query = random.Random(seed).sample(WORDS, 5)
        expected = by_the_formula(dict(enumerate(docs)), query)
        found = index.search(query, [], 1_000)
        assert {doc for _, doc in found} == set(expected)
        for score, doc in found:
            assert score == pytest.approx(expected[doc], rel=0.02)
        scores = [score for score, _ in found]
        assert scores == sorted(scores, reverse=True)
        assert [doc for _, doc in index.search(query, [], 7)] == [doc for _, doc in found[:7]]


@both
def test_a_mark_narrows_and_adds_nothing_to_the_score(make: Make) -> None:
    index = filled(make, documents(200), lambda number: [f"s:{number % 5}", f"t:{number % 2}"])
    every = {doc: score for score, doc in index.search(["w0", "w3"], [], 500)}
    some = {doc: score for score, doc in index.search(["w0", "w3"], ["s:3", "t:1"], 500)}
    assert some == pytest.approx(
        {doc: score for doc, score in every.items() if doc % 5 == 3 and doc % 2 == 1}
    )
    assert some
    assert index.search(["w0"], ["s:3", "t:nowhere"], 10) == []


@both
def test_what_comes_and_goes_after_loading_is_seen_at_once(make: Make) -> None:
    index = filled(make, documents(100), lambda _: [])
    index.add(1_000, ["brand", "new"], [])
    assert [doc for _, doc in index.search(["brand"], [], 5)] == [1_000]
    index.remove(1_000)
    index.remove(5)
    assert index.search(["brand"], [], 5) == []
    assert 5 not in {doc for _, doc in index.search(WORDS, [], 500)}
    assert len(index) == 99
    assert index.struck in {1, 2}
    assert index.search([], [], 5) == []


def test_what_moved_over_to_tantivy_is_scored_as_before() -> None:
    docs = documents(3 * MERGE_AT, seed=3)
    index = filled(TantivyIndex, docs[:500], lambda _: [])
    for number in range(500, len(docs)):
        index.add(number, docs[number], [])
        if number % 3 == 0:
            index.remove(number - 400)
    gone = {number - 400 for number in range(500, len(docs)) if number % 3 == 0}
    left = {number: words for number, words in enumerate(docs) if number not in gone}
    assert len(index) == len(left)
    expected = by_the_formula(left, WORDS[20:23])
    found = {doc: score for score, doc in index.search(WORDS[20:23], [], len(docs))}
    assert set(found) == set(expected)
    assert found == pytest.approx(expected, rel=0.05)


def test_lengths_are_kept_as_lucene_keeps_them() -> None:
    assert [measured(length) for length in (0, 24, 39, 40, 41, 42, 55, 56, 59, 60, 200)] == [
        0, 24, 39, 40, 40, 42, 54, 56, 56, 60, 200,
    ]  # fmt: skip


def test_a_word_weighs_by_all_documents_also_those_elsewhere() -> None:
    part = Postings()
    part.add(1, ["rare", "common"], [])
    alone = part.search(["rare"], [], 5)[0][0]
    rare = part.search(["rare"], [], 5, beside=(1_000, 2.0, lambda _: 0))[0][0]
    common = part.search(["common"], [], 5, beside=(1_000, 2.0, lambda _: 900))[0][0]
    assert rare > alone > common
    assert 1 in part
    assert 2 not in part
    assert part.words_in_all == 2


def test_a_small_market_needs_no_engine_and_a_large_one_takes_it_if_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(make_text(PLAIN_UP_TO), PlainIndex)
    assert isinstance(make_text(PLAIN_UP_TO + 1), TantivyIndex)

    def missing(_: str) -> object:
        raise ImportError

    monkeypatch.setattr(tantivy.importlib, "import_module", missing)
    assert isinstance(make_text(PLAIN_UP_TO + 1), PlainIndex)
