"""From a backup or an archive to a ledger that can be started.

1. A backup is as its manifest says, and where it is to go there is nothing.
2. Its log, with the tail if there is one, is audited whole: every signature, state and root.
3. A checkpoint that was kept elsewhere is of this very log, and no newer; the witnesses, if they
   can be asked, have not seen more. Otherwise the ledger would fork its own log.
4. It is built beside its place, and takes it in one step. In a database it is not valid before
   its last write.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rahba.merkle import leaf_hash
from wallet.audit import Progress, Report, audit_source
from wallet.backup import (
    copy_back,
    open_backup,
    put_in_place,
    refuse_to_overwrite,
    remove_draft,
    source_of,
)
from wallet.book import Book
from wallet.cosigning import RolledBackError
from wallet.errors import LedgerCorruptError
from wallet.ports import Store
from wallet.rebuild import NotEmptyError, append_log, write_log
from wallet.recovery import BeforeSigning
from wallet.sources import Continued, Source, size_of
from wallet.stores.sqlite import SqliteStore
from wallet.transactions import Genesis, read


@dataclass(frozen=True, slots=True)
class Known:
    """What else is known of the log: a key, a checkpoint kept elsewhere, whom to ask."""

    vkey: str | None = None
    older: str | None = None
    ask: BeforeSigning | None = None


async def import_log(
    source: Source, store: Store, known: Known, progress: Progress | None = None
) -> Report:
    """Audit a log and write it into an empty store; one that was cut off is gone on with.

    Raises:
        LedgerCorruptError: the log does not verify; nothing was written.
        RolledBackError: somebody has seen more of it.
        NotEmptyError: the store has a ledger.
    """
    report = await _audited(source, known, progress)
    await write_log(source, store, progress)
    return report


async def restore_backup(
    folder: Path,
    target: Path | Store,
    known: Known,
    *,
    tail: Source | None = None,
    progress: Progress | None = None,
) -> Report:
    """Restore the backup in ``folder``, and what ``tail`` has beyond it, to a file or a store.

    Raises:
        BackupError: the backup is damaged, or there is something at its place.
        LedgerCorruptError: its log does not verify.
        RolledBackError: somebody has seen more of the log.
    """
    manifest = open_backup(folder)  # 1
    _refuse_to_overwrite(target)
    backup = source_of(folder, manifest)
    try:
        source = Continued(backup, manifest.size, tail) if tail is not None else backup
        report = await _audited(source, known, progress)
        if not isinstance(target, Path):
            await write_log(source, target, progress)
        elif manifest.kind == "sqlite":
            await _restore_file(folder, target, tail, progress)
        else:
            await _build_file(source, target, progress)
    finally:
        await backup.close()
    return report


async def _restore_file(
    folder: Path, path: Path, tail: Source | None, progress: Progress | None
) -> None:
    draft = _draft_of(path)
    try:
        copy_back(folder, draft)
        if tail is not None:
            store = SqliteStore(draft)
            try:
                await append_log(tail, store, progress)
            finally:
                store.close()
        put_in_place(draft, path)  # 4
    finally:
        remove_draft(draft)


async def _build_file(source: Source, path: Path, progress: Progress | None) -> None:
    draft = _draft_of(path)
    try:
        store = SqliteStore(draft)
        try:
            await write_log(source, store, progress)
        finally:
            store.close()
        put_in_place(draft, path)  # 4
    finally:
        remove_draft(draft)


def _refuse_to_overwrite(target: Path | Store) -> None:
    if isinstance(target, Path):
        refuse_to_overwrite(target)
    elif size := target.size():
        raise NotEmptyError("there is a ledger already", size=size)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.restoring")


async def _audited(source: Source, known: Known, progress: Progress | None) -> Report:
    seen = size_of(known.older) if known.older is not None else 0
    found = size_of(source.note)
    if seen > found:  # 3
        raise RolledBackError(
            f"a checkpoint of {seen} entries is known, here are {found}", seen=seen, stored=found
        )
    report, _ = await audit_source(  # 2, 3
        source, vkey=known.vkey, older=known.older, progress=progress
    )
    if not report.ok:
        problem = report.problems[0]
        raise LedgerCorruptError(
            f"the log does not verify: {problem.detail}", seq=problem.seq, reason=problem.code
        )
    if known.ask is not None:
        first = await anext(source.pages(0))
        genesis = read(first[0].raw).record
        assert isinstance(genesis, Genesis)  # the audit has seen it
        await known.ask(Book(genesis, leaf_hash(first[0].raw)), source.note)
    return report
