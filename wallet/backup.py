"""Copies of a ledger to fall back on, and the way back from one.

A backup is a folder: a copy of the SQLite file (``ledger.sqlite``), or an archive of the log where
the ledger is in PostgreSQL, and ``manifest.json``, written last: every file's size and SHA-256, and
the checkpoint. It holds no keys: without the operator's key nobody goes on with the ledger.

* The copy is of one moment and durable, and is made while the ledger runs. One whose entries do
  not lead to its own checkpoint is refused: nobody wants to find that out later.
* :func:`open_backup` compares all files with the manifest. Whoever restores one audits its log
  (:mod:`wallet.audit`) before anything is put in its place.
* A backup is older than the ledger was. What came after it is in no backup, unless there is a
  longer log somewhere (an archive, another ledger that follows this one): its tail is appended.
  Whoever saw the ledger's later checkpoints will not accept less.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Final, Literal

import apsw
import msgspec

from rahba.merkle import leaf_hash
from rahba.note import open_checkpoint
from wallet.archive import Archive, ArchiveSource
from wallet.audit import Progress
from wallet.errors import LedgerCorruptError, StoreError
from wallet.export import LogName, export_log, name_of
from wallet.merkle import MerkleLog
from wallet.ports import Store
from wallet.private_files import make_folder, replace, sync_folder
from wallet.sources import Source, StoreSource
from wallet.stores.sqlite import SqliteStore

MANIFEST: Final = "manifest.json"
FILE: Final = "ledger.sqlite"
FORMAT: Final = "rahba-backup/1"
_STEP_PAGES: Final = 2_000
_BUSY_MS: Final = 10_000
_PAGE: Final = 2_000
_BLOCK_BYTES: Final = 1 << 20
_MAX_MANIFEST_BYTES: Final = 256 * 1024 * 1024


class BackupError(StoreError):
    """A backup is missing, incomplete, damaged, or would be written over."""

    code = "bad_backup"
    hint = "take another backup: this one proves nothing"


class Backed(msgspec.Struct, frozen=True):
    """A file of a backup."""

    name: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup is of, and which files are all of it.

    ``size`` entries are in it, ``covered`` of them under ``checkpoint``, with ``root`` (hex).
    """

    format: str
    kind: Literal["sqlite", "archive"]
    made_ms: int
    log: LogName
    size: int
    covered: int
    root: str
    checkpoint: str
    files: tuple[Backed, ...]


def back_up_file(
    path: Path, folder: Path, made_ms: int, progress: Progress | None = None
) -> Manifest:
    """Copy the SQLite ledger at ``path``, running or not, into ``folder``.

    Raises:
        BackupError: the folder has something else in it.
        LedgerCorruptError: the ledger is damaged; says at which entry.
        StoreError: there is no ledger, or it cannot be copied.
    """
    if not path.is_file():
        raise StoreError("there is no ledger file", path=str(path))
    _make_room(folder)
    try:
        _copy(path, folder / FILE, progress)
    except (apsw.Error, OSError) as error:
        raise StoreError(f"the ledger's file cannot be copied: {error}") from error
    store = SqliteStore(folder / FILE)
    try:
        manifest = _checked(store, made_ms)
    finally:
        store.close()
    for part in ("-wal", "-shm"):
        (folder / (FILE + part)).unlink(missing_ok=True)
    return _finish(folder, manifest)


async def back_up_log(
    source: Source, folder: Path, made_ms: int, progress: Progress | None = None
) -> Manifest:
    """Archive a ledger that is not in a file of its own into ``folder``."""
    _make_room(folder)
    done = await export_log(source, folder, progress=progress)
    manifest = Manifest(
        FORMAT, "archive", made_ms, done.log, done.size, done.size, done.root, source.note, ()
    )
    return await asyncio.to_thread(_finish, folder, manifest)


def open_backup(folder: Path) -> Manifest:
    """Compare a backup with its manifest.

    Raises:
        BackupError: a file is missing, is another one, or there is no manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BackupError("there is no manifest: this is no backup, or one not finished")
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise BackupError("the manifest is too large", limit_bytes=_MAX_MANIFEST_BYTES)
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackupError(f"the manifest is damaged: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError("the backup is of another release's form", format=manifest.format)
    for file in manifest.files:
        there = (folder / file.name).resolve()
        if not there.is_relative_to(folder.resolve()) or not there.is_file():
            raise BackupError(f"{file.name} is missing", file=file.name)
        if there.stat().st_size != file.bytes or _sha256(there) != file.sha256:
            raise BackupError(f"{file.name} is not as it was backed up", file=file.name)
    return manifest


def source_of(folder: Path, manifest: Manifest) -> Source:
    """Return the log of a backup, to read."""
    if manifest.kind == "archive":
        return ArchiveSource(Archive(folder))
    return StoreSource(SqliteStore(folder / FILE))


def copy_back(folder: Path, draft: Path) -> None:
    """Copy the file of a backup durably to ``draft``, which is nothing yet."""
    make_folder(draft.parent)
    with (folder / FILE).open("rb") as old, draft.open("xb") as new:
        while block := old.read(_BLOCK_BYTES):
            new.write(block)
        new.flush()
        os.fsync(new.fileno())
    sync_folder(draft.parent)


def put_in_place(draft: Path, path: Path) -> None:
    """Give a restored file its name; what has that name already is never written over.

    Raises:
        BackupError: something is there.
    """
    refuse_to_overwrite(path)
    try:
        path.hardlink_to(draft)  # unlike a rename, never replaces
    except FileExistsError as error:
        raise BackupError("there is a ledger already", path=str(path)) from error
    remove_draft(draft)
    sync_folder(path.parent)


def refuse_to_overwrite(path: Path) -> None:
    """Refuse a place where a ledger is, or what is left of one.

    Raises:
        BackupError: something is there.
    """
    for part in ("", "-wal", "-journal"):
        if path.with_name(path.name + part).exists():
            raise BackupError(
                "there is a ledger already: move it away first", path=str(path) + part
            )


def remove_draft(draft: Path) -> None:
    """Remove a draft and what SQLite put beside it."""
    for part in ("", "-wal", "-shm", "-journal", ".lock"):
        draft.with_name(draft.name + part).unlink(missing_ok=True)


def _make_room(folder: Path) -> None:
    """Make the folder; what an earlier attempt left there may be written over."""
    if (folder / MANIFEST).exists():
        raise BackupError("there is a backup already", folder=str(folder))
    known = {FILE, FILE + "-wal", FILE + "-shm", FILE + "-journal"}
    known |= {"checkpoint", "tile", "log.json", "refusals.json", "witnessed"}
    if folder.exists():
        strange = [path.name for path in folder.iterdir() if path.name not in known]
        if strange:
            raise BackupError("there is something else in the folder", found=strange[0])
    make_folder(folder)
    for part in ("", "-wal", "-shm", "-journal"):
        (folder / (FILE + part)).unlink(missing_ok=True)


def _copy(path: Path, copy: Path, progress: Progress | None) -> None:
    source = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    source.set_busy_timeout(_BUSY_MS)
    # One reading transaction for all of it: it is of one moment, and no writer waits for it.
    source.execute("PRAGMA wal_autocheckpoint = 0; BEGIN; SELECT count(*) FROM counters").fetchall()
    target = apsw.Connection(str(copy))
    try:
        target.execute("PRAGMA synchronous = FULL")
        with target.backup("main", source, "main") as job:
            while not job.done:
                job.step(_STEP_PAGES)
                if progress is not None:
                    progress(job.page_count - job.remaining)
    finally:
        target.close()
        source.close()
    with copy.open("rb") as file:
        os.fsync(file.fileno())


def _checked(store: Store, made_ms: int) -> Manifest:
    """Hash all entries of the copy and compare them with its checkpoint."""
    note, log = store.checkpoint(), MerkleLog()
    while page := store.read(log.size, _PAGE):
        for entry in page:
            leaf = leaf_hash(entry.raw)
            if entry.seq != log.size or leaf != entry.leaf:
                raise LedgerCorruptError(f"entry {log.size} is not as it was stored", seq=log.size)
            log.append(leaf)
    if note is None:
        raise LedgerCorruptError("the ledger has lost its checkpoint", seq=log.size)
    name = name_of(store.read(0, 1)[0].raw)
    signed = open_checkpoint(note, name.vkey)
    if signed.size > log.size or log.root_at(signed.size) != signed.root:
        raise LedgerCorruptError("the log is not the one that was signed", seq=signed.size - 1)
    root = signed.root.hex()
    return Manifest(FORMAT, "sqlite", made_ms, name, log.size, signed.size, root, note, ())


def _finish(folder: Path, manifest: Manifest) -> Manifest:
    """Name all files of the folder in the manifest, and write that."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple(
        Backed(path.relative_to(folder).as_posix(), path.stat().st_size, _sha256(path))
        for path in found
    )
    manifest = msgspec.structs.replace(manifest, files=files)
    replace(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
