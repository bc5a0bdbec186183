"""The catalogue and the tiers of a search over it."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import finding
from broker.catalogue import Catalogue
from broker.cursors import cursor_of, fingerprint, read_cursor
from broker.errors import BadCursorError, BadQueryError
from broker.finding import GATE, Finder, Start
from broker.ports import Query, Weights
from broker.queries import check_query
from broker.textindex import PlainIndex
from rahba.encoding import sha256_hex
from rahba.messages import Card
from tests.fixtures.listings import SELLERS, catalogue, names, skill_offer, text, unsigned
from tests.fixtures.market_messages import SKILL

ANY = frozenset[str]()


def walked(made: Catalogue, dimension: str = "price", **narrowed: object) -> list[int]:
    fields = {"skill": None, "tags": ANY} | narrowed
    return names([agent for _, _, agent in made.walk(dimension, **fields)])  # type: ignore[arg-type]


def everything(finder: Finder) -> list[str]:
    """Return the agents of all tiers in order."""
    found: list[str] = []
    start: Start | None = Start()
    measures = None
    while start is not None:
        tier = finder.tier(start, measures)
        measures, start = tier.measures, tier.next_start
        found += [place.candidate.agent for place in tier.places]
    return found


def test_lists_are_in_order_of_each_dimension_whoever_came_first() -> None:
    cards = [
        unsigned(0, skill_offer(30, latency_ms=5, quality=900)),
        unsigned(1, skill_offer(None)),
        unsigned(2, skill_offer(10, latency_ms=9, quality=100)),
        unsigned(3, skill_offer(10, latency_ms=7, quality=500)),
    ]
    ties = sorted((2, 3), key=lambda number: SELLERS[number].did)
    for shuffled in itertools.permutations(cards):
        made = catalogue(*shuffled)
        assert walked(made) == [*ties, 0, 1]
        assert walked(made, "latency") == [0, 3, 2, 1]
        assert walked(made, "quality") == [0, 3, 2, 1]


def test_a_list_is_narrowed_by_skill_and_tags() -> None:
    made = catalogue(
        unsigned(0, skill_offer(1, skill="a.b", tags=("x", "y"))),
        unsigned(1, skill_offer(2, skill="a.b", tags=("x",)), skill_offer(1, skill="a.c")),
        unsigned(2, skill_offer(3, skill="a.c", tags=("Y",))),
    )
    assert walked(made, skill="a.b") == [0, 1]
    assert walked(made, skill="a.c") == [1, 2]
    assert walked(made, tags=frozenset({"y"})) == [0, 2]
    assert walked(made, skill="a.b", tags=frozenset({"y"})) == [0]
    assert walked(made, tags=frozenset({"x", "y"})) == [0]
    assert walked(made, skill="a.d") == []
    assert walked(made, tags=frozenset({"z"})) == []


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_the_catalogue_is_what_it_would_be_if_made_anew(rng: random.Random, steps: int) -> None:
    made, kept = Catalogue(PlainIndex()), dict[str, Card]()
    for step in range(steps):
        seller = rng.randrange(len(SELLERS) // 4)
        agent = SELLERS[seller].did
        if rng.random() < 0.3:
            made.remove(agent)
            kept.pop(agent, None)
        else:
            word = rng.choice(["map", "tax", "song"])
            card = unsigned(seller, skill_offer(rng.randint(1, 5), about=f"{word} {step}"))
            made.put(agent, sha256_hex(repr(card).encode()), card)
            kept[agent] = card
        if rng.random() < 0.3:
            walked(made)
    anew = catalogue(*kept.values())
    assert len(made) == len(anew) == len(kept)
    assert walked(made) == walked(anew)
    assert walked(made, skill=SKILL) == walked(anew, skill=SKILL)
    for word in ("map", "tax", "song"):
        found = [
            made.agent_at(place) for _, place in made.search([word], skill=None, tags=ANY, limit=99)
        ]
        again = [
            anew.agent_at(place) for _, place in anew.search([word], skill=None, tags=ANY, limit=99)
        ]
        assert sorted(map(str, found)) == sorted(map(str, again))


def test_the_same_card_again_changes_nothing_and_another_takes_its_place() -> None:
    made, card = Catalogue(PlainIndex()), unsigned(0, skill_offer(1))
    digest, other = sha256_hex(b"1"), sha256_hex(b"2")
    assert made.put(card.agent, digest, card) == 0
    assert made.put(card.agent, digest, card) is None
    assert made.is_same(card.agent, digest)
    assert made.put(card.agent, other, card) == 1
    assert not made.is_same(card.agent, digest)
    assert (len(made), made.struck, made.place_of(card.agent)) == (1, 1, 1)
    assert made.agent_at(0) is None


def test_every_agent_is_in_the_tiers_once_and_in_order() -> None:
    rng = random.Random(5)
    cards = [
        unsigned(
            number,
            skill_offer(rng.randint(1, 9), skill="a.b", about="maps of towns"),
            skill_offer(rng.randint(1, 9), skill="a.c", about="songs"),
        )
        for number in range(len(SELLERS))
    ]
    made = catalogue(*cards)
    for query in (Query(), Query(skill="a.b"), text("maps"), text("songs", skill="a.c")):
        found = everything(Finder(made, query))
        assert sorted(names(found)) == list(range(len(SELLERS))), query
        shuffled = catalogue(*rng.sample(cards, len(cards)))
        assert everything(Finder(shuffled, query)) == found, query


def test_tiers_hold_no_more_than_they_must() -> None:
    made = Catalogue(PlainIndex())
    for number in range(3 * GATE):
        card = unsigned(0, skill_offer(number, about="map " * (1 + number % 7)))
        agent = f"agent-{number:04}"
        made.put(agent, sha256_hex(agent.encode()), card)
    made.settle()
    finder = Finder(made, Query())
    first = finder.tier(Start())
    assert len(first.places) == GATE
    assert everything(finder) == [f"agent-{number:04}" for number in range(3 * GATE)]
    worded = Finder(made, text("map"))
    assert finding.WORDED_GATE <= len(worded.tier(Start()).places) < GATE
    assert len(set(everything(worded))) == 3 * GATE


def test_too_many_alike_are_not_all_let_in_at_once() -> None:
    assert 10 * GATE > finding.MAX_TIES
    made = Catalogue(PlainIndex())
    for number in range(10 * GATE):
        digest = sha256_hex(str(number).encode())
        made.put(f"agent-{number:04}", digest, unsigned(0, skill_offer(5, about="map")))
    finder = Finder(made, text("map"))
    assert len(finder.tier(Start()).places) <= finding.MAX_TIES
    seen: set[str] = set()
    start: Start | None = Start()
    while start is not None:
        tier = finder.tier(start, seen=seen)
        agents = {place.candidate.agent for place in tier.places}
        assert not agents & seen
        seen |= agents
        start = tier.next_start
    assert len(seen) == 10 * GATE


def test_a_limit_that_leaves_one_in_a_thousand_still_finds_it() -> None:
    made = Catalogue(PlainIndex())
    for number in range(1_000):
        price = 5 if number == 777 else 500
        entry = skill_offer(price, about="map map", latency_ms=price)
        made.put(f"agent-{number}", sha256_hex(str(number).encode()), unsigned(0, entry))
    for query in (text("map", max_latency_ms=10), Query(max_latency_ms=10)):
        assert everything(Finder(made, query)) == ["agent-777"]


def test_an_order_by_price_does_not_show_what_is_hardly_relevant() -> None:
    made = catalogue(
        unsigned(0, skill_offer(900, about="legal contracts reviewed, legal contracts")),
        unsigned(1, skill_offer(800, about="legal contracts drafted, legal contracts")),
        unsigned(2, skill_offer(1, about="maps and songs and legal " + "words " * 60)),
    )
    query = text("legal contracts reviewed or drafted", sort="price")
    assert names(everything(Finder(made, query))) == [1, 0]


def test_what_is_near_in_meaning_is_found_without_a_word_in_common() -> None:
    made = catalogue(
        unsigned(0, skill_offer(1, about="weather forecasts")),
        unsigned(1, skill_offer(1, about="umbrellas")),
        unsigned(2, skill_offer(1, about="songs")),
    )
    near = [(0.9, SELLERS[0].did), (0.2, SELLERS[1].did), (0.9, "did:key:gone")]
    finder = Finder(made, text("umbrella tomorrow"), near=near)
    assert names(everything(finder)) == [1, 0], "by words and by meaning comes before either"
    tier = finder.tier(Start())
    assert tier.places[1].candidate.ranks == (None, 1)


def test_a_cursor_comes_back_as_it_was_and_belongs_to_its_query() -> None:
    made = catalogue(*(unsigned(number, skill_offer(number)) for number in range(5)))
    query = Query(skill=SKILL)
    tier = Finder(made, query).tier(Start())
    written = cursor_of(
        fingerprint(query),
        "7",
        "s",
        start=Start((2**61, "b"), 9),
        place=tier.places[2].key,
        measures=tier.measures,
    )
    cursor = read_cursor(written, Query(skill=SKILL, limit=3))
    assert cursor.start == Start((2**61, "b"), 9)
    assert (cursor.place, cursor.measures, cursor.seed) == (
        tier.places[2].key,
        tier.measures,
        "7",
    )
    with pytest.raises(BadCursorError):
        read_cursor(written, Query(skill=SKILL, max_price=4))
    head = cursor_of(fingerprint(query), "", "", start=Start(), place=None, measures=tier.measures)
    assert read_cursor(head, query).place is None


@pytest.mark.parametrize(
    "query",
    [
        Query(limit=0),
        Query(limit=101),
        Query(text="x" * 1_000_000),
        Query(max_price=-1),
        Query(max_latency_ms=-1),
        Query(min_quality=-1),
        Query(max_energy=-1),
        Query(tags=("x",) * 9),
        Query(tags=("",)),
        Query(tags=("x" * 65,)),
        Query(weights=Weights(0, 0, 0, 0)),
        Query(weights=Weights(price=-1)),
        Query(weights=Weights(price=2**70)),
    ],
    ids=lambda query: repr(query)[:60],
)
def test_a_query_out_of_its_limits_is_refused(query: Query) -> None:
    with pytest.raises(BadQueryError):
        check_query(query)


@given(st.text(max_size=80), st.lists(st.text(max_size=60), max_size=5))
def test_any_text_finds_without_error(words: str, about: list[str]) -> None:
    cards = [unsigned(number, skill_offer(about=said)) for number, said in enumerate(about)]
    found = everything(Finder(catalogue(*cards), text(words)))
    assert len(found) == len(set(found)) <= len(cards)
