"""Tells which language a text is in, and how sure that is."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents.agent import Agent
from agents.templates.crafts import prose
from agents.templates.crafts.tongues import detect
from agents.templates.pricing import PricedTemplate, Pricing
from agents.templates.trial import prove


class Candidate(TypedDict):
    """A language (ISO 639-1) and how sure it is."""

    language: str
    confidence: float


class LanguageOutput(TypedDict):
    """The language, or ``und`` where no candidate is sure enough; script and runners-up."""

    language: str
    confidence: float
    script: str
    candidates: list[Candidate]


class LanguageConfig(Pricing):
    """What telling a language costs."""

    price: str = "0.0004"
    floor: str = "0.0002"


class LanguageDetect(PricedTemplate):
    """Sells ``text.language``."""

    name: ClassVar[str] = "language-detect"
    title: ClassVar[str] = "Language detection"
    description: ClassVar[str] = "Tells which of twenty languages a text is in, and how sure."
    Config: ClassVar[type[BaseModel]] = LanguageConfig

    @override
    def build(self, config: LanguageConfig, name: str) -> Agent:
        agent = self.agent(config, name)

        @agent.offer(
            "text.language",
            **config.terms(),
            description="The language of a text with an honest confidence",
            tags=["text", "language"],
            quality=600,
            latency_ms=200,
        )
        def language(
            text: Annotated[str, Field(max_length=prose.MAX_TEXT_CHARS)],
        ) -> LanguageOutput:
            """Tell the language of ``text``."""
            found = detect(text)
            return {
                "language": found.language,
                "confidence": found.confidence,
                "script": found.script,
                "candidates": [
                    {"language": code, "confidence": sure} for code, sure in found.candidates
                ],
            }

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        await prove(
            agent,
            "text.language",
            {"text": "Le marché ouvre demain matin et nous y serons."},
            lambda output: output["language"] == "fr",
        )
