"""What a buyer asks for, what it gets, and what it tells on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from agents.negotiation.mandate import Privacy, Weights
from agents.routing import Route, Routing
from agents.strategies import Strategy
from rahba.errors import BadInputError
from rahba.ids import check_id, check_skill
from rahba.messages import Mode
from rahba.money import MAX_FALS

MAX_ROUNDS: Final = 20
MAX_SELLERS: Final = 16
MAX_DEPTH: Final = 8
USUAL_WEIGHTS: Final = Weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A wish: a ``skill`` from anybody or from one ``agent``, for at most ``budget_fals``.

    The result is wanted by ``deadline_ms`` (epoch), or ``within_ms`` from now. ``mode`` is chosen
    if not given: a tender when several sellers qualify, else a bargain, else the posted price.
    ``window_ms`` is how long a tender stays sealed, ``turn_ms`` how long one answer may take.
    ``min_penalty`` (thousandths of the price) is what a seller must put up against not showing up.
    With ``route`` sellers are tried at their posted prices in that order (:mod:`agents.routing`);
    if another mode is given, too, it decides which of them are asked.
    ``group`` names the request (32 hex digits); a fresh name is made if not given.
    """

    budget_fals: int
    skill: str | None = None
    agent: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    mode: Mode | None = None
    route: Route | None = None
    deadline_ms: int | None = None
    within_ms: int = 60_000
    rounds: int = 6
    weights: Weights = USUAL_WEIGHTS
    privacy: Privacy = "public"
    min_quality: int = 0
    max_latency_ms: int | None = None
    max_energy_uwh: int | None = None
    min_penalty: int = 0
    parties: tuple[str, ...] | None = None
    depth: int = 0
    parent: str | None = None
    strategy: str | Strategy = "best"
    max_sellers: int = 8
    window_ms: int = 2_000
    turn_ms: int = 3_000
    settle_wait_ms: int = 3_000
    group: str | None = None

    def check(self) -> None:
        """Refuse a wish that nobody could fulfil.

        Raises:
            BadInputError: a field is out of its range.
        """
        if self.skill is None and self.agent is None:
            raise BadInputError("say which skill, or which agent")
        if self.skill is not None:
            check_skill(self.skill)
        if self.group is not None:
            check_id(self.group)
        limits = (
            ("budget_fals", self.budget_fals, 0, MAX_FALS),
            ("within_ms", self.within_ms, 1, 24 * 3_600_000),
            ("rounds", self.rounds, 1, MAX_ROUNDS),
            ("depth", self.depth, 0, MAX_DEPTH),
            ("max_sellers", self.max_sellers, 1, MAX_SELLERS),
            ("min_quality", self.min_quality, 0, 1_000),
            ("min_penalty", self.min_penalty, 0, 1_000),
            ("max_latency_ms", self.max_latency_ms or 0, 0, 24 * 3_600_000),
            ("max_energy_uwh", self.max_energy_uwh or 0, 0, 1_000_000_000),
            ("window_ms", self.window_ms, 1, 60_000),
            ("turn_ms", self.turn_ms, 1, 60_000),
            ("settle_wait_ms", self.settle_wait_ms, 0, 60_000),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                raise BadInputError(f"{name} is from {low} to {high}", field=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """A delivered result and everything that proves it.

    ``receipt`` is the seller's signed envelope, ``deal`` the agreement under both signatures.
    ``paid_fals`` is what the ledger showed as captured; less than agreed means that the seller had
    not taken its money yet (it can until the hold expires), and ``capture_tx`` may be null then.
    ``best_rejected_fals`` is the price of the next best offer that stood, ``advantage_fals`` how
    many fals better this one was by the buyer's weights.
    ``at_risk_fals`` is what sellers that failed before have taken, or can until their holds expire;
    what they did not deliver is asked back (:mod:`agents.recourse`).
    """

    output: Any
    skill: str
    buyer: str
    seller: str
    mode: Mode
    group: str
    thread: str
    agreement: str
    rounds: int
    asked_fals: int
    agreed_fals: int
    paid_fals: int
    hold: str | None
    capture_tx: str | None
    receipt: bytes
    receipt_verified: bool
    deal: bytes
    at_risk_fals: int = 0
    best_rejected_fals: int | None = None
    advantage_fals: int | None = None
    routing: Routing | None = None


#: Told of each step of a purchase: ids and figures only, no free text. Kinds, in their usual order:
#: routed, opened, offer, chosen, held, ordered, delivered, settled; and failed, released.
Watcher = Callable[[str, dict[str, object]], None]
