"""A priced agent in five lines.

    >>> agent = Agent("echo")
    >>> @agent.offer("text.echo", price="0.002", floor="0.0012")
    ... def echo(text: str) -> str:
    ...     return text
    >>> agent.offers["text.echo"].price_fals
    2000000

An :class:`Agent` is a declaration: a name and its offers. It has no key, opens no connection and
does nothing until a host runs it (:mod:`agents.host`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from typing_extensions import override

from agents.ports import Vital
from agents.schema import MAX_INPUT_BYTES, OfferDefinitionError, Signature, TierError
from rahba.errors import RahbaError
from rahba.ids import check_skill
from rahba.messages import MAX_TIERS, Energy
from rahba.money import parse_rhb

Runs = Literal["inline", "worker"]
F = TypeVar("F", bound=Callable[..., Any])

MAX_OFFERS: Final = 32
PENALTY: Final = 100
MAX_TIMEOUT_S: Final = 1800
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Another way to have the same skill: its own terms, price and floor (RHB).

    What is not given is as in the offer itself. The function learns which terms were bought from
    ``job.terms.issues``.
    """

    price: str
    floor: str | None = None
    latency_ms: int | None = None
    quality: int | None = None
    privacy: Literal["sealed", "logged", "public"] | None = None
    energy: Energy | None = None


@dataclass(frozen=True, slots=True)
class OfferSpec:
    """One skill for sale: the function, its schemas, its price range (fals) and its limits.

    ``budget_fals`` is what one job may spend on buying from others; ``None`` means the price the
    job was sold for, so that no job can cost its seller more than it earns. ``penalty`` is what the
    seller puts up when it answers a tender or bargains, in thousandths of the price.
    """

    skill: str
    function: Callable[..., Any]
    signature: Signature
    price_fals: int
    floor_fals: int
    runs: Runs
    description: str
    tags: tuple[str, ...]
    timeout_s: float
    latency_ms: int
    quality: int
    max_input_bytes: int
    energy: Energy
    strategy: str | None
    budget_fals: int | None
    penalty: int = PENALTY
    tiers: tuple[Tier, ...] = ()

    @property
    def negotiable(self) -> bool:
        """Say whether there is anything to bargain about."""
        return self.floor_fals < self.price_fals or bool(self.tiers)

    @property
    def is_async(self) -> bool:
        """Say whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)


class Agent:
    """A name and what it sells. Declared in a module, a template or a test; run by a host."""

    def __init__(
        self,
        name: str,
        *,
        description: str = "",
        version: str = "1",
        template: str = "custom",
        data_policy: Literal["sealed", "logged", "public"] = "sealed",
        capacity: int = 16,
        backlog: int | None = None,
        vital: Vital | None = None,
    ) -> None:
        """Name the agent; it works on ``capacity`` jobs at a time, ``backlog`` more may wait.

        With something ``vital`` elsewhere it is listed only while that answers.
        """
        if _NAME.fullmatch(name) is None:
            raise OfferDefinitionError(f"not a name for an agent: {name[:70]!r}")
        if not 1 <= capacity <= 1_000:
            raise OfferDefinitionError("capacity is from 1 to 1000 jobs at a time")
        self.name = name
        self.description = description[:500]
        self.version = version
        self.template = template
        self.data_policy = data_policy
        self.capacity = capacity
        self.backlog = 4 * capacity if backlog is None else backlog
        self.vital = vital
        self.offers: dict[str, OfferSpec] = {}

    def offer(
        self,
        skill: str,
        *,
        price: str,
        floor: str | None = None,
        runs: Runs = "inline",
        description: str | None = None,
        tags: Sequence[str] = (),
        timeout: float = 60.0,
        latency_ms: int = 1_000,
        quality: int = 500,
        max_input_bytes: int = MAX_INPUT_BYTES,
        energy: Energy | None = None,
        strategy: str | None = None,
        budget: str | None = None,
        penalty: int = PENALTY,
        tiers: Sequence[Tier] = (),
    ) -> Callable[[F], F]:
        """Sell a function under ``skill`` for ``price`` RHB, bargaining down to ``floor``.

        Raises:
            OfferDefinitionError: the function, a price or a limit cannot be offered as given.
        """

        def declare(function: F) -> F:
            if skill in self.offers or len(self.offers) >= MAX_OFFERS:
                raise OfferDefinitionError(f"{skill} is offered twice, or over {MAX_OFFERS} offers")
            self.offers[skill] = _checked(
                privacy=self.data_policy,
                spec=OfferSpec(
                    skill=_skill(skill),
                    function=function,
                    signature=Signature(function),
                    price_fals=_price(price),
                    floor_fals=_price(price if floor is None else floor),
                    runs=runs,
                    description=_about(function) if description is None else description[:500],
                    tags=tuple(tag[:64] for tag in tags[:16]),
                    timeout_s=timeout,
                    latency_ms=latency_ms,
                    quality=quality,
                    max_input_bytes=max_input_bytes,
                    energy=energy or Energy(),
                    strategy=strategy,
                    budget_fals=None if budget is None else _price(budget),
                    penalty=penalty,
                    tiers=tuple(tiers),
                ),
            )
            return function

        return declare

    @override
    def __repr__(self) -> str:
        return f"Agent({self.name!r}, {sorted(self.offers)})"


def _checked(spec: OfferSpec, privacy: str) -> OfferSpec:
    if spec.floor_fals > spec.price_fals:
        raise OfferDefinitionError(f"{spec.skill}: the floor is above the price")
    if not 0 < spec.timeout_s <= MAX_TIMEOUT_S:
        raise OfferDefinitionError(f"{spec.skill}: a timeout is at most {MAX_TIMEOUT_S} s")
    if not 0 < spec.max_input_bytes <= MAX_INPUT_BYTES:
        raise OfferDefinitionError(f"{spec.skill}: input is at most {MAX_INPUT_BYTES} bytes")
    if not 0 <= spec.quality <= 1_000 or spec.latency_ms < 0:
        raise OfferDefinitionError(f"{spec.skill}: quality is 0 to 1000, latency 0 ms or more")
    _check_tiers(spec, privacy)
    if not 0 <= spec.penalty <= 1_000:
        raise OfferDefinitionError(f"{spec.skill}: a penalty is 0 to 1000 thousandths of the price")
    if spec.runs not in {"inline", "worker"}:
        raise OfferDefinitionError(f'{spec.skill}: runs is "inline" or "worker"')
    return spec


def _check_tiers(spec: OfferSpec, privacy: str) -> None:
    if len(spec.tiers) >= MAX_TIERS:
        raise TierError(f"{spec.skill}: at most {MAX_TIERS} tiers, the offer's included")
    known = {(spec.latency_ms, spec.quality, privacy, spec.energy)}
    for tier in spec.tiers:
        if _price(tier.floor or tier.price) > _price(tier.price):
            raise TierError(f"{spec.skill}: a tier's floor is above its price")
        if not 0 <= (tier.quality or 0) <= 1_000 or (tier.latency_ms or 0) < 0:
            raise TierError(f"{spec.skill}: quality is 0 to 1000, latency 0 ms or more")
        terms = (
            spec.latency_ms if tier.latency_ms is None else tier.latency_ms,
            spec.quality if tier.quality is None else tier.quality,
            tier.privacy or privacy,
            tier.energy or spec.energy,
        )
        if terms in known:  # an offer says its terms and its price: which of them would be meant?
            raise TierError(f"{spec.skill}: two tiers are had on the same terms")
        known.add(terms)


def _skill(name: str) -> str:
    try:
        return check_skill(name)
    except RahbaError as error:
        raise OfferDefinitionError(error.message) from error


def _price(text: str) -> int:
    try:
        return parse_rhb(text)
    except RahbaError as error:
        raise OfferDefinitionError(error.message) from error


def _about(function: Callable[..., Any]) -> str:
    lines = (inspect.getdoc(function) or "").split("\n\n")[0].split()
    return " ".join(lines)[:500]
