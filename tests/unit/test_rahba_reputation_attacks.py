"""Attacks on reputations, each with what it costs in fees and what it gains or harms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from rahba.dealings import HALF_LIFE_DAYS, Outcome
from tests.fixtures.deals import FEE, book_of, deal, failure, fees_for, town

NEWCOMER = 50
STRANGERS_BEST = 716  # what 8 kept deals give: strangers are worth less, all together


def ring(buyers: int, seller: str) -> list[Outcome]:
    """Return one deal of each of so many made-up buyers: the same money goes round."""
    return [deal(f"fake-{number}", seller) for number in range(buyers)]


@pytest.mark.parametrize("customers", [5, 20, 80])
def test_a_ring_of_self_deals_never_beats_a_seller_with_the_same_fees_paid(customers: int) -> None:
    honest, sybil = town(customers, "honest"), ring(customers, "sybil")
    assert fees_for(honest, "honest") == fees_for(sybil, "sybil")
    book = book_of(honest, sybil)
    assert book.lower_bound("sybil") < book.lower_bound("honest")


@pytest.mark.parametrize("spread", [1, 4, 16, 64])
def test_splitting_the_same_fees_over_more_made_up_buyers_never_beats_real_ones(
    spread: int,
) -> None:
    rounds = 64 // spread
    sybil = [deal(f"fake-{n}", "sybil") for n in range(spread) for _ in range(rounds)]
    honest = town(64, "honest")
    assert fees_for(sybil) == fees_for(honest, "honest")
    book = book_of(honest, sybil)
    assert book.lower_bound("sybil") < book.lower_bound("honest")


def test_a_ring_that_makes_up_a_whole_market_pays_for_each_of_its_sellers() -> None:
    """Buyers that are known elsewhere cost as much elsewhere: ten shops, ten times the fees."""
    shops = [f"fake-shop-{n}" for n in range(10)]
    market = [deal(f"fake-{n}", shop) for n in range(20) for shop in shops]
    book = book_of(market, town(20, "honest", elsewhere=9))
    assert book.lower_bound(shops[0]) <= book.lower_bound("honest")
    assert fees_for(market) == 10 * fees_for(market, shops[0])


def test_for_a_caller_with_deals_of_its_own_no_ring_of_any_size_passes_a_limit() -> None:
    small, large = (book_of(town(20, "honest"), ring(size, "sybil")) for size in (40, 4_000))
    for book in (small, large):
        assert book.lower_bound("sybil", "customer-1") <= STRANGERS_BEST
        assert book.lower_bound("sybil", "customer-1") < book.lower_bound("honest", "customer-1")
        trust = book.trust("customer-1")
        assert trust is not None
        assert trust.share("sybil") == 0
    assert large.lower_bound("sybil") > large.lower_bound("sybil", "customer-1") + 200


def test_the_amounts_that_go_round_gain_nothing() -> None:
    dear = [item._replace(amount_fals=10**15) for item in ring(20, "sybil")]
    assert book_of(dear).standing("sybil").rate == book_of(ring(20, "sybil")).standing("sybil").rate


def test_paying_more_fees_for_the_same_deals_gains_less_than_as_many_deals_would() -> None:
    dear = [item._replace(fee_fals=item.fee_fals * 4) for item in ring(10, "sybil")]
    many = ring(40, "sybil")
    assert fees_for(dear) == fees_for(many)
    assert book_of(dear).lower_bound("sybil") < book_of(many).lower_bound("sybil")


def test_a_seller_that_comes_back_under_a_new_key_begins_like_anybody_new() -> None:
    failed = [failure(f"customer-{n}", "old-key") for n in range(20)]
    book = book_of(town(20, "old-key"), failed)
    assert book.lower_bound("new-key") == NEWCOMER
    assert book.lower_bound("old-key") > NEWCOMER, "what was kept is lost with the key"


def test_a_key_that_only_failed_stands_no_better_than_a_new_one() -> None:
    known = town(30, "honest", elsewhere=12)
    book = book_of(known, [failure(f"customer-{n}", "scam") for n in range(30)])
    assert book.lower_bound("scam") < NEWCOMER
    assert book.standing("scam").failures == 30


def test_ten_thousand_deals_with_one_counterparty_are_worth_less_than_six_with_six() -> None:
    fat = [deal("fat", "fat-seller") for _ in range(10_000)]
    book = book_of(fat, town(6, "honest"))
    assert book.lower_bound("fat-seller") < book.lower_bound("honest")
    assert book.standing("fat-seller").effective == 1_000


def test_old_glory_fades_until_little_is_left() -> None:
    def then(half_lives: int) -> int:
        age = half_lives * HALF_LIFE_DAYS
        glory = [
            item._replace(ended_ms=deal("", "", days_ago=age).ended_ms) for item in town(40, "s")
        ]
        return book_of(glory).lower_bound("s")

    bounds = [then(half_lives) for half_lives in range(8)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > 850
    assert bounds[7] < 150


def test_one_failed_deal_after_many_good_ones_is_seen_and_ends_nothing() -> None:
    good = town(40, "seller")
    before = book_of(good).lower_bound("seller")
    after = book_of(good, [failure("customer-7", "seller")]).lower_bound("seller")
    assert before - 60 < after < before - 15
    withdrawn = book_of(good, [failure("customer-7", "seller", "given_back")])
    assert after < withdrawn.lower_bound("seller") < before


def test_a_seller_that_turns_on_new_customers_falls_once_they_are_known_elsewhere() -> None:
    newcomers = [deal(f"new-{n}", f"shop-{shop}") for n in range(20) for shop in range(12)]
    failed = [failure(f"new-{n}", "seller") for n in range(20)]
    before, after = (
        book_of(town(40, "seller"), newcomers, more).lower_bound("seller") for more in ([], failed)
    )
    assert after < before - 150


@pytest.mark.parametrize("ending", ["lapsed", "given_back"])
def test_holds_of_made_up_keys_harm_nobody_however_many_there_are(ending: str) -> None:
    bogus = [failure(f"fake-{n}", "seller", ending, waited=1_000) for n in range(5_000)]  # type: ignore[arg-type]
    clean, attacked = book_of(town(20, "seller")), book_of(town(20, "seller"), bogus)
    assert attacked.standing("seller").rate == clean.standing("seller").rate
    assert attacked.lower_bound("seller", "customer-2") == clean.lower_bound("seller", "customer-2")
    assert attacked.standing("seller").failures == 5_000, "they are shown all the same"


@pytest.mark.parametrize("ending", ["missed", "forfeited"])
def test_failures_that_a_sellers_own_pledge_proves_count_whoever_the_buyers_are(
    ending: Literal["missed", "forfeited"],
) -> None:
    good = town(40, "seller")
    proven = [failure(f"new-{n}", "seller", ending, waited=500) for n in range(20)]
    before, after = book_of(good), book_of(good, proven)
    assert after.lower_bound("seller") < before.lower_bound("seller") - 50
    assert after.standing("seller").evidence.failed > 2_000
    customer = [book.lower_bound("seller", "customer-1") for book in (before, after)]
    assert customer[1] < customer[0] - 20


def test_who_was_left_alone_by_its_sellers_loses_no_say_by_it() -> None:
    past = [deal("buyer", f"shop-{n}") for n in range(12)]
    missed = [failure("buyer", f"bad-{n}", "missed") for n in range(50)]
    claim = [failure("buyer", "seller")]
    told = [book_of(past, more, claim).standing("seller").evidence for more in ([], missed)]
    assert told[0] == told[1]
    assert told[0].failed > 300


def test_a_customer_alleges_no_more_failures_than_it_has_kept_deals() -> None:
    good = town(20, "seller")
    some = [failure("customer-1", "seller")]
    bounds = [book_of(good, some * times).lower_bound("seller") for times in (1, 3, 1_000)]
    assert bounds[1] - bounds[2] < 5
    assert bounds[0] - bounds[2] < 25


def test_harm_costs_several_times_the_fees_that_the_harmed_reputation_cost() -> None:
    """The cheapest attack found: few buyers with a past of self-deals, one failure each."""
    good = town(20, "seller")
    clean = book_of(good).lower_bound("seller")
    for buyers in (4, 10):
        for past in (1, 3, 8, 12):
            made_up = [deal(f"x-{n}", f"shill-{k}") for n in range(buyers) for k in range(past)]
            blame = [failure(f"x-{n}", "seller") for n in range(buyers)]
            harm = clean - book_of(good, made_up, blame).lower_bound("seller")
            cost = fees_for(made_up) + fees_for(blame)
            # The seller's bound took 40 fees to rise from 50 to where it is.
            gained_per_fee = (clean - NEWCOMER) / (fees_for(good, "seller") / FEE)
            assert harm / (cost / FEE) < gained_per_fee / 10, (buyers, past, harm)


def test_no_number_of_allegations_outweighs_half_of_what_was_kept() -> None:
    good = town(40, "seller")
    made_up = [deal(f"x-{n}", f"shill-{k}") for n in range(300) for k in range(20)]
    blame = [failure(f"x-{n}", "seller") for n in range(300)]
    evidence = book_of(good, made_up, blame).standing("seller").evidence
    assert evidence.failed < evidence.kept // 2 + 2_000


def test_a_buyer_that_lets_holds_lapse_everywhere_has_no_say_anywhere() -> None:
    past = [deal("rogue", f"shop-{n}") for n in range(20)]
    one = [failure("rogue", "seller")]
    everywhere = [failure("rogue", f"victim-{n}") for n in range(100)]
    good = town(20, "seller")
    clean, once, often = (
        book_of(good, *more).standing("seller").evidence.failed
        for more in ([], [past, one], [past, one, everywhere])
    )
    assert clean == 0
    assert once > 500
    assert often < once // 10


def test_on_a_ledger_that_takes_no_fees_nobody_gains_a_reputation() -> None:
    free = [item._replace(fee_fals=0) for item in ring(1_000, "sybil")]
    assert book_of(free).lower_bound("sybil") == NEWCOMER


def test_the_costs_in_the_docs_are_the_costs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reputation.md").read_text("utf-8")
    rows = re.findall(
        r"^\| ([\d,]+) \| ([\d,]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE
    )
    assert len(rows) == 4
    for row in rows:
        deals, fees, *bounds = (int(cell.replace(",", "")) for cell in row)
        made_up, real = ring(deals, "sybil"), town(deals, "honest")
        assert fees_for(made_up) == fees_for(real, "honest") == fees * FEE
        book = book_of(made_up, real)
        found = [
            book.lower_bound(agent, caller)
            for caller in (None, "customer-0")
            for agent in ("sybil", "honest")
        ]
        assert found == bounds
    good = town(40, "seller")
    for past, told in ((10, "96 for 105 fees"), (1, "1 for 15\nfees")):
        made_up = [deal(f"x-{n}", f"shill-{k}") for n in range(5) for k in range(past)]
        blame = [failure(f"x-{n}", "seller") for n in range(5)]
        harm = book_of(good).lower_bound("seller") - book_of(good, made_up, blame).lower_bound(
            "seller"
        )
        assert f"{harm} for {(fees_for(made_up) + fees_for(blame)) // FEE}" in told.replace(
            "\n", " "
        )
        assert told in text
