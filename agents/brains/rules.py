"""Plans by rules: what a wish says in plain English, document by document. Needs no model, no key.

* A wish that names a document (its name, or that without ending) is about that one alone.
* PDF and HTML are read first; what was asked for then happens to their text.
* A table is asked what the wish's words and its column names have in common: columns of numbers are
  measured, others grouped by, ``top N`` kept. Without any, its main figure by its first column.
* A wish that says nothing known means: summary and keywords, and the tables' main figures.

    >>> plan_by_rules(Brief(("Summarise the essay",), (Label("essay.txt", "text"),))).steps[0].skill
    'text.summarise'
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from typing_extensions import override

from agents.brains.plan import Brief, Column, Label, Plan, Planner, Step

AUTHOR: Final = "rules"
_SKILLS: Final = tuple(
    (skill, re.compile(rf"\b({words})", re.IGNORECASE))
    for skill, words in (
        ("text.summarise", "summar|sum up|gist|short version|overview|report"),
        ("text.keywords", "key ?word|key ?phrase|topic|tag|theme|report"),
        ("text.sentiment", "sentiment|feel|mood|opinion|satisf|happy|review"),
        ("text.language", "language|tongue"),
    )
)
_TABLE: Final = re.compile(
    r"\b(table|figure|number|total|sum|average|mean|most|top|best|how many|count|per|by|report"
    r"|data|statistic)",
    re.IGNORECASE,
)
_READERS: Final = {"pdf": "pdf.text", "html": "web.markdown"}
_FEELING: Final = re.compile(r"review|feedback|comment|opinion", re.IGNORECASE)
_TOP: Final = re.compile(r"\b(?:top|best|first)\s+(\d{1,3})\b", re.IGNORECASE)
_OPERATIONS: Final = (
    ("avg", re.compile(r"\b(average|mean)\b", re.IGNORECASE)),
    ("median", re.compile(r"\bmedian\b", re.IGNORECASE)),
    ("max", re.compile(r"\b(maximum|highest|largest)\b", re.IGNORECASE)),
    ("min", re.compile(r"\b(minimum|lowest|smallest|cheapest)\b", re.IGNORECASE)),
    ("sum", re.compile(r"\b(total|sum|revenue|turnover|most|best|top)\b", re.IGNORECASE)),
)
_MONEY: Final = re.compile(r"total|amount|revenue|sales|turnover|value", re.IGNORECASE)
_NO_MEASURE: Final = re.compile(r"(^|_)(id|no|nr|year|month|day|number)$", re.IGNORECASE)
_DEFAULT_TOP: Final = 10


class RulePlanner(Planner):
    """Plans by rules."""

    @override
    async def plan(self, brief: Brief) -> Plan:
        return plan_by_rules(brief)


def plan_by_rules(brief: Brief) -> Plan:
    """Return the plan that the rules above make of ``brief``."""
    steps: list[Step] = []
    for label in brief.documents:
        wishes = [
            _without_names(wish, brief.documents)
            for wish in brief.wishes
            if _concerns(wish, label, brief.documents)
        ]
        for step in _steps(label, wishes):
            after = f"s{len(steps) - step.back}" if step.back is not None else None
            steps.append(Step(f"s{len(steps)}", step.skill, label.name, after, step.settings))
    return Plan(tuple(steps), AUTHOR)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A step before it has an id; ``back`` is how many steps before it the one it follows is."""

    skill: str
    settings: dict[str, Any]
    back: int | None = None


def _steps(label: Label, wishes: Sequence[str]) -> Iterator[_Draft]:
    if label.kind == "csv":
        yield from _questions(label, wishes)
        return
    reader = _READERS.get(label.kind)
    if reader is not None:
        yield _Draft(reader, {})
    for place, skill in enumerate(_wanted(label, wishes), start=1):
        yield _Draft(skill, {}, place if reader is not None else None)


def _wanted(label: Label, wishes: Sequence[str]) -> list[str]:
    """Return what the wishes ask of a text; opinions are felt even if nobody asks."""
    wanted = [skill for skill, says in _SKILLS if any(says.search(wish) for wish in wishes)]
    if not wanted:
        wanted = ["text.summarise", "text.keywords"]
    if _FEELING.search(label.name) and "text.sentiment" not in wanted:
        wanted.append("text.sentiment")
    return wanted


def _concerns(wish: str, label: Label, documents: Sequence[Label]) -> bool:
    """Say whether a wish is about this document: it names it, or names none."""
    named = [other.name for other in documents if _names(wish, other.name)]
    return label.name in named if named else True


def _without_names(wish: str, documents: Sequence[Label]) -> str:
    """Return a wish without the names in it: one that is called a report asks for none."""
    for document in documents:
        wish = _spoken(document.name).sub(" ", wish)
    return wish


def _names(wish: str, name: str) -> bool:
    return _spoken(name).search(wish) is not None


def _spoken(name: str) -> re.Pattern[str]:
    """Match a document's name, with or without its ending, spaces for dashes."""
    stem = re.escape(name.rpartition(".")[0] or name)
    loose = re.sub(r"_|\\-|\\ ", "[ _-]", stem)
    return re.compile(rf"(?<!\w)({re.escape(name)}|{loose})(?!\w)", re.IGNORECASE)


def _questions(label: Label, wishes: Sequence[str]) -> Iterator[_Draft]:
    asked = [wish for wish in wishes if _TABLE.search(wish) or _mentioned(wish, label.columns)]
    settings = []
    for wish in asked:
        question = _question(wish, label.columns)
        if question and question not in settings:
            settings.append(question)
    for question in settings or [_main_figure(label.columns)]:
        yield _Draft("data.analyse", question)


def _question(wish: str, columns: Sequence[Column]) -> dict[str, Any]:
    """Ask what the wish asks, if it speaks of any of the columns."""
    mentioned = _mentioned(wish, columns)
    if not mentioned:
        return {}
    groups = [column.name for column in mentioned if not column.numeric][:2]
    measures = [column.name for column in mentioned if column.numeric][:4]
    operations = [name for name, says in _OPERATIONS if says.search(wish)] or ["sum"]
    if not measures:
        measures = _measures(columns)[:1]
    metrics = [{"op": name, "column": column} for column in measures for name in operations]
    top = _TOP.search(wish)
    return {
        "group_by": groups,
        "metrics": [*metrics, {"op": "count"}][:16],
        "top": min(1_000, max(1, int(top.group(1)))) if top else _DEFAULT_TOP,
    }


def _main_figure(columns: Sequence[Column]) -> dict[str, Any]:
    groups = [column.name for column in columns if not column.numeric and not _is_date(column)]
    metrics = [{"op": "sum", "column": name} for name in _measures(columns)[:1]]
    return {"group_by": groups[:1], "metrics": [*metrics, {"op": "count"}], "top": _DEFAULT_TOP}


def _measures(columns: Sequence[Column]) -> list[str]:
    """Return the columns worth adding up, money first."""
    names = [c.name for c in columns if c.numeric and not _NO_MEASURE.search(c.name)]
    return sorted(names, key=lambda name: _MONEY.search(name) is None)


def _mentioned(wish: str, columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if _plural_or_not(column.name).search(wish)]


def _plural_or_not(name: str) -> re.Pattern[str]:
    words = re.escape(name).replace("_", "[ _-]")
    ending = f"{words[:-1]}(y|ies)" if words.endswith("y") else f"{words}(s|es)?"
    return re.compile(rf"(?<!\w){ending}(?!\w)", re.IGNORECASE)


def _is_date(column: Column) -> bool:
    return re.search(r"date|time|day|month", column.name, re.IGNORECASE) is not None
