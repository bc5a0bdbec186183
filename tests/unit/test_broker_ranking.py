"""Which listing comes first, and why."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.catalogue import Terms, terms_of
from broker.ports import Query, Weights
from broker.ranking import (
    EXPLORED_SHARE,
    NEW_DEALS,
    STAKE_FALS,
    Candidate,
    Place,
    best_of,
    meets,
    offered,
    rank,
    reasons,
)
from rahba.messages import Energy, Issues, Offer, SkillOffer
from tests.fixtures.market_messages import SKILL, card, signer

NOW = 1_700_000_000_000
SELLER = signer(1)
PRIVACY = {"sealed": 0, "logged": 1, "public": 2}


def terms(
    price: int | None = 100,
    *,
    latency_ms: int = 1_000,
    quality: int = 500,
    energy: int | None = None,
    privacy: int = 0,
    negotiable: bool = True,
) -> Terms:
    if price is None:
        return Terms(SKILL, frozenset(), None, None, None, None, privacy, negotiable)
    return Terms(SKILL, frozenset(), price, latency_ms, quality, energy, privacy, negotiable)


def order(rows: dict[str, Terms], query: Query | None = None) -> list[str]:
    candidates = [Candidate(agent, row) for agent, row in rows.items()]
    return agents(rank(candidates, query or Query(), best_of(candidates)))


def agents(places: list[Place]) -> list[str]:
    return [place.candidate.agent for place in places]


class Deals:
    """Counts of deals; the bound is a plain share."""

    def __init__(self, counts: dict[str, tuple[int, int]]) -> None:
        self.counts = counts

    def outcomes(self, agent: str) -> tuple[int, int]:
        return self.counts.get(agent, (0, 0))

    def lower_bound(self, agent: str) -> int | None:
        good, bad = self.outcomes(agent)
        return 1_000 * good // (good + bad + 2) if good + bad else None


def test_without_a_text_the_cheapest_comes_first_and_the_unpriced_last() -> None:
    rows = {"a": terms(300), "b": terms(None), "c": terms(100), "d": terms(200)}
    assert order(rows) == ["c", "d", "a", "b"]


def test_the_order_does_not_depend_on_who_came_first() -> None:
    rows = [(agent, terms(price)) for agent, price in zip("abcd", (5, 5, 9, 5), strict=True)]
    orders = {tuple(order(dict(shuffled))) for shuffled in itertools.permutations(rows)}
    assert orders == {("a", "b", "d", "c")}


def test_weights_say_what_counts() -> None:
    rows = {
        "cheap": terms(10, latency_ms=9_000, quality=100, energy=900),
        "fast": terms(90, latency_ms=10, quality=100, energy=900),
        "good": terms(90, latency_ms=9_000, quality=990, energy=900),
        "green": terms(90, latency_ms=9_000, quality=100, energy=9),
    }
    for first, weights in {
        "cheap": Weights(1, 0, 0, 0),
        "fast": Weights(0, 1, 0, 0),
        "good": Weights(0, 0, 1, 0),
        "green": Weights(0, 0, 0, 1),
    }.items():
        assert order(rows, Query(weights=weights))[0] == first


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("price", "abc"), ("latency", "cab"), ("quality", "bca"), ("energy", "cba")],
)
def test_a_search_may_sort_by_one_of_the_terms(sort: str, expected: str) -> None:
    rows = {
        "a": terms(1, latency_ms=5, quality=1, energy=None),
        "b": terms(2, latency_ms=9, quality=9, energy=7),
        "c": terms(3, latency_ms=1, quality=5, energy=6),
    }
    assert "".join(order(rows, Query(sort=sort))) == expected  # type: ignore[arg-type]


def test_relevance_beats_price_and_price_decides_between_equals() -> None:
    candidates = [
        Candidate("telling", terms(900), 1.0, 4.0),
        Candidate("cheap", terms(100), 0.5, 2.0),
        Candidate("twin", terms(500), 1.0, 4.0),
    ]
    places = rank(candidates, Query(text="x"), best_of(candidates))
    assert agents(places) == ["twin", "telling", "cheap"]


def test_a_better_lower_bound_of_success_comes_first_and_is_told() -> None:
    rows = {"new": terms(), "proven": terms(), "failing": terms()}
    candidates = [Candidate(agent, row) for agent, row in rows.items()]
    standing = Deals({"proven": (90, 2), "failing": (20, 80)})
    best = best_of(candidates)
    places = rank(candidates, Query(), best, standing=standing, seed="1")
    assert agents(places) == ["proven", "new", "failing"]
    assert "succeeds at least 957 times in 1000" in reasons(places[0], best)


def explored(
    seed: int, standing: Deals, price: int = 100, count: int = 400, *, proven: bool = True
) -> list[Place]:
    candidates = [Candidate(f"agent-{number}", terms(price)) for number in range(count)]
    if proven:
        standing.counts["proven"] = (NEW_DEALS, 1)
        candidates.append(Candidate("proven", terms(price)))
    places = rank(candidates, Query(), best_of(candidates), standing=standing, seed=str(seed))
    return [place for place in places if place.explored is not None]


def test_one_in_twenty_newcomers_is_explored_and_only_they() -> None:
    share = fmean(len(explored(seed, Deals({}))) / 400 for seed in range(20))
    assert share == pytest.approx(EXPLORED_SHARE, rel=0.2)
    known = Deals({f"agent-{number}": (NEW_DEALS, 1) for number in range(400)})
    assert all(explored(seed, known) == [] for seed in range(20))


def test_what_was_drawn_is_told() -> None:
    (first, *_) = explored(3, Deals({}))
    said = reasons(first, best_of([first.candidate]))
    assert said[-1] == f"exploration: a newcomer, drawn at {first.explored} of 1000"


def test_where_others_ask_nothing_no_ratio_is_told() -> None:
    free, priced = Candidate("a", terms(0)), Candidate("b", terms(10**9))
    best = best_of([free, priced])
    places = rank([free, priced], Query(), best)
    assert reasons(places[1], best)[0] == "posted price: 1 RHB, others ask nothing"


def test_nobody_is_explored_where_all_are_new() -> None:
    assert all(explored(seed, Deals({}), proven=False) == [] for seed in range(20))


def test_no_newcomer_is_explored_above_the_stake() -> None:
    assert all(explored(seed, Deals({}), STAKE_FALS + 1) == [] for seed in range(20))
    assert any(explored(seed, Deals({}), STAKE_FALS) for seed in range(20))


def test_what_is_drawn_for_newcomers_is_their_beta_distribution() -> None:
    mostly_good = Deals({f"agent-{number}": (4, 1) for number in range(400)})
    drawn = [place.explored or 0 for seed in range(40) for place in explored(seed, mostly_good)]
    assert len(drawn) > 500
    assert fmean(drawn) / 1_000 == pytest.approx(5 / 7, abs=0.03)  # the mean of Beta(5, 2)
    spread = fmean((one / 1_000 - 5 / 7) ** 2 for one in drawn)
    assert spread == pytest.approx(5 * 2 / (7**2 * 8), rel=0.3)  # and its variance


def test_exploration_depends_on_seed_and_agent_alone() -> None:
    once, again = explored(3, Deals({})), explored(3, Deals({}))
    assert once == again
    assert agents(once) != agents(explored(4, Deals({})))


def test_every_place_has_its_reasons() -> None:
    rows = [terms(2_000_000), terms(None), terms(10**9, energy=7)]
    candidates = [Candidate(str(number), row) for number, row in enumerate(rows)]
    best = best_of(candidates)
    said = {
        place.candidate.agent: reasons(place, best) for place in rank(candidates, Query(), best)
    }
    assert said["0"][0] == "lowest posted price: 0.002 RHB"
    assert said["2"] == (
        "posted price: 1 RHB, 500.0 times the lowest",
        "latency 1000 ms",
        "quality 500 of 1000 posted",
        "energy 7 uWh",
    )
    assert said["1"] == ("open to bargaining",)
    worded = rank([Candidate("a", terms(), 1.0, 7.314)], Query(text="x"), best)
    assert reasons(worded[0], best)[0] == "relevance 7.31"
    both = rank([Candidate("a", terms(), 1.0, None, (None, 2))], Query(text="x"), best)
    assert reasons(both[0], best)[0] == "relevance: no word shared, place 2 by meaning"


@pytest.mark.parametrize(
    ("query", "fits", "breaks"),
    [
        (Query(max_price=100), terms(100, negotiable=False), terms(101, negotiable=False)),
        (Query(max_price=100), terms(101), terms(None, negotiable=False)),
        (Query(max_latency_ms=10), terms(latency_ms=10), terms(latency_ms=11)),
        (Query(min_quality=700), terms(quality=700), terms(quality=699)),
        (Query(max_energy=5), terms(energy=5), terms(energy=6)),
        (Query(max_energy=5), terms(None), terms(energy=None)),
        (Query(data_policy="logged"), terms(privacy=1), terms(privacy=2)),
    ],
)
def test_a_limit_lets_in_what_keeps_it_and_nothing_else(
    query: Query, fits: Terms, breaks: Terms
) -> None:
    assert meets(fits, query)
    assert not meets(breaks, query)


def made(*entries: SkillOffer, policy: str = "sealed") -> list[Terms]:
    return terms_of(card(SELLER, NOW, skills=list(entries), data_policy=policy))


def entry(skill: str, tags: list[str], issues: Issues | None) -> SkillOffer:
    posted = None if issues is None else Offer(skill, issues, NOW, "00")
    return SkillOffer(skill, "x", tags, posted, False, "{}", "{}")


def test_the_terms_of_a_card_are_those_it_posts() -> None:
    issues = Issues("7", "call", 80, 900, "logged", Energy(5, 4, 6, "measured"))
    priced, open_ = made(entry("a.b", [" Big  Data"], issues), entry("c.d", [], None))
    assert priced == Terms("a.b", frozenset({"big data"}), 7, 80, 900, 6, 1, negotiable=False)
    assert open_ == Terms("c.d", frozenset(), None, None, None, None, 0, negotiable=False)
    assert made(policy="public")[0].privacy == PRIVACY["public"]
    assert made(entry("a.b", [], Issues("7")))[0].energy_uwh is None, "unknown is not nothing"


def test_a_card_is_about_a_query_by_skill_tags_agent_and_limits() -> None:
    one = card(SELLER, NOW, skills=[entry("a.b", ["x", "y"], Issues("7"))])
    for query in (Query(skill="a.b"), Query(tags=("X", "y")), Query(agent=SELLER.did)):
        assert offered(one, query)
    for query in (
        Query(skill="a.c"),
        Query(tags=("x", "z")),
        Query(agent=signer(2).did),
        Query(max_price=6),
    ):
        assert not offered(one, query)


@given(
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 10**6)), min_size=1, max_size=8),
    st.integers(0, 9),
)
def test_better_terms_never_rank_lower(rows: list[tuple[int, int]], place: int) -> None:
    place %= len(rows)
    known = {str(at): terms(price, latency_ms=ms) for at, (price, ms) in enumerate(rows)}
    before = order(known).index(str(place))
    price, ms = rows[place]
    better = known | {str(place): terms(price // 2, latency_ms=ms // 2)}
    assert order(better).index(str(place)) <= before
