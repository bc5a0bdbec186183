"""Strategies: what they aim for, what they never do, and that the same view gets the same move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.strategies import (
    STRATEGIES,
    Bid,
    Leave,
    Preferences,
    Take,
    View,
    make_strategy,
    price_ladder,
)
from agents.strategies.catalogue import STRATEGIES as CATALOGUE
from agents.strategies.outcomes import MAX_OUTCOMES, rank, weighted
from agents.strategies.play import Player, play
from agents.strategies.reactive import Micro, TitForTat
from agents.strategies.timed import Stochastic, Timed
from agents.strategies.view import last_word
from rahba.errors import BadInputError

SELLING = price_ladder(best_fals=2_000_000, reserve_fals=1_200_000)
BUYING = price_ladder(best_fals=800_000, reserve_fals=1_500_000)


def view(preferences: Preferences = SELLING, **changes: object) -> View:
    fields = {"mine": (), "theirs": (), "time": 0.0, "bids_left": 5}
    return View(preferences=preferences, **{**fields, **changes})


def test_a_ladder_runs_from_the_best_price_to_the_reserve_in_whole_fals() -> None:
    prices = [outcome[0] for _, outcome in SELLING.ranked]
    assert prices[0] == 2_000_000
    assert prices[-1] == 1_200_000
    assert prices == sorted(prices, reverse=True)
    assert all(type(price) is int for price in prices)
    assert [outcome[0] for _, outcome in BUYING.ranked][:1] == [800_000]


def test_a_ladder_of_one_rung_knows_that_price_only() -> None:
    fixed = price_ladder(best_fals=7, reserve_fals=7)
    assert [outcome for _, outcome in fixed.ranked] == [(7,)]
    assert fixed.acceptable((7,))
    assert not fixed.acceptable((8,))


def test_steps_and_outcomes_are_limited() -> None:
    with pytest.raises(BadInputError):
        price_ladder(best_fals=1, reserve_fals=2, steps=0)
    with pytest.raises(BadInputError):
        rank(((n,) for n in range(MAX_OUTCOMES + 1)), lambda _: 1.0)
    with pytest.raises(BadInputError):
        rank([(1,)], lambda _: -1.0)
    with pytest.raises(BadInputError):
        weighted([], [])


def test_boulware_holds_longer_than_linear_and_linear_longer_than_conceder() -> None:
    halfway = view(time=0.5, mine=((2_000_000,),))
    bids = [make_strategy(name).propose(halfway) for name in ("boulware", "linear", "conceder")]
    prices = [bid.outcome[0] for bid in bids if isinstance(bid, Bid)]
    assert len(prices) == 3
    assert prices == sorted(prices, reverse=True)
    assert len(set(prices)) == 3


def test_the_first_bid_is_the_best_price_and_the_last_timed_bid_the_reserve() -> None:
    assert Timed(0.2).propose(view()) == Bid((2_000_000,))
    assert Timed(0.2).propose(view(time=1.0)) == Bid((1_200_000,))


def test_tit_for_tat_gives_what_it_was_given_and_never_the_first_step() -> None:
    tit = make_strategy("tit_for_tat")
    assert tit.propose(view()) == Bid((2_000_000,))
    same = view(mine=((2_000_000,),), theirs=((900_000,), (900_000,)), time=0.9)
    assert tit.propose(same) == Bid((2_000_000,))
    up = view(mine=((2_000_000,),), theirs=((900_000,), (1_100_000,)), time=0.1)
    assert tit.propose(up) == Bid((1_800_000,))
    back = view(mine=((2_000_000,),), theirs=((900_000,), (1_100_000,), (900_000,)))
    assert tit.propose(back) == Bid((1_800_000,)), "what was given once is not taken back"
    met = view(mine=((2_000_000,),), theirs=((1_000_000,), (1_600_000,)))
    assert tit.propose(met) == Take()
    assert TitForTat(share=0.5).propose(up) == Bid((1_900_000,))


def test_micro_goes_down_one_rung_for_each_new_bid_and_repeats_itself_otherwise() -> None:
    micro = make_strategy("micro", seed=3)
    assert micro == Micro(3)
    rungs = [outcome for _, outcome in SELLING.ranked]
    assert micro.propose(view()) == Bid(rungs[0])
    first = view(mine=(rungs[0],), theirs=((900_000,),))
    assert micro.propose(first) == Bid(rungs[1])
    held = view(mine=(rungs[0], rungs[1]), theirs=((900_000,), (900_000,)))
    assert micro.propose(held) in {Bid(rungs[0]), Bid(rungs[1])}
    assert micro.propose(held) == micro.propose(held)
    moved = view(mine=(rungs[0], rungs[1]), theirs=((900_000,), (950_000,)))
    assert micro.propose(moved) == Bid(rungs[2])
    good = view(mine=(rungs[0], rungs[1]), theirs=((900_000,), rungs[2]))
    assert micro.propose(good) == Take()
    down = price_ladder(best_fals=10, reserve_fals=9)
    end = view(down, mine=((10,), (9,)), theirs=((1,), (2,), (3,), (4,)))
    assert micro.propose(end) in {Bid((10,)), Bid((9,))}


def test_a_last_call_takes_anything_that_is_no_worse_than_no_deal() -> None:
    assert last_word(view(bids_left=0, theirs=((1_200_000,),))) == Take()
    assert last_word(view(bids_left=0, theirs=((1_199_999,),))) == Leave()
    assert last_word(view(bids_left=0)) == Leave()


def test_a_bid_as_good_as_the_own_next_one_is_taken() -> None:
    for name in CATALOGUE:
        assert make_strategy(name).propose(view(theirs=((2_000_000,),))) == Take()


def test_an_unknown_strategy_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match="boulware"):
        make_strategy("clever")


def test_a_seed_decides_what_the_stochastic_strategy_draws() -> None:
    late = view(time=0.9)
    draws = {Stochastic(0.2, seed).propose(late) for seed in range(50)}
    assert len(draws) > 5
    assert Stochastic(0.2, 1).propose(late) == Stochastic(0.2, 1).propose(late)


prices = st.integers(min_value=0, max_value=3_000_000)


@given(
    name=st.sampled_from(sorted(STRATEGIES)),
    seed=st.integers(0, 1_000),
    mine=st.lists(prices, max_size=6),
    theirs=st.lists(prices, max_size=6),
    time=st.floats(0, 1),
    bids_left=st.integers(0, 6),
    closing=st.booleans(),
    reserve=prices,
    best=prices,
)
def test_no_strategy_bids_or_takes_below_the_reserve_and_each_is_a_function_of_its_view(
    *,
    name: str,
    seed: int,
    mine: list[int],
    theirs: list[int],
    time: float,
    bids_left: int,
    closing: bool,
    reserve: int,
    best: int,
) -> None:
    shown = View(
        preferences=price_ladder(best_fals=best, reserve_fals=reserve),
        mine=tuple((price,) for price in mine),
        theirs=tuple((price,) for price in theirs),
        time=time,
        bids_left=bids_left,
        closing=closing,
    )
    decision = make_strategy(name, seed=seed).propose(shown)
    assert decision == make_strategy(name, seed=seed).propose(shown)
    match decision:
        case Bid((price,)):
            assert type(price) is int
            assert min(best, reserve) <= price <= max(best, reserve)
        case Take():
            assert shown.preferences.acceptable(shown.theirs[-1])


def test_two_fixed_prices_that_do_not_meet_end_without_a_deal() -> None:
    seller = Player(Timed(1.0), price_ladder(best_fals=200, reserve_fals=150))
    buyer = Player(Timed(1.0), price_ladder(best_fals=50, reserve_fals=149))
    played = play(seller, buyer, rounds=5)
    assert played.outcome is None
    assert len(played.bids) == 10
