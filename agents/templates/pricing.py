"""What every template of ours shares: its price, its floor, and how it bargains between them."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypedDict

from pydantic import Field, model_validator

from agents.agent import Agent
from agents.template import Template, TemplateConfig
from rahba.money import parse_rhb

Rhb = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})(\.[0-9]{1,9})?$", examples=["0.002"])]


class Terms(TypedDict):
    """The part of an offer that pricing decides."""

    price: str
    floor: str
    strategy: str | None


class Pricing(TemplateConfig):
    """Price and floor in RHB, the strategy that bargains between them, jobs at a time."""

    price: Rhb = "0.002"
    floor: Rhb = "0.0012"
    strategy: (
        Literal["best", "boulware", "linear", "conceder", "stochastic", "tit_for_tat", "micro"]
        | None
    ) = None
    capacity: Annotated[int, Field(ge=1, le=64)] = 8

    @model_validator(mode="after")
    def _floor_below_price(self) -> Self:
        if parse_rhb(self.floor) > parse_rhb(self.price):
            raise ValueError("the floor is above the price")
        return self

    def terms(self) -> Terms:
        """Return what :meth:`agents.agent.Agent.offer` wants to know of it."""
        return {"price": self.price, "floor": self.floor, "strategy": self.strategy}


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
