"""A model makes plans over a real socket; whatever it says, only checked plans come out."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from agents.brains.langchain import ModelPlanner
from agents.brains.plan import Brief, Column, Label, PlannerError, Step
from tests.fixtures.scripted_llm import Reply, ScriptedModel, scripted_model

BRIEF = Brief(
    ("What do guests like?",),
    (
        Label("reviews.txt", "text"),
        Label("paper.pdf", "pdf"),
        Label("sales.csv", "csv", (Column("city", False), Column("amount", True))),
    ),
)
GOOD: dict[str, Any] = {
    "steps": [
        {"id": "s0", "skill": "text.sentiment", "document": "reviews.txt"},
        {"id": "s1", "skill": "pdf.text", "document": "paper.pdf", "after": None},
        {
            "id": "s2",
            "skill": "text.summarise",
            "document": "paper.pdf",
            "after": "s1",
            "settings": {"max_sentences": 3},
        },
    ]
}
WORDS = orjson.dumps(GOOD).decode()


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with scripted_model() as served:
        yield served


def planner(model: ScriptedModel, timeout_s: float = 20.0) -> ModelPlanner:
    return ModelPlanner(
        "openai:scripted-1", base_url=model.base_url, api_key="not-a-key", timeout_s=timeout_s
    )


@pytest.mark.parametrize(
    "words", [WORDS, f"Here is my plan:\n```json\n{WORDS}\n```\nGood luck!", f"\n\n{WORDS}"]
)
async def test_a_models_plan_is_read_out_of_its_words(model: ScriptedModel, words: str) -> None:
    model.on("guests like", Reply(words))
    plan = await planner(model).plan(BRIEF)
    assert plan.author == "openai:scripted-1"
    assert plan.steps == (
        Step("s0", "text.sentiment", "reviews.txt"),
        Step("s1", "pdf.text", "paper.pdf"),
        Step("s2", "text.summarise", "paper.pdf", "s1", {"max_sentences": 3}),
    )
    assert len(model.asked) == 1


async def test_the_model_sees_wishes_and_labels_and_nothing_else(model: ScriptedModel) -> None:
    model.on("guests like", Reply(WORDS))
    await planner(model).plan(BRIEF)
    system, human = model.asked[0]["messages"]
    assert system["role"] == "system"
    assert "text.sentiment" in system["content"]
    assert orjson.loads(human["content"]) == {
        "wishes": ["What do guests like?"],
        "documents": [
            {"name": "reviews.txt", "kind": "text"},
            {"name": "paper.pdf", "kind": "pdf"},
            {
                "name": "sales.csv",
                "kind": "csv",
                "columns": [
                    {"name": "city", "numeric": False},
                    {"name": "amount", "numeric": True},
                ],
            },
        ],
    }
    assert model.asked[0]["temperature"] == 0


async def test_a_plan_that_breaks_a_rule_may_be_mended_once(model: ScriptedModel) -> None:
    bad = orjson.dumps({"steps": [{"id": "s0", "skill": "wallet.drain", "document": "paper.pdf"}]})
    model.on("guests like", Reply(bad.decode()), Reply(WORDS))
    plan = await planner(model).plan(BRIEF)
    assert len(plan.steps) == 3
    assert len(model.asked) == 2
    assert "no known skill" in model.asked[1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    "words",
    [
        "I would rather not.",
        "{}",
        '{"steps": []}',
        '{"steps": "all of them"}',
        '{"steps": [{"id": "s0", "skill": "text.keywords"}]}',
        '{"steps": [{"id": "s0", "skill": "text.keywords", "document": "secrets.txt"}]}',
        '{"steps": [{"id": "s0", "skill": "pdf.text", "document": "paper.pdf", "price": "9"}]}',
        "{" * 30_000,
        '{"steps": ' + "[" * 20_000 + "]" * 20_000 + "}",
        '{"steps": [{"id": "\\ud800"}]}',
    ],
)
async def test_nonsense_is_no_plan(model: ScriptedModel, words: str) -> None:
    model.on("guests like", Reply(words))
    with pytest.raises(PlannerError, match="no valid plan"):
        await planner(model).plan(BRIEF)
    assert len(model.asked) == 2


@pytest.mark.parametrize("status", [429, 500])
async def test_a_short_fault_of_the_provider_is_sat_out(model: ScriptedModel, status: int) -> None:
    model.on("guests like", Reply("busy", status=status), Reply(WORDS))
    plan = await planner(model).plan(BRIEF)
    assert len(plan.steps) == 3
    assert len(model.asked) == 2


@pytest.mark.parametrize("reply", [Reply(status=429), Reply(status=500), Reply(status=401)])
async def test_a_lasting_fault_of_the_provider_is_no_plan(
    model: ScriptedModel, reply: Reply
) -> None:
    model.on("guests like", reply)
    with pytest.raises(PlannerError, match="the model failed"):
        await planner(model).plan(BRIEF)


async def test_an_answer_that_is_cut_off_is_no_plan(model: ScriptedModel) -> None:
    model.on("guests like", Reply(WORDS, cut=True))
    with pytest.raises(PlannerError, match="the model failed"):
        await planner(model).plan(BRIEF)


async def test_a_slow_model_is_given_up_in_time(model: ScriptedModel) -> None:
    model.on("guests like", Reply(WORDS))
    slow = planner(model, timeout_s=20)
    await slow.plan(BRIEF)  # LangChain is imported now
    model.rules.clear()
    model.on("guests like", Reply(WORDS, delay_s=5))
    slow._timeout_s = 0.5
    started = time.monotonic()
    with pytest.raises(PlannerError, match="too long"):
        await slow.plan(BRIEF)
    assert time.monotonic() - started < 3


async def test_an_unknown_provider_is_no_plan() -> None:
    with pytest.raises(PlannerError):
        await ModelPlanner("nobody:nothing").plan(BRIEF)


def test_langchain_is_imported_only_by_those_who_plan_with_it() -> None:
    code = (
        "import sys, agents.brains.langchain, agents.templates.concierge\n"
        "print([name for name in sys.modules if name.startswith('langchain')])"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert shown.strip() == "[]"
