"""A ledger in memory: the state, the log that led to it, and the root that sums it up.

* The log's first leaf is the ``genesis``; a ``state`` leaf closes each interval. All
  transactions of an interval happen at one ledger time, which that leaf records.
* The state root is computed once an interval, over the accounts it touched.
* Nothing here is durable or signed by itself: the sequencer stores what a book appends, an
  auditor compares it (:mod:`wallet.replay`).
"""

from __future__ import annotations

from typing import Final, Self

from rahba.envelope import Signer
from rahba.merkle import HASH_BYTES
from wallet.errors import InvariantError
from wallet.links import pack_links
from wallet.machine import Outcome, apply
from wallet.merkle import MerkleLog
from wallet.ports import Snapshot
from wallet.snapshot import changes
from wallet.state import State
from wallet.sumtree import SumTree
from wallet.transactions import Genesis, Signed, StateLeaf, read, seal_transaction

MAX_INTERVAL: Final = 50_000


class Book:
    """State, log and account tree that move together; made from the genesis leaf."""

    __slots__ = ("_interval", "changed", "genesis", "links", "log", "pending", "state", "tree")

    def __init__(self, genesis: Genesis, leaf: bytes) -> None:
        """Open a book by its rules; ``leaf`` is the hash of the genesis record's bytes."""
        self.genesis = genesis
        self.state = State(genesis)
        self.log = MerkleLog([leaf])
        self.tree = SumTree()
        self.links = b""  # of the newest transaction, see wallet.links
        self.changed: set[str] = set()  # accounts, since the last snapshot
        self.pending = 1  # leaves since the last state leaf
        self._interval: int | None = genesis.created

    @classmethod
    def resume(cls, state: State, log: MerkleLog) -> Self:
        """Open a book as of a state leaf, the last of ``log``, from a snapshot of the state."""
        book = cls(state.genesis, bytes(HASH_BYTES))
        book.state, book.log = state, log
        for account in state.accounts.values():
            book.tree.update(account.position, account.leaf())
        book.pending, book._interval = 0, None
        return book

    @property
    def interval(self) -> int | None:
        """Return the ledger time of the open interval, if one is open."""
        return self._interval

    @property
    def full(self) -> bool:
        """Say whether the interval must be closed before it takes more."""
        return self.pending >= MAX_INTERVAL

    def time(self, now_ms: int) -> int:
        """Return the ledger time at which a transaction that came ``now_ms`` would happen."""
        if self._interval is not None:
            return self._interval
        return max(self.state.log_time, now_ms)

    def take(self, signed: Signed, log_time: int) -> Outcome:
        """Apply a checked transaction; one that succeeds becomes the next leaf."""
        outcome = apply(self.state, signed, log_time)
        if outcome.outcome == "logged":
            self._interval = log_time
            self.pending += 1
            self.links = self._link(self.log.append(signed.leaf) + 1)
        return outcome

    def _link(self, number: int) -> bytes:
        """Make the entry that is the ``number``-th the newest of all accounts it concerns."""
        links: list[int] = []
        for account in self.state.concerned:
            links += (account.position, account.last)
            account.last = number
        return pack_links(links)

    def snapshot(self) -> Snapshot:
        """Return what changed since the last snapshot; only when no interval is open."""
        changed, self.changed = self.changed, set()
        return Snapshot(self.log.size, changes(self.state, changed))

    def summary(self, log_time: int) -> StateLeaf:
        """Return what the next state leaf has to say."""
        state, tree = self.state, self.tree
        touched = sorted(
            [state.accounts[name] for name in state.touched], key=lambda account: account.position
        )
        for account in touched:
            tree.update(account.position, account.leaf())
        self.changed |= state.touched
        state.touched.clear()
        if tree.total:
            raise InvariantError("I1: the balances in the tree do not add up to nothing")
        return StateLeaf(
            log_time=log_time,
            prev_size=self.log.size,
            root=tree.root().hex(),
            supply=str(state.issued),
        )

    def add_state(self, leaf: bytes) -> None:
        """Append a state leaf by its hash: the interval is closed."""
        self.log.append(leaf)
        self.pending = 0
        self._interval = None

    def close_interval(self, operator: Signer) -> Signed:
        """Close the open interval by a state leaf that the operator signs."""
        if self._interval is None:
            raise InvariantError("no interval is open")
        signed = read(seal_transaction(self.summary(self._interval), operator))
        self.add_state(signed.leaf)
        return signed
