"""Which listing comes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.ports import Listing, Query
from broker.ranking import matches, price_of, rank, words_of
from rahba.messages import SkillOffer
from tests.fixtures.market_messages import SKILL, card, offer, signer

NOW = 1_700_000_000_000
SELLERS = [signer(number + 1) for number in range(6)]


def listing(seller: int, price: int | None = 100, *, about: str = "", name: str = "x") -> Listing:
    posted = offer(price, valid_until=NOW) if price is not None else None
    entry = SkillOffer(SKILL, about, [], posted, True, "{}", "{}")
    made = card(SELLERS[seller], NOW, skills=[entry], name=name, description="")
    return Listing(made, b"", str(seller), NOW)


def order(listings: list[Listing], query: Query) -> list[str]:
    return [one.listing.digest for one in rank(listings, query)]


def test_without_a_text_the_cheapest_comes_first_and_the_unpriced_last() -> None:
    listings = [listing(0, 300), listing(1, None), listing(2, 100), listing(3, 200)]
    assert order(listings, Query(skill=SKILL)) == ["2", "3", "0", "1"]


def test_the_order_does_not_depend_on_who_came_first() -> None:
    listings = [listing(number, 100) for number in range(6)]
    expected = order(listings, Query())
    assert order(listings[::-1], Query()) == expected


def test_a_text_keeps_only_what_shares_a_word_with_it() -> None:
    listings = [listing(0, about="weather forecasts"), listing(1, about="tax returns")]
    assert order(listings, Query(text="forecast for tomorrow")) == ["0"]


def test_relevance_beats_price_and_price_decides_between_equals() -> None:
    telling = listing(0, 900, about="legal contracts legal contracts")
    cheap = listing(1, 100, about="contracts and recipes and weather and much more besides")
    twin = listing(2, 500, about="legal contracts legal contracts")
    assert order([cheap, telling, twin], Query(text="legal contracts")) == ["2", "0", "1"]


def test_rare_words_weigh_more() -> None:
    common = [listing(number, about="summary of documents") for number in range(4)]
    rare = listing(4, about="summary of hieroglyphs")
    assert order([*common, rare], Query(text="hieroglyph documents"))[0] == "4"


def test_every_place_has_its_reasons() -> None:
    ranked = rank([listing(0, 2_000_000), listing(1, None), listing(2, 10**9)], Query(skill=SKILL))
    assert [one.reasons for one in ranked] == [
        ("lowest posted price: 0.002 RHB",),
        ("posted price: 1 RHB",),
        ("open to bargaining",),
    ]
    (found,) = rank([listing(0, about="maps")], Query(text="map"))
    assert found.reasons[0].startswith("relevance ")


def test_words_meet_across_plurals_cases_and_alphabets() -> None:
    assert words_of("Summaries summary") == words_of("SUMMARY  summaries")
    assert words_of("text.summarise") == words_of("Texts, summarised")
    assert words_of("Übersetzung 翻訳") == ["übersetzung", "翻訳"]


def test_the_gates_are_skill_agent_and_price() -> None:
    one = listing(0, 100).card
    assert matches(one, Query(skill=SKILL, agent=one.agent, max_price=100))
    assert not matches(one, Query(skill="text.other"))
    assert not matches(one, Query(agent=SELLERS[1].did))
    assert matches(one, Query(max_price=1)), "who bargains may come down"
    assert price_of(one, SKILL) == 100
    assert price_of(one, "text.other") is None


@given(st.text(max_size=80), st.lists(st.text(max_size=60), max_size=5))
def test_any_text_ranks_without_error(text: str, about: list[str]) -> None:
    listings = [listing(number, about=words) for number, words in enumerate(about)]
    ranked = rank(listings, Query(text=text))
    assert len(ranked) <= len(listings)
    assert [one.key for one in ranked] == sorted(one.key for one in ranked)
