"""What a ledger knows at one moment: accounts, holds, bonds, sessions and a few running sums.

* Plain data and the few mutations that keep the sums right (those of holds: :mod:`wallet.holds`);
  whether one is allowed is :mod:`wallet.machine`'s to judge, and only it calls the mutations.
* Position 0 is ``issuance``, the one account that may owe; position 1 collects the fees.
* Sums are kept as they change, by account, by hold and by bond apart from each other, so that
  comparing them costs nothing and means something (I1 and I3 of the machine).
* A resolved hold is kept for :data:`REMEMBER_MS`: a late capture is told what became of it.

    >>> from wallet.transactions import dev_genesis
    >>> state = State(dev_genesis("did:key:z6Mk", 0))
    >>> state.post([(ISSUANCE, FEES, 5)], {})
    >>> state.issued, state.total
    (5, 5)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from rahba.balance import ISSUANCE, AccountLeaf
from rahba.money import parse_fals
from wallet.deadlines import Deadlines
from wallet.errors import InvariantError
from wallet.transactions import Arbitration, Genesis, Recourse

FEES: Final = "fees"
SYSTEM: Final = frozenset({ISSUANCE, FEES})
_FIRST: Final = len(SYSTEM)  # the position of the first account that is somebody's
REMEMBER_MS: Final = 3_600_000
Status = Literal["open", "disputed", "captured", "challenged", "released"]
Issue = Literal["faucet", "mint"]
Posting = tuple[str, str, int]
"""``(debit, credit, amount)``: the amount moves from the first to the second."""
Kept = tuple[int, int, str | None]  # how much, until when, and for which receipt


class Policy(NamedTuple):
    """Any ``threshold`` of ``keys`` (sorted) act for an account."""

    keys: tuple[str, ...]
    threshold: int

    def covers(self, other: Policy) -> bool:
        """Say whether whoever satisfies this policy satisfies the other one, too."""
        strangers = len(set(self.keys) - set(other.keys))
        return self.threshold - strangers >= other.threshold


@dataclass(slots=True, eq=False)
class Session:
    """A key's mandate to spend for an account; ``spent`` counts amounts and fees.

    ``grant`` is the id of the transaction that gave it.
    """

    key: str
    budget: int
    per_tx: int
    payees: frozenset[str] | None
    types: frozenset[str]
    expires: int
    grant: str = ""
    spent: int = 0


@dataclass(slots=True, eq=False)
class Unbonding:
    """A part of a stake on its way back: still at risk until ``due``."""

    id: str
    owner: str
    amount: int
    due: int


@dataclass(slots=True, eq=False)
class Account:
    """One account: ``posted`` is what it owns, ``held`` the part set aside in holds and bonds.

    ``lanes`` maps each lane to its last sequence number; ``salts`` those used lately in the
    expiring lane to the minute in which they can be forgotten; ``tip`` is the hash chain over the
    ids of all transactions that touched it, ``last`` the newest of them (its sequence number + 1).
    ``policy`` null is the account's own key; ``pending`` comes into force at its time.
    """

    id: str
    position: int
    posted: int = 0
    held: int = 0
    tip: bytes = bytes(32)
    last: int = 0
    staked: int = 0
    policy: Policy | None = None
    pending: tuple[Policy, int] | None = None
    lanes: dict[int, int] = field(default_factory=dict)
    salts: dict[int, int] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    unbonding: dict[str, Unbonding] = field(default_factory=dict)

    @property
    def available(self) -> int:
        """Return what can be spent."""
        return self.posted - self.held

    @property
    def bond(self) -> int:
        """Return what can be slashed."""
        return self.staked + sum(part.amount for part in self.unbonding.values())

    def policy_at(self, log_time: int) -> Policy:
        """Return whose signatures the account wants at that time."""
        if self.pending is not None and log_time >= self.pending[1]:
            return self.pending[0]
        return self.present

    @property
    def present(self) -> Policy:
        """Return the policy that was last put in force; one may be due."""
        return self.policy or Policy((self.id,), 1)

    def sessions_at(self, log_time: int) -> Mapping[str, Session]:
        """Return the sessions that stand at that time: none outlives the policy it was given by."""
        over = self.pending is not None and log_time >= self.pending[1]
        return {} if over else self.sessions

    def rule(self, policy: Policy, pending: tuple[Policy, int] | None, log_time: int) -> None:
        """Put a policy in force; another one than before ends all sessions."""
        if not policy == self.present == self.policy_at(log_time):
            self.sessions.clear()
        self.policy, self.pending = policy, pending

    def leaf(self) -> AccountLeaf:
        """Return what the state root says of this account."""
        nonces = b"".join(b"%d:%d;" % lane for lane in sorted(self.lanes.items()))
        return AccountLeaf(self.id, self.posted, sha256(nonces).digest(), self.tip)


@dataclass(slots=True, eq=False)
class Escrow:
    """A hold: ``amount`` of the payer's set aside; ``captured`` is what the payee took so far.

    ``bail`` of the payee's own is set aside until nothing is left. A disputed one waits for its
    arbiter until ``deadline``; a resolved one ``ended`` then. With a ``recourse`` what was captured
    for ``receipt`` is ``retained``, but for the fee: the payer may challenge it until ``deadline``;
    if it does, the payee has until then to deliver, ``part`` of ``parts`` so far, or to show that
    the ``buyer`` (the key that signed the hold) left.
    """

    id: str
    payer: str
    payee: str
    amount: int
    expires: int
    agreement: str
    session: Session | None = None
    arbitration: Arbitration | None = None
    captured: int = 0
    status: Status = "open"
    deadline: int = 0
    ended: int = 0
    bail: int = 0
    recourse: Recourse | None = None
    retained: int = 0
    receipt: str | None = None
    part: int = 0
    parts: int = 0
    buyer: str = ""

    @property
    def resolved(self) -> bool:
        """Say whether it has ended, unless what was captured is challenged."""
        return self.status in {"captured", "released"}

    @property
    def rest(self) -> int:
        """Return what is still set aside."""
        return self.amount - self.captured if self.status in {"open", "disputed"} else 0

    @property
    def due(self) -> int:
        """Return when its time is over: its own, its arbiter's, or that for an answer."""
        return self.deadline if self.status in {"disputed", "challenged"} else self.expires


class State:
    """The whole ledger at one moment; see the module for who may change it."""

    __slots__ = (
        "_salts_by_minute",
        "accounts",
        "bonded",
        "caps",
        "chain",
        "concerned",
        "deadlines",
        "dirty",
        "epochs",
        "escrowed",
        "faults",
        "fee",
        "genesis",
        "held",
        "holds",
        "log_time",
        "open_holds",
        "pledged",
        "resolved",
        "retained",
        "total",
        "touched",
        "unbonding",
    )

    def __init__(self, genesis: Genesis) -> None:
        """Start a ledger by its rules: nothing issued, nobody known."""
        self.genesis = genesis
        self.chain = genesis.chain
        self.fee = parse_fals(genesis.fee)
        self.caps: dict[Issue, int] = {
            "faucet": parse_fals(genesis.faucet_epoch),
            "mint": parse_fals(genesis.mint_epoch),
        }
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Escrow] = {}
        self.pledged: dict[tuple[str, str], int] = {}  # payee and agreement: a bail's, until then
        self.unbonding: dict[str, Unbonding] = {}
        self.faults: set[str] = set()
        self.log_time = genesis.created
        self.total = 0  # what all accounts but the issuance own
        self.held = 0  # by account
        self.escrowed = 0  # by hold
        self.bonded = 0  # by stake, and by what is unbonding
        self.open_holds = 0
        self.epochs: dict[Issue, tuple[int, int]] = {}  # the epoch, and what was issued in it
        self.touched: set[str] = set()  # accounts, since the last state leaf
        self.dirty: set[str] = set()  # holds, bonds and faults, since the last snapshot
        self.concerned: list[Account] = []  # by the last transaction, whose history it is part of
        self.deadlines = Deadlines(self.due)
        self.resolved: list[tuple[int, str]] = []  # since when
        self.retained: list[tuple[int, str]] = []  # until when it may be challenged
        self._salts_by_minute: dict[int, list[tuple[str, int]]] = {}
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

    def issued_in_epoch(self, kind: Issue, log_time: int) -> int:
        """Return what was issued in that way in the epoch of ``log_time``."""
        epoch, issued = self.epochs.get(kind, (-1, 0))
        return issued if log_time // self.genesis.epoch_ms == epoch else 0

    def register(self, name: str) -> Account:
        """Return an account; one never seen gets the next position."""
        account = self.accounts.get(name)
        if account is None:
            account = self.accounts[name] = Account(name, len(self.accounts))
            self.touched.add(name)
        return account

    def post(self, postings: Iterable[Posting], touched: dict[str, Account]) -> None:
        """Move what each posting says, and add whom it concerns to ``touched``."""
        accounts, last, payer = self.accounts, "", self.accounts[ISSUANCE]
        for debit, credit, amount in postings:
            if debit != last:
                last, payer = debit, accounts.get(debit) or self.register(debit)
                touched[debit] = payer
            payee = accounts.get(credit) or self.register(credit)
            payer.posted -= amount
            payee.posted += amount
            if not payer.position:  # what is issued is new to all others
                self.total += amount
            elif not payee.position:
                self.total -= amount
            touched[credit] = payee

    def bond(self, account: Account, change: int) -> None:
        """Change what an account has staked."""
        account.staked += change
        self.bonded += change
        self.reserve(account.id, change)

    def unbond(self, part: Unbonding) -> None:
        """Begin to give a part of a stake back; it stays held until it is due."""
        account = self.accounts[part.owner]
        account.staked -= part.amount
        account.unbonding[part.id] = self.unbonding[part.id] = part
        self.watch(part.id, part.due)

    def end_unbonding(self, part: Unbonding) -> None:
        """Free what was on its way back."""
        del self.unbonding[part.id], self.accounts[part.owner].unbonding[part.id]
        self.dirty.add(part.id)
        self.bonded -= part.amount
        self.reserve(part.owner, -part.amount)

    def seize(self, account: Account, amount: int, fault: str) -> None:
        """Free ``amount`` of a bond for what takes it: the stake first, then what leaves last."""
        self.faults.add(fault)
        self.dirty.add(fault)
        parts = sorted(account.unbonding.values(), key=lambda part: (part.due, part.id))
        taken = min(account.staked, amount)
        self.bond(account, -taken)
        for part in reversed(parts):
            share = min(part.amount, amount - taken)
            part.amount -= share
            taken += share
            self.dirty.add(part.id)
            self.bonded -= share
            self.reserve(account.id, -share)
            if not part.amount:
                self.end_unbonding(part)
        if taken != amount:
            raise InvariantError("I3: more is seized than is bonded", account=account.id)

    def issue(self, kind: Issue, amount: int, log_time: int) -> None:
        """Count what is issued towards its epoch."""
        issued = self.issued_in_epoch(kind, log_time) + amount
        self.epochs[kind] = (log_time // self.genesis.epoch_ms, issued)

    def spend_salt(self, account: Account, salt: int, valid_until: int) -> None:
        """Remember a salt of the expiring lane while its transaction could come again."""
        minute = valid_until // 60_000
        account.salts[salt] = minute
        self._salts_by_minute.setdefault(minute, []).append((account.id, salt))

    def advance(self, log_time: int) -> None:
        """Move time on and forget the salts nobody can use any more."""
        minute = log_time // 60_000
        if minute != self.log_time // 60_000:
            for past in [key for key in self._salts_by_minute if key < minute]:
                for name, salt in self._salts_by_minute.pop(past):
                    self.accounts[name].salts.pop(salt, None)
        self.log_time = log_time

    def touch(self, accounts: Mapping[str, Account], leaf: bytes) -> None:
        """Add a transaction to the own history of all accounts whom it concerns.

        The system's accounts take part in everything and have no history of their own.
        """
        concerned = self.concerned = [
            account for account in accounts.values() if account.position >= _FIRST
        ]
        for account in concerned:
            account.tip = sha256(account.tip + leaf).digest()
        self.touched.update(accounts)

    def due(self, subject: str) -> int | None:
        """Return when the time of ``subject`` is over; ``None`` if it has ended."""
        hold = self.holds.get(subject)
        if hold is not None:
            return None if hold.resolved else hold.due
        part = self.unbonding.get(subject)
        return None if part is None else part.due

    def put_account(self, account: Account) -> None:
        """Take an account over from a snapshot; they come by position, the system's first."""
        self.accounts[account.id] = account
        if account.position:
            self.total += account.posted
        self.held += account.held
        self.bonded += account.bond
        for salt, minute in account.salts.items():
            self._salts_by_minute.setdefault(minute, []).append((account.id, salt))
        for part in account.unbonding.values():
            self.unbonding[part.id] = part
            self.deadlines.watch(part.id, part.due)

    def watch(self, subject: str, due: int) -> None:
        """End something at its time: see :class:`wallet.deadlines.Deadlines`."""
        self.dirty.add(subject)
        self.deadlines.watch(subject, due)

    def set_aside(self, name: str, change: int) -> None:
        """Set more of an account's own aside in holds, or less."""
        self.escrowed += change
        self.reserve(name, change)

    def reserve(self, name: str, change: int) -> None:
        """Change what an account has set aside, in all."""
        self.register(name).held += change
        self.held += change
