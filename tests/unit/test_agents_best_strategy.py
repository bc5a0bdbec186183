"""The best strategy: what it learns from bids, how it plans the end, and what it gains."""

from __future__ import annotations

import time
from itertools import product
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.strategies import (
    STRATEGIES,
    Bid,
    Preferences,
    Take,
    View,
    make_strategy,
    price_ladder,
)
from agents.strategies.endgame import LOSS, MARGINS, chance, line, plan
from agents.strategies.liking import Liking
from agents.strategies.outcomes import Outcome, weighted
from agents.strategies.play import Player, play
from agents.strategies.reactive import Micro
from agents.strategies.steadfast import HORIZON, Steadfast
from agents.strategies.timed import Timed
from agents.strategies.view import Decision
from benchmarks.bargaining_domains import generate
from benchmarks.market_strategies import tournament

SELLING = price_ladder(best_fals=2_000_000, reserve_fals=1_200_000)
WISHES = weighted(
    [{"slow": 1.0, "quick": 0.4, "now": 0.0}, {"red": 0.0, "blue": 0.5, "green": 1.0}],
    [0.7, 0.3],
    reserve=0.1,
)


def view(preferences: Preferences = SELLING, **changes: object) -> View:
    fields = {"mine": (), "theirs": (), "time": 0.0, "bids_left": 5}
    return View(preferences=preferences, **{**fields, **changes})


class Stubborn:
    """Bids its best outcome for ever and takes nothing worth less than ``least``."""

    def __init__(self, least: float) -> None:
        self.least = least

    def propose(self, shown: View) -> Decision:
        best, outcome = shown.preferences.ranked[0]
        if shown.theirs and shown.preferences.worth(shown.theirs[-1]) >= min(self.least, best):
            return Take()
        return Bid(outcome)


# What the other side likes.


def test_what_was_bid_early_is_liked_more_than_what_was_bid_late() -> None:
    likes = Liking.of((("now", "red"), ("quick", "red"), ("slow", "red")), WISHES)
    levels = [likes.level((speed, "red")) for speed in ("now", "quick", "slow")]
    assert levels == sorted(levels, reverse=True)
    assert len(set(levels)) == 3
    assert levels[0] == pytest.approx(1.0)


def test_what_was_never_bid_is_liked_less_and_by_its_distance_in_our_own_taste() -> None:
    likes = Liking.of((("now", "red"), ("now", "red")), WISHES)
    assert (
        likes.level(("now", "red")) > likes.level(("now", "blue")) > likes.level(("now", "green"))
    )
    shared = Liking.of((("slow", "red"),), WISHES)
    assert shared.level(("quick", "red")) > shared.level(("now", "red"))


def test_an_issue_that_changes_with_every_bid_weighs_less() -> None:
    likes = Liking.of((("now", "red"), ("now", "green"), ("now", "red")), WISHES)
    assert likes.level(("now", "green")) > likes.level(("quick", "red"))


def test_values_that_nobody_knows_add_nothing_and_break_nothing() -> None:
    likes = Liking.of((("never", "heard"), ("of", "these")), WISHES)
    assert likes.level(("no", "idea")) == 0.0
    assert likes.level(("never", "heard")) > likes.level(("of", "these")) > 0.0
    assert likes.levels([("now", "red")]) == [likes.level(("now", "red"))]


def test_a_price_beyond_the_own_reserve_still_says_which_prices_are_liked() -> None:
    likes = Liking.of(((900_000,), (950_000,)), SELLING)
    prices = [outcome for _, outcome in SELLING.ranked]
    assert likes.levels(prices) == sorted(likes.levels(prices))
    assert likes.level((1_200_000,)) > likes.level((2_000_000,))


# The end game.


def test_a_bid_is_taken_more_surely_the_more_it_is_liked_and_refusals_move_the_line() -> None:
    chances = [chance(margin) for margin in MARGINS]
    assert chances == sorted(chances)
    assert line([]) == pytest.approx(line([-1.0, -0.5])), "hopeless bids teach nothing"
    assert line([0.0]) > line([])
    assert line([0.1, 0.1]) > line([0.1]) > line([-0.1])


def test_a_plan_asks_for_more_while_there_is_time() -> None:
    def most(level: float) -> float | None:
        return 1.0 - level if level <= 1.0 else None

    margins = [
        plan(most, level=0.8, drop=0.0, turns=turns, otherwise=-LOSS).margin for turns in (1, 2, 6)
    ]
    assert all(margin is not None for margin in margins)
    assert margins == sorted(margins, key=lambda margin: -(margin or 0.0))
    assert margins[0] != margins[-1]


def test_a_plan_waits_if_the_other_sides_line_sinks_and_if_waiting_pays() -> None:
    def most(level: float) -> float | None:
        return max(1.0 - level, 0.0)

    still = plan(most, level=0.9, drop=0.0, turns=3, otherwise=-LOSS)
    sinks = plan(most, level=0.9, drop=0.2, turns=3, otherwise=-LOSS)
    assert sinks.value > still.value
    assert plan(most, level=0.9, drop=0.0, turns=3, otherwise=1.0).margin is None
    assert plan(lambda _: None, level=0.9, drop=0.0, turns=3, otherwise=0.2).value == 0.2


# The whole.


def test_it_opens_with_its_best_outcome_and_bids_nothing_twice() -> None:
    assert Steadfast().propose(view(bids_left=20)) == Bid((2_000_000,))
    domain = next(generate(1, part="train"))
    first = Player(Steadfast(), domain.sides[0].preferences())
    second = Player(Stubborn(1.0), domain.sides[1].preferences())
    bids = play(first, second, rounds=20).bids[::2]
    assert len(set(bids)) == len(bids)


def test_before_the_very_last_bid_what_is_no_worse_than_a_gamble_is_taken() -> None:
    last = {"time": 1.0, "bids_left": 1, "closing": True}
    assert Steadfast().propose(view(theirs=((1_900_000,),), **last)) == Take()
    refused = Steadfast().propose(view(theirs=((1_199_999,),), **last))
    assert isinstance(refused, Bid)
    assert 1_200_000 <= refused.outcome[0] <= 2_000_000
    assert Steadfast().propose(view(**last)) == Bid((1_400_000,)), "it keeps a quarter of its range"


def test_a_holdout_gets_a_deal_whenever_what_it_insists_on_is_worth_it() -> None:
    """The other side shows one bid only and takes nothing worth less than 90 % to it."""
    games = []
    for domain in generate(20, part="train"):
        for turn in (0, 1):
            us, it = domain.sides[turn], domain.sides[1 - turn]
            possible = any(
                us.worth(outcome) > us.reserve and it.worth(outcome) >= 0.9
                for outcome in domain.outcomes
            )
            pair = [Player(Steadfast(), us.preferences()), Player(Stubborn(0.9), it.preferences())]
            played = play(pair[turn], pair[1 - turn], rounds=20)
            if possible:
                games.append(played.outcome is not None)
    assert len(games) >= 25
    assert fmean(games) >= 0.85


@pytest.mark.parametrize("rounds", [2, 5, 20])
@pytest.mark.parametrize("overlap", [0, 1, 10, 300])
def test_two_of_them_find_any_overlap_of_two_price_ranges(rounds: int, overlap: int) -> None:
    seller = price_ladder(best_fals=1_900, reserve_fals=1_000)
    buyer = price_ladder(best_fals=500, reserve_fals=1_000 + overlap)
    pair = (Player(Steadfast(), seller), Player(Steadfast(), buyer))
    outcome = play(*pair, rounds=rounds).outcome
    assert outcome is not None
    assert 1_000 <= outcome[0] <= 1_000 + overlap


def test_it_asks_for_more_of_those_who_concede_than_of_those_who_do_not() -> None:
    domain = next(generate(2, part="train"))
    side, other = domain.sides
    gains = []
    for opponent in (Timed(3.0), Timed(0.25), Stubborn(0.9)):
        outcome = play(
            Player(Steadfast(), side.preferences()),
            Player(opponent, other.preferences()),
            rounds=20,
        ).outcome
        assert outcome is not None
        gains.append(side.advantage(outcome))
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > gains[-1] + 0.2


def test_what_it_bids_does_not_depend_on_its_reserve_as_long_as_it_holds_out() -> None:
    """Nobody can read a reserve from the bids of the opening game of an issue without a price."""
    issues = [{f"v{i}": i / 9 for i in range(10)} for _ in range(3)]
    low, high = (weighted(issues, [3, 2, 1], reserve=reserve) for reserve in (0.0, 0.4))
    theirs = (("v0", "v0", "v0"), ("v0", "v0", "v1"))
    for shown in (0.0, 0.2, 0.4):
        bids = {
            Steadfast().propose(view(mine, theirs=theirs, time=shown, bids_left=15))
            for mine in (low, high)
        }
        assert len(bids) == 1


OUTCOMES = list(product(("slow", "quick", "now", "never"), ("red", "blue", "green", "black")))


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(STRATEGIES)),
    mine=st.lists(st.sampled_from(OUTCOMES), max_size=12),
    theirs=st.lists(st.sampled_from(OUTCOMES), max_size=12),
    moment=st.floats(0, 1),
    bids_left=st.integers(0, 12),
    closing=st.booleans(),
    reserve=st.floats(0.0, 1.0),
)
def test_no_strategy_bids_or_takes_below_the_reserve_whatever_is_said_over_several_issues(
    *,
    name: str,
    mine: list[Outcome],
    theirs: list[Outcome],
    moment: float,
    bids_left: int,
    reserve: float,
    closing: bool,
) -> None:
    wishes = weighted(
        [{"slow": 1.0, "quick": 0.4, "now": 0.0}, {"red": 0.0, "blue": 0.5, "green": 1.0}],
        [0.7, 0.3],
        reserve=reserve,
    )
    shown = View(wishes, tuple(mine), tuple(theirs), moment, bids_left, closing)
    decision = make_strategy(name, seed=5).propose(shown)
    assert decision == make_strategy(name, seed=5).propose(shown)
    match decision:
        case Bid(outcome):
            assert wishes.acceptable(outcome)
        case Take():
            assert wishes.acceptable(theirs[-1])


@pytest.mark.parametrize("rounds", [20, 100])
def test_the_best_strategy_agrees_with_itself_near_the_pareto_frontier(rounds: int) -> None:
    record = tournament(["best"], rounds=rounds, count=30, seed=7)["best"]
    assert fmean(record.deals) >= 0.97
    assert fmean(record.distance) <= 0.02


def test_the_best_strategy_gains_most_of_the_catalogue() -> None:
    records = tournament(sorted(STRATEGIES), rounds=20, count=20, seed=11)
    gains = {name: fmean(record.advantage) for name, record in records.items()}
    assert max(gains, key=lambda name: gains[name]) == "best"
    assert fmean(records["best"].deals) >= 0.95  # two of them give nothing to who gives nothing


def test_a_strategy_that_concedes_only_for_news_is_given_news() -> None:
    domain = next(generate(1, part="train"))
    pair = [Player(Steadfast(), domain.sides[0].preferences())]
    pair.append(Player(Micro(3), domain.sides[1].preferences()))
    played = play(pair[0], pair[1], rounds=100)
    assert played.outcome is not None
    assert len(set(played.bids[1::2])) > HORIZON


def test_a_decision_over_prices_takes_well_below_a_millisecond() -> None:
    heard = tuple((900_000 + 10_000 * turn,) for turn in range(19))
    said = tuple(outcome for _, outcome in SELLING.ranked[:19])
    shown = view(mine=said, theirs=heard, time=0.95, bids_left=2)
    took = []
    for _ in range(200):
        started = time.perf_counter()
        Steadfast().propose(shown)
        took.append(time.perf_counter() - started)
    assert min(took) < 0.001
