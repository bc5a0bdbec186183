"""Writes the concierge's report: what was found, what it cost and with whom, and what failed.

Other agents' words are data here: they are checked for their form, quoted, shortened, and kept from
ending a table cell or starting a heading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from agents.brains.plan import Step
from agents.ports import Bought
from rahba.encoding import shape
from rahba.ids import short
from rahba.money import format_rhb

MAX_ROWS: Final = 25
MAX_QUOTE_CHARS: Final = 4_000
MAX_CELL_CHARS: Final = 120

Words = Annotated[str, msgspec.Meta(max_length=400_000)]


class Reading(msgspec.Struct, frozen=True):
    """What a reader gives: the text of a document, plain or as Markdown."""

    text: Words = ""
    markdown: Words = ""


class Summary(msgspec.Struct, frozen=True):
    """What a summariser gives."""

    summary: Words


class Phrase(msgspec.Struct, frozen=True):
    """One of the keywords."""

    phrase: Words
    score: float


class Mood(msgspec.Struct, frozen=True):
    """What is felt in a text."""

    score: float
    label: Words
    shares: dict[str, float] = {}


class Language(msgspec.Struct, frozen=True):
    """The language of a text."""

    language: Words
    confidence: float


class Table(msgspec.Struct, frozen=True):
    """The answer to a question about a table."""

    columns: list[Words]
    rows: list[list[Any]]
    truncated: bool = False


FORMS: Final[dict[str, Any]] = {
    "pdf.text": Reading,
    "web.markdown": Reading,
    "text.summarise": Summary,
    "text.keywords": list[Phrase],
    "text.sentiment": Mood,
    "text.language": Language,
    "data.analyse": Table,
}
_TITLES: Final = {
    "text.summarise": "Summary",
    "text.keywords": "Keywords",
    "text.sentiment": "Sentiment",
    "text.language": "Language",
    "data.analyse": "Figures",
}


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What became of a step: the checked output, or the reason why there is none."""

    step: Step
    bought: Bought | None
    value: Any = None
    failure: str | None = None


def checked(skill: str, output: object) -> Any:
    """Return ``output`` in the form that ``skill`` promises.

    Raises:
        UnknownFieldError: it does not have that form.
    """
    return shape(output, FORMS[skill])


def read_text(value: object) -> str:
    """Return the text that a reader gave."""
    assert isinstance(value, Reading)
    return value.text or value.markdown


def spent_fals(outcomes: Sequence[StepOutcome]) -> int:
    """Return what was paid, or may yet be, for all steps together."""
    return sum(outcome.bought.paid_fals for outcome in outcomes if outcome.bought)


def report(
    documents: Sequence[str], outcomes: Sequence[StepOutcome], author: str, note: str | None
) -> str:
    """Return the whole report as Markdown."""
    lines = ["# Report", ""]
    for document in documents:
        about = [outcome for outcome in outcomes if outcome.step.document == document]
        lines += [f"## {_cell(document)}", "", *_findings(about)]
    lines += ["## What was bought", "", *_purchases(outcomes), ""]
    total = format_rhb(spent_fals(outcomes))
    failed = sum(outcome.failure is not None for outcome in outcomes)
    lines += [f"{len(outcomes)} steps planned by {author}, {failed} failed; {total} RHB spent."]
    if note:
        lines += ["", f"Note: {_cell(note)}"]
    return "\n".join(lines) + "\n"


def _findings(outcomes: Sequence[StepOutcome]) -> Iterator[str]:
    for outcome in outcomes:
        title = _TITLES.get(outcome.step.skill)
        if outcome.failure is not None:
            yield from (f"**{outcome.step.skill} failed:** {_cell(outcome.failure)}", "")
        elif title is not None:
            yield from (f"### {title}", "", *_shown(outcome.value), "")


def _shown(value: object) -> Iterator[str]:
    match value:
        case Summary():
            yield from _quoted(value.summary)
        case Mood():
            ranked = sorted(value.shares.items(), key=lambda share: -share[1])
            shares = ", ".join(f"{share:.0%} {_cell(name)}" for name, share in ranked)
            yield f"{_cell(value.label)} ({value.score:+.2f}; by sentence: {shares or 'unknown'})"
        case Language():
            yield f"{_cell(value.language)} (confidence {value.confidence:.2f})"
        case Table():
            yield from _table(value.columns, value.rows[:MAX_ROWS])
            if value.truncated or len(value.rows) > MAX_ROWS:
                yield from ("", "(more rows were left out)")
        case list():
            yield ", ".join(_cell(found.phrase) for found in value[:MAX_ROWS]) or "(none)"
        case _:
            yield "(nothing to show)"


def _purchases(outcomes: Sequence[StepOutcome]) -> Iterator[str]:
    head = ["skill", "document", "from", "mode", "rounds", "asked", "paid (RHB)", "outcome"]
    yield from _table(head, [_purchase(outcome) for outcome in outcomes])


def _purchase(outcome: StepOutcome) -> list[Any]:
    bought, step = outcome.bought, outcome.step
    deal: list[Any] = ["-", "-", "-", "-"]
    if bought is not None and bought.seller is not None:
        asked = format_rhb(bought.asked_fals)
        deal = [short(bought.seller), bought.mode, bought.rounds, asked]
    paid = format_rhb(bought.paid_fals) if bought else "0"
    ended = "failed" if outcome.failure is not None else "delivered"
    return [step.skill, step.document, *deal, paid, ended]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(_cell(name) for name in columns) + " |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"


def _cell(value: object) -> str:
    text = f"{value:,.2f}" if isinstance(value, float) else str("" if value is None else value)
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= MAX_CELL_CHARS else flat[: MAX_CELL_CHARS - 1] + "…"


def _quoted(text: str) -> Iterator[str]:
    shown = text if len(text) <= MAX_QUOTE_CHARS else text[: MAX_QUOTE_CHARS - 1] + "…"
    for line in shown.splitlines() or [""]:
        yield f"> {line}".rstrip()
