"""The log in a PostgreSQL database: the same contract, for more than one machine.

* One writer at a time: a session-level advisory lock says who, and dies with its session. A fencing
  token is checked in every transaction, so that a writer that was paused while another one took
  over cannot write any more.
* Entries arrive by ``COPY`` in binary form; ``synchronous_commit`` is on, whatever the server's
  default.
* Everything is in one schema (``rahba_ledger``), made at the first acquisition.

Needs the extra ``postgres`` (psycopg 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg.rows import TupleRow

from rahba.merkle import HASH_BYTES
from wallet.errors import FencedError, StoreError, StoreLockedError
from wallet.ports import ARCHIVE, Entry, Pulse, Snapshot, Verdict

T = TypeVar("T")
Connection = psycopg.Connection[TupleRow]
SCHEMA_VERSION: Final = 2
TILE: Final = 256
_LOCK: Final = 0x7261_6862_61  # "rahba"
_CONNECT_S: Final = 10
_SCHEMA: Final[LiteralString] = """
CREATE SCHEMA IF NOT EXISTS rahba_ledger;
SET search_path TO rahba_ledger;
CREATE TABLE IF NOT EXISTS entries (
  seq bigint PRIMARY KEY, raw bytea NOT NULL, leaf bytea NOT NULL, log_time bigint NOT NULL,
  links bytea NOT NULL
);
ALTER TABLE entries ALTER COLUMN raw SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS entries_by_leaf ON entries USING hash (leaf);
CREATE TABLE IF NOT EXISTS tiles (number bigint PRIMARY KEY, hashes bytea NOT NULL);
ALTER TABLE tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS verdicts (
  id text PRIMARY KEY, code text NOT NULL, detail text NOT NULL, until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS verdicts_by_time ON verdicts (until);
CREATE TABLE IF NOT EXISTS notes (name text PRIMARY KEY, note text NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name text PRIMARY KEY, value bigint NOT NULL);
"""
_COUNT: Final[LiteralString] = (
    "INSERT INTO counters VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
)
_NOTE: Final[LiteralString] = (
    "INSERT INTO notes VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET note = EXCLUDED.note"
)
_BEAT: Final[LiteralString] = (
    "INSERT INTO counters VALUES ('beat', 1) ON CONFLICT (name) DO UPDATE"
    " SET value = counters.value + 1"
)
# Its session ends, and with it what it was writing: unless it had sent its COMMIT, that is gone.
_END_WRITER: Final[LiteralString] = """
SELECT bool_and(pg_terminate_backend(pid, %s)) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (classid::bigint << 32) | objid::bigint = %s
"""
_END_WAIT_MS: Final = 5_000
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END: Final = b"\xff\xff"
_ROW_HEAD: Final = Struct(">hiqi")
_TIME_HEAD: Final = Struct(">iqi")
_LENGTH: Final = Struct(">i")


class PostgresStore:
    """Keeps the log in the database at ``url``; see :class:`wallet.ports.Store`."""

    def __init__(self, url: str) -> None:
        """Name the database; it is looked at when it is needed.

        Args:
            url: a libpq connection string, ``postgresql://user@host/name``.
        """
        self._url = url
        self._token = 0
        self._tail = bytearray()  # leaf hashes that fill no tile yet
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._closed = False

    def acquire(self, *, steal: bool = False) -> int:
        """Lock the ledger and become its writer."""
        if self._closed:
            raise StoreError("the store is closed")
        if self._writer is not None:
            return self._token
        writer = self._connect()
        try:
            self._take_over(writer, steal=steal)
        except psycopg.Error as error:
            writer.close()
            raise _failed(error) from error
        except StoreError:
            writer.close()
            raise
        self._writer = writer
        size = self.size()
        self._tail = bytearray(self._leaves_of_entries(size - size % TILE, TILE))
        return self._token

    def _take_over(self, writer: Connection, *, steal: bool) -> None:
        while not _one(writer, "SELECT pg_try_advisory_lock(%s)", (_LOCK,)):
            if not steal or not _one(writer, _END_WRITER, (_END_WAIT_MS, _LOCK)):
                raise StoreLockedError("another sequencer has this ledger")
        with writer.transaction():
            writer.execute(_SCHEMA)
            version = _one(writer, "SELECT value FROM counters WHERE name = 'version'")
            if version is None:
                writer.execute(_COUNT, ("version", SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                raise StoreError("the database is of another version", version=int(version))
            fence = _one(writer, "SELECT value FROM counters WHERE name = 'fence' FOR UPDATE")
            self._token = int(fence or 0) + 1
            writer.execute(_COUNT, ("fence", self._token))
        writer.execute("SET search_path TO rahba_ledger")

    def append(
        self,
        entries: Sequence[Entry],
        verdicts: Sequence[Verdict],
        checkpoint: str | None,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Write all in one durable transaction, or nothing."""
        tail = self._tail

        def write(writer: Connection) -> None:
            nonlocal tail
            if entries:
                tail = self._write_entries(writer, entries)
            _write_rest(writer, verdicts, checkpoint, snapshot)

        self._transact(write)
        self._tail = tail

    def save_witnessed(self, note: str) -> None:
        """Keep the newest cosigned checkpoint."""
        self._transact(lambda writer: writer.execute(_NOTE, ("witnessed", note)))

    def beat(self) -> None:
        """Tell who watches that this writer lives."""
        self._transact(lambda writer: writer.execute(_BEAT))

    def pulse(self) -> Pulse:
        """Return the newest writer's token and beats."""
        rows: dict[str, int] = dict(self._rows("SELECT name, value FROM counters"))
        return Pulse(rows.get("fence", 0), rows.get("beat", 0))

    def _transact(self, write: Callable[[Connection], object]) -> None:
        if self._writer is None or self._closed:
            raise StoreError("the store is closed, or was not acquired")
        try:
            with self._writer.transaction():
                newest = _one(
                    self._writer, "SELECT value FROM counters WHERE name = 'fence' FOR SHARE"
                )
                if newest != self._token:
                    raise FencedError("a newer writer has the store", token=self._token)
                write(self._writer)
        except psycopg.Error as error:
            raise (self._fenced() or _failed(error)) from error

    def _fenced(self) -> FencedError | None:
        """Say whether the session ended because somebody took the ledger over."""
        if self._writer is not None and self._writer.closed:
            newest = self.pulse().token
            if newest != self._token:
                return FencedError("a newer writer has the store", token=self._token, newest=newest)
        return None

    def _write_entries(self, writer: Connection, entries: Sequence[Entry]) -> bytearray:
        size = int(_one(writer, "SELECT coalesce(max(seq) + 1, 0) FROM entries"))
        if [entry.seq for entry in entries] != list(range(size, size + len(entries))):
            raise StoreError("entries follow each other without a gap", size=size)
        with (
            writer.cursor() as cursor,
            cursor.copy("COPY entries FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.write(b"".join([_COPY_HEAD, *map(_copy_row, entries), _COPY_END]))
        writer.execute("DELETE FROM verdicts WHERE until < %s", (entries[-1].log_time,))
        tail = self._tail + b"".join([entry.leaf for entry in entries])
        first, full = size // TILE, len(tail) // HASH_BYTES // TILE
        width = TILE * HASH_BYTES
        for at in range(full):
            hashes = bytes(tail[at * width : (at + 1) * width])
            writer.execute("INSERT INTO tiles VALUES (%s, %s)", (first + at, hashes))
        return tail[full * width :]

    def size(self) -> int:
        """Return the number of entries."""
        return int(self._rows("SELECT coalesce(max(seq) + 1, 0) FROM entries", (), [(0,)])[0][0])

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        rows = self._rows(
            "SELECT seq, raw, leaf, log_time, links FROM entries"
            " WHERE seq >= %s ORDER BY seq LIMIT %s",
            (start, limit),
        )
        return [Entry._make(row) for row in rows]

    def leaves(self, start: int, limit: int) -> bytes:
        """Return up to ``limit`` leaf hashes from ``start`` on."""
        first = start // TILE
        rows = self._rows(
            "SELECT hashes FROM tiles WHERE number BETWEEN %s AND %s ORDER BY number",
            (first, (start + limit) // TILE),
        )
        found = b"".join([hashes for (hashes,) in rows])
        there = first * TILE + len(found) // HASH_BYTES
        skipped = (start - first * TILE) * HASH_BYTES if found else 0
        if there < start + limit:
            there = max(there, start)
            found += self._leaves_of_entries(there, start + limit - there)
        return found[skipped : skipped + limit * HASH_BYTES]

    def _leaves_of_entries(self, start: int, limit: int) -> bytes:
        rows = self._rows(
            "SELECT leaf FROM entries WHERE seq >= %s ORDER BY seq LIMIT %s", (start, limit)
        )
        return b"".join([leaf for (leaf,) in rows])

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the entries that have these transaction ids."""
        rows = self._rows(
            "SELECT seq, raw, leaf, log_time, links FROM entries WHERE leaf = ANY(%s)",
            ([bytes.fromhex(name) for name in ids],),
        )
        return {row[2].hex(): Entry._make(row) for row in rows}

    def verdicts(self) -> list[Verdict]:
        """Return all remembered refusals."""
        rows = self._rows("SELECT id, code, detail, until FROM verdicts ORDER BY id")
        return [Verdict._make(row) for row in rows]

    def checkpoint(self) -> str | None:
        """Return the latest checkpoint."""
        return self._note("checkpoint")

    def witnessed(self) -> str | None:
        """Return the latest cosigned checkpoint."""
        return self._note("witnessed")

    def _note(self, name: str) -> str | None:
        rows = self._rows("SELECT note FROM notes WHERE name = %s", (name,))
        return str(rows[0][0]) if rows else None

    def snapshot(self) -> tuple[int, Iterable[tuple[bytes, bytes]]] | None:
        """Return the snapshot's size and rows."""
        covered = self._rows("SELECT value FROM counters WHERE name = 'covered'")
        if not covered:
            return None
        rows = self._rows("SELECT key, value FROM snapshot WHERE key < %s ORDER BY key", (ARCHIVE,))
        return int(covered[0][0]), [(key, value) for key, value in rows]

    def row(self, key: bytes) -> bytes | None:
        """Return one row."""
        rows = self._rows("SELECT value FROM snapshot WHERE key = %s", (key,))
        return bytes(rows[0][0]) if rows else None

    def close(self) -> None:
        """Close both connections; the lock goes with its session."""
        self._closed = True
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def _rows(
        self,
        question: LiteralString,
        values: tuple[Any, ...] = (),
        absent: list[TupleRow] | None = None,
    ) -> list[TupleRow]:
        """Ask the reading connection; a ledger that was never acquired has nothing."""
        if self._closed:
            raise StoreError("the store is closed")
        try:
            if self._reader is None or self._reader.closed:
                self._reader = self._connect()
                self._reader.execute("SET search_path TO rahba_ledger")
            return self._reader.execute(question, values, binary=True).fetchall()
        except psycopg.errors.UndefinedTable:
            return absent or []
        except psycopg.Error as error:
            raise _failed(error) from error

    def _connect(self) -> Connection:
        try:
            return psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=_CONNECT_S,
                application_name="rahba-ledger",
                options="-c synchronous_commit=on -c client_min_messages=warning",
            )
        except psycopg.Error as error:
            raise _failed(error) from error


def _copy_row(entry: Entry) -> bytes:
    raw, links = entry.raw, entry.links
    return b"".join(
        (
            _ROW_HEAD.pack(5, 8, entry.seq, len(raw)),
            raw,
            _LENGTH.pack(HASH_BYTES),
            entry.leaf,
            _TIME_HEAD.pack(8, entry.log_time, len(links)),
            links,
        )
    )


def _write_rest(
    writer: Connection,
    verdicts: Sequence[Verdict],
    checkpoint: str | None,
    snapshot: Snapshot | None,
) -> None:
    with writer.cursor() as cursor:
        if verdicts:
            cursor.executemany(
                "INSERT INTO verdicts VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE"
                " SET code = EXCLUDED.code, detail = EXCLUDED.detail, until = EXCLUDED.until",
                verdicts,
            )
        if checkpoint is not None:
            cursor.execute(_NOTE, ("checkpoint", checkpoint))
        if snapshot is not None:
            covered = _one(writer, "SELECT value FROM counters WHERE name = 'covered'") or 0
            size = _one(writer, "SELECT coalesce(max(seq) + 1, 0) FROM entries")
            if not covered <= snapshot.size <= size:
                raise StoreError("a snapshot covers what there is", covers=snapshot.size)
            rows = snapshot.rows.items()
            cursor.executemany(
                "INSERT INTO snapshot VALUES (%s, %s)"
                " ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value",
                [(key, value) for key, value in rows if value is not None],
            )
            gone = [key for key, value in rows if value is None]
            cursor.execute("DELETE FROM snapshot WHERE key = ANY(%s)", (gone,))
            cursor.execute(_COUNT, ("covered", snapshot.size))


def _one(connection: Connection, question: LiteralString, values: tuple[Any, ...] = ()) -> Any:
    row = connection.execute(question, values).fetchone()
    return row[0] if row is not None else None


def _failed(error: psycopg.Error) -> StoreError:
    """Say what the server says, never where and as whom we connect."""
    said = error.diag.message_primary or type(error).__name__
    return StoreError(f"the database did not take it: {said}")
