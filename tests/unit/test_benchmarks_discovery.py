"""The benchmarks of discovery: the labelled set is sound, and what is measured is real."""

from __future__ import annotations

import pytest

from api.embedded_redis import EmbeddedRedis
from benchmarks import market_discovery, market_retrieval
from benchmarks.market_retrieval import labelled_cards, labelled_queries, ndcg, recall
from broker.words import text_of, wanted_words, words_of
from rahba.ids import check_skill
from rahba.messages import open_card


def test_the_labelled_set_is_large_and_its_labels_name_its_cards() -> None:
    skills = [check_skill(card.skill) for card in labelled_cards()]
    assert len(set(skills)) == len(skills) >= 300
    assert len(labelled_queries()) >= 100
    texts = [query.text for query in labelled_queries()]
    assert len(set(texts)) == len(texts)
    for query in labelled_queries():
        assert query.kind in market_retrieval.KINDS
        assert set(query.relevant) <= set(skills), query
        assert set(query.relevant.values()) <= {1, 2}
        assert 2 in query.relevant.values(), query


def test_one_kind_of_query_shares_words_with_what_it_wants_and_the_other_hardly() -> None:
    cards = {card.skill: card for card in labelled_cards()}
    shares: dict[str, list[float]] = {"words": [], "meaning": []}
    for query in labelled_queries():
        wanted = set(wanted_words(query.text))
        best = max(query.relevant, key=query.relevant.__getitem__)
        card = cards[best]
        said = set(words_of(f"{card.skill} {card.name} {card.description} {' '.join(card.tags)}"))
        shares[query.kind].append(len(wanted & said) / max(len(wanted), 1))
    assert sum(shares["words"]) / len(shares["words"]) > 0.7
    assert sum(shares["meaning"]) / len(shares["meaning"]) < 0.15


def test_gains_are_discounted_by_place_and_compared_with_the_best() -> None:
    relevant = {"a": 2, "b": 1}
    assert ndcg(["a", "b"], relevant) == 1.0
    assert ndcg(["x", "y"], relevant) == 0.0
    assert ndcg(["b", "a"], relevant) == pytest.approx((1 + 2 / 1.585) / (2 + 1 / 1.585), abs=1e-3)
    assert ndcg(["x"] * 10 + ["a"], relevant) == 0.0
    assert recall(["b", "x"], relevant) == 0.5
    assert recall(["x"] * 10 + ["a", "b"], relevant) == 0.0


def test_words_find_words_and_meaning_finds_what_words_do_not() -> None:
    rows = {row.name: row.value for row in market_retrieval.run()}

    def value(way: str, said: str) -> float:
        return rows[f"market: search by {way}, {said}: nDCG@10"]

    words, meaning = market_retrieval.KINDS.values()
    assert value("text", words) > 0.93
    assert value("text and meaning", words) > 0.93
    assert value("text and meaning", meaning) > 2 * value("text", meaning)
    assert len(rows) == 12


def test_the_cards_of_the_benchmark_are_signed_and_differ() -> None:
    cards = [open_card(raw, now_ms=None) for _, raw in market_discovery._cards(0, 50)]
    assert len({card.agent for card in cards}) == 50
    assert len({text_of(card) for card in cards}) == 50
    assert all(card.skills[0].posted for card in cards)


@pytest.mark.long
async def test_discovery_is_measured_on_a_real_server(embedded_redis: EmbeddedRedis) -> None:
    rows = {row.name: row for row in await market_discovery._measure(embedded_redis.url, 700)}
    label = "market: discovery among 700 agents"
    for name in ("by skill, p50", "by text, p50", "by tag, p50", "Redis memory an agent"):
        assert rows[f"{label}: {name}"].value > 0
    ratio = rows[f"{label}: by skill, p50"]
    assert ratio.ratio == ratio.value, "beside its limit of one millisecond"
    assert rows["market: cards listed in bulk"].value > 0
