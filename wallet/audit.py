"""``ledger verify``: believe nothing of a log but what its bytes prove, and name what is wrong.

1. Every entry is in its place, hashes to the leaf it is stored under, and is signed as it says.
2. The machine accepts every transaction at its ledger time, and every ``state`` leaf tells the
   state root, the size and the supply that the entries before it lead to.
3. Nothing outlives its time while the ledger goes on (holds, disputes, stakes): an interval ends
   what was overdue when the one before it closed, or ``ENDED`` of it.
4. The checkpoint is signed by the operator whom the genesis names, its root is the Merkle root of
   the entries, and the last of them is a ``state`` leaf; an older checkpoint, if given, is of the
   same log.

An audit never stops at the first problem: what can still be checked is. The replay ends at the
first entry that cannot stand (nothing after it would mean anything); signatures go on.

    with ReadOnlyLog(path) as log:
        report = audit_entries(log, log.checkpoint)
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from rahba.errors import RahbaError
from rahba.merkle import leaf_hash
from rahba.note import Checkpoint, open_checkpoint, verifier_key_of
from wallet.errors import LedgerCorruptError, StoreError
from wallet.forms import check_signatures
from wallet.merkle import MerkleLog
from wallet.ports import Entry, Ledger
from wallet.replay import Replay
from wallet.sources import Source
from wallet.transactions import AnyTx, Expire, Genesis, Signed, StateLeaf, read

MAX_PROBLEMS: Final = 100
PAGE: Final = 1_000
ENDED: Final = 1_000  # what a sequencer ends at once, see wallet.service.MAX_GROUP
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must not be; ``seq`` is the entry's number if it is an entry's."""

    seq: int | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found.

    ``covered`` entries are under the checkpoint, whose recomputed Merkle root is ``root`` (hex);
    ``supply`` is what was issued, in fals, as of the last ``state`` leaf among them.
    ``checkpoint_ok`` says whether the checkpoint is the
    operator's and of these very entries.
    """

    entries: int
    covered: int
    transactions: int
    accounts: int
    supply: int
    root: str
    checkpoint_ok: bool
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Say whether the log is exactly what it claims to be."""
        return self.checkpoint_ok and not self.problems


class Audit:
    """One pass over a log: feed every entry in order, then ask for the report."""

    def __init__(self, progress: Progress | None = None) -> None:
        """Begin; ``progress`` is called with the number of entries done, now and then."""
        self._progress = progress
        self._replay: Replay | None = Replay(verify=True)
        self._last: Replay = self._replay
        self._log = MerkleLog()
        self._open: list[Entry] = []
        self._states = array("Q", [0])  # the size after each state leaf,
        self._supplies = array("Q", [0])  # and what was issued by then
        self._closed_at: int | None = None
        self._ended = 0
        self._transactions = 0
        self._problems: list[Problem] = []

    def feed(self, entry: Entry) -> None:
        """Check the next entry."""
        expected = self._log.size
        if entry.seq != expected:
            self._note(expected, "missing_entry", f"entry {entry.seq} stands where it should be")
        leaf = leaf_hash(entry.raw)
        if leaf != entry.leaf:
            self._note(expected, "wrong_leaf", "the entry is stored under another leaf hash")
        self._log.append(leaf)
        signed = self._examine(entry)
        if signed is not None:
            self._transactions += isinstance(signed.record, AnyTx)
            self._follow_time(entry, signed)
            self._follow_states(signed)
        if self._progress is not None and self._log.size % PAGE == 0:
            self._progress(self._log.size)

    @property
    def size(self) -> int:
        """Return how many entries were fed."""
        return self._log.size

    @property
    def log(self) -> MerkleLog:
        """Return the hashes of what was fed."""
        return self._log

    @property
    def problems(self) -> list[Problem]:
        """Return what was found so far."""
        return self._problems

    @property
    def genesis(self) -> Genesis | None:
        """Return the genesis, once it was fed and stands."""
        return self._last.book.genesis if self._last.size else None

    def closes(self, size: int) -> bool:
        """Say whether a state leaf is the last of so many entries."""
        return size > 0 and self._states[bisect_right(self._states, size) - 1] == size

    def broken(self, reason: str) -> None:
        """Note that no further entry could be read."""
        self._note(self._log.size, "unreadable", reason)

    def report(
        self, checkpoint: str, *, vkey: str | None = None, older: str | None = None
    ) -> Report:
        """Check the checkpoint against the entries and return what was found.

        ``vkey`` is the verifier key that the caller trusts; without it the operator of the genesis
        is believed. ``older`` is a checkpoint that the caller kept from before.
        """
        self._close()
        book = self._last.book if self._log.size and self._last.size else None
        key = vkey
        if book is not None:
            operator_key = verifier_key_of(book.genesis.origin, book.genesis.operator)
            key = key or operator_key
            if key != operator_key:
                self._note(0, "wrong_operator", "the genesis names another operator")
        found = self._check_checkpoint(checkpoint, key)
        if older is not None:
            self._check_checkpoint(older, key)
        covered = found.size if found is not None else 0
        if self._progress is not None:
            self._progress(self._log.size)
        return Report(
            entries=self._log.size,
            covered=covered,
            transactions=self._transactions,
            accounts=len(book.state.accounts) if book is not None else 0,
            supply=self._supplies[bisect_right(self._states, covered) - 1],
            root=self._log.root_at(covered).hex() if covered <= self._log.size else "",
            checkpoint_ok=found is not None and self._matches(found),
            problems=tuple(self._problems),
        )

    def _examine(self, entry: Entry) -> Signed | None:
        seq = self._log.size - 1
        try:
            if self._replay is not None:
                return self._replay.feed(entry.raw)
            signed = read(entry.raw)
            check_signatures(signed)
        except LedgerCorruptError as error:
            self._replay = None
            at = error.facts.get("seq")
            self._note(at if isinstance(at, int) else seq, error.code, error.message)
            return None
        except RahbaError as error:
            self._note(seq, error.code, error.message)
            return None
        return signed

    def _follow_time(self, entry: Entry, signed: Signed) -> None:
        """Compare the stored times of an interval with the one that its state leaf tells."""
        self._open.append(entry)
        if isinstance(signed.record, StateLeaf):
            for item in self._open:
                if item.log_time != signed.record.log_time:
                    self._note(item.seq, "wrong_time", "stored under another ledger time")
            self._open = []

    def _follow_states(self, signed: Signed) -> None:
        """Note at each state leaf what was issued, and which holds should be open no more."""
        if self._replay is None:
            return
        record, book = signed.record, self._replay.book
        if isinstance(record, Expire):
            self._ended += record.account == book.genesis.operator
        elif isinstance(record, StateLeaf):
            self._states.append(self._log.size)
            self._supplies.append(book.state.issued)
            if self._closed_at is not None and self._ended < ENDED:
                for subject in book.state.deadlines.pop(self._closed_at, MAX_PROBLEMS):
                    said = f"{subject} was due at {book.state.due(subject)} and has not ended"
                    self._note(self._log.size - 1, "overdue", said)
            self._closed_at, self._ended = record.log_time, 0

    def _close(self) -> None:
        if self._replay is None or not self._open:
            return
        try:
            self._replay.finish(self._open[-1].log_time)
        except RahbaError as error:
            at = error.facts.get("seq")
            self._note(at if isinstance(at, int) else None, error.code, error.message)
        self._replay = None
        self._open = []

    def _check_checkpoint(self, note: str, key: str | None) -> Checkpoint | None:
        if key is None:
            self._note(None, "no_key", "without a genesis or a verifier key nothing is signed")
            return None
        try:
            found = open_checkpoint(note, key)
        except RahbaError as error:
            self._note(None, error.code, f"checkpoint: {error.message}")
            return None
        if found.size > self._log.size:
            said = f"the checkpoint covers {found.size} entries"
            self._note(self._log.size, "missing_entry", said)
        elif not self._matches(found):
            said = f"the entries do not lead to the checkpoint's root at size {found.size}"
            self._note(None, "wrong_root", said)
        elif found.size <= self._last.size and not self.closes(found.size):
            said = f"the checkpoint at size {found.size} is not where an interval was closed"
            self._note(found.size - 1 if found.size else None, "open_interval", said)
        return found

    def _matches(self, checkpoint: Checkpoint) -> bool:
        size = checkpoint.size
        return size <= self._log.size and self._log.root_at(size) == checkpoint.root

    def _note(self, seq: int | None, code: str, detail: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(seq, code, detail))


def audit_entries(
    entries: Iterable[Entry],
    checkpoint: str,
    *,
    vkey: str | None = None,
    older: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Audit a log at hand, such as a :class:`wallet.stores.readonly.ReadOnlyLog`."""
    audit = Audit(progress)
    try:
        for entry in entries:
            audit.feed(entry)
    except StoreError as error:
        audit.broken(error.message)
    return audit.report(checkpoint, vkey=vkey, older=older)


async def audit_ledger(
    ledger: Ledger,
    *,
    vkey: str | None = None,
    older: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Audit a running ledger, near or far, up to its latest checkpoint.

    Raises:
        RahbaError: the ledger cannot be asked, or its checkpoint is not signed by the key: then
            nothing says how much there is to audit.
    """
    checkpoint = await ledger.checkpoint()
    key = vkey or await ledger.verifier_key()
    size = open_checkpoint(checkpoint, key).size
    audit = Audit(progress)
    start = 0
    while start < size:
        wanted = min(PAGE, size - start)
        page = (await ledger.entries(start, wanted))[:wanted]
        if not page:
            break  # the report names the first entry that is missing
        entries = [Entry(item.seq, item.raw, _leaf(item.id), item.log_time) for item in page]
        await asyncio.to_thread(_feed_all, audit, entries)
        start += len(page)
    return await asyncio.to_thread(audit.report, checkpoint, vkey=key, older=older)


async def audit_source(
    source: Source,
    *,
    vkey: str | None = None,
    older: str | None = None,
    progress: Progress | None = None,
) -> tuple[Report, MerkleLog]:
    """Audit a log wherever it is; returns the hashes of its entries, too."""
    audit = Audit(progress)
    try:
        async for page in source.pages(0):
            await asyncio.to_thread(_feed_all, audit, page)
    except StoreError as error:
        audit.broken(error.message)
    report = await asyncio.to_thread(audit.report, source.note, vkey=vkey, older=older)
    return report, audit.log


def _feed_all(audit: Audit, entries: Iterable[Entry]) -> None:
    for entry in entries:
        audit.feed(entry)


def _leaf(tx_id: str) -> bytes:
    try:
        return bytes.fromhex(tx_id)
    except ValueError:
        return b""  # equal to no leaf hash: the audit names the entry
