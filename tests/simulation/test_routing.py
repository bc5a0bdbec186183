"""A routed buyer among real sellers: fails over, learns, and never pays beyond its mandate."""

from __future__ import annotations

from agents.buyer import Buyer
from agents.ports import Observations
from broker.knowledge.forecast import PriceView
from broker.knowledge.outcomes import Evidence, Outcomes
from tests.fixtures.trading import BUYER, CLOCK, IDS, SKILL, Bazaar, seller_key


class Records(Observations):
    """What was seen of sellers, noted by hand."""

    def __init__(self) -> None:
        self.outcomes = Outcomes()

    def prices(self, skill: str) -> PriceView | None:
        return None

    def evidence(self, skill: str, seller: str) -> Evidence:
        return self.outcomes.evidence(skill, seller)


def watch(bazaar: Bazaar) -> Records:
    records = Records()
    bazaar.buyer = Buyer(
        BUYER,
        bazaar.wallet,
        bazaar.broker,
        bazaar.courier,
        clock=CLOCK,
        ids=IDS,
        observations=records,
    )
    return records


async def fail(text: str) -> str:
    raise RuntimeError(text)


async def test_the_cheapest_is_tried_first_and_the_next_one_if_it_fails(bazaar: Bazaar) -> None:
    await bazaar.open_stall("lure", price=1_000_000, work=fail)
    await bazaar.open_stall("sound", price=2_000_000)
    await bazaar.open_stall("dear", price=3_000_000)
    bought = await bazaar.buy(route="cheapest")
    assert bought.routing is not None
    assert [each.seller for each in bought.routing.order] == [
        seller_key(name).did for name in ("lure", "sound", "dear")
    ]
    assert (bought.mode, bought.seller) == ("posted", seller_key("sound").did)
    assert bought.agreed_fals == 2_000_000


async def test_the_cheapest_is_shown_even_if_it_is_not_among_the_first(bazaar: Bazaar) -> None:
    records = watch(bazaar)
    for name, price in (("lure", 1_000_000), ("sound", 2_000_000), ("fine", 2_100_000)):
        await bazaar.open_stall(name, price=price)
        for number in range(40):
            did, honest = seller_key(name).did, name != "lure"
            records.outcomes.note(SKILL, did, f"b{number}", delivered=honest)
    bought = await bazaar.buy(route="thompson", max_sellers=1)
    assert bought.routing is not None
    assert len(bought.routing.order) == 2
    assert bought.routing.order[-1].seller == bought.routing.cheapest == seller_key("lure").did


async def test_a_seller_with_a_bad_record_is_passed_over(bazaar: Bazaar) -> None:
    records = watch(bazaar)
    for number in range(40):
        name = f"b{number}"
        records.outcomes.note(SKILL, seller_key("lure").did, name, delivered=False)
        records.outcomes.note(SKILL, seller_key("sound").did, name, delivered=True)
    await bazaar.open_stall("lure", price=1_000_000, work=fail)
    await bazaar.open_stall("sound", price=2_000_000)
    for _ in range(4):
        bought = await bazaar.buy(route="thompson")
        assert bought.seller == seller_key("sound").did
        assert bought.routing is not None
        assert bought.routing.cheapest == seller_key("lure").did


async def test_a_route_keeps_the_mandate(bazaar: Bazaar) -> None:
    await bazaar.open_stall("dear", price=4_000_000)
    await bazaar.open_stall("fair", price=2_000_000)
    bought = await bazaar.buy(route="thompson", budget_fals=2_500_000)
    assert bought.seller == seller_key("fair").did
    assert bought.routing is not None
    assert len(bought.routing.order) == 1


async def test_a_route_decides_who_is_asked_to_a_tender(bazaar: Bazaar) -> None:
    records = watch(bazaar)
    for name in ("a", "b", "c"):
        await bazaar.open_stall(name, price=2_000_000)
    for number in range(40):
        for name in ("a", "c"):
            did = seller_key(name).did
            records.outcomes.note(SKILL, did, f"b{number}", delivered=False)
        records.outcomes.note(SKILL, seller_key("b").did, f"b{number}", delivered=True)
    bought = await bazaar.buy(route="thompson", mode="tender", max_sellers=1)
    assert (bought.mode, bought.seller) == ("tender", seller_key("b").did)
