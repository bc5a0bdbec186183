"""Reputations as a process keeps them: out of a ledger's log, up to its newest checkpoint.

* :class:`Reputations` follows a running ledger. It reads the entries itself and takes none for read
  before they lead to the root that the operator signed; the rules it leaves to the witnesses.
* :func:`recompute` audits a log first and believes nothing: what anybody does who doubts a figure.
* Both say of which entries their figures are (:class:`Basis`). Of the same entries everybody gets
  the same figures, to the last digit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rahba.beta import Interval
from rahba.dealings import Tally
from rahba.errors import BadSignatureError, RahbaError, RemoteError
from rahba.note import BadNoteError, Checkpoint, open_checkpoint
from rahba.standing import ReputationBook, Standing
from wallet.audit import Audit, Progress, Report
from wallet.auditor import NotAuditedError
from wallet.errors import LedgerCorruptError, StoreError
from wallet.outcomes import OutcomeLog
from wallet.ports import Ledger
from wallet.private_files import replace
from wallet.sources import Source, size_of

EVERY_S: Final = 2.0
MAX_ASKING: Final = 64
AGAIN_S: Final = 10.0
SAVE_AFTER: Final = 20_000  # entries that are read again after a start rather than written down
_PAGE: Final = 500
_TURN: Final = 100  # entries: some milliseconds of work, then others have their turn
_log: Final = logging.getLogger(__name__)


class ReputationBusyError(RemoteError):
    """Reputations are computed one after another, and the queue is full."""

    code = "reputation_busy"
    retryable = True
    hint = "try again shortly, or compute it yourself: `rahba reputation AGENT`"


class Basis(NamedTuple):
    """Which entries figures are of: so many, under this root (hex), at this ledger time."""

    size: int
    root: str
    log_time: int


class Reputations:
    """The reputations of one ledger's accounts, for the tasks of one event loop.

    ``lower_bound`` and ``glance`` answer at once, from what was read so far: for rankings and
    lists. ``standing`` reads up to the newest checkpoint first. With ``file`` a later process goes
    on where this one stopped; one that never ran begins where a neighbour did, by its file.
    """

    def __init__(
        self, ledger: Ledger, *, file: Path | None = None, neighbours: Sequence[Path] = ()
    ) -> None:
        """Read ``ledger`` from where ``file`` or a neighbour's ends, else from its first entry.

        Files are believed as far as their sums go: they are to be of the same data folder. That
        they are of this very log is seen at the next checkpoint.
        """
        self._ledger = ledger
        self._file = file
        self._turn = asyncio.Lock()
        self._asking = 0
        own = _kept(file)
        kept = [own] if own.size else [own, *(_kept(each) for each in neighbours)]
        self._begin(max(kept, key=lambda read: read.size))
        self._saved = self._read.size

    @property
    def basis(self) -> Basis:
        """Return of which entries ``lower_bound`` is."""
        return _basis(self._read)

    def lower_bound(self, agent: str) -> int:
        """Return a success rate (thousandths) that the true one exceeds with 95 %."""
        return self._book.lower_bound(agent)

    def glance(self, agent: str) -> tuple[Interval, Tally]:
        """Return a success rate and the deals that were kept, from what was read so far."""
        return self._book.rate(agent), self._book.dealings.tally(agent)

    def outcomes(self, agent: str) -> tuple[int, int]:
        """Return how many deals were kept and how many failed, from what was read so far."""
        dealings = self._book.dealings
        failed = sum(pair.failures for pair in dealings.paid_to(agent).values())
        return dealings.tally(agent).deals, failed

    async def standing(self, agent: str, caller: str | None = None) -> tuple[Standing, Basis]:
        """Return all that is known of an agent under the newest checkpoint.

        Raises:
            ReputationBusyError: too many ask at once.
            RahbaError: the ledger cannot be asked, or its entries do not lead to what it signed.
        """
        if self._asking >= MAX_ASKING:
            raise ReputationBusyError("too many reputations are asked for at once")
        self._asking += 1
        try:
            async with self._turn:
                await self._advance()
                if (
                    caller is not None
                ):  # it may take a moment; nobody changes what is read meanwhile
                    _ = await asyncio.to_thread(self._book.trust, caller)
                return self._book.standing(agent, caller), _basis(self._read)
        finally:
            self._asking -= 1

    async def catch_up(self) -> Basis:
        """Read up to the newest checkpoint; see :meth:`standing` for what can go wrong."""
        async with self._turn:
            await self._advance()
            return _basis(self._read)

    async def run(self) -> None:
        """Keep up with the ledger until cancelled; errors are waited out."""
        while True:
            try:
                await self.catch_up()
                if self._read.size - self._saved >= SAVE_AFTER:
                    await self.save()
            except RahbaError as error:
                _log.warning("reputations are not up to date: %s", error)
                await asyncio.sleep(AGAIN_S)
            await asyncio.sleep(EVERY_S)

    async def save(self) -> None:
        """Write down what was read, if there is a file for it and it can be written."""
        if self._file is None or self._read.size == self._saved:
            return
        async with self._turn:
            size = self._read.size
            raw = await asyncio.to_thread(self._read.dump)
            try:
                await asyncio.to_thread(replace, self._file, raw)
            except OSError as error:
                _log.warning("reputations are not kept: %s", error)
            self._saved = size

    def _begin(self, read: OutcomeLog) -> None:
        self._read, self._proven = read, 0
        self._book = ReputationBook(read.dealings, read.log_time)
        read.told = self._book.heed

    async def _advance(self) -> None:
        checkpoint = await self._checkpoint()
        while self._read.read_size < checkpoint.size:
            await self._page(checkpoint.size)
        read = self._read
        if (read.size, read.frontier.root()) == (checkpoint.size, checkpoint.root):
            self._proven = read.size
        elif read.size <= checkpoint.size:
            self._begin(OutcomeLog())
            raise NotAuditedError("the entries shown do not lead to the signed root")
        elif read.size != self._proven:
            raise NotAuditedError("the ledger shows less than before", size=checkpoint.size)

    async def _checkpoint(self) -> Checkpoint:
        note, known = await self._ledger.checkpoint(), self._read.vkey
        if known:
            with contextlib.suppress(BadNoteError, BadSignatureError):
                return open_checkpoint(note, known)
        vkey = await self._ledger.verifier_key()
        if known and vkey != known:
            _log.warning("the ledger is another one than before: reputations are read anew")
            self._begin(OutcomeLog())
        return open_checkpoint(note, vkey)

    async def _page(self, size: int) -> None:
        start = self._read.read_size
        page = await self._ledger.entries(start, min(_PAGE, size - start))
        if not page:
            raise NotAuditedError(f"entry {start} is not shown")
        for number, item in enumerate(page[: size - start], 1):
            self._feed(item.raw)
            if number % _TURN == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _feed(self, raw: bytes) -> None:
        read = self._read
        try:
            read.feed(raw)
        except LedgerCorruptError:
            self._begin(OutcomeLog())
            raise
        self._book.advance(read.log_time)


async def recompute(
    source: Source,
    *,
    at: int | None = None,
    vkey: str | None = None,
    progress: Progress | None = None,
) -> tuple[Report, OutcomeLog]:
    """Audit a log and read its outcomes, up to its checkpoint or to the first ``at`` entries.

    The report is of the whole log; whoever wants the figures looks whether it is ``ok`` first.

    Raises:
        LedgerCorruptError: no interval ends with ``at`` entries, or no checkpoint covers them.
    """
    audit, read = Audit(progress), OutcomeLog()
    covered = size_of(source.note)
    wanted = covered if at is None else at
    if not 0 < wanted <= covered:
        raise LedgerCorruptError("the checkpoint covers no such size", size=wanted, covered=covered)
    try:
        async for page in source.pages(0):
            for entry in page:
                audit.feed(entry)
                if read.read_size < wanted and not audit.problems:
                    read.feed(entry.raw)
            await asyncio.sleep(0)
    except StoreError as error:
        audit.broken(error.message)
    report = audit.report(source.note, vkey=vkey)
    if report.ok and read.size != wanted:
        raise LedgerCorruptError("no interval was closed there", size=wanted, closed=read.size)
    return report, read


def _kept(file: Path | None) -> OutcomeLog:
    """Return what an earlier process kept; nothing that cannot be read is worth an error."""
    if file is not None:
        with contextlib.suppress(FileNotFoundError):
            try:
                return OutcomeLog.load(file.read_bytes())
            except (LedgerCorruptError, OSError) as error:
                _log.warning("reputations are read anew: %s", error)
    return OutcomeLog()


def _basis(read: OutcomeLog) -> Basis:
    return Basis(read.size, read.frontier.root().hex(), read.log_time)
