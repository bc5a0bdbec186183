"""An auditor: it believes a checkpoint only after it carried out every transaction under it itself.

* It reads the log's entries as they come and audits them (:mod:`wallet.audit`): signatures, rules,
  every recorded state. What it has done it does not do again, until it is started again.
* The first checkpoint that it finds wrong is the last one that it looks at: a log does not become
  honest again. :attr:`Auditor.evidence` then holds the bundles.
* What it is shown and nobody signed convicts nobody. Entries that do not lead to the signed root
  are forgotten and asked for anew; the checkpoint is not confirmed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from rahba.encoding import b64
from rahba.errors import RahbaError, RemoteError
from rahba.ids import did_of
from rahba.merkle import BadProofError, extended_root, leaf_hash, unhex, verify_consistency
from rahba.note import Checkpoint, open_checkpoint, read_verifier_key, verifier_key_of
from rahba.promise import open_promise
from rahba.proof import verify_proof
from wallet.audit import PAGE, Audit, Problem
from wallet.evidence import (
    UNSIGNED,
    AnyBundle,
    BadEntry,
    BadState,
    Dropped,
    Fork,
    NotEvidenceError,
    fault_of_entry,
    hashes,
    verify_evidence,
)
from wallet.merkle import MerkleLog
from wallet.ports import Entry, Ledger, TxView

WITHIN_S: Final = 3.0
RETRY_S: Final = 1.0


class NotAuditedError(RemoteError):
    """The entries under a checkpoint are not all carried out yet, or cannot be."""

    code = "not_audited"
    retryable = True


class _Pass:
    """One pass over a log, with the bytes of the interval that is open and of what was wrong."""

    def __init__(self) -> None:
        self.audit = Audit()
        self.wrong = b""
        self._interval: dict[int, bytes] = {}

    def feed(self, page: Sequence[TxView]) -> None:
        """Carry out the next entries; their places and ids are not taken from who shows them."""
        audit = self.audit
        for item in page:
            entry = Entry(audit.size, item.raw, leaf_hash(item.raw), item.log_time)
            clean = not audit.problems
            self._interval[entry.seq] = entry.raw
            audit.feed(entry)
            if clean and audit.problems:
                self.wrong = self._interval.get(audit.problems[0].seq or 0, b"")
            if audit.closes(audit.size):
                self._interval = {}
        audit.log.root()  # here, so that the loop's thread finds it grown


class Auditor:
    """Follows one log through ``ledger``; for any number of tasks of one event loop.

    Who asks waits ``within_s`` at most; the work goes on meanwhile and is there the next time.
    """

    def __init__(self, ledger: Ledger, *, within_s: float = WITHIN_S) -> None:
        """Start before the first entry."""
        self.ledger = ledger
        self.evidence: tuple[AnyBundle, ...] = ()
        self._within_s = within_s
        self._wanted = 0
        self._confirmed = False
        self._following: asyncio.Task[None] | None = None
        self._pass = _Pass()

    @property
    def size(self) -> int:
        """Return how many entries were carried out."""
        return self._pass.audit.size

    async def confirms(self, note: str, vkey: str) -> str | None:
        """Return what is wrong with a checkpoint, or ``None`` if every entry under it is right.

        Raises:
            RahbaError: the log cannot be asked, or not in time, which says nothing about it.
        """
        checkpoint = open_checkpoint(note, vkey)
        if not self.evidence:
            await self._reach(checkpoint.size)
        if self.evidence:
            return "the log was caught before"
        return self._judge(checkpoint, note, vkey)

    async def catch_up(self, size: int) -> None:
        """Carry out what was confirmed before this start, so that nobody has to wait for it."""
        while self._pass.audit.size < size and not self._confirmed:
            try:
                await self._reach(size)
            except RahbaError:
                await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Stop following the log."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def joins(self, small: Checkpoint, large: Checkpoint) -> tuple[bytes, list[bytes]] | None:
        """Return what ``large`` says of the size of ``small``, and the proof of it.

        ``None``: the larger checkpoint is not one of the log that was carried out.
        """
        log = self._pass.audit.log
        if not 0 < small.size < large.size <= log.size or log.root_at(large.size) != large.root:
            return None
        return log.root_at(small.size), log.consistency(small.size, large.size)

    async def _reach(self, size: int) -> None:
        if self._pass.audit.size >= size:
            return
        self._wanted = max(self._wanted, size)
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(), name="audit")
        await asyncio.wait({self._following}, timeout=self._within_s)
        if self._pass.audit.size >= size:
            return
        if self._following.done():
            self._following.result()
        raise NotAuditedError(f"{self._pass.audit.size} of {size} entries are audited")

    async def _follow(self) -> None:
        one = self._pass
        audit = one.audit
        try:
            while audit.size < self._wanted and one is self._pass:
                limit = min(PAGE, self._wanted - audit.size)
                page = (await self.ledger.entries(audit.size, limit))[:limit]
                if not page:
                    raise NotAuditedError(f"entry {audit.size} is not shown")
                await asyncio.to_thread(one.feed, page)
        finally:
            self._wanted = 0

    def _judge(self, checkpoint: Checkpoint, note: str, vkey: str) -> str | None:
        audit, size = self._pass.audit, checkpoint.size
        if audit.log.root_at(size) != checkpoint.root:
            if audit.genesis is None or audit.genesis.origin == checkpoint.origin:
                self._pass = _Pass()
            raise NotAuditedError("the entries shown do not lead to the signed root")
        problem = self._problem(checkpoint, vkey)
        if problem is None:
            self._confirmed = True
            return None
        if problem.code in UNSIGNED:
            self._pass = _Pass()
            raise NotAuditedError(f"entry {problem.seq} is shown wrongly: {problem.detail}")
        seq = problem.seq or 0
        self.evidence = (
            *self._by_itself(checkpoint, note, vkey, seq),
            BadState(vkey, note, seq, problem.code),
        )
        return f"entry {seq}: {problem.detail}"

    def _problem(self, checkpoint: Checkpoint, vkey: str) -> Problem | None:
        audit, size = self._pass.audit, checkpoint.size
        for problem in audit.problems:
            if problem.seq is None or problem.seq < size:
                return problem
        genesis = audit.genesis
        if genesis is None or verifier_key_of(genesis.origin, genesis.operator) != vkey:
            return Problem(0, "wrong_operator", "the genesis names another log or operator")
        if not audit.closes(size):
            return Problem(size - 1, "open_interval", "no state leaf closes the checkpoint")
        return None

    def _by_itself(
        self, checkpoint: Checkpoint, note: str, vkey: str, seq: int
    ) -> tuple[BadEntry, ...]:
        """Return the entry with its inclusion, if it is wrong whatever the state."""
        raw, operator = self._pass.wrong, did_of(read_verifier_key(vkey).public_key)
        log = self._pass.audit.log
        if leaf_hash(raw) != log.node(0, seq) or fault_of_entry(raw, checkpoint, operator) is None:
            return ()
        path = hashes(log.inclusion(seq, checkpoint.size))
        return (BadEntry(vkey, note, seq, path, b64(raw)),)


async def prove_fork(ledger: Ledger, first: str, second: str, vkey: str) -> Fork | None:
    """Return the evidence that ``second`` does not extend ``first``, if the log gives it.

    Of one size, the two notes suffice. Otherwise the log that shows ``second`` is asked to prove
    that it does; its own proof tells what it says was there at the size of ``first``. Only where
    no proof repeats that (sizes that are powers of two) its entries are read.
    """
    before, after = open_checkpoint(first, vkey), open_checkpoint(second, vkey)
    if before.size == after.size:
        return Fork(vkey, first, second) if before.root != after.root else None
    if not 0 < before.size < after.size:
        return None
    path = [unhex(step) for step in await ledger.consistency(before.size, after.size)]
    try:
        verify_consistency(before.size, after.size, before.root, after.root, path)
    except BadProofError:
        old_root = extended_root(before.size, after.size, after.root, path)
    else:
        return None
    if old_root is None:
        old_root = await _root_shown(ledger, before.size)
    bundle = Fork(vkey, first, second, b64(old_root), hashes(path))
    try:
        verify_evidence(bundle)
    except NotEvidenceError:
        return None
    return bundle


async def prove_dropped(ledger: Ledger, promise: str, vkey: str) -> Dropped | None:
    """Return the evidence that a promise (:mod:`rahba.promise`) was broken; ``None``: it is kept.

    Raises:
        NotAuditedError: no checkpoint of the promised size is shown yet.
        BadSignatureError: the promise is not that of the operator of ``vkey``.
        RahbaError: the log cannot be asked, or does not prove what it shows.
    """
    said = open_promise(promise, did_of(read_verifier_key(vkey).public_key))
    page = await ledger.entries(said.seq, 1)
    leaf = leaf_hash(page[0].raw) if page else b""
    proof = await ledger.inclusion(leaf.hex()) if page else None
    if proof is None or verify_proof(proof, vkey).size < said.by_size:
        raise NotAuditedError(f"no checkpoint covers {said.by_size} entries yet")
    if (proof.index, proof.leaf_hash) != (said.seq, leaf.hex()):
        raise BadProofError("the ledger proves another entry than it shows")
    if leaf.hex() == said.id:
        return None
    path = hashes(unhex(step) for step in proof.path)
    bundle = Dropped(vkey, promise, proof.checkpoint, b64(leaf), path)
    verify_evidence(bundle)
    return bundle


async def _root_shown(ledger: Ledger, size: int) -> bytes:
    """Return the root of so many entries, as the log shows them."""
    log = MerkleLog()
    while log.size < size:
        limit = min(PAGE, size - log.size)
        page = (await ledger.entries(log.size, limit))[:limit]
        if not page:
            raise NotAuditedError(f"entry {log.size} is not shown")
        log.extend(leaf_hash(item.raw) for item in page)
    return log.root()
