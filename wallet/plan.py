"""What a transaction will do, written down before anything is done.

A :class:`Plan` is plain data: postings, and at most one :data:`Change` of something else. Whoever
made it has read the state and changed nothing (:mod:`wallet.effects`); :mod:`wallet.machine`
checks it as a whole and carries it out.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from wallet.state import Account, Escrow, Issue, Kept, Policy, Posting, Session, State, Unbonding


class Context(msgspec.Struct, frozen=True, gc=False):
    """What a compiler may know: the state to read, the session if any, when, leaf and signer."""

    state: State
    session: Session | None
    log_time: int
    leaf: bytes
    signer: str = ""

    @property
    def tx_id(self) -> str:
        """Return the id of the transaction."""
        return self.leaf.hex()


class OpenHold(NamedTuple):
    """Money is set aside in a new hold."""

    hold: Escrow


class Freeze(NamedTuple):
    """An open hold waits for its arbiter."""

    hold: Escrow
    deadline: int


class Draw(NamedTuple):
    """A hold gives ``taken`` to its payee and ``freed`` back to its payer; its end frees its bail.

    What of the bail is forfeited is a posting. What is ``kept`` of what was taken may be challenged
    for a while, and is not the payee's to spend before.
    """

    hold: Escrow
    taken: int
    freed: int
    kept: Kept | None = None


class Contest(NamedTuple):
    """What was captured of a hold waits for its payee to deliver."""

    hold: Escrow
    deadline: int


class Hand(NamedTuple):
    """The payee of a challenged hold delivers the next of ``parts``, with that receipt's digest."""

    hold: Escrow
    parts: int
    receipt: str


class Undo(NamedTuple):
    """What was captured is freed for the postings that give ``back`` of it."""

    hold: Escrow
    back: int


class Bond(NamedTuple):
    """``amount`` of the account's own becomes its stake."""

    account: str
    amount: int


class Unbond(NamedTuple):
    """A part of a stake is on its way back."""

    part: Unbonding


class Unbonded(NamedTuple):
    """A part of a stake is free again."""

    part: Unbonding


class Seize(NamedTuple):
    """``amount`` of a bond is freed for the postings that take it; ``fault`` is then punished."""

    account: Account
    amount: int
    fault: str


class Open(NamedTuple):
    """A session begins, or is replaced."""

    session: Session


class Close(NamedTuple):
    """The session of ``key`` ends."""

    key: str


class Rule(NamedTuple):
    """The policy in force, and perhaps one that is pending."""

    policy: Policy
    pending: tuple[Policy, int] | None


HoldMove = Draw | Freeze | Contest | Hand | Undo
Change = OpenHold | HoldMove | Bond | Unbond | Unbonded | Seize | Open | Close | Rule


class Plan(msgspec.Struct, gc=False):
    """What a transaction will do, and nothing else.

    ``spend`` is what a session's limits count, ``payees`` to whom; ``parties`` see it in their
    history although nothing is posted to them; ``issues`` counts towards the caps of the genesis.
    """

    postings: list[Posting]
    spend: int = 0
    payees: tuple[str, ...] = ()
    change: Change | None = None
    issues: tuple[Issue, int] | None = None
    parties: tuple[str, ...] = ()


Freed = tuple[tuple[str, int], ...]


def freed(change: Change) -> Freed:
    """Return whose available money a change alters before the postings, and by how much."""
    match change:
        case Bond(account, amount):
            return ((account, -amount),)
        case Unbonded(part):
            return ((part.owner, part.amount),)
        case Seize(account, amount, _):
            return ((account.id, amount),)
        case Open() | Close() | Rule() | Unbond():
            return ()
        case _:
            return _freed_of_hold(change)


def _freed_of_hold(change: OpenHold | HoldMove) -> Freed:
    match change:
        case OpenHold(hold):
            return (hold.payer, -hold.amount), (hold.payee, -hold.bail)
        case Draw(hold, taken, back, kept):
            own = hold.bail if taken + back == hold.rest else 0
            return (hold.payer, taken + back), (hold.payee, own - (kept[0] if kept else 0))
        case Undo(hold):
            return ((hold.payee, hold.retained),)
        case Hand(hold, parts) if hold.part + 1 == parts:
            return ((hold.payee, hold.retained),)
        case _:
            return ()
