"""Plans: which skills to buy for which documents, and the checks that no plan gets around.

A planner reads the owner's wishes and the *labels* of the documents (name, kind, column names),
never a counterparty's words. Whatever it returns passes :func:`check_plan` before anything is
bought: rules and models alike.

1. At most ``MAX_STEPS`` steps, each with an id of its own.
2. Only skills of ``CRAFTS``, each with no other settings than it knows, within their limits.
3. Every step names a document of the brief; the kinds fit: what one step gives, the next can take.
4. A step comes after at most one other, which stands before it: no cycles.

Prices are not part of a plan: what a step may cost is decided by its owner's caps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

from rahba.errors import BadInputError, RemoteError

Kind = Literal["text", "csv", "pdf", "html"]
MAX_STEPS: Final = 48
_ID: Final = re.compile(r"[a-z0-9]{1,16}", re.ASCII)
_OPERATIONS: Final = frozenset({"count", "sum", "avg", "min", "max", "median", "stddev"})


class BadPlanError(BadInputError):
    """A plan breaks one of the rules; nothing of it is carried out."""

    code = "bad_plan"


class PlannerError(RemoteError):
    """A planner gave no plan: it is unreachable, too slow, or talks nonsense."""

    code = "planner_failed"
    retryable = True


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its name, and whether it holds numbers."""

    name: str
    numeric: bool


@dataclass(frozen=True, slots=True)
class Label:
    """All that a planner learns of a document."""

    name: str
    kind: Kind
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class Brief:
    """What the owner wants, and of which documents."""

    wishes: tuple[str, ...]
    documents: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One purchase: a skill, the document it is about, and the step whose result it takes."""

    id: str
    skill: str
    document: str
    after: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in an order in which they can be done; ``author`` says who thought it out."""

    steps: tuple[Step, ...]
    author: str


class Planner(Protocol):
    """Turns a brief into a plan."""

    async def plan(self, brief: Brief) -> Plan:
        """Return a plan, which still has to be checked.

        Raises:
            PlannerError: there is none to be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class Craft:
    """What a skill takes, what it gives, and the settings a plan may choose for it."""

    takes: Kind
    gives: Literal["text", "answer"]
    argument: str
    settings: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 8
        and all(isinstance(name, str) and len(name) <= 256 for name in value)
    )


def _metrics(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(
            isinstance(metric, dict)
            and metric.get("op") in _OPERATIONS
            and set(metric) <= {"op", "column"}
            and isinstance(metric.get("column", ""), str)
            for metric in value
        )
    )


CRAFTS: Final[Mapping[str, Craft]] = MappingProxyType(
    {
        "pdf.text": Craft("pdf", "text", "content"),
        "web.markdown": Craft("html", "text", "html"),
        "text.summarise": Craft("text", "answer", "text", {"max_sentences": _whole(1, 20)}),
        "text.keywords": Craft("text", "answer", "text", {"limit": _whole(1, 50)}),
        "text.sentiment": Craft("text", "answer", "text"),
        "text.language": Craft("text", "answer", "text"),
        "data.analyse": Craft(
            "csv",
            "answer",
            "table",
            {"group_by": _names, "metrics": _metrics, "top": _whole(1, 1_000)},
        ),
    }
)


def check_plan(plan: Plan, brief: Brief) -> Plan:
    """Return ``plan`` if it keeps every rule above.

    Raises:
        BadPlanError: the first rule it breaks.
    """
    if not 1 <= len(plan.steps) <= MAX_STEPS:  # 1
        raise BadPlanError(f"a plan has 1 to {MAX_STEPS} steps", steps=len(plan.steps))
    documents = {label.name: label for label in brief.documents}
    seen: dict[str, Step] = {}
    for step in plan.steps:
        if _ID.fullmatch(step.id) is None or step.id in seen:
            raise BadPlanError("every step has an id of its own", step=step.id[:16])
        craft = _checked_craft(step)  # 2
        label = documents.get(step.document)
        if label is None:  # 3
            raise BadPlanError("a step names no document of the brief", step=step.id)
        given: str = label.kind
        if step.after is not None:
            before = seen.get(step.after)  # 4
            if before is None or before.document != step.document:
                raise BadPlanError("a step comes after none that stands before it", step=step.id)
            given = CRAFTS[before.skill].gives
        if given != craft.takes:
            raise BadPlanError(f"{step.skill} takes {craft.takes}, not {given}", step=step.id)
        seen[step.id] = step
    return plan


def _checked_craft(step: Step) -> Craft:
    craft = CRAFTS.get(step.skill)
    if craft is None:
        raise BadPlanError(f"no known skill: {step.skill[:64]!r}", step=step.id)
    for name, value in step.settings.items():
        fits = craft.settings.get(name)
        if fits is None or not fits(value):
            raise BadPlanError(f"{step.skill} has no such setting: {name[:64]!r}", step=step.id)
    return craft
