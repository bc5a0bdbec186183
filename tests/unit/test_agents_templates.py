"""Every built-in template loads, proves itself, sells what it says, and refuses what it must."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from agents.agent import Agent
from agents.perform import try_offer
from agents.schema import ArgumentsError
from agents.template import BUILT_IN, BadConfigError, SelfTestError, template_named
from agents.templates import code_format
from agents.templates.code_format import CodeFormat, RuffMissingError
from agents.templates.crafts.refusals import NothingToDoError, UnreadableError
from agents.templates.keywords import Keywords
from agents.templates.language_detect import LanguageDetect
from agents.templates.pricing import Pricing
from agents.templates.sentiment import SentimentTemplate
from agents.templates.summarise import Summarise
from agents.templates.trial import prove
from rahba.money import parse_rhb
from tests.fixtures.documents import read_document

ESSAY = read_document("the-square-and-the-road.txt")


async def sold(agent: Agent, **args: Any) -> Any:
    (skill,) = agent.offers
    return orjson.loads(await try_offer(agent, skill, args))["output"]


@pytest.mark.parametrize("name", list(BUILT_IN))
async def test_a_template_proves_itself_with_its_default_settings(name: str) -> None:
    template = template_named(name)
    agent = template.make({}, "stall 1")
    assert template.name == name
    assert agent.template == name
    assert template.title
    await template.self_test(agent)


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_a_template_sells_one_skill_at_a_price_above_its_floor(name: str) -> None:
    (offer,) = template_named(name).make({}, "stall 1").offers.values()
    assert 0 < offer.floor_fals < offer.price_fals
    assert offer.floor_fals >= offer.price_fals * 4 // 10
    assert offer.description
    assert offer.tags


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_a_template_takes_its_price_floor_and_strategy_from_its_settings(name: str) -> None:
    settings = {"price": "0.5", "floor": "0.25", "strategy": "linear", "capacity": 3}
    agent = template_named(name).make(settings, "stall 2")
    (offer,) = agent.offers.values()
    assert (offer.price_fals, offer.floor_fals) == (parse_rhb("0.5"), parse_rhb("0.25"))
    assert (offer.strategy, agent.capacity) == ("linear", 3)


@pytest.mark.parametrize("name", list(BUILT_IN))
@pytest.mark.parametrize(
    "settings",
    [
        {"price": "0.1", "floor": "0.2"},
        {"price": "-1"},
        {"price": "1e3"},
        {"price": 0.1},
        {"strategy": "generous"},
        {"capacity": 0},
        {"no_such_setting": 1},
    ],
)
def test_a_wrong_setting_is_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(BadConfigError):
        template_named(name).make(settings, "stall 3")


def test_every_template_shows_its_settings_as_a_schema() -> None:
    for name in BUILT_IN:
        assert {"price", "floor", "strategy"} <= set(template_named(name).schema()["properties"])
    assert Pricing().terms() == {
        "price": "0.002",
        "floor": "0.0012",
        "strategy": None,
        "tiers": [],
    }


async def test_a_self_test_that_fails_says_why() -> None:
    agent = Agent("liar")

    @agent.offer("text.lie", price="1")
    def lie(text: str) -> str:
        return text[::-1]

    with pytest.raises(SelfTestError, match="wrong result"):
        await prove(agent, "text.lie", {"text": "abc"}, lambda output: output == "abc")
    with pytest.raises(SelfTestError, match="does not sell"):
        await prove(agent, "text.truth", {}, bool)


async def test_a_summary_is_as_long_as_the_buyer_asks() -> None:
    agent = Summarise().make({"quality": "thorough"}, "scribe")
    for wanted in (1, 4, 12):
        made = await sold(agent, text=ESSAY, max_sentences=wanted)
        assert len(made["sentences"]) == wanted
    assert len((await sold(agent, text=ESSAY))["sentences"]) == 9
    own = Summarise().make({"max_sentences": 2}, "scribe")
    assert len((await sold(own, text=ESSAY))["sentences"]) == 2


async def test_a_text_too_long_or_empty_is_refused() -> None:
    for template in (Summarise(), Keywords(), SentimentTemplate(), LanguageDetect()):
        agent = template.make({}, "stall")
        with pytest.raises(ArgumentsError):
            await sold(agent, text="a" * 400_001)
        with pytest.raises(NothingToDoError):
            await sold(agent, text=" … ")


async def test_keywords_are_sold_best_first_and_by_number() -> None:
    agent = Keywords().make({}, "weaver")
    found = await sold(agent, text=ESSAY, limit=5, language="en")
    assert [entry["score"] for entry in found] == sorted((e["score"] for e in found), reverse=True)
    assert found[0] == {"phrase": "square", "score": 1.0, "count": 13}
    assert len(found) == 5
    with pytest.raises(ArgumentsError):
        await sold(agent, text=ESSAY, limit=51)


async def test_sentiment_is_sold_by_sentence_or_as_a_whole() -> None:
    agent = SentimentTemplate().make({}, "mood")
    text = "I love it. It is awful."
    whole = await sold(agent, text=text, by_sentence=False)
    assert whole["sentences"] == []
    lines = (await sold(agent, text=text))["sentences"]
    assert [line["label"] for line in lines] == ["positive", "negative"]


async def test_a_language_is_sold_with_its_runners_up() -> None:
    found = await sold(LanguageDetect().make({}, "teller"), text="Guten Morgen, liebe Leute.")
    assert found["language"] == "de"
    assert found["script"] == "Latin"
    assert found["candidates"][0]["language"] == "de"
    assert found["confidence"] == found["candidates"][0]["confidence"]


async def test_source_is_formatted_and_questioned_but_never_run() -> None:
    agent = CodeFormat().make({"line_length": 60}, "tidy")
    source = "import os, sys\ndef f( a,b=[] ):\n  return eval('1')\nraise SystemExit(9)\n"
    made = await sold(agent, source=source)
    assert made["changed"] is True
    assert "def f(a, b=[]):" in made["formatted"]
    rules = {finding["rule"] for finding in made["findings"]}
    assert {"F401", "B006", "E401"} <= rules
    again = await sold(agent, source=made["formatted"])
    assert again["changed"] is False


async def test_what_is_no_python_is_refused() -> None:
    agent = CodeFormat().make({}, "tidy")
    with pytest.raises(UnreadableError, match="not Python"):
        await sold(agent, source="def f(:\n")
    with pytest.raises(ArgumentsError):
        await sold(agent, source="x" * 200_001)


async def test_without_ruff_the_formatter_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(code_format.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuffMissingError):
        code_format._program()


def test_only_the_concierge_buys() -> None:
    for name in BUILT_IN:
        (offer,) = template_named(name).make({}, "stall").offers.values()
        wants_job = offer.signature.job_argument is not None
        assert wants_job is (name in {"concierge", "summarise"})
