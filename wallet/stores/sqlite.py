"""The log in one SQLite file: what an ``append`` returned from survives a power cut.

* WAL with ``synchronous=FULL``; one connection writes and alone checkpoints the WAL, another one
  reads and never does.
* One process at a time: a lock file beside the database is held while it is open.
* SQLite is the one inside ``apsw``, not the system's (versions before 3.51.3 can corrupt a WAL).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw

from wallet.errors import StoreError
from wallet.ports import Entry, Verdict

SCHEMA_VERSION: Final = 1
_BUSY_MS: Final = 5_000
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, raw BLOB NOT NULL, leaf BLOB NOT NULL, log_time INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS entries_by_leaf ON entries (substr(leaf, 1, 8));
CREATE TABLE IF NOT EXISTS verdicts (
  id TEXT PRIMARY KEY, code TEXT NOT NULL, detail TEXT NOT NULL, until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS verdicts_by_time ON verdicts (until);
CREATE TABLE IF NOT EXISTS checkpoint (
  one INTEGER PRIMARY KEY CHECK (one = 1), note TEXT NOT NULL
) STRICT;
PRAGMA user_version = {SCHEMA_VERSION};
"""


class SqliteStore:
    """Keeps the log in the file ``path``; see :class:`wallet.ports.Store`."""

    def __init__(self, path: Path, *, max_pages: int | None = None) -> None:
        """Open or create the file.

        Args:
            path: the database; its folder is made if it is missing.
            max_pages: refuse to grow beyond so many pages (4 KiB each).

        Raises:
            StoreError: another process has it open, or it is no ledger of this version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(path.with_name(path.name + ".lock"))
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        try:
            self._writer = _open_writer(path, max_pages)
            self._reader = _open_reader(path)
        except (apsw.Error, StoreError) as error:
            self.close()
            raise StoreError(f"cannot open the ledger's file: {error}", path=str(path)) from error

    def append(
        self, entries: Sequence[Entry], verdicts: Sequence[Verdict], checkpoint: str | None
    ) -> None:
        """Write all in one durable transaction, or nothing."""
        writer = _alive(self._writer)
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                self._write(writer, entries, verdicts, checkpoint)
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise
        except apsw.Error as error:
            raise StoreError(f"nothing was written: {error}") from error

    @staticmethod
    def _write(
        writer: apsw.Connection,
        entries: Sequence[Entry],
        verdicts: Sequence[Verdict],
        checkpoint: str | None,
    ) -> None:
        if entries:
            size = _number(writer, "SELECT ifnull(max(seq) + 1, 0) FROM entries")
            if [entry.seq for entry in entries] != list(range(size, size + len(entries))):
                raise StoreError("entries follow each other without a gap", size=size)
            writer.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", entries)
            writer.execute("DELETE FROM verdicts WHERE until < ?", (entries[-1].log_time,))
        if verdicts:
            writer.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", verdicts)
        if checkpoint is not None:
            writer.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?)", (checkpoint,))

    def size(self) -> int:
        """Return the number of entries."""
        return _number(_alive(self._reader), "SELECT ifnull(max(seq) + 1, 0) FROM entries")

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        rows = _alive(self._reader).execute(
            "SELECT seq, raw, leaf, log_time FROM entries WHERE seq >= ? ORDER BY seq LIMIT ?",
            (start, limit),
        )
        return [Entry._make(row) for row in rows]

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the entries that have these transaction ids."""
        reader = _alive(self._reader)
        found = {}
        for name in ids:
            leaf = bytes.fromhex(name)
            for row in reader.execute(
                "SELECT seq, raw, leaf, log_time FROM entries"
                " WHERE substr(leaf, 1, 8) = ? AND leaf = ?",
                (leaf[:8], leaf),
            ):
                found[name] = Entry._make(row)
        return found

    def verdicts(self) -> list[Verdict]:
        """Return all remembered refusals."""
        rows = _alive(self._reader).execute("SELECT id, code, detail, until FROM verdicts")
        return [Verdict._make(row) for row in rows]

    def checkpoint(self) -> str | None:
        """Return the latest checkpoint."""
        for (note,) in _alive(self._reader).execute("SELECT note FROM checkpoint"):
            return str(note)
        return None

    def close(self) -> None:
        """Close both connections and let go of the lock."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StoreError("another process has this ledger open", path=str(path)) from error
    return handle


def _open_writer(path: Path, max_pages: int | None) -> apsw.Connection:
    writer = apsw.Connection(str(path))
    writer.set_busy_timeout(_BUSY_MS)
    version = _number(writer, "PRAGMA user_version")
    if version not in {0, SCHEMA_VERSION}:
        raise StoreError("the file is of another version", version=version)
    for setting in ("journal_mode = WAL", "synchronous = FULL"):
        writer.execute(f"PRAGMA {setting}").fetchall()
    writer.execute(_SCHEMA).fetchall()
    if max_pages is not None:
        writer.execute(f"PRAGMA max_page_count = {int(max_pages)}").fetchall()
    return writer


def _open_reader(path: Path) -> apsw.Connection:
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.set_busy_timeout(_BUSY_MS)
    reader.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    return reader


def _alive(connection: apsw.Connection | None) -> apsw.Connection:
    if connection is None:
        raise StoreError("the store is closed")
    return connection


def _number(connection: apsw.Connection, question: str) -> int:
    for (value,) in connection.execute(question):
        return int(value)
    return 0
