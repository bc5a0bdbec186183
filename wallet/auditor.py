"""An auditor: it believes a checkpoint only after it carried out every transaction under it itself.

* It reads the log's entries as they come and audits them (:mod:`wallet.audit`): signatures, rules,
  every recorded state. What it has done it does not do again.
* The first checkpoint that it cannot confirm is the last one that it looks at: a log does not
  become honest again. :attr:`Auditor.evidence` then holds the bundle.
"""

from __future__ import annotations

import asyncio

from rahba.encoding import b64
from rahba.ids import did_of
from rahba.merkle import leaf_hash
from rahba.note import Checkpoint, open_checkpoint, read_verifier_key
from wallet.audit import PAGE, Audit
from wallet.evidence import AnyBundle, BadEntry, BadState, Fork, fault_of_entry, hashes
from wallet.merkle import MerkleLog
from wallet.ports import Entry, Ledger


class Auditor:
    """Follows one log through ``ledger``; for one task at a time."""

    def __init__(self, ledger: Ledger) -> None:
        """Start before the first entry."""
        self.ledger = ledger
        self._audit = Audit()
        self._confirmed = ""
        self.evidence: AnyBundle | None = None

    @property
    def size(self) -> int:
        """Return how many entries were carried out."""
        return self._audit.size

    async def confirms(self, note: str, vkey: str) -> str | None:
        """Return what is wrong with a checkpoint, or ``None`` if every entry under it is right.

        Raises:
            RahbaError: the log cannot be asked, which says nothing about it.
        """
        if self.evidence is not None:
            return "the log was caught before"
        checkpoint = open_checkpoint(note, vkey)
        while self._audit.size < checkpoint.size:
            start = self._audit.size
            page = await self.ledger.entries(start, min(PAGE, checkpoint.size - start))
            if not page:
                return f"entry {start} is not shown"
            entries = [
                Entry(item.seq, item.raw, bytes.fromhex(item.id), item.log_time) for item in page
            ]
            await asyncio.to_thread(self._feed, entries)
        wrong = self._judge(checkpoint, note, vkey)
        if wrong is None:
            self._confirmed = note
        return wrong

    def _feed(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._audit.feed(entry)

    def _judge(self, checkpoint: Checkpoint, note: str, vkey: str) -> str | None:
        log, size = self._audit.log, checkpoint.size
        if log.root_at(size) != checkpoint.root:
            self.evidence = self._fork(note, vkey)
            return "the entries shown do not lead to the signed root"
        problems = [item for item in self._audit.problems if item.seq is None or item.seq < size]
        if not problems:
            return None if self._audit.closes(size) else "no state leaf closes the checkpoint"
        problem = problems[0]
        seq = problem.seq or 0
        self.evidence = BadState(vkey, note, seq, problem.code)
        return f"entry {seq}: {problem.detail}"

    def _fork(self, note: str, vkey: str) -> AnyBundle | None:
        """Two checkpoints that we were shown, if the entries prove that they contradict."""
        if not self._confirmed:
            return None
        first, second = open_checkpoint(self._confirmed, vkey), open_checkpoint(note, vkey)
        if first.size == second.size:
            return Fork(vkey, self._confirmed, note)
        return None

    async def entry_evidence(self, note: str, vkey: str, seq: int) -> BadEntry | None:
        """Return an entry with its inclusion, if it is wrong whatever the state."""
        checkpoint = open_checkpoint(note, vkey)
        (item,) = await self.ledger.entries(seq, 1)
        operator = did_of(read_verifier_key(vkey).public_key)
        if fault_of_entry(item.raw, checkpoint, operator) is None:
            return None
        path = self._audit.log.inclusion(seq, checkpoint.size)
        return BadEntry(vkey, note, seq, hashes(path), b64(item.raw))


async def prove_fork(ledger: Ledger, first: str, second: str, vkey: str) -> Fork | None:
    """Return the evidence that ``second`` does not extend ``first``, if the log's entries give it.

    Of one size, the two notes suffice. Otherwise the log that shows ``second`` is asked for what
    it says was there at the size of ``first``.
    """
    before, after = open_checkpoint(first, vkey), open_checkpoint(second, vkey)
    if before.size == after.size:
        return Fork(vkey, first, second) if before.root != after.root else None
    if before.size > after.size:
        return None
    log = MerkleLog()
    while log.size < after.size:
        page = await ledger.entries(log.size, min(PAGE, after.size - log.size))
        if not page:
            return None
        log.extend(leaf_hash(item.raw) for item in page)
    old_root = log.root_at(before.size)
    if log.root() != after.root or old_root == before.root:
        return None
    proof = hashes(log.consistency(before.size, after.size))
    return Fork(vkey, first, second, b64(old_root), proof)
