"""How holds ended, read from the log alone: what reputations are computed from, by anybody.

* Takes the exact bytes of every entry in order. What happened in an interval is known when a
  ``state`` leaf closes it, with its ledger time; a log that ends in an open interval is read up to
  the last one that is closed, as a checkpoint is.
* Nothing is judged here: that the entries are the log's, and follow its rules, is an audit's to say
  (:mod:`wallet.audit`). The sums are worth what the log is worth.
* Which endings say something of the payee, and which say nothing, is :func:`_ending`'s.
* ``frontier`` is the Merkle root of what was read, in a few hashes; :meth:`OutcomeLog.dump` and
  :meth:`OutcomeLog.load` go on where another process stopped. Whether one reads a log in one go or
  in pieces, ``digest`` is the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple, Self

import msgspec

from rahba.dealings import DEAL, Dealings, Ending, Outcome
from rahba.encoding import b64, canonical, unb64
from rahba.errors import RahbaError
from rahba.merkle import EMPTY_ROOT, HASH_BYTES, node_hash
from rahba.note import verifier_key_of
from wallet.errors import LedgerCorruptError
from wallet.transactions import (
    Capture,
    Challenge,
    Deliver,
    Dispute,
    Expire,
    Genesis,
    Hold,
    Release,
    Resolve,
    Signed,
    StateLeaf,
    read,
)

SHORTEST_MS: Final = 5_000  # sellers refuse a hold that leaves them less (agents/order.py)
_BASIS: Final = 10_000
_FORMAT: Final = 2
HoldTx = Hold | Capture | Release | Expire | Dispute | Resolve | Challenge | Deliver


class Frontier:
    """The Merkle tree of a log that only grows, by the roots of its complete subtrees."""

    def __init__(self, size: int = 0, peaks: list[bytes] | None = None) -> None:
        """Go on after ``size`` leaves; ``peaks`` are from left to right, one a bit of the size."""
        self.size = size
        self.peaks = peaks or []
        if len(self.peaks) != size.bit_count() or any(len(x) != HASH_BYTES for x in self.peaks):
            raise LedgerCorruptError("these are not the peaks of that tree", size=size)

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self.peaks.pop(), node)
            size >>= 1
        self.peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the root over all leaves."""
        found = b""
        for peak in reversed(self.peaks):
            found = node_hash(peak, found) if found else peak
        return found or EMPTY_ROOT

    def copy(self) -> Frontier:
        """Return one that grows by itself."""
        return Frontier(self.size, list(self.peaks))


class OpenHold(msgspec.Struct, gc=False):
    """A hold that has not ended."""

    payer: str
    payee: str
    amount: int
    opened: int
    expires: int
    payee_share: int | None  # basis points, if it names an arbiter
    bail: int  # what its payee pledged, in fals
    fees: int
    taken: int = 0
    forfeited: int = 0
    disputed: bool = False
    window: int | None = None  # for how long a capture may be challenged, in milliseconds
    until: int = 0  # until when this one may be, once there was one
    challenged: bool = False


class Ended(NamedTuple):
    """The outcome of a hold, and the one that was told before, if that was not the last word."""

    outcome: Outcome
    instead_of: Outcome | None = None


class OpenHolds:
    """The holds that have not ended, as far as an outcome needs to know them.

    A capture is told at once. One that may be challenged is kept as long: should its payee not
    answer, another outcome takes the place of the first.
    """

    def __init__(self, holds: dict[str, OpenHold] | None = None) -> None:
        """Go on with ``holds``, by id."""
        self.holds = holds or {}
        self._retained = [(hold.until, name) for name, hold in self.holds.items() if hold.until]
        heapq.heapify(self._retained)

    def __len__(self) -> int:
        """Return how many holds have no outcome, or one that is challenged."""
        return sum(not hold.until or hold.challenged for hold in self.holds.values())

    def let_go(self, log_time: int) -> None:
        """Forget the captures that nobody challenged in time."""
        while self._retained and self._retained[0][0] <= log_time:
            name = heapq.heappop(self._retained)[1]
            hold = self.holds.get(name)
            if hold is not None and not hold.challenged:
                del self.holds[name]

    def take(self, name: str, tx: HoldTx, log_time: int) -> Ended | None:
        """Carry out a transaction on a hold; returns the outcome if it ends one.

        The log was written by the machine (:mod:`wallet.machine`): what it refuses is not in there.
        """
        if isinstance(tx, Hold):
            self.holds[name] = OpenHold(
                payer=tx.account,
                payee=tx.payee,
                amount=int(tx.amount),
                opened=log_time,
                expires=tx.expires,
                payee_share=None if tx.arbitration is None else tx.arbitration.payee_share,
                bail=0 if tx.bail is None else int(tx.bail.amount),
                fees=int(tx.fee),
                window=None if tx.recourse is None else tx.recourse.window_ms,
            )
            return None
        subject = tx.subject if isinstance(tx, Expire) else tx.hold
        hold = self.holds.get(subject)
        if hold is None:  # the subject is a stake that is free again
            return None
        if hold.until and hold.window is not None:
            return self._reconsider(subject, hold, tx, log_time)
        hold.fees += int(tx.fee)
        if not _ends(hold, tx):
            return None
        if isinstance(tx, Capture) and hold.window is not None:
            hold.until = log_time + hold.window
            heapq.heappush(self._retained, (hold.until, subject))
        else:
            del self.holds[subject]
        return Ended(_outcome(hold, log_time, given_back=isinstance(tx, Capture | Release)))

    def _reconsider(self, name: str, hold: OpenHold, tx: HoldTx, log_time: int) -> Ended | None:
        """Carry out what follows a capture: a challenge, an answer, or none."""
        if isinstance(tx, Challenge):
            hold.challenged = True
        if isinstance(tx, Challenge) or (isinstance(tx, Deliver) and tx.part < tx.parts):
            return None
        del self.holds[name]
        if isinstance(tx, Deliver):
            return None
        hold.challenged = False  # as it was when that was told
        first = _outcome(hold, hold.until - (hold.window or 0), given_back=True)
        hold.challenged, hold.taken = True, 0
        return Ended(_outcome(hold, log_time, given_back=False), first)


def _ends(hold: OpenHold, tx: HoldTx) -> bool:
    """Carry a transaction out on its hold; say whether that is the end of it."""
    match tx:
        case Capture():
            hold.taken += int(tx.amount)
            return tx.final or hold.taken >= hold.amount
        case Dispute():
            hold.disputed = True
            return False
        case Release():
            hold.forfeited = int(tx.forfeit)
        case Resolve():
            hold.taken += int(tx.to_payee)
        case Expire() if hold.disputed and hold.payee_share is not None:
            hold.taken += (hold.amount - hold.taken) * hold.payee_share // _BASIS
        case _:
            pass
    return True


def _outcome(hold: OpenHold, log_time: int, *, given_back: bool) -> Outcome:
    lasted, passed = hold.expires - hold.opened, log_time - hold.opened
    return Outcome(
        payer=hold.payer,
        payee=hold.payee,
        amount_fals=hold.taken,
        fee_fals=hold.fees,
        ended_ms=log_time,
        ending=_ending(hold, given_back=given_back),
        waited=min(DEAL * passed // lasted, DEAL),
    )


def _ending(hold: OpenHold, *, given_back: bool) -> Ending:
    """Say what the end of a hold says of its payee.

    1. Who took half or more delivered, as far as anybody can tell; unless it took its pledge.
    2. Of a failure with an arbiter in it nothing is known: agreements name none, so it may be the
       payer's own. A hold that was over before anybody could work says nothing either, unless
       its payee took what was in it and was challenged.
    3. A payee that was challenged and had nothing to show took what it did not earn.
       A payee that pledged had agreed. Who takes exactly what it pledged takes what its buyer owes
       for leaving: the two agreed on one sum for both. What it forfeits, it admits; who never spoke
       did not show up.
    4. Of all others one cannot say whether the payee had agreed.
    """
    left = given_back and 0 < hold.bail == hold.taken < hold.amount
    if 2 * hold.taken >= hold.amount and not left:  # 1
        return "kept"
    short = hold.expires - hold.opened < SHORTEST_MS and not hold.challenged
    if hold.payee_share is not None or short:  # 2
        return "unclear"
    if hold.bail or hold.challenged:  # 3
        if left:
            return "unclear"
        if hold.forfeited:
            return "forfeited"
        if not given_back and not hold.taken:
            return "missed"
    return "given_back" if given_back else "lapsed"  # 4


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What :meth:`OutcomeLog.dump` writes, but for the dealings."""

    format: int
    size: int
    log_time: int
    vkey: str
    peaks: list[str]
    holds: dict[str, OpenHold]
    dealings: str
    digest: str


@dataclass(slots=True)
class _Interval:
    """What was read since the last ``state`` leaf."""

    waiting: list[tuple[str, HoldTx]]
    frontier: Frontier


class OutcomeLog:
    """Reads a log's outcomes into dealings; feed it every entry in order.

    ``size``, ``root``, ``log_time`` and ``dealings`` are as of the last closed interval.
    """

    def __init__(self, *, told: Callable[[Outcome], None] | None = None) -> None:
        """Start before the first entry; ``told`` is called for each outcome."""
        self.dealings = Dealings(0)
        self.frontier = Frontier()
        self.log_time = 0
        self.vkey = ""
        self.told = told
        self._holds = OpenHolds()
        self._interval = _Interval([], Frontier())

    @property
    def size(self) -> int:
        """Return how many entries the dealings are of."""
        return self.frontier.size

    @property
    def read_size(self) -> int:
        """Return how many entries were read, with those of an open interval."""
        return self._interval.frontier.size

    @property
    def open_holds(self) -> int:
        """Return how many holds have not ended."""
        return len(self._holds)

    def feed(self, raw: bytes) -> None:
        """Take the next entry.

        Raises:
            LedgerCorruptError: no log has such an entry there.
        """
        seq = self.read_size
        try:
            signed = read(raw)
        except RahbaError as error:
            raise LedgerCorruptError(f"entry {seq} is wrong: {error}", seq=seq) from error
        self._interval.frontier.append(signed.leaf)
        self._take(seq, signed)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all that was found: size, time, open holds and dealings."""
        head = [str(self.size), str(self.log_time), self.frontier.root().hex()]
        found = sha256(canonical([*head, self.dealings.digest()]))
        for name, hold in sorted(self._holds.holds.items()):
            found.update(name.encode() + msgspec.json.encode(hold))
        return found.hexdigest()

    def dump(self) -> bytes:
        """Write all of it as of the last closed interval, for :meth:`load`."""
        kept = _Kept(
            _FORMAT,
            self.size,
            self.log_time,
            self.vkey,
            [peak.hex() for peak in self.frontier.peaks],
            self._holds.holds,
            b64(self.dealings.dump()),
            self.digest(),
        )
        return msgspec.json.encode(kept, order="sorted")

    @classmethod
    def load(cls, raw: bytes) -> Self:
        """Go on from what :meth:`dump` wrote. Whoever could write that is believed.

        Raises:
            LedgerCorruptError: it is something else, or damaged.
        """
        found = cls()
        try:
            kept = msgspec.json.decode(raw, type=_Kept)
            if kept.format != _FORMAT:
                raise LedgerCorruptError("another release wrote it", format=kept.format)
            found.frontier = Frontier(kept.size, [bytes.fromhex(peak) for peak in kept.peaks])
            found.dealings = Dealings.load(unb64(kept.dealings))
        except (msgspec.MsgspecError, ValueError, RahbaError) as error:
            raise LedgerCorruptError(f"not what was kept of a log: {error}") from error
        found.log_time, found.vkey = kept.log_time, kept.vkey
        found._holds = OpenHolds(kept.holds)
        found._interval = _Interval([], found.frontier.copy())
        if found.digest() != kept.digest:
            raise LedgerCorruptError("what was kept of a log is damaged")
        return found

    def _take(self, seq: int, signed: Signed) -> None:
        record = signed.record
        if isinstance(record, Genesis):
            if seq:
                raise LedgerCorruptError("a log has one genesis, its first entry", seq=seq)
            self.dealings.unit_fals = int(record.fee)
            self.vkey = verifier_key_of(record.origin, record.operator)
        elif not seq:
            raise LedgerCorruptError("the log has no genesis", seq=0)
        elif isinstance(record, StateLeaf):
            self._close(record.log_time)
        elif isinstance(record, HoldTx):
            self._interval.waiting.append((signed.id, record))

    def _close(self, log_time: int) -> None:
        self.log_time = log_time
        self._holds.let_go(log_time)
        for name, tx in self._interval.waiting:
            ended = self._holds.take(name, tx, log_time)
            if ended is not None:
                self._tell(ended)
        self._interval.waiting = []
        self.frontier = self._interval.frontier.copy()

    def _tell(self, ended: Ended) -> None:
        if ended.instead_of is not None:
            self.dealings.take_back(ended.instead_of)
        self.dealings.add(ended.outcome)
        if self.told is not None:
            self.told(ended.outcome)
