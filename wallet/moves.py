"""The lives of a hold and of a stake, as tables: what may follow what, and what is refused.

The compilers (:mod:`wallet.effects`) ask :func:`check_move` before they look at anything else, the
machine asserts afterwards that a hold went where its table says, and the diagrams of the docs are
drawn from these very tables (``tools/state_diagrams.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wallet.errors import (
    DisputedError,
    HoldResolvedError,
    NotDisputedError,
    PaymentRefusedError,
)
from wallet.state import Status
from wallet.transactions import (
    Capture,
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
    },
    "disputed": {
        Capture: DisputedError,
        Release: ENDS,
        Expire: ENDS,
        Dispute: DisputedError,
        Resolve: ENDS,
    },
    "captured": dict.fromkeys((Capture, Release, Expire, Dispute, Resolve), HoldResolvedError),
    "released": dict.fromkeys((Capture, Release, Expire, Dispute, Resolve), HoldResolvedError),
}
"""From each status, where each type of transaction leads, or why it is refused.

A hold ends ``captured`` if its payee got anything, else ``released``.
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
