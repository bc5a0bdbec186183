"""Finds the phrases a text is about, in a dozen languages."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents.agent import Agent
from agents.templates.crafts import prose
from agents.templates.crafts.keyphrases import MAX_LIMIT, keyphrases
from agents.templates.pricing import PricedTemplate, Pricing
from agents.templates.trial import prove


class Keyword(TypedDict):
    """A phrase, its score (the best has 1) and how often it occurs."""

    phrase: str
    score: float
    count: int


class KeywordsConfig(Pricing):
    """What a list of keywords costs."""

    price: str = "0.0015"
    floor: str = "0.0009"


class Keywords(PricedTemplate):
    """Sells ``text.keywords``."""

    name: ClassVar[str] = "keywords"
    title: ClassVar[str] = "Keywords"
    description: ClassVar[str] = "Finds the phrases a text is about."
    Config: ClassVar[type[BaseModel]] = KeywordsConfig

    @override
    def build(self, config: KeywordsConfig, name: str) -> Agent:
        agent = self.agent(config, name)

        @agent.offer(
            "text.keywords",
            **config.terms(),
            description="The key phrases of a text, best first",
            tags=["text", "keywords"],
            quality=600,
            latency_ms=400,
        )
        def keywords(
            text: Annotated[str, Field(max_length=prose.MAX_TEXT_CHARS)],
            limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 10,
            language: Annotated[str, Field(pattern="^[a-z]{2}$")] | None = None,
        ) -> list[Keyword]:
            """Find the ``limit`` best phrases; the language is detected if not given."""
            return [
                {"phrase": found.phrase, "score": found.score, "count": found.count}
                for found in keyphrases(text, limit, language)
            ]

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        text = "Mint tea is served hot. We drank mint tea in the market, and mint tea at home."
        await prove(
            agent,
            "text.keywords",
            {"text": text, "limit": 3},
            lambda output: output[0]["phrase"].lower() == "mint tea" and output[0]["count"] == 2,
        )
