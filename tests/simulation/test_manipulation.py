"""A model that obeys every text it is shown is shown none that a counterparty wrote."""

from __future__ import annotations

import pytest

from benchmarks import market_manipulation

pytestmark = pytest.mark.redis


@pytest.mark.long
def test_orders_from_counterparties_change_no_choice_and_redirect_no_payment() -> None:
    rows = market_manipulation.run(rounds=3)
    assert [item.met for item in rows] == [True] * 4


def test_a_share_below_one_misses_its_target() -> None:
    told = market_manipulation.Told(
        rounds=4, same_choice=3, same_order=8, redirected=1, shown_to_model=1
    )
    rows = market_manipulation.rows_of(told)
    assert [item.met for item in rows] == [False, False, False, True]
