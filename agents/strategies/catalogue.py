"""The strategies by the names that people configure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from agents.strategies.reactive import Micro, TitForTat
from agents.strategies.steadfast import Steadfast
from agents.strategies.timed import Stochastic, Timed
from agents.strategies.view import Strategy
from rahba.errors import BadInputError

STRATEGIES: Final[Mapping[str, Callable[[int], Strategy]]] = MappingProxyType(
    {
        "best": lambda _: Steadfast(),
        "boulware": lambda _: Timed(0.2),
        "linear": lambda _: Timed(1.0),
        "conceder": lambda _: Timed(3.0),
        "stochastic": lambda seed: Stochastic(0.2, seed),
        "tit_for_tat": lambda _: TitForTat(),
        "micro": Micro,
    }
)


def make_strategy(name: str, *, seed: int = 0) -> Strategy:
    """Make a strategy by name; ``seed`` matters to those that draw (stochastic, micro)."""
    maker = STRATEGIES.get(name)
    if maker is None:
        known = ", ".join(STRATEGIES)
        raise BadInputError(f"unknown strategy {name[:64]!r}; there are {known}")
    return maker(seed)
