"""The log in one SQLite file: what an ``append`` returned from survives a power cut.

* WAL with ``synchronous=FULL``; one connection writes and alone checkpoints the WAL, another one
  reads and never does.
* One writer at a time: a lock file beside the database is held by who acquired it. Should two
  believe so all the same, the file's fencing token tells the older one in its next transaction.
* SQLite is the one inside ``apsw``, not the system's (versions before 3.51.3 can corrupt a WAL).
* Leaf hashes are kept a second time in rows of 256, so that a start reads them at the speed of the
  disk.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import apsw

from rahba.merkle import HASH_BYTES
from wallet.errors import FencedError, StoreError, StoreLockedError
from wallet.ports import ARCHIVE, Entry, Snapshot, Verdict

SCHEMA_VERSION: Final = 2
TILE: Final = 256
_BUSY_MS: Final = 5_000
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS entries (
  seq INTEGER PRIMARY KEY, raw BLOB NOT NULL, leaf BLOB NOT NULL, log_time INTEGER NOT NULL,
  links BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS entries_by_leaf ON entries (substr(leaf, 1, 8));
CREATE TABLE IF NOT EXISTS tiles (number INTEGER PRIMARY KEY, hashes BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS verdicts (
  id TEXT PRIMARY KEY, code TEXT NOT NULL, detail TEXT NOT NULL, until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS verdicts_by_time ON verdicts (until);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS snapshot (
  key BLOB PRIMARY KEY, value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
PRAGMA user_version = {SCHEMA_VERSION};
"""
_SIZE: Final = "SELECT ifnull(max(seq) + 1, 0) FROM entries"


class SqliteStore:
    """Keeps the log in the file ``path``; see :class:`wallet.ports.Store`."""

    def __init__(self, path: Path, *, max_pages: int | None = None, vfs: str | None = None) -> None:
        """Name the file; it is made when it is acquired.

        Args:
            path: the database; its folder is made if it is missing.
            max_pages: refuse to grow beyond so many pages (4 KiB each).
            vfs: the SQLite VFS to go through, for tests of what disks do.

        Raises:
            StoreError: it is no ledger of this version.
        """
        self._path = path
        self._max_pages = max_pages
        self._vfs = vfs
        self._lock = -1
        self._token = 0
        self._tail = bytearray()  # leaf hashes that fill no tile yet
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._closed = False
        if vfs is None and path.exists():
            self._open_reader()

    def acquire(self) -> int:
        """Lock the file and become its writer."""
        if self._closed or self._writer is not None:
            raise StoreError("the store is closed, or acquired already")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._path.with_name(self._path.name + ".lock"))
        try:
            self._writer = writer = _open_writer(self._path, self._max_pages, self._vfs)
            if self._reader is None:
                self._open_reader()
            writer.execute("BEGIN IMMEDIATE")
            writer.execute(
                "INSERT INTO counters VALUES ('fence', 1)"
                " ON CONFLICT (name) DO UPDATE SET value = value + 1"
            )
            self._token = _number(writer, "SELECT value FROM counters WHERE name = 'fence'")
            writer.execute("COMMIT")
            size = _number(writer, _SIZE)
            self._tail = bytearray(self._leaves_of_entries(size - size % TILE, TILE))
        except (apsw.Error, StoreError) as error:
            self._let_go()
            path = str(self._path)
            raise StoreError(f"cannot open the ledger's file: {error}", path=path) from error
        return self._token

    def append(
        self,
        entries: Sequence[Entry],
        verdicts: Sequence[Verdict],
        checkpoint: str | None,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Write all in one durable transaction, or nothing."""
        writer = _alive(self._writer)
        tail = self._tail
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                self._check_fence(writer)
                if entries:
                    tail = self._write_entries(writer, entries)
                self._write_rest(writer, verdicts, checkpoint, snapshot)
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise
        except apsw.Error as error:
            raise StoreError(f"nothing was written: {error}") from error
        self._tail = tail

    def save_witnessed(self, note: str) -> None:
        """Keep the newest cosigned checkpoint."""
        writer = _alive(self._writer)
        try:
            self._check_fence(writer)
            writer.execute("INSERT OR REPLACE INTO notes VALUES ('witnessed', ?)", (note,))
        except apsw.Error as error:
            raise StoreError(f"nothing was written: {error}") from error

    def _write_entries(self, writer: apsw.Connection, entries: Sequence[Entry]) -> bytearray:
        size = _number(writer, _SIZE)
        if [entry.seq for entry in entries] != list(range(size, size + len(entries))):
            raise StoreError("entries follow each other without a gap", size=size)
        writer.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", entries)
        writer.execute("DELETE FROM verdicts WHERE until < ?", (entries[-1].log_time,))
        tail = self._tail + b"".join([entry.leaf for entry in entries])
        first, full = size // TILE, len(tail) // HASH_BYTES // TILE
        width = TILE * HASH_BYTES
        tiles = [(first + at, bytes(tail[at * width : (at + 1) * width])) for at in range(full)]
        if tiles:
            writer.executemany("INSERT INTO tiles VALUES (?, ?)", tiles)
        return tail[full * width :]

    @staticmethod
    def _write_rest(
        writer: apsw.Connection,
        verdicts: Sequence[Verdict],
        checkpoint: str | None,
        snapshot: Snapshot | None,
    ) -> None:
        if verdicts:
            writer.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", verdicts)
        if checkpoint is not None:
            writer.execute("INSERT OR REPLACE INTO notes VALUES ('checkpoint', ?)", (checkpoint,))
        if snapshot is not None:
            rows = snapshot.rows.items()
            kept = [(key, value) for key, value in rows if value is not None]
            gone = [(key,) for key, value in rows if value is None]
            writer.executemany("INSERT OR REPLACE INTO snapshot VALUES (?, ?)", kept)
            writer.executemany("DELETE FROM snapshot WHERE key = ?", gone)
            writer.execute(
                "INSERT OR REPLACE INTO counters VALUES ('covered', ?)", (snapshot.size,)
            )

    def _check_fence(self, writer: apsw.Connection) -> None:
        newest = _number(writer, "SELECT value FROM counters WHERE name = 'fence'")
        if newest != self._token:
            raise FencedError("a newer writer has the store", token=self._token, newest=newest)

    def size(self) -> int:
        """Return the number of entries."""
        return _number(self._reading, _SIZE) if self._reading else 0

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        if self._reading is None:
            return []
        rows = self._reading.execute(
            "SELECT seq, raw, leaf, log_time, links FROM entries"
            " WHERE seq >= ? ORDER BY seq LIMIT ?",
            (start, limit),
        )
        return [Entry._make(row) for row in rows]

    def leaves(self, start: int, limit: int) -> bytes:
        """Return up to ``limit`` leaf hashes from ``start`` on."""
        if self._reading is None:
            return b""
        first = start // TILE
        rows = self._reading.execute(
            "SELECT hashes FROM tiles WHERE number BETWEEN ? AND ? ORDER BY number",
            (first, (start + limit) // TILE),
        )
        found = b"".join([hashes for (hashes,) in rows])
        there = first * TILE + len(found) // HASH_BYTES
        skipped = (start - first * TILE) * HASH_BYTES
        if there < start + limit:
            found += self._leaves_of_entries(max(there, start), start + limit - max(there, start))
            skipped = skipped if there > first * TILE else 0
        return found[skipped : skipped + limit * HASH_BYTES]

    def _leaves_of_entries(self, start: int, limit: int) -> bytes:
        rows = _alive(self._reader).execute(
            "SELECT leaf FROM entries WHERE seq >= ? ORDER BY seq LIMIT ?", (start, limit)
        )
        return b"".join([leaf for (leaf,) in rows])

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the entries that have these transaction ids."""
        found: dict[str, Entry] = {}
        if self._reading is None:
            return found
        for name in ids:
            leaf = bytes.fromhex(name)
            for row in self._reading.execute(
                "SELECT seq, raw, leaf, log_time, links FROM entries"
                " WHERE substr(leaf, 1, 8) = ? AND leaf = ?",
                (leaf[:8], leaf),
            ):
                found[name] = Entry._make(row)
        return found

    def verdicts(self) -> list[Verdict]:
        """Return all remembered refusals."""
        if self._reading is None:
            return []
        rows = self._reading.execute("SELECT id, code, detail, until FROM verdicts")
        return [Verdict._make(row) for row in rows]

    def checkpoint(self) -> str | None:
        """Return the latest checkpoint."""
        return self._note("checkpoint")

    def witnessed(self) -> str | None:
        """Return the latest cosigned checkpoint."""
        return self._note("witnessed")

    def _note(self, name: str) -> str | None:
        if self._reading is None:
            return None
        for (note,) in self._reading.execute("SELECT note FROM notes WHERE name = ?", (name,)):
            return str(note)
        return None

    def snapshot(self) -> tuple[int, Iterable[tuple[bytes, bytes]]] | None:
        """Return the snapshot's size and rows."""
        if self._reading is None:
            return None
        size = _number(self._reading, "SELECT value FROM counters WHERE name = 'covered'")
        if not size:
            return None
        rows = self._reading.execute(
            "SELECT key, value FROM snapshot WHERE key < ? ORDER BY key", (ARCHIVE,)
        )
        return size, rows

    def row(self, key: bytes) -> bytes | None:
        """Return one row."""
        if self._reading is None:
            return None
        for (value,) in self._reading.execute("SELECT value FROM snapshot WHERE key = ?", (key,)):
            return bytes(value)
        return None

    def close(self) -> None:
        """Close both connections and let go of the lock."""
        self._closed = True
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._let_go()

    @property
    def _reading(self) -> apsw.Connection | None:
        """Return the reading connection; ``None`` while there is no file."""
        if self._closed:
            raise StoreError("the store is closed")
        if self._reader is None and self._vfs is None and self._path.exists():
            self._open_reader()
        return self._reader

    def _open_reader(self) -> None:
        try:
            reader = apsw.Connection(
                str(self._path), flags=apsw.SQLITE_OPEN_READONLY, vfs=self._vfs
            )
            reader.set_busy_timeout(_BUSY_MS)
            reader.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            version = _number(reader, "PRAGMA user_version")
        except apsw.Error as error:
            path = str(self._path)
            raise StoreError(f"cannot open the ledger's file: {error}", path=path) from error
        if version == 0:  # somebody is making it
            reader.close()
            return
        if version != SCHEMA_VERSION:
            reader.close()
            raise StoreError("the file is of another version", version=version)
        self._reader = reader

    def _let_go(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StoreLockedError("another process has this ledger open", path=str(path)) from error
    return handle


def _open_writer(path: Path, max_pages: int | None, vfs: str | None) -> apsw.Connection:
    writer = apsw.Connection(str(path), vfs=vfs)
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


def _alive(connection: apsw.Connection | None) -> apsw.Connection:
    if connection is None:
        raise StoreError("the store is closed, or was not acquired")
    return connection


def _number(connection: apsw.Connection, question: str) -> int:
    for (value,) in connection.execute(question):
        return int(value)
    return 0
