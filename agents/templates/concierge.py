"""Splits a request over documents into skills, buys them from other agents, and assembles a report.

1. The owner's wishes and the documents' labels become a plan, before any counterparty is heard; the
   plan is checked by :func:`agents.brains.plan.check_plan`, whoever made it.
2. The purse is divided over the steps beforehand, each at most at its skill's cap: steps side by
   side can never overspend together.
3. Independent steps are bought at the same time; a step that needs another's result waits for it.
4. What a seller delivers is checked for its form before it is used, and only ever as data.
5. What fails is told in the report, with its reason. If nothing succeeds, the job itself fails.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import csv
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents.agent import Agent
from agents.brains.plan import (
    CRAFTS,
    BadPlanError,
    Brief,
    Column,
    Label,
    Plan,
    Planner,
    PlannerError,
    Step,
    check_plan,
)
from agents.brains.rules import RulePlanner, plan_by_rules
from agents.job import Job
from agents.template import SelfTestError
from agents.templates.crafts.refusals import UnreadableError
from agents.templates.crafts.reports import (
    StepOutcome,
    checked,
    read_text,
    report,
    spent_fals,
)
from agents.templates.pricing import PricedTemplate, Pricing, Rhb
from rahba.errors import BadInputError, RahbaError, RemoteError
from rahba.messages import Mode
from rahba.money import parse_rhb, wire_fals

MAX_DOCUMENTS: Final = 12
MAX_CONTENT_CHARS: Final = 1_000_000
_CAPS: Final = {
    "pdf.text": "0.004",
    "web.markdown": "0.004",
    "text.summarise": "0.006",
    "text.keywords": "0.003",
    "text.sentiment": "0.003",
    "text.language": "0.001",
    "data.analyse": "0.008",
}
_MODES: Final[dict[str, Mode]] = {"text.summarise": "tender"}
_SNIFFED_LINES: Final = 60
_SNIFFED_CHARS: Final = 60_000


class NothingBoughtError(RemoteError):
    """Not one step of the plan succeeded; the first failure is told."""

    code = "nothing_bought"


class Document(TypedDict):
    """A document as the buyer gives it; PDF must be base64."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    kind: Literal["text", "csv", "pdf", "html"]
    content: Annotated[str, Field(max_length=MAX_CONTENT_CHARS)]
    encoding: Annotated[Literal["text", "base64"], Field(default="text")]


class PurchaseLine(TypedDict):
    """One step of the plan and what became of it; amounts are strings of fals."""

    skill: str
    document: str
    seller: str | None
    mode: str | None
    rounds: int
    asked_fals: str
    paid_fals: str
    agreement: str | None
    failure: str | None


class ReportOutput(TypedDict):
    """The report as Markdown, and its purchases as data."""

    report: str
    purchases: list[PurchaseLine]
    spent_fals: str
    failed: int
    planned_by: str


class ConciergeConfig(Pricing):
    """What a report costs, what may be spent on it, on what, and who plans."""

    price: str = "0.06"
    floor: str = "0.045"
    budget: Rhb = "0.04"
    caps: dict[str, Rhb] = Field(default_factory=lambda: dict(_CAPS))
    modes: dict[str, Mode] = Field(default_factory=lambda: dict(_MODES))
    other_mode: Mode = "bargain"
    max_seconds: Annotated[int, Field(ge=5, le=600)] = 90
    model: Annotated[
        str | None,
        Field(
            description='a chat model as "provider:model"; its key stays in the host\'s settings'
        ),
    ] = None
    base_url: Annotated[str, Field(max_length=500)] | None = None


class Concierge(PricedTemplate):
    """Sells ``concierge.report``."""

    name: ClassVar[str] = "concierge"
    title: ClassVar[str] = "Concierge"
    description: ClassVar[str] = "Splits a request into skills, buys them, assembles one report."
    Config: ClassVar[type[BaseModel]] = ConciergeConfig

    @override
    def build(self, config: ConciergeConfig, name: str) -> Agent:
        agent = self.agent(config, name)
        planner = _planner(config)

        @agent.offer(
            "concierge.report",
            **config.terms(),
            description="One report on several documents, from skills bought on the market",
            tags=["concierge", "report", "documents"],
            timeout=float(config.max_seconds),
            budget=config.budget,
            quality=700,
            latency_ms=6_000,
        )
        async def concierge(
            job: Job,
            documents: Annotated[list[Document], Field(min_length=1, max_length=MAX_DOCUMENTS)],
            wishes: Annotated[
                list[Annotated[str, Field(max_length=500)]], Field(max_length=16)
            ] = [],  # noqa: B006 -- read only, and the schema wants the default
        ) -> ReportOutput:
            """Report on ``documents`` as ``wishes`` say; without any, sum everything up."""
            return await serve(job, planner, config, documents, wishes)

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        """Plan for one document of each kind: buying needs a market, planning does not."""
        labels = (
            Label("a.txt", "text"),
            Label("b.csv", "csv", (Column("city", False), Column("sold", True))),
            Label("c.pdf", "pdf"),
            Label("d.html", "html"),
        )
        brief = Brief(("a full report",), labels)
        steps = check_plan(plan_by_rules(brief), brief).steps
        if {step.document for step in steps} != {label.name for label in labels}:
            raise SelfTestError("the plan leaves a document out")


async def serve(
    job: Job,
    planner: Planner,
    config: ConciergeConfig,
    documents: Sequence[Document],
    wishes: Sequence[str],
) -> ReportOutput:
    """Plan, buy, assemble.

    Raises:
        BadInputError: two documents of one name, or one that is not what it says.
        NothingBoughtError: no step succeeded.
    """
    contents = _contents(documents)
    brief = Brief(tuple(wishes), tuple(_label(document, contents) for document in documents))
    plan, note = await _plan(planner, brief)  # 1
    caps = divide(job.purse.remaining, plan.steps, config.caps)  # 2
    errand = _Errand(job, config, contents, caps)
    outcomes = await errand.run(plan)  # 3
    if all(outcome.failure is not None for outcome in outcomes):  # 5
        raise NothingBoughtError(f"no step succeeded; the first: {outcomes[0].failure}"[:400])
    names = [document["name"] for document in documents]
    return {
        "report": report(names, outcomes, plan.author, note),
        "purchases": [_line(outcome) for outcome in outcomes],
        "spent_fals": wire_fals(spent_fals(outcomes)),
        "failed": sum(outcome.failure is not None for outcome in outcomes),
        "planned_by": plan.author,
    }


def divide(purse_fals: int, steps: Sequence[Step], caps: Mapping[str, str]) -> dict[str, int]:
    """Give every step its skill's cap, all scaled down alike where the purse is too small."""
    wanted = {step.id: parse_rhb(caps.get(step.skill, "0")) for step in steps}
    total = sum(wanted.values())
    if total <= purse_fals:
        return wanted
    return {name: amount * purse_fals // total for name, amount in wanted.items()}


class _Errand:
    """One plan being carried out."""

    def __init__(
        self, job: Job, config: ConciergeConfig, contents: Mapping[str, str], caps: dict[str, int]
    ) -> None:
        self._job = job
        self._config = config
        self._contents = contents
        self._caps = caps
        self._running: dict[str, asyncio.Task[StepOutcome]] = {}
        self._done = 0

    async def run(self, plan: Plan) -> list[StepOutcome]:
        """Start every step; each waits for the one it comes after."""
        async with asyncio.TaskGroup() as group:
            for step in plan.steps:
                self._running[step.id] = group.create_task(self._step(step, len(plan.steps)))
        return [self._running[step.id].result() for step in plan.steps]

    async def _step(self, step: Step, of_steps: int) -> StepOutcome:
        before = await self._running[step.after] if step.after is not None else None
        if before is not None and before.failure is not None:
            outcome = StepOutcome(step, None, failure=f"not tried: {before.step.skill} failed")
        else:
            outcome = await self._buy(step, before)
        self._done += 1
        self._job.progress(self._done / of_steps)
        return outcome

    async def _buy(self, step: Step, before: StepOutcome | None) -> StepOutcome:
        given = self._contents[step.document] if before is None else read_text(before.value)
        args = {CRAFTS[step.skill].argument: given, **step.settings}
        mode = self._config.modes.get(step.skill, self._config.other_mode)
        bought = None
        try:
            bought = await self._job.buy(step.skill, args, budget=self._caps[step.id], mode=mode)
            if bought.error is not None:
                raise bought.error
            return StepOutcome(step, bought, checked(step.skill, bought.output))  # 4
        except RahbaError as error:
            return StepOutcome(step, bought, failure=f"{error.code}: {error.message}")


async def _plan(planner: Planner, brief: Brief) -> tuple[Plan, str | None]:
    """Ask the planner; where it fails or breaks the rules, plan by rules and say so."""
    try:
        return check_plan(await planner.plan(brief), brief), None
    except (PlannerError, BadPlanError) as error:
        note = f"planned by rules, since the model gave no plan ({error.code}: {error.message})"
        return check_plan(plan_by_rules(brief), brief), note


def _planner(config: ConciergeConfig) -> Planner:
    if config.model is None:
        return RulePlanner()
    from agents.brains.langchain import ModelPlanner  # noqa: PLC0415 -- only who needs it loads it

    return ModelPlanner(config.model, base_url=config.base_url)


def _contents(documents: Sequence[Document]) -> dict[str, str]:
    """Return what readers take: base64 of a PDF, text of all else."""
    contents: dict[str, str] = {}
    for document in documents:
        if document["name"] in contents:
            raise BadInputError("two documents have one name", name=document["name"])
        encoded = document["encoding"] == "base64"
        if document["kind"] == "pdf" and not encoded:
            raise UnreadableError("a PDF comes as base64", name=document["name"])
        plain = encoded and document["kind"] != "pdf"
        contents[document["name"]] = _decoded(document) if plain else document["content"]
    return contents


def _decoded(document: Document) -> str:
    try:
        return base64.b64decode(document["content"], validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise UnreadableError("not base64 of UTF-8 text", name=document["name"]) from error


def _label(document: Document, contents: Mapping[str, str]) -> Label:
    columns = _columns(contents[document["name"]]) if document["kind"] == "csv" else ()
    return Label(document["name"], document["kind"], columns)


def _columns(text: str) -> tuple[Column, ...]:
    """Look at the first lines of a table for its columns, and which of them hold numbers."""
    lines = text[:_SNIFFED_CHARS].splitlines()[:_SNIFFED_LINES]
    try:
        dialect: Any = csv.Sniffer().sniff("\n".join(lines[:10]), ",;\t|")
    except csv.Error:
        dialect = csv.excel
    try:
        head, *rows = [row for row in csv.reader(lines, dialect) if row]
    except (csv.Error, ValueError):
        return ()
    return tuple(
        Column(name.strip()[:64], _numeric([row[at] for row in rows if at < len(row)]))
        for at, name in enumerate(head[:64])
        if name.strip()
    )


def _numeric(cells: Sequence[str]) -> bool:
    filled = [cell.strip() for cell in cells if cell.strip()]
    try:
        return bool(filled) and all(float(cell) == float(cell) for cell in filled)
    except ValueError:
        return False


def _line(outcome: StepOutcome) -> PurchaseLine:
    bought = outcome.bought
    return {
        "skill": outcome.step.skill,
        "document": outcome.step.document,
        "seller": bought.seller if bought else None,
        "mode": bought.mode if bought else None,
        "rounds": bought.rounds if bought else 0,
        "asked_fals": wire_fals(bought.asked_fals if bought else 0),
        "paid_fals": wire_fals(bought.paid_fals if bought else 0),
        "agreement": bought.agreement if bought else None,
        "failure": outcome.failure,
    }
