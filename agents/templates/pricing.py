"""What every template of ours shares: its price, its floor, and how it bargains between them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, TypedDict

from pydantic import Field, model_validator

from agents.agent import Agent, Tier
from agents.template import Template, TemplateConfig
from rahba.messages import MAX_TIERS, Energy
from rahba.money import parse_rhb

MAX_LATENCY_MS: Final = 24 * 3_600_000
MAX_ENERGY_UWH: Final = 1_000_000_000

Rhb = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})(\.[0-9]{1,9})?$", examples=["0.002"])]


class Terms(TypedDict):
    """The part of an offer that pricing decides."""

    price: str
    floor: str
    strategy: str | None
    tiers: list[Tier]


class TierSetting(TemplateConfig):
    """The same service on other terms, at its own price and floor in RHB.

    What is not said is as without tiers; without a floor its price is not bargained over.
    ``quality`` in thousandths, ``energy_uwh`` what a call takes at most, in micro-watt-hours.
    """

    price: Rhb
    floor: Rhb | None = None
    latency_ms: Annotated[int, Field(ge=1, le=MAX_LATENCY_MS)] | None = None
    quality: Annotated[int, Field(ge=0, le=1_000)] | None = None
    privacy: Literal["sealed", "logged", "public"] | None = None
    energy_uwh: Annotated[int, Field(ge=0, le=MAX_ENERGY_UWH)] | None = None

    @model_validator(mode="after")
    def _is_another(self) -> Self:
        if self.floor is not None and parse_rhb(self.floor) > parse_rhb(self.price):
            raise ValueError("the floor is above the price")
        if {self.latency_ms, self.quality, self.privacy, self.energy_uwh} == {None}:
            raise ValueError("a tier says at least one of latency_ms, quality, privacy, energy_uwh")
        return self

    def tier(self) -> Tier:
        """Return it as an agent declares it."""
        most = self.energy_uwh
        energy = None if most is None else Energy(uwh=most, high=most, method="declared")
        return Tier(
            price=self.price,
            floor=self.floor,
            latency_ms=self.latency_ms,
            quality=self.quality,
            privacy=self.privacy,
            energy=energy,
        )


class Pricing(TemplateConfig):
    """Price and floor in RHB, the strategy that bargains between them, jobs at a time.

    With ``tiers`` the same service is to be had on other terms as well, each at its own price.
    """

    price: Rhb = "0.002"
    floor: Rhb = "0.0012"
    strategy: (
        Literal["best", "boulware", "linear", "conceder", "stochastic", "tit_for_tat", "micro"]
        | None
    ) = None
    capacity: Annotated[int, Field(ge=1, le=64)] = 8
    tiers: Annotated[tuple[TierSetting, ...], Field(max_length=MAX_TIERS - 1)] = ()

    @model_validator(mode="after")
    def _floor_below_price(self) -> Self:
        if parse_rhb(self.floor) > parse_rhb(self.price):
            raise ValueError("the floor is above the price")
        return self

    def terms(self) -> Terms:
        """Return what :meth:`agents.agent.Agent.offer` wants to know of it."""
        return {
            "price": self.price,
            "floor": self.floor,
            "strategy": self.strategy,
            "tiers": [each.tier() for each in self.tiers],
        }


class PricedTemplate(Template):
    """A template whose ``Config`` is a :class:`Pricing`."""

    def agent(self, config: Pricing, name: str) -> Agent:
        """Return an agent of this template that sells nothing yet."""
        return Agent(
            name,
            description=self.description,
            version=self.version,
            template=self.name,
            capacity=config.capacity,
        )
