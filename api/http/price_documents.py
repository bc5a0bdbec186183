"""What the routes say about prices, routing and flags, as models for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path
from pydantic import Field

from api.http.fields import Document, Millis

SkillName = Annotated[str, Path(min_length=1, max_length=64)]

_Fals = Field(description="an amount: a string of whole fals")


class FlagDocument(Document):
    """Something odd about an agent: a hint with its reason, never a verdict; it expires."""

    kind: Literal["price", "ring"]
    agents: list[str]
    skill: str
    agreement: str
    reason: str
    score: float
    times: int
    since: int = Millis
    until: int = Millis


class BucketDocument(Document):
    """The settled deals of one stretch of time that begins at ``start``."""

    start: int = Millis
    deals: int
    low_fals: str = _Fals
    median_fals: str = _Fals
    high_fals: str = _Fals
    volume_fals: str = _Fals


class StepDocument(Document):
    """A forecast of the step that begins at ``start``, with the naive one beside it."""

    start: int = Millis
    value_fals: str = _Fals
    low_fals: str = _Fals
    high_fals: str = _Fals
    naive_fals: str = _Fals


class ForecastDocument(Document):
    """How a price is expected to go on.

    ``errors_fals`` are the mean absolute errors by method on the last third of the history, none of
    which the parameters were chosen by; empty while the history is too short. The method with the
    least is in use. Each step lies within low and high with the probability ``interval``.
    """

    method: Literal["naive", "seasonal", "smoothing"]
    width_ms: int
    interval: float
    errors_fals: dict[Literal["naive", "seasonal", "smoothing"], float]
    steps: list[StepDocument]


class PricesDocument(Document):
    """What a skill cost, by the minute and by the hour, and what it is expected to."""

    skill: str
    deals: int
    last_fals: str | None
    last_at: int | None
    forecast: ForecastDocument | None
    minutes: list[BucketDocument]
    hours: list[BucketDocument]


class ChoiceDocument(Document):
    """A seller in the order of a route, with the reason for its place."""

    seller: str
    price_fals: str = _Fals
    reason: str


class RoutingDocument(Document):
    """In which order sellers were to be tried; ``cheapest`` is the baseline beside it."""

    how: Literal["thompson", "cheapest"]
    cheapest: str
    order: list[ChoiceDocument]
