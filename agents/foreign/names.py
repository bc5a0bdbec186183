"""How a foreign agent and its skills are called here.

Names of ours are narrow on purpose (:func:`rahba.ids.check_skill`); what is foreign is fitted to
them, and keeps its own name beside.

    >>> skill_names(["Route Planner!", "route_planner", "翻訳"])
    ['route-planner', 'route-planner-2', 'skill-3']
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from rahba.ids import check_skill

MAX_SKILL_CHARS: Final = 64
MAX_SKILL_WORDS: Final = 8
_BETWEEN: Final = re.compile(r"[^a-z0-9.]+", re.ASCII)
_DOTS: Final = re.compile(r"-*\.[.-]*", re.ASCII)
_PARTS: Final = re.compile(r"([.-])", re.ASCII)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9 ._-]+", re.ASCII)


def clean(text: str, most: int) -> str:
    """Return foreign text as one line of at most ``most`` characters, without control characters.

    What turns the direction of writing or joins invisibly goes too: it serves to deceive the eye.
    """
    seen = "".join(
        " " if unicodedata.category(char) in {"Cc", "Zl", "Zp"} else char
        for char in text[: 8 * most]
        if unicodedata.category(char) not in {"Cf", "Cs", "Co", "Cn"}
    )
    line = " ".join(seen.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def agent_name(text: str, otherwise: str) -> str:
    """Return a name that an agent of ours may have, made of a foreign one."""
    for words in (_without_marks(text), otherwise, "foreign agent"):
        fitting = " ".join(_NOT_IN_NAMES.sub(" ", words).split()).lstrip(" ._-")[:64].strip()
        if fitting:
            return fitting
    raise AssertionError("the last of them fits")


def skill_names(ids: Sequence[str]) -> list[str]:
    """Return a skill name of ours for each foreign id, all different, the same every time."""
    taken: set[str] = set()
    names = []
    for number, text in enumerate(ids, 1):
        base = _skill(text) or f"skill-{number}"
        name, again = base, 1
        while name in taken:
            again += 1
            name = _fitted(base, f"-{again}")
        taken.add(name)
        names.append(check_skill(name))
    return names


def _skill(text: str) -> str:
    words = _BETWEEN.sub("-", _without_marks(text).lower())
    return _fitted(_DOTS.sub(".", words).strip(".-"), "")


def _without_marks(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text[:256])
    return "".join(char for char in plain if not unicodedata.combining(char))


def _fitted(base: str, end: str) -> str:
    """Return as many words of ``base`` as fit, with ``end`` behind."""
    most = MAX_SKILL_WORDS - (1 if end else 0)
    parts = _PARTS.split(base)[: 2 * most - 1]
    return "".join(parts)[: MAX_SKILL_CHARS - len(end)].rstrip(".-") + end
