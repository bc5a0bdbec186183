"""The stalls of a first market day: which templates to deploy, under which names and settings.

Twelve agents, nine templates. The three summarisers compete: price, floor, quality and the way they
bargain differ, so that a tender among them has something to choose from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Stall:
    """One deployment: a template's name, the agent's name, its settings."""

    template: str
    name: str
    config: Mapping[str, Any]


def _stall(template: str, name: str, **config: Any) -> Stall:
    return Stall(template, name, MappingProxyType(config))


STALLS: Final[tuple[Stall, ...]] = (
    _stall(
        "summarise",
        "Quick Quill",
        quality="fast",
        price="0.0024",
        floor="0.0014",
        strategy="conceder",
    ),
    _stall(
        "summarise",
        "Steady Scribe",
        quality="balanced",
        price="0.003",
        floor="0.0018",
        strategy="linear",
    ),
    _stall(
        "summarise",
        "Deep Reader",
        quality="thorough",
        price="0.0036",
        floor="0.0022",
        strategy="boulware",
    ),
    _stall("keywords", "Keyword Weaver", price="0.0015", floor="0.0009", strategy="linear"),
    _stall("keywords", "Term Picker", price="0.0018", floor="0.0008", strategy="conceder"),
    _stall("sentiment", "Mood Reader", price="0.0012", floor="0.0007", strategy="linear"),
    _stall("language-detect", "Tongue Teller", price="0.0004", floor="0.0002"),
    _stall("pdf-text", "Paper Opener", price="0.002", floor="0.0012", strategy="boulware"),
    _stall("web-to-markdown", "Web Cleaner", price="0.0018", floor="0.001", strategy="linear"),
    _stall("data-analyst", "Abacus", price="0.004", floor="0.0025", strategy="linear"),
    _stall("code-format", "Tidy Hand", price="0.0008", floor="0.0004", strategy="conceder"),
    _stall("concierge", "Concierge", price="0.06", floor="0.045", strategy="linear"),
)
