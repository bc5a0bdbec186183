"""An agent is declared in five lines; what cannot be sold is refused when it is declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents import Agent
from agents.agent import OfferSpec
from agents.schema import OfferDefinitionError


def offered(function: Callable[..., Any], **terms: Any) -> OfferSpec:
    agent = Agent("a")
    agent.offer("text.x", **{"price": "0.002", **terms})(function)
    return agent.offers["text.x"]


def shout(text: str) -> str:
    """Say it louder.

    Much louder.
    """
    return text.upper()


async def whisper(text: str) -> str:
    return text.lower()


def test_the_five_lines_of_the_guide_declare_a_priced_offer() -> None:
    agent = Agent("translator")

    @agent.offer("text.translate", price="0.002", floor="0.0012")
    async def translate(text: str, to: str = "en") -> str: ...

    offer = agent.offers["text.translate"]
    assert (offer.price_fals, offer.floor_fals) == (2_000_000, 1_200_000)
    assert offer.negotiable
    assert offer.is_async
    assert repr(agent) == "Agent('translator', ['text.translate'])"


def test_the_decorated_function_stays_what_it_was() -> None:
    agent = Agent("a")
    assert agent.offer("text.x", price="0")(shout) is shout


def test_the_first_paragraph_of_the_docstring_is_the_description() -> None:
    assert offered(shout).description == "Say it louder."


def test_without_a_floor_there_is_nothing_to_bargain_about() -> None:
    spec = offered(whisper)
    assert spec.floor_fals == spec.price_fals
    assert not spec.negotiable
    assert not offered(shout).is_async


@pytest.mark.parametrize(
    "terms",
    [
        {"price": "two"},
        {"price": "0.0000000001"},
        {"price": "-1"},
        {"price": "0.001", "floor": "0.002"},
        {"timeout": 0},
        {"timeout": 1_801},
        {"max_input_bytes": 0},
        {"max_input_bytes": 2**30},
        {"quality": 1_001},
        {"latency_ms": -1},
        {"runs": "elsewhere"},
        {"budget": "all of it"},
    ],
)
def test_terms_out_of_their_limits_are_refused(terms: dict[str, Any]) -> None:
    with pytest.raises(OfferDefinitionError):
        offered(shout, **terms)


@pytest.mark.parametrize("skill", ["", "Text", "text translate", "a" * 65, "text."])
def test_a_skill_needs_a_skill_s_name(skill: str) -> None:
    with pytest.raises(OfferDefinitionError):
        Agent("a").offer(skill, price="1")(shout)


def test_a_skill_is_offered_once_and_at_most_thirty_two_are() -> None:
    agent = Agent("a")
    for number in range(32):
        agent.offer(f"text.x{number}", price="1")(shout)
    for skill in ("text.x0", "text.y"):
        with pytest.raises(OfferDefinitionError):
            agent.offer(skill, price="1")(shout)


@pytest.mark.parametrize("name", ["", " a", "a/b", "../x", "é", "x" * 65])
def test_a_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(OfferDefinitionError):
        Agent(name)


@pytest.mark.parametrize("capacity", [0, 1_001])
def test_capacity_is_bounded(capacity: int) -> None:
    with pytest.raises(OfferDefinitionError):
        Agent("a", capacity=capacity)
