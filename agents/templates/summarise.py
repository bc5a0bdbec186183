"""Sums a text up by its own most telling sentences (TextRank); nothing is made up.

Three qualities compete on one skill: ``fast`` looks at shared words for a few rounds, ``balanced``
weighs them, ``thorough`` also refuses to say the same thing twice. One agent can sell several of
them as tiers: a job gets the least of them that is as good as what was bought.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents.agent import Agent
from agents.job import Job
from agents.templates.crafts import prose, textrank
from agents.templates.crafts.textrank import Settings
from agents.templates.crafts.tongues import detect, stop_words
from agents.templates.pricing import PricedTemplate, Pricing
from agents.templates.trial import prove

Quality = Literal["fast", "balanced", "thorough"]
PRESETS: Final[dict[Quality, Settings]] = {
    "fast": Settings(ratio=0.1, max_sentences=5, max_iterations=8, similarity="overlap", novelty=0),
    "balanced": Settings(ratio=0.12, max_sentences=7, max_iterations=40, novelty=0.25),
    "thorough": Settings(ratio=0.15, max_sentences=9, max_iterations=200, novelty=0.45, lead=0.2),
}
_CLAIMS: Final[dict[Quality, tuple[int, int]]] = {
    "fast": (450, 300),
    "balanced": (650, 600),
    "thorough": (800, 1_200),
}
_SAMPLE: Final = (
    "The market opens before sunrise. Traders bring mint, bread and oil to the market square. "
    "A boy counts coins. By noon the market square is full of traders and their mint. "
    "Rain is rare. In the evening the traders leave the square and count the coins of the market."
)


class Point(TypedDict):
    """A sentence of the summary, its place in the text and its rank."""

    text: str
    index: int
    rank: float


class SummaryOutput(TypedDict):
    """A summary and what it was made from."""

    summary: str
    sentences: list[Point]
    of_sentences: int
    language: str


class SummariseConfig(Pricing):
    """How good, how long, for how much."""

    price: str = "0.003"
    floor: str = "0.0018"
    quality: Quality = "balanced"
    max_sentences: Annotated[int, Field(ge=1, le=50)] | None = None


class Summarise(PricedTemplate):
    """Sells ``text.summarise``."""

    name: ClassVar[str] = "summarise"
    title: ClassVar[str] = "Summariser"
    description: ClassVar[str] = "Sums a text up by its most telling sentences (TextRank)."
    Config: ClassVar[type[BaseModel]] = SummariseConfig

    @override
    def build(self, config: SummariseConfig, name: str) -> Agent:
        agent = self.agent(config, name)
        quality, latency_ms = _CLAIMS[config.quality]

        @agent.offer(
            "text.summarise",
            **config.terms(),
            description=f"A summary in the text's own sentences ({config.quality})",
            tags=["text", "summary", config.quality],
            quality=quality,
            latency_ms=latency_ms,
        )
        def summarise(
            text: Annotated[str, Field(max_length=prose.MAX_TEXT_CHARS)],
            job: Job,
            max_sentences: Annotated[int, Field(ge=1, le=50)] | None = None,
        ) -> SummaryOutput:
            """Sum up ``text`` in at most ``max_sentences`` of its sentences."""
            bought = job.terms.issues
            preset = PRESETS[as_good_as(quality if bought is None else bought.quality)]
            most = max_sentences or config.max_sentences or preset.max_sentences
            return summed_up(text, preset, most)

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        await prove(
            agent,
            "text.summarise",
            {"text": _SAMPLE, "max_sentences": 2},
            lambda output: (
                1 <= len(output["sentences"]) <= 2
                and all(point["text"] in _SAMPLE for point in output["sentences"])
            ),
        )


def as_good_as(quality: int) -> Quality:
    """Return the least effort that is worth so many thousandths; the best, if none is."""
    good = [name for name in PRESETS if _CLAIMS[name][0] >= quality]
    return good[0] if good else "thorough"


def summed_up(text: str, preset: Settings, max_sentences: int) -> SummaryOutput:
    """Sum ``text`` up with the stop words of its language."""
    language = detect(text).language
    settings = Settings(
        ratio=preset.ratio if max_sentences <= preset.max_sentences else 1.0,
        max_sentences=max_sentences,
        damping=preset.damping,
        max_iterations=preset.max_iterations,
        similarity=preset.similarity,
        novelty=preset.novelty,
        lead=preset.lead,
    )
    made = textrank.summary(text, settings, stop_words(language))
    return {
        "summary": made.text,
        "sentences": [
            {"text": sentence.text, "index": sentence.index, "rank": rank}
            for sentence, rank in zip(made.chosen, made.ranks, strict=True)
        ],
        "of_sentences": made.of_sentences,
        "language": language,
    }
