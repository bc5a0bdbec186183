"""What knowing the market is worth, on a few deals: nobody is worse off than the targets allow."""

from __future__ import annotations

from benchmarks import market_anchors


def test_knowing_the_market_saves_buyers_money_and_loses_no_deal() -> None:
    rows = {
        row.name.split(":")[1].strip().partition(" of ")[0]: row for row in market_anchors.run(120)
    }
    assert len(rows) == 5
    assert [name for name, row in rows.items() if not row.met] == []
