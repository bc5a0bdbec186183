"""Personal trust: it begins with the caller's own deals, and nothing that is made up reaches it."""

from __future__ import annotations

import pytest

from rahba.trust import ALL, Limits, personal_trust, saturated
from tests.fixtures.deals import TODAY, book_of, deal, dealings_of, failure, town


def test_a_caller_without_deals_has_no_personal_trust_and_sees_what_everybody_sees() -> None:
    dealings = dealings_of(town(5, "seller"), [failure("me", "seller")])
    assert personal_trust(dealings, "me", TODAY) is None
    book = book_of(town(5, "seller"))
    assert book.standing("seller", "me").personal is None
    assert book.lower_bound("seller", "me") == book.lower_bound("seller")


def test_trust_adds_up_to_all_but_what_rounding_takes() -> None:
    trust = personal_trust(dealings_of(town(30, "seller")), "customer-0", TODAY)
    assert trust is not None
    assert ALL - 10_000 <= sum(trust.shares.values()) <= ALL
    assert not trust.cut


def test_trust_equals_the_fixed_point_of_eigentrust() -> None:
    """Compare with the equation t = PASSED C't + rest p, solved with floats on a small graph."""
    outcomes = [deal("me", "a"), deal("me", "b"), deal("me", "b"), deal("x", "a"), deal("x", "c")]
    trust = personal_trust(dealings_of(outcomes), "me", TODAY)
    assert trust is not None
    one, two = saturated(1_000, 4_000), saturated(2_000, 4_000)
    edges = {
        "me": {"a": one, "b": two},
        "x": {"a": one, "c": one},
        "a": {"me": one // 2, "x": one // 2},
        "b": {"me": two // 2},
        "c": {"x": one // 2},
    }
    seeds = {"a": one / (one + two), "b": two / (one + two)}
    shares = dict(seeds)
    for _ in range(500):
        found = dict.fromkeys(edges, 0.0)
        for agent, share in shares.items():
            for to, weight in edges[agent].items():
                found[to] += 0.8 * share * weight / sum(edges[agent].values())
        for agent, share in seeds.items():
            found[agent] += 0.2 * share
        shares = found
    for agent, share in shares.items():
        assert trust.shares[agent] / ALL == pytest.approx(share, abs=2e-5)


def test_whom_my_sellers_other_customers_paid_is_nearer_than_whom_strangers_paid() -> None:
    outcomes = [deal("me", "a"), deal("neighbour", "a"), deal("neighbour", "b"), deal("x", "c")]
    book = book_of(outcomes)
    trust = book.trust("me")
    assert trust is not None
    assert trust.share("a") > trust.share("b") > 0
    assert trust.share("c") == trust.share("x") == 0
    assert book.lower_bound("a", "me") > book.lower_bound("b", "me") > book.lower_bound("c", "me")


def test_a_seller_that_failed_me_more_than_it_kept_is_none_of_those_i_trust() -> None:
    outcomes = [deal("me", "good"), deal("me", "bad"), failure("me", "bad"), failure("me", "bad")]
    trust = personal_trust(dealings_of(outcomes), "me", TODAY)
    assert trust is not None
    assert trust.seeds == 1
    assert trust.share("bad") == 0


def test_what_i_saw_myself_counts_in_full_though_nobody_else_believes_me() -> None:
    book = book_of(town(30, "seller"), [failure("me", "seller"), deal("me", "shop-1")])
    mine = book.standing("seller", "me").personal
    assert mine is not None
    assert mine.own_failures == 1
    assert mine.evidence.failed >= 900
    assert book.standing("seller").evidence.failed < 5, "one deal elsewhere is hardly a say"


def test_a_failure_told_by_whom_i_trust_counts_for_me_before_it_counts_for_all() -> None:
    friend = [deal("me", "a"), deal("friend", "a"), failure("friend", "seller")]
    book = book_of(town(10, "seller"), friend)
    mine = book.standing("seller", "me").personal
    assert mine is not None
    assert mine.evidence.failed > 10 * book.standing("seller").evidence.failed


def test_limits_cut_the_far_and_the_light_and_say_so() -> None:
    outcomes = [*town(200, "seller"), *(deal("customer-1", "seller") for _ in range(5))]
    dealings = dealings_of(outcomes)
    limits = Limits(seeds=5, nodes=20, edges=60, fan=8, rounds=3)
    trust = personal_trust(dealings, "customer-0", TODAY, limits)
    assert trust is not None
    assert trust.cut
    assert len(trust.shares) <= 20
    assert trust.edges <= 60
    assert trust.rounds <= 3
    assert trust.shares.get("customer-1"), "the heaviest edge is followed first"
    assert personal_trust(dealings, "customer-0", TODAY, limits) == trust


def test_the_trust_of_the_latest_callers_is_kept_and_no_more() -> None:
    book = book_of(town(300, "seller", elsewhere=0))
    for number in range(300):
        assert book.trust(f"customer-{number}") is not None
    assert len(book._trusts) == 256
    assert "customer-0" not in book._trusts
    assert book.trust("customer-299") is book.trust("customer-299")
