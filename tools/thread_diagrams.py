"""Writes docs/negotiation-states.md: the lives of a negotiation, from the code's tables.

python tools/thread_diagrams.py > docs/negotiation-states.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agents.negotiation.talk import OVER
from agents.negotiation.talk import STEPS as TALK
from broker import thread

HEAD = """# What may be said in a negotiation, drawn from its tables

Written by `tools/thread_diagrams.py` from `broker/thread.py` and `agents/negotiation/talk.py`; a
test keeps it true. Arrows are labelled `side: messages`.
"""

BROKER = """## At the broker
One script a thread rules on every message, by the server's clock; nothing else changes a state.
`settled`, `failed` and `expired` are also reached without a message: by a payment, or by time.
"""

SIDES = """## At both sides
Each side folds the signed messages into the same talk, before a restart and after it; a transcript
is checked by the same table (`rahba transcript verify`).
"""


def arrows(steps: Mapping[tuple[str, str, str], str]) -> list[str]:
    """Return one line for each pair of states, with all that leads from the one to the other."""
    said: dict[tuple[str, str], dict[str, list[str]]] = {}
    for (state, side, kind), after in steps.items():
        said.setdefault((state, after), {}).setdefault(side, []).append(kind)
    return [
        f"    {state} --> {after}: "
        + "; ".join(f"{side} {', '.join(kinds)}" for side, kinds in by.items())
        for (state, after), by in said.items()
    ]


def diagram(begin: str, steps: Iterable[str], ends: Iterable[str]) -> str:
    """Return a Mermaid state diagram in its fence."""
    lines = ["stateDiagram-v2", begin, *steps, *(f"    {end} --> [*]" for end in ends)]
    return "```mermaid\n" + "\n".join(lines) + "\n```"


def broker_diagram() -> str:
    """Return the life of a thread at the broker."""
    silent = [
        f"    {state} --> {kind}: {'paid' if kind == 'settled' else 'without a message'}"
        for kind, states in thread.ENDINGS.items()
        for state in sorted(states)
    ]
    begin = "    [*] --> open: buyer cfp\n    [*] --> held: buyer accept of a posted offer"
    ends = sorted(thread.ENDED - {"delivered"})
    return diagram(begin, [*arrows(thread.STEPS), *silent], ends)


def talk_diagram() -> str:
    """Return the life of a talk as its two sides know it."""
    return diagram("    [*] --> new", arrows(TALK), sorted(OVER))


def rules() -> str:
    """Return the broker's rules, as its module tells them."""
    told = (thread.__doc__ or "").partition("Rules, in the order")[2].partition("    >>>")[0]
    return "Rules, in the order" + told.rstrip()


def document() -> str:
    """Return the whole page."""
    parts = [HEAD, BROKER, broker_diagram(), rules(), SIDES, talk_diagram()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
