"""What a ledger knows at one moment: accounts, holds, sessions and a few running sums.

* Plain data and the few mutations that keep the sums right; whether one is allowed is
  :mod:`wallet.machine`'s to judge, and only it calls the mutations.
* Position 0 is ``issuance``, the one account that may owe; position 1 collects the fees.
* Sums are kept as they change, by account and by hold apart from each other, so that comparing
  them costs nothing and means something (I1 and I3 of the machine).

    >>> from wallet.transactions import dev_genesis
    >>> state = State(dev_genesis("did:key:z6Mk", 0))
    >>> for name, change in ((ISSUANCE, -5), (FEES, 5)):
    ...     state.post(state.register(name), change)
    >>> state.issued, state.total
    (5, 5)
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal

from rahba.balance import ISSUANCE, AccountLeaf
from rahba.money import parse_fals
from wallet.errors import InvariantError
from wallet.transactions import Genesis

FEES: Final = "fees"
Status = Literal["open", "captured", "released"]


@dataclass(slots=True, eq=False)
class Session:
    """A key's mandate to spend for an account; ``spent`` counts amounts and fees."""

    key: str
    budget: int
    per_tx: int
    payees: frozenset[str] | None
    types: frozenset[str]
    expires: int
    spent: int = 0


@dataclass(slots=True, eq=False)
class Account:
    """One account: ``posted`` is what it owns, ``held`` the part of it set aside in open holds.

    ``lanes`` maps each lane to its last sequence number; ``salts`` are those used lately in the
    expiring lane; ``tip`` is the hash chain over the ids of all transactions that touched it.
    """

    id: str
    position: int
    posted: int = 0
    held: int = 0
    tip: bytes = bytes(32)
    lanes: dict[int, int] = field(default_factory=dict)
    salts: set[int] = field(default_factory=set)
    sessions: dict[str, Session] = field(default_factory=dict)

    @property
    def available(self) -> int:
        """Return what can be spent."""
        return self.posted - self.held

    def leaf(self) -> AccountLeaf:
        """Return what the state root says of this account."""
        nonces = b"".join(b"%d:%d;" % lane for lane in sorted(self.lanes.items()))
        return AccountLeaf(self.id, self.posted, sha256(nonces).digest(), self.tip)


@dataclass(slots=True, eq=False)
class Escrow:
    """A hold: ``amount`` of the payer's set aside; ``captured`` is what the payee took so far."""

    id: str
    payer: str
    payee: str
    amount: int
    expires: int
    agreement: str
    session: Session | None = None
    captured: int = 0
    status: Status = "open"

    @property
    def rest(self) -> int:
        """Return what is still set aside."""
        return self.amount - self.captured if self.status == "open" else 0


class State:
    """The whole ledger at one moment; see the module for who may change it."""

    __slots__ = (
        "_expiries",
        "_salts_by_minute",
        "accounts",
        "chain",
        "epoch",
        "epoch_cap",
        "epoch_issued",
        "escrowed",
        "fee",
        "genesis",
        "held",
        "holds",
        "log_time",
        "open_holds",
        "total",
        "touched",
    )

    def __init__(self, genesis: Genesis) -> None:
        """Start a ledger by its rules: nothing issued, nobody known."""
        self.genesis = genesis
        self.chain = genesis.chain
        self.fee = parse_fals(genesis.fee)
        self.epoch_cap = parse_fals(genesis.faucet_epoch)
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Escrow] = {}
        self.log_time = genesis.created
        self.total = 0  # what all accounts but the issuance own
        self.held = 0  # by account
        self.escrowed = 0  # by hold
        self.open_holds = 0
        self.epoch = 0
        self.epoch_issued = 0
        self.touched: set[str] = set()
        self._expiries: list[tuple[int, str]] = []
        self._salts_by_minute: dict[int, dict[str, list[int]]] = {}
        for name in (ISSUANCE, FEES):
            self.register(name)

    @property
    def issued(self) -> int:
        """Return what was issued: the debt of the issuance account."""
        return -self.accounts[ISSUANCE].posted

    def available(self, name: str) -> int:
        """Return what an account can spend; an unknown one nothing."""
        account = self.accounts.get(name)
        return account.posted - account.held if account is not None else 0

    def issued_in_epoch(self, log_time: int) -> int:
        """Return what the faucet gave in the epoch of ``log_time``."""
        return self.epoch_issued if log_time // self.genesis.epoch_ms == self.epoch else 0

    def register(self, name: str) -> Account:
        """Return an account; one never seen gets the next position."""
        account = self.accounts.get(name)
        if account is None:
            account = self.accounts[name] = Account(name, len(self.accounts))
            self.touched.add(name)
        return account

    def post(self, account: Account, change: int) -> None:
        """Change what an account owns."""
        account.posted += change
        if account.position:  # all but the issuance
            self.total += change

    def reserve(self, name: str, change: int) -> None:
        """Change how much of what an account owns is held."""
        self.register(name).held += change
        self.held += change

    def open_hold(self, hold: Escrow) -> None:
        """Set a hold's amount aside."""
        self.holds[hold.id] = hold
        self.escrowed += hold.amount
        self.open_holds += 1
        heapq.heappush(self._expiries, (hold.expires, hold.id))
        self.reserve(hold.payer, hold.amount)

    def draw_hold(self, hold: Escrow, taken: int, freed: int) -> None:
        """Take a part of a hold and free another; with nothing left it is resolved, once."""
        if hold.status != "open" or taken + freed > hold.rest:
            raise InvariantError("I6: a hold resolves once, to what is in it", hold=hold.id)
        self.reserve(hold.payer, -taken - freed)
        self.escrowed -= taken + freed
        done = taken + freed == hold.rest
        hold.captured += taken
        if done:
            hold.status = "captured" if hold.captured else "released"
            self.open_holds -= 1
            if hold.session is not None:
                hold.session.spent -= freed  # what came back may be spent again

    def issue(self, amount: int, log_time: int) -> None:
        """Count a faucet's gift towards its epoch."""
        self.epoch_issued = self.issued_in_epoch(log_time) + amount
        self.epoch = log_time // self.genesis.epoch_ms

    def spend_salt(self, account: Account, salt: int, valid_until: int) -> None:
        """Remember a salt of the expiring lane while its transaction could come again."""
        account.salts.add(salt)
        names = self._salts_by_minute.setdefault(valid_until // 60_000, {})
        names.setdefault(account.id, []).append(salt)

    def advance(self, log_time: int) -> None:
        """Move time on and forget the salts nobody can use any more."""
        minute = log_time // 60_000
        if minute != self.log_time // 60_000:
            for past in [key for key in self._salts_by_minute if key < minute]:
                for name, salts in self._salts_by_minute.pop(past).items():
                    self.accounts[name].salts.difference_update(salts)
        self.log_time = log_time

    def touch(self, accounts: Mapping[str, Account], leaf: bytes) -> None:
        """Add a transaction to the own history of all accounts whom it concerns."""
        for account in accounts.values():
            account.tip = sha256(account.tip + leaf).digest()
        self.touched.update(accounts)

    def next_expiry(self) -> int | None:
        """Return when the next open hold expires."""
        heap = self._expiries
        while heap and self.holds[heap[0][1]].status != "open":
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_expired(self, log_time: int, limit: int) -> list[str]:
        """Take the ids of holds that are open past their expiry off the list, oldest first."""
        found: list[str] = []
        while len(found) < limit:
            expires = self.next_expiry()
            if expires is None or expires > log_time:
                break
            found.append(heapq.heappop(self._expiries)[1])
        return found
