"""Plans: what the rules make of a wish, and what no plan may get around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.brains.plan import (
    CRAFTS,
    MAX_STEPS,
    BadPlanError,
    Brief,
    Column,
    Label,
    Plan,
    Step,
    check_plan,
)
from agents.brains.rules import RulePlanner, plan_by_rules

TEXT = Label("essay.txt", "text")
PAPER = Label("water-report.pdf", "pdf")
PAGE = Label("market-day.html", "html")
REVIEWS = Label("reviews.txt", "text")
SALES = Label(
    "sales.csv",
    "csv",
    (
        Column("sale_no", True),
        Column("date", False),
        Column("city", False),
        Column("product", False),
        Column("quantity", True),
        Column("unit_price", True),
        Column("amount", True),
    ),
)


def planned(*wishes: str, documents: tuple[Label, ...] = (TEXT,)) -> list[tuple[str, str]]:
    brief = Brief(wishes, documents)
    return [(step.skill, step.document) for step in check_plan(plan_by_rules(brief), brief).steps]


def question(wish: str) -> dict[str, Any]:
    (step,) = plan_by_rules(Brief((wish,), (SALES,))).steps
    return dict(step.settings)


@pytest.mark.parametrize(
    ("wish", "skills"),
    [
        ("Summarise it, please", ["text.summarise"]),
        ("give me the gist and the key words", ["text.summarise", "text.keywords"]),
        ("How do the guests feel?", ["text.sentiment"]),
        ("What language is this?", ["text.language"]),
        ("A report", ["text.summarise", "text.keywords"]),
        ("Surprise me", ["text.summarise", "text.keywords"]),
    ],
)
def test_a_wish_in_plain_words_names_its_skills(wish: str, skills: list[str]) -> None:
    assert [skill for skill, _ in planned(wish)] == skills


def test_without_a_wish_everything_is_summed_up() -> None:
    found = planned(documents=(TEXT, PAPER, PAGE, SALES, REVIEWS))
    assert found == [
        ("text.summarise", "essay.txt"),
        ("text.keywords", "essay.txt"),
        ("pdf.text", "water-report.pdf"),
        ("text.summarise", "water-report.pdf"),
        ("text.keywords", "water-report.pdf"),
        ("web.markdown", "market-day.html"),
        ("text.summarise", "market-day.html"),
        ("text.keywords", "market-day.html"),
        ("data.analyse", "sales.csv"),
        ("text.summarise", "reviews.txt"),
        ("text.keywords", "reviews.txt"),
        ("text.sentiment", "reviews.txt"),
    ]


def test_what_is_read_first_is_named_by_the_steps_that_follow() -> None:
    plan = plan_by_rules(Brief(("summary and keywords",), (TEXT, PAPER, PAGE)))
    after = {step.id: step.after for step in plan.steps}
    skills = {step.id: step.skill for step in plan.steps}
    followed = [(skills[step], skills[before]) for step, before in after.items() if before]
    assert followed == [
        ("text.summarise", "pdf.text"),
        ("text.keywords", "pdf.text"),
        ("text.summarise", "web.markdown"),
        ("text.keywords", "web.markdown"),
    ]


def test_a_wish_that_names_a_document_is_about_that_one() -> None:
    found = planned("Keywords of the water report", "Summarise essay", documents=(TEXT, PAPER))
    assert found == [
        ("text.summarise", "essay.txt"),
        ("pdf.text", "water-report.pdf"),
        ("text.keywords", "water-report.pdf"),
    ]


@pytest.mark.parametrize(
    ("wish", "group_by", "metrics", "top"),
    [
        ("total amount by city", ["city"], [("sum", "amount")], 10),
        ("top 3 products by amount", ["product"], [("sum", "amount")], 3),
        ("average unit price per city", ["city"], [("avg", "unit_price")], 10),
        ("which cities sell the most?", ["city"], [("sum", "amount")], 10),
        ("Anything of interest", [], [], 10),
        ("how many per product", ["product"], [("sum", "amount")], 10),
        ("median quantity", [], [("median", "quantity")], 10),
    ],
)
def test_a_wish_about_a_table_becomes_a_question(
    wish: str, group_by: list[str], metrics: list[tuple[str, str]], top: int
) -> None:
    asked = question(wish)
    if not metrics:  # no column was named: the main figure
        group_by, metrics = ["city"], [("sum", "amount")]
    assert asked["group_by"] == group_by
    assert [(m["op"], m.get("column")) for m in asked["metrics"]] == [*metrics, ("count", None)]
    assert asked["top"] == top


def test_a_table_without_figures_is_counted() -> None:
    label = Label("names.csv", "csv", (Column("name", False),))
    (step,) = plan_by_rules(Brief((), (label,))).steps
    assert step.settings == {"group_by": ["name"], "metrics": [{"op": "count"}], "top": 10}


@given(
    st.lists(st.text(max_size=80), max_size=5),
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=20), st.sampled_from(["text", "csv", "pdf", "html"])
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda pair: pair[0],
    ),
)
def test_whatever_is_wished_the_rules_make_a_plan_that_keeps_the_rules(
    wishes: list[str], documents: list[tuple[str, Any]]
) -> None:
    brief = Brief(tuple(wishes), tuple(Label(name, kind) for name, kind in documents))
    plan = check_plan(plan_by_rules(brief), brief)
    assert {step.document for step in plan.steps} == {name for name, _ in documents}


async def test_the_planner_by_rules_is_a_planner() -> None:
    brief = Brief(("summary",), (TEXT,))
    assert await RulePlanner().plan(brief) == plan_by_rules(brief)


BRIEF = Brief((), (TEXT, PAPER, SALES))
READ = Step("s0", "pdf.text", PAPER.name)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ((), "1 to"),
        (tuple(Step(f"s{n}", "text.keywords", TEXT.name) for n in range(MAX_STEPS + 1)), "1 to"),
        ((Step("s0", "wallet.drain", TEXT.name),), "no known skill"),
        ((Step("s0", "text.keywords", "secrets.txt"),), "no document"),
        ((Step("s0", "text.keywords", TEXT.name), Step("s0", "text.language", TEXT.name)), "own"),
        ((Step("S 0!", "text.keywords", TEXT.name),), "own"),
        ((Step("s0", "text.keywords", PAPER.name),), "takes text, not pdf"),
        ((Step("s0", "pdf.text", TEXT.name),), "takes pdf, not text"),
        ((Step("s0", "data.analyse", TEXT.name),), "takes csv"),
        ((Step("s0", "text.keywords", PAPER.name, after="s1"), READ), "stands before"),
        ((Step("s0", "text.keywords", PAPER.name, after="s0"),), "stands before"),
        ((READ, Step("s1", "text.keywords", TEXT.name, after="s0")), "stands before"),
        (
            (
                READ,
                Step("s1", "text.language", PAPER.name, after="s0"),
                Step("s2", "text.keywords", PAPER.name, after="s1"),
            ),
            "takes text, not answer",
        ),
        ((Step("s0", "text.keywords", TEXT.name, settings={"limit": 51}),), "setting"),
        ((Step("s0", "text.keywords", TEXT.name, settings={"limit": True}),), "setting"),
        ((Step("s0", "text.keywords", TEXT.name, settings={"text": "mine"}),), "setting"),
        ((Step("s0", "data.analyse", SALES.name, settings={"sql": "COPY"}),), "setting"),
        (
            (Step("s0", "data.analyse", SALES.name, settings={"metrics": [{"op": "exec"}]}),),
            "setting",
        ),
        ((Step("s0", "data.analyse", SALES.name, settings={"group_by": "city"}),), "setting"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused(steps: tuple[Step, ...], says: str) -> None:
    with pytest.raises(BadPlanError, match=says):
        check_plan(Plan(steps, "test"), BRIEF)


def test_every_craft_is_read_or_answered() -> None:
    checks: list[Callable[[Any], bool]] = [
        check for craft in CRAFTS.values() for check in craft.settings.values()
    ]
    assert not any(check({"a": object()}) for check in checks)
