"""What an agent shows: posted offers are the same bytes again after a restart."""

from __future__ import annotations

import pytest

from agents import Agent
from agents.shelf import (
    WINDOW_MS,
    build_card,
    find_posted,
    posted_until,
    seller_policy,
)
from rahba.envelope import Signer, seal
from rahba.messages import CARD_TYPE, open_card

SIGNER = Signer(b"s" * 32)
NOW = 1_700_000_000_000
MINUTE = 60_000


def shop(price: str = "0.002") -> Agent:
    agent = Agent("shop", description="Sells.")

    @agent.offer("text.x", price=price, floor="0.001", tags=["a"])
    def x(text: str) -> str:
        return text

    @agent.offer("text.y", price="0.001")
    def y(text: str) -> str:
        return text

    return agent


def test_a_card_shows_prices_schemas_and_what_can_be_bargained_over() -> None:
    raw = seal(CARD_TYPE, build_card(shop(), SIGNER.did, now_ms=NOW), SIGNER)
    card = open_card(raw, now_ms=NOW)
    x, y = card.skills
    assert (x.skill, x.negotiable, y.negotiable) == ("text.x", True, False)
    assert x.posted is not None
    assert x.posted.issues.price == "2000000"
    assert '"text"' in x.input_schema


@pytest.mark.parametrize("age_ms", [0, MINUTE, WINDOW_MS - 1])
def test_a_posted_offer_is_found_again_without_being_kept(age_ms: int) -> None:
    card = build_card(shop(), SIGNER.did, now_ms=NOW)
    posted = card.skills[0].posted
    assert posted is not None
    found = find_posted(shop(), SIGNER.did, posted.digest(), at_ms=NOW + age_ms)
    assert found == posted


def test_an_offer_at_another_price_or_of_another_agent_or_time_is_not_ours() -> None:
    posted = build_card(shop(), SIGNER.did, now_ms=NOW).skills[0].posted
    assert posted is not None
    digest = posted.digest()
    assert find_posted(shop("0.003"), SIGNER.did, digest, at_ms=NOW) is None
    assert find_posted(shop(), Signer(b"t" * 32).did, digest, at_ms=NOW) is None
    assert find_posted(shop(), SIGNER.did, digest, at_ms=NOW + 5 * WINDOW_MS) is None


def test_a_posted_offer_is_firm_for_twenty_to_forty_minutes() -> None:
    for now_ms in range(NOW, NOW + WINDOW_MS, 7 * MINUTE):
        assert WINDOW_MS < posted_until(now_ms) - now_ms <= 2 * WINDOW_MS


def test_a_seller_s_floor_is_in_its_mandate_and_not_in_what_it_shows() -> None:
    agent = shop()
    policy = seller_policy(agent, agent.offers["text.x"], SIGNER.did, now_ms=NOW, salt="s")
    assert policy.mandate.limit_fals == 1_000_000
    assert policy.posted.price_fals == 2_000_000
    first = build_card(agent, SIGNER.did, now_ms=NOW).skills[0]
    assert "1000000" not in repr(first)
