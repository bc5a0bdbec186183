"""Tells how an English text feels, as a whole and sentence by sentence (VADER)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents.agent import Agent
from agents.templates.crafts.moods import mood
from agents.templates.pricing import PricedTemplate, Pricing
from agents.templates.trial import prove

MAX_CHARS: Final = 200_000
Label = Literal["positive", "neutral", "negative"]


class FeltSentence(TypedDict):
    """One sentence and how it feels."""

    text: str
    score: float
    label: Label


class Sentiment(TypedDict):
    """How a text feels, from -1 to 1, and the share of its words that the lexicon knows."""

    score: float
    label: Label
    shares: dict[str, float]
    known_words: float
    sentences: list[FeltSentence]


class SentimentConfig(Pricing):
    """What an opinion on opinions costs."""

    price: str = "0.0012"
    floor: str = "0.0007"


class SentimentTemplate(PricedTemplate):
    """Sells ``text.sentiment``."""

    name: ClassVar[str] = "sentiment"
    title: ClassVar[str] = "Sentiment"
    description: ClassVar[str] = "Tells how an English text feels, whole and by sentence."
    Config: ClassVar[type[BaseModel]] = SentimentConfig

    @override
    def build(self, config: SentimentConfig, name: str) -> Agent:
        agent = self.agent(config, name)

        @agent.offer(
            "text.sentiment",
            **config.terms(),
            description="Sentiment of an English text, whole and by sentence",
            tags=["text", "sentiment", "en"],
            quality=600,
            latency_ms=300,
        )
        def sentiment(
            text: Annotated[str, Field(max_length=MAX_CHARS)], by_sentence: bool = True
        ) -> Sentiment:
            """Tell how ``text`` feels."""
            felt = mood(text)
            lines = felt.lines if by_sentence else ()
            return {
                "score": felt.score,
                "label": felt.label,
                "shares": felt.shares,
                "known_words": felt.known_words,
                "sentences": [
                    {"text": line.text, "score": line.score, "label": line.label} for line in lines
                ],
            }

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        for text, label in (("I love this place.", "positive"), ("Awful food.", "negative")):
            await prove(agent, "text.sentiment", {"text": text}, partial(_is_labelled, label))


def _is_labelled(label: str, output: Sentiment) -> bool:
    return output["label"] == label
