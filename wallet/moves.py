"""The lives of a hold and of a stake, as tables: what may follow what, and what is refused.

The compilers (:mod:`wallet.effects`) ask :func:`check_move` before they look at anything else, the
machine asserts afterwards that a hold went where its table says, and the diagrams of the docs are
drawn from these very tables (``tools/state_diagrams.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wallet.errors import (
    ChallengedError,
    DisputedError,
    HoldResolvedError,
    NotChallengedError,
    NotContestableError,
    NotDisputedError,
    PaymentRefusedError,
)
from wallet.state import Status
from wallet.transactions import (
    Capture,
    Challenge,
    Deliver,
    Dispute,
    Expire,
    Release,
    Resolve,
    Slash,
    Stake,
    Tx,
    Unstake,
)

Refusal = type[PaymentRefusedError]
ENDS: Final[tuple[Status, ...]] = ("captured", "released")

HOLD: Final[Mapping[Status, Mapping[type[Tx], tuple[Status, ...] | Refusal]]] = {
    "open": {
        Capture: ("open", *ENDS),
        Release: ENDS,
        Expire: ENDS,
        Dispute: ("disputed",),
        Resolve: NotDisputedError,
        Challenge: NotContestableError,
        Deliver: NotChallengedError,
    },
    "disputed": {
        Capture: DisputedError,
        Release: ENDS,
        Expire: ENDS,
        Dispute: DisputedError,
        Resolve: ENDS,
        Challenge: DisputedError,
        Deliver: NotChallengedError,
    },
    "captured": {
        Capture: HoldResolvedError,
        Release: HoldResolvedError,
        Expire: HoldResolvedError,
        Dispute: HoldResolvedError,
        Resolve: HoldResolvedError,
        Challenge: ("challenged",),
        Deliver: NotChallengedError,
    },
    "challenged": {
        Capture: ChallengedError,
        Release: ChallengedError,
        Expire: ("released",),
        Dispute: ChallengedError,
        Resolve: NotDisputedError,
        Challenge: ChallengedError,
        Deliver: ("challenged", "captured"),
    },
    "released": dict.fromkeys(
        (Capture, Release, Expire, Dispute, Resolve, Challenge, Deliver), HoldResolvedError
    ),
}
"""From each status, where each type of transaction leads, or why it is refused.

A hold ends ``captured`` if its payee got anything, else ``released``. What was captured may be
challenged only while its recourse lasts, if it has one.
"""

STAKE: Final[Mapping[str, Mapping[type[Tx], str]]] = {
    "available": {Stake: "staked"},
    "staked": {Unstake: "unbonding", Slash: "seized"},
    "unbonding": {Expire: "available", Slash: "seized"},
}
"""Where an account's money goes between being available and being its bond."""


def check_move(status: Status, kind: type[Tx]) -> None:
    """Refuse what the table of holds refuses at that status."""
    there = HOLD[status][kind]
    if isinstance(there, type):
        raise there(f"the hold is {status}")


def may_lead(status: Status, kind: type[Tx], to: Status) -> bool:
    """Say whether the table lets a transaction of that type lead from one status to the other."""
    there = HOLD[status][kind]
    return isinstance(there, tuple) and to in there
