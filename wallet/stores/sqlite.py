"""The log in one SQLite file: what an ``append`` returned from survives a power cut.

* WAL with ``synchronous=FULL``; one connection writes and alone checkpoints the WAL, another one
  reads and never does.
* One writer at a time: a lock file beside the database is held by who acquired it. Should two
  believe so all the same, the file's fencing token tells the older one in its next transaction.
* The place of a writer that is frozen can be taken, unless it is frozen amid a transaction: then
  it holds SQLite's own lock, which nobody can break while it is there.
* Cost is the same at any size: all that is written is written at the end, of the index, too.
* SQLite is the one inside ``apsw``, not the system's (versions before 3.51.3 can corrupt a WAL).
* Leaf hashes are kept a second time in rows of 256, so that a start reads them at the speed of the
  disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from wallet.errors import FencedError, StoreError, StoreLockedError, StoreVersionError
from wallet.ports import ARCHIVE, Entry, Pulse, Rows, Snapshot, Verdict
from wallet.private_files import make_folder
from wallet.stores.leaf_tiles import TILE, Tile, cut, read_leaves
from wallet.stores.lockfile import LockFile, read_beat

SCHEMA_VERSION: Final = 2
_BUSY_MS: Final = 5_000
_WAL_PAGES: Final = 4_000
# An id is looked up epoch by epoch, the newest first. So the index, too, is written at its end,
# in pages that are in memory; one index over all ids would touch a page of the disk an entry.
_EPOCH_BITS: Final = 15
_SCHEMA: Final = f"""
CREATE TABLE entries (
  seq INTEGER PRIMARY KEY, raw BLOB NOT NULL, leaf BLOB NOT NULL, log_time INTEGER NOT NULL,
  links BLOB NOT NULL
) STRICT;
CREATE INDEX entries_by_leaf ON entries (seq >> {_EPOCH_BITS}, substr(leaf, 1, 8));
CREATE TABLE tiles (number INTEGER PRIMARY KEY, hashes BLOB NOT NULL) STRICT;
CREATE TABLE verdicts (
  id TEXT PRIMARY KEY, code TEXT NOT NULL, detail TEXT NOT NULL, until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX verdicts_by_time ON verdicts (until);
CREATE TABLE notes (name TEXT PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE snapshot (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
PRAGMA user_version = {SCHEMA_VERSION};
"""
_SIZE: Final = "SELECT ifnull(max(seq) + 1, 0) FROM entries"
_FENCE: Final = "SELECT value FROM counters WHERE name = 'fence'"
_NOTE: Final = "INSERT OR REPLACE INTO notes VALUES (?, ?)"
_FIND: Final = f"""
WITH RECURSIVE epoch (number) AS (
  SELECT max(seq) >> {_EPOCH_BITS} FROM entries
  UNION ALL SELECT number - 1 FROM epoch WHERE number > 0
)
SELECT seq, raw, leaf, log_time, links FROM epoch CROSS JOIN entries
ON seq >> {_EPOCH_BITS} = number AND substr(leaf, 1, 8) = substr(?1, 1, 8) AND leaf = ?1 LIMIT 1
"""  # noqa: S608  # of constants


class SqliteStore:
    """Keeps the log in the file ``path``; see :class:`wallet.ports.Store`."""

    def __init__(self, path: Path, *, max_pages: int | None = None, vfs: str | None = None) -> None:
        """Name the file; it is made when it is acquired.

        Args:
            path: the database.
            max_pages: refuse to grow beyond so many pages (4 KiB each).
            vfs: the SQLite VFS to go through, for tests of what disks do.

        Raises:
            StoreVersionError: another release wrote it.
            StoreError: it is no ledger.
        """
        self._path = path
        self._max_pages = max_pages
        self._vfs = vfs
        self._lock_path = path.with_name(path.name + ".lock")
        self._lock: LockFile | None = None
        self._writing = threading.Lock()
        self._token = 0
        self._tail = b""  # leaf hashes that fill no tile yet
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._closed = False
        if vfs is None and path.exists():
            self._open_reader()

    def acquire(self, *, steal: bool = False) -> int:
        """Lock the file and become its writer."""
        if self._closed:
            raise StoreError("the store is closed")
        if self._writer is not None:
            return self._token
        make_folder(self._path.parent)
        self._lock = LockFile(self._lock_path, steal=steal)
        try:
            self._writer = writer = _open_writer(self._path, self._max_pages, self._vfs)
            with _transaction(writer):
                writer.execute(
                    "INSERT INTO counters VALUES ('fence', 1)"
                    " ON CONFLICT (name) DO UPDATE SET value = value + 1"
                )
                self._token = _number(writer, _FENCE)
            self._lock.settle()
            if self._reader is None:
                self._open_reader()
            size = _number(writer, _SIZE)
            self._tail = self._leaves_of_entries(size - size % TILE, TILE)
        except apsw.BusyError as error:
            self._let_go()
            raise StoreLockedError("another process is amid writing", **self._facts) from error
        except StoreVersionError:
            self._let_go()
            raise
        except (apsw.Error, OSError, StoreError) as error:
            self._let_go()
            raise StoreError(f"cannot open the ledger's file: {error}", **self._facts) from error
        return self._token

    def append(
        self,
        entries: Sequence[Entry],
        verdicts: Sequence[Verdict],
        checkpoint: str | None,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Write all in one durable transaction, or nothing."""
        with self._fenced() as writer:
            size = _number(writer, _SIZE)
            if [entry.seq for entry in entries] != list(range(size, size + len(entries))):
                raise StoreError("entries follow each other without a gap", size=size)
            tail = self._write_entries(writer, size, entries) if entries else self._tail
            if verdicts:
                writer.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", verdicts)
            if checkpoint is not None:
                writer.execute(_NOTE, ("checkpoint", checkpoint))
            if snapshot is not None:
                _write_snapshot(writer, snapshot, size + len(entries))
        self._tail = tail  # only now: what was rolled back is no part of the next tile

    def save_witnessed(self, note: str) -> None:
        """Keep the newest cosigned checkpoint."""
        with self._fenced() as writer:
            writer.execute(_NOTE, ("witnessed", note))

    def beat(self) -> None:
        """Tell who watches that this writer lives; the database is only read."""
        with self._writing:
            self._check_fence(_alive(self._writer))
            assert self._lock is not None
            self._lock.beat()

    def pulse(self) -> Pulse:
        """Return the newest writer's token and beats."""
        rows = self._ask(_FENCE)
        return Pulse(rows[0][0], read_beat(self._lock_path)) if rows else Pulse(0, 0)

    @contextmanager
    def _fenced(self) -> Iterator[apsw.Connection]:
        """Write what happens within in one transaction, as long as this is the writer."""
        with self._writing:
            writer = _alive(self._writer)
            try:
                with _transaction(writer):
                    self._check_fence(writer)
                    yield writer
            except apsw.Error as error:
                raise StoreError(f"nothing was written: {error}") from error

    def _write_entries(self, writer: apsw.Connection, size: int, entries: Sequence[Entry]) -> bytes:
        """Write entries and the tiles that they fill; returns the leaf hashes that fill none."""
        writer.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", entries)
        writer.execute("DELETE FROM verdicts WHERE until < ?", (entries[-1].log_time,))
        tiles, tail = cut(self._tail, b"".join([entry.leaf for entry in entries]), size)
        writer.executemany("INSERT INTO tiles VALUES (?, ?)", tiles)
        return tail

    def _check_fence(self, writer: apsw.Connection) -> None:
        newest = _number(writer, _FENCE)
        if newest != self._token:
            raise FencedError("a newer writer has the store", token=self._token, newest=newest)

    def size(self) -> int:
        """Return the number of entries."""
        rows = self._ask(_SIZE)
        return int(rows[0][0]) if rows else 0

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        rows = self._ask(
            "SELECT seq, raw, leaf, log_time, links FROM entries"
            " WHERE seq >= ? ORDER BY seq LIMIT ?",
            (start, limit),
        )
        return [_entry(row) for row in rows]

    def leaves(self, start: int, limit: int) -> bytes:
        """Return up to ``limit`` leaf hashes from ``start`` on."""
        limit = min(limit, self.size() - start)
        return read_leaves(start, limit, self._tiles, self._leaves_of_entries)

    def _tiles(self, first: int, last: int) -> list[Tile]:
        rows = self._ask(
            "SELECT number, hashes FROM tiles WHERE number BETWEEN ? AND ? ORDER BY number",
            (first, last),
        )
        return [(number, _hashes(value)) for number, value in rows]

    def _leaves_of_entries(self, start: int, limit: int) -> bytes:
        rows = self._ask(
            "SELECT leaf FROM entries WHERE seq >= ? ORDER BY seq LIMIT ?", (start, limit)
        )
        return b"".join([_hashes(leaf) for (leaf,) in rows])

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the entries that have these transaction ids."""
        rows = {name: self._ask(_FIND, (bytes.fromhex(name),)) for name in ids}
        return {name: _entry(row[0]) for name, row in rows.items() if row}

    def verdicts(self) -> list[Verdict]:
        """Return all remembered refusals."""
        return [Verdict._make(row) for row in self._ask("SELECT * FROM verdicts ORDER BY id")]

    def checkpoint(self) -> str | None:
        """Return the latest checkpoint."""
        return self._note("checkpoint")

    def witnessed(self) -> str | None:
        """Return the latest cosigned checkpoint."""
        return self._note("witnessed")

    def _note(self, name: str) -> str | None:
        rows = self._ask("SELECT note FROM notes WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def snapshot(self) -> tuple[int, Rows] | None:
        """Return the snapshot's size and rows, which are read as they are asked for."""
        if self._reading is None:
            return None
        try:
            reader = _open_reader(self._path, self._vfs)  # of its own: it stays at one moment
            reader.execute("BEGIN")
            size = _number(reader, "SELECT value FROM counters WHERE name = 'covered'")
        except apsw.Error as error:
            raise StoreError(f"the file cannot be read: {error}", **self._facts) from error
        if size:
            rows = _rows(reader)
            next(rows)  # only one that has begun closes its connection when it is closed
            return size, rows
        reader.close()
        return None

    def row(self, key: bytes) -> bytes | None:
        """Return one row."""
        rows = self._ask("SELECT value FROM snapshot WHERE key = ?", (key,))
        return bytes(rows[0][0]) if rows else None

    def close(self) -> None:
        """Close both connections and let go of the lock."""
        with self._writing:
            self._closed = True
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            self._let_go()

    def _ask(self, question: str, values: tuple[int | bytes | str, ...] = ()) -> list[Any]:
        """Ask the reading connection; a file that is not there yet has nothing."""
        reader = self._reading
        if reader is None:
            return []
        try:
            return reader.execute(question, values).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise StoreError(f"the file cannot be read: {error}", **self._facts) from error

    @property
    def _facts(self) -> dict[str, str]:
        return {"path": str(self._path)}

    @property
    def _reading(self) -> apsw.Connection | None:
        """Return the reading connection; ``None`` while there is no file."""
        if self._closed:
            raise StoreError("the store is closed")
        if self._reader is None and self._vfs is None and self._path.exists():
            self._open_reader()
        return self._reader

    def _open_reader(self) -> None:
        """Open the reading connection, unless the file is still to be made, or made anew."""
        try:
            reader = _open_reader(self._path, self._vfs)
            version = _number(reader, "PRAGMA user_version")
        except apsw.ReadOnlyError:
            return  # the power went while it was made; who acquires it takes that back
        except apsw.Error as error:
            raise StoreError(f"cannot open the ledger's file: {error}", **self._facts) from error
        if version in {0, SCHEMA_VERSION}:
            self._reader = reader if version else None
        if self._reader is None:  # with 0 somebody is making it
            reader.close()
            _check_version(version)

    def _let_go(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _open_writer(path: Path, max_pages: int | None, vfs: str | None) -> apsw.Connection:
    writer = apsw.Connection(str(path), vfs=vfs)
    try:
        writer.set_busy_timeout(_BUSY_MS)
        _check_version(_number(writer, "PRAGMA user_version"))
        settings = [
            "journal_mode = WAL",
            "synchronous = FULL",
            f"wal_autocheckpoint = {_WAL_PAGES}",
        ]
        for setting in settings:
            writer.execute(f"PRAGMA {setting}").fetchall()
        if _number(writer, "PRAGMA user_version") == 0:
            writer.execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT").fetchall()
        if max_pages is not None:
            writer.execute(f"PRAGMA max_page_count = {int(max_pages)}").fetchall()
    except BaseException:
        writer.close()
        raise
    return writer


def _open_reader(path: Path, vfs: str | None) -> apsw.Connection:
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
    reader.set_busy_timeout(_BUSY_MS)
    reader.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    return reader


def _check_version(version: int) -> None:
    if version not in {0, SCHEMA_VERSION}:
        raise StoreVersionError(
            f"the file is of another version: {version}, and this release keeps {SCHEMA_VERSION}",
            version=version,
        )


@contextmanager
def _transaction(writer: apsw.Connection) -> Iterator[None]:
    writer.execute("BEGIN IMMEDIATE")
    try:
        yield
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise


def _write_snapshot(writer: apsw.Connection, snapshot: Snapshot, size: int) -> None:
    covered = _number(writer, "SELECT value FROM counters WHERE name = 'covered'")
    if not covered <= snapshot.size <= size:
        raise StoreError("a snapshot covers what there is", size=size, covers=snapshot.size)
    rows = snapshot.rows.items()
    kept = [(key, value) for key, value in rows if value is not None]
    gone = [(key,) for key, value in rows if value is None]
    writer.executemany("INSERT OR REPLACE INTO snapshot VALUES (?, ?)", kept)
    writer.executemany("DELETE FROM snapshot WHERE key = ?", gone)
    writer.execute("INSERT OR REPLACE INTO counters VALUES ('covered', ?)", (snapshot.size,))


def _rows(reader: apsw.Connection) -> Rows:
    try:
        yield b"", b""
        yield from reader.execute(
            "SELECT key, value FROM snapshot WHERE key < ? ORDER BY key", (ARCHIVE,)
        )
    except apsw.Error as error:
        raise StoreError(f"the file cannot be read: {error}") from error
    finally:
        reader.close()


def _entry(row: Any) -> Entry:
    seq, raw, leaf, log_time, links = row
    # A damaged page can give a value of any type, whatever the table asked for.
    if not (type(raw) is type(leaf) is type(links) is bytes and type(log_time) is int):
        raise StoreError("the file is damaged", seq=seq if type(seq) is int else None)
    return Entry(seq, raw, leaf, log_time, links)


def _hashes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise StoreError("the file is damaged: a hash is none")
    return value


def _alive(connection: apsw.Connection | None) -> apsw.Connection:
    if connection is None:
        raise StoreError("the store is closed, or was not acquired")
    return connection


def _number(connection: apsw.Connection, question: str) -> int:
    for (value,) in connection.execute(question):
        return int(value)
    return 0
