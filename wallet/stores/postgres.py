"""The log in a PostgreSQL database: the same contract, for more than one machine.

* One writer at a time: a session-level advisory lock says who, and dies with its session. A fencing
  token is checked in every transaction, so that a writer that was paused while another one took
  over cannot write any more. Who takes over ends the session of the other one, and with it what
  it was writing; a ``COMMIT`` that had been sent before counts.
* Entries are packed into rows of up to 256 (:mod:`wallet.stores.blocks`): one row an entry cost
  more than twice as much, by ``COPY`` too. All that a group writes travels with its ``COMMIT``.
  ``synchronous_commit`` is on, whatever the server's default.
* When the connection breaks amid a ``COMMIT``, nobody knows whether the group was written: it is
  an error, nobody gets an answer, and the next start finds what is there.
* Everything is in one schema (``rahba_ledger``), made at the first acquisition. The session must
  be one: no pooler that shares connections between transactions.

Needs the extra ``postgres`` (psycopg 3).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from struct import Struct
from typing import Any, Final, LiteralString, NoReturn, Self

import psycopg
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import TupleRow
from typing_extensions import override

from wallet.errors import FencedError, StoreError, StoreLockedError, StoreVersionError
from wallet.ports import ARCHIVE, Entry, Pulse, Rows, Snapshot, Verdict
from wallet.stores.blocks import pack, unpack
from wallet.stores.leaf_tiles import TILE, Tile, cut, read_leaves

Connection = psycopg.Connection[TupleRow]
Write = tuple[LiteralString, tuple[Any, ...]]
SCHEMA_VERSION: Final = 3
_LOCK: Final = 0x7261_6862_61  # "rahba"
_CONNECT_S: Final = 10
_END_WAIT_MS: Final = 5_000
_SNAPSHOT_ROWS: Final = 5_000
# An id is looked up by its epoch and its first bytes: so the index is written at its end, in pages
# that are in memory; one index over all ids would touch a page of the disk an entry.
_EPOCH_BITS: Final = 15
_BIGINT: Final = 20
_BIGINTS: Final = 1016
_ARRAY: Final = Struct(">5i")
_SCHEMA: Final[LiteralString] = """
CREATE SCHEMA IF NOT EXISTS rahba_ledger;
SET search_path TO rahba_ledger;
CREATE TABLE IF NOT EXISTS blocks (
  first bigint PRIMARY KEY, count bigint NOT NULL, places bigint[] NOT NULL, body bytea NOT NULL
);
ALTER TABLE blocks ALTER COLUMN places SET STORAGE EXTERNAL;
ALTER TABLE blocks ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS blocks_by_place ON blocks USING gin (places)
  WITH (gin_pending_list_limit = 256);
CREATE TABLE IF NOT EXISTS tiles (number bigint PRIMARY KEY, hashes bytea NOT NULL);
ALTER TABLE tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS verdicts (
  id text PRIMARY KEY, code text NOT NULL, detail text NOT NULL, until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS verdicts_by_time ON verdicts (until);
CREATE TABLE IF NOT EXISTS notes (name text PRIMARY KEY, note text NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name text PRIMARY KEY, value bigint NOT NULL);
CREATE OR REPLACE FUNCTION writer_is(token bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM counters WHERE name = 'fence' AND value = token FOR SHARE;
  IF NOT FOUND THEN RAISE EXCEPTION 'a newer writer has the store' USING ERRCODE = 'RF001'; END IF;
END $$;
"""
_SIZE: Final[LiteralString] = (
    "SELECT coalesce((SELECT first + count FROM blocks ORDER BY first DESC LIMIT 1), 0)"
)
_COUNT: Final[LiteralString] = (
    "INSERT INTO counters VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
)
_NOTE: Final[LiteralString] = (
    "INSERT INTO notes VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET note = EXCLUDED.note"
)
_FENCED: Final = "RF001"
_GUARD: Final[LiteralString] = "SELECT writer_is(%s)"
_COVERED: Final[LiteralString] = "SELECT value FROM counters WHERE name = 'covered'"
_BLOCK: Final[LiteralString] = "INSERT INTO blocks VALUES (%s, %s, %s, %s)"
_READ: Final[LiteralString] = (
    "SELECT first, body FROM blocks"
    " WHERE first >= coalesce((SELECT max(first) FROM blocks WHERE first <= %s), 0)"
    " AND first < %s ORDER BY first"
)
_VERDICT: Final[LiteralString] = (
    "INSERT INTO verdicts VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE"
    " SET code = EXCLUDED.code, detail = EXCLUDED.detail, until = EXCLUDED.until"
)
_ROWS: Final[LiteralString] = (
    "INSERT INTO snapshot SELECT * FROM unnest(%s::bytea[], %s::bytea[])"
    " ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
)
_BEAT: Final[LiteralString] = (
    "INSERT INTO counters VALUES ('beat', 1) ON CONFLICT (name) DO UPDATE"
    " SET value = counters.value + 1"
)
_END_WRITER: Final[LiteralString] = """
SELECT bool_and(pg_terminate_backend(pid, %s)) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND (classid::bigint << 32) | objid::bigint = %s
"""


class _Places(bytes):
    """What entries are looked up by, as an array of bigint: epoch, six bytes of the leaf hash.

    It is made of bytes, not of integers: a tenth of the time.
    """

    def __new__(cls, entries: Iterable[tuple[int, bytes]]) -> Self:
        """Make the array in the server's binary form."""
        found = [
            b"\0\0\0\x08" + (seq >> _EPOCH_BITS & 0xFFFF).to_bytes(2, "big") + leaf[:6]
            for seq, leaf in entries
        ]
        return super().__new__(cls, _ARRAY.pack(1, 0, _BIGINT, len(found), 1) + b"".join(found))


class _PlacesDumper(Dumper):
    """Hands places to the server as they are."""

    format = Format.BINARY
    oid = _BIGINTS

    @override
    def dump(self, obj: _Places) -> bytes:
        return obj


class PostgresStore:
    """Keeps the log in the database at ``url``; see :class:`wallet.ports.Store`."""

    def __init__(self, url: str) -> None:
        """Name the database; it is looked at when it is needed.

        Args:
            url: a libpq connection string, ``postgresql://user@host/name``.
        """
        self._url = url
        self._token = 0
        self._size = self._covered = 0
        self._tail = b""  # leaf hashes that fill no tile yet
        self._writing = threading.Lock()
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
            self._size = int(_one(writer, _SIZE))
            self._covered = int(_one(writer, _COVERED) or 0)
            self._tail = self._leaves_of_entries(self._size - self._size % TILE, TILE)
        except psycopg.Error as error:
            writer.close()
            raise _failed(error) from error
        except StoreError:
            writer.close()
            raise
        self._writer = writer
        return self._token

    def _take_over(self, writer: Connection, *, steal: bool) -> None:
        while not _one(writer, "SELECT pg_try_advisory_lock(%s)", (_LOCK,)):
            if not steal or _one(writer, _END_WRITER, (_END_WAIT_MS, _LOCK)) is False:
                raise StoreLockedError("another sequencer has this ledger")
        with writer.transaction():
            writer.execute(_SCHEMA, prepare=False)
            version = _one(writer, "SELECT value FROM counters WHERE name = 'version'")
            if version is None:
                writer.execute(_COUNT, ("version", SCHEMA_VERSION))
            elif version != SCHEMA_VERSION:
                raise StoreVersionError(
                    f"the database is of another version: {version}, and this release keeps"
                    f" {SCHEMA_VERSION}",
                    version=int(version),
                )
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
        size, after = self._size, self._size + len(entries)
        self._check(entries, snapshot)
        tiles, tail = cut(self._tail, b"".join([entry.leaf for entry in entries]), size)
        writes = [*_blocks(entries), *_tiles(tiles)]
        if entries:
            writes.append(("DELETE FROM verdicts WHERE until < %s", (entries[-1].log_time,)))
        writes += [(_VERDICT, verdict) for verdict in verdicts]
        if checkpoint is not None:
            writes.append((_NOTE, ("checkpoint", checkpoint)))
        if snapshot is not None:
            writes += _snapshot(snapshot)
        self._transact(writes)
        self._size, self._tail = after, tail
        self._covered = snapshot.size if snapshot is not None else self._covered

    def _check(self, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        """Refuse what does not follow from what is there, as far as this is still the writer."""
        size, after = self._size, self._size + len(entries)
        covers = snapshot.size if snapshot is not None else after
        gapless = [entry.seq for entry in entries] == list(range(size, after))
        if gapless and self._covered <= covers <= after:
            return
        self._transact([])  # what there is may be a newer writer's
        if gapless:
            raise StoreError("a snapshot covers what there is", size=size, covers=covers)
        raise StoreError("entries follow each other without a gap", size=size)

    def save_witnessed(self, note: str) -> None:
        """Keep the newest cosigned checkpoint."""
        self._transact([(_NOTE, ("witnessed", note))])

    def beat(self) -> None:
        """Tell who watches that this writer lives."""
        self._transact([(_BEAT, ())])

    def pulse(self) -> Pulse:
        """Return the newest writer's token and beats."""
        rows: dict[str, int] = dict(self._rows("SELECT name, value FROM counters"))
        return Pulse(rows.get("fence", 0), rows.get("beat", 0))

    def _transact(self, writes: Sequence[Write]) -> None:
        """Write in one transaction and one round trip, as long as this is the writer."""
        with self._writing:
            writer = self._writer
            if writer is None or self._closed:
                raise StoreError("the store is closed, or was not acquired")
            try:
                with writer.pipeline():
                    writer.execute("BEGIN")
                    for question, values in [(_GUARD, (self._token,)), *writes]:
                        writer.execute(question, values)
                    writer.execute("COMMIT")
            except psycopg.Error as error:
                _roll_back(writer)
                raise (self._fenced(writer, error) or _failed(error)) from error
            except BaseException:
                _roll_back(writer)
                raise

    def _fenced(self, writer: Connection, error: psycopg.Error) -> FencedError | None:
        """Say whether it failed because somebody took the ledger over."""
        if error.sqlstate == _FENCED or (writer.closed and self.pulse().token != self._token):
            return FencedError("a newer writer has the store", token=self._token)
        return None

    def size(self) -> int:
        """Return the number of entries."""
        return int(self._rows(_SIZE, absent=[(0,)])[0][0])

    def read(self, start: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries from ``start`` on."""
        end = start + limit
        found = [unpack(first, body) for first, body in self._rows(_READ, (start, end))]
        return [entry for block in found for entry in block if start <= entry.seq < end]

    def leaves(self, start: int, limit: int) -> bytes:
        """Return up to ``limit`` leaf hashes from ``start`` on."""
        limit = min(limit, self.size() - start)
        return read_leaves(start, limit, self._tiles, self._leaves_of_entries)

    def _tiles(self, first: int, last: int) -> list[Tile]:
        return self._rows(
            "SELECT number, hashes FROM tiles WHERE number BETWEEN %s AND %s ORDER BY number",
            (first, last),
        )

    def _leaves_of_entries(self, start: int, limit: int) -> bytes:
        return b"".join([entry.leaf for entry in self.read(start, limit)])

    def find(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the entries that have these transaction ids."""
        epochs = range(((self.size() - 1) >> _EPOCH_BITS) + 1)
        leaves = {bytes.fromhex(name) for name in ids}
        places = _Places((epoch << _EPOCH_BITS, leaf) for leaf in leaves for epoch in epochs)
        rows = self._rows("SELECT first, body FROM blocks WHERE places && %s", (places,))
        found = [entry for first, body in rows for entry in unpack(first, body)]
        return {entry.leaf.hex(): entry for entry in found if entry.leaf in leaves}

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

    def snapshot(self) -> tuple[int, Rows] | None:
        """Return the snapshot's size and rows, which are read as they are asked for."""
        if not self._rows(_COVERED):
            return None
        reader = self._connect()  # of its own: it stays at one moment
        try:
            reader.execute("SET search_path TO rahba_ledger")
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            rows = _snapshot_rows(reader)
            next(rows)  # only one that has begun closes its connection when it is closed
            return int(_one(reader, _COVERED)), rows
        except psycopg.Error as error:
            reader.close()
            raise _failed(error) from error

    def row(self, key: bytes) -> bytes | None:
        """Return one row."""
        rows = self._rows("SELECT value FROM snapshot WHERE key = %s", (key,))
        return bytes(rows[0][0]) if rows else None

    def close(self) -> None:
        """Let go of the lock, and close both connections."""
        with self._writing:
            self._closed = True
            if self._writer is not None:
                with suppress(psycopg.Error):  # it goes with its session, if a moment later
                    self._writer.execute("SELECT pg_advisory_unlock_all()")
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
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                prepare_threshold=0,
                connect_timeout=_CONNECT_S,
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                application_name="rahba-ledger",
                options="-c synchronous_commit=on -c client_min_messages=warning"
                " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5"
                " -c tcp_keepalives_count=3",
            )
            connection.adapters.register_dumper(_Places, _PlacesDumper)
        except psycopg.Error as error:
            _cannot_connect(self._url, error)
        return connection


def _blocks(entries: Sequence[Entry]) -> Iterator[Write]:
    for block, body in pack(entries):
        places = _Places((seq, leaf) for seq, _, leaf, _, _ in block)
        yield _BLOCK, (block[0].seq, len(block), places, body)


def _tiles(tiles: Sequence[Tile]) -> Iterator[Write]:
    if tiles:
        columns = ([number for number, _ in tiles], [hashes for _, hashes in tiles])
        yield "INSERT INTO tiles SELECT * FROM unnest(%s::bigint[], %s::bytea[])", columns


def _snapshot(snapshot: Snapshot) -> Iterator[Write]:
    kept = [(key, value) for key, value in snapshot.rows.items() if value is not None]
    gone = [key for key, value in snapshot.rows.items() if value is None]
    yield _ROWS, ([key for key, _ in kept], [value for _, value in kept])
    yield "DELETE FROM snapshot WHERE key = ANY(%s)", (gone,)
    yield _COUNT, ("covered", snapshot.size)


def _snapshot_rows(reader: Connection) -> Rows:
    try:
        yield b"", b""
        with reader.cursor("snapshot_rows") as cursor:
            cursor.itersize = _SNAPSHOT_ROWS
            cursor.execute(
                "SELECT key, value FROM snapshot WHERE key < %s ORDER BY key",
                (ARCHIVE,),
                binary=True,
            )
            yield from cursor
    except psycopg.Error as error:
        raise _failed(error) from error
    finally:
        reader.close()


def _one(connection: Connection, question: LiteralString, values: tuple[Any, ...] = ()) -> Any:
    row = connection.execute(question, values).fetchone()
    return row[0] if row is not None else None


def _roll_back(writer: Connection) -> None:
    if writer.closed:
        return
    try:
        if writer.info.transaction_status != TransactionStatus.IDLE:
            writer.execute("ROLLBACK")
    except psycopg.Error:
        writer.close()  # the server rolls back what its session leaves behind


def _failed(error: psycopg.Error) -> StoreError:
    said = error.diag.message_primary or type(error).__name__
    return StoreError(f"the database did not take it: {said}")


def _cannot_connect(url: str, error: psycopg.Error) -> NoReturn:
    """Say what is wrong, never the password."""
    try:
        password = str(conninfo_to_dict(url).get("password") or "")
        said = " ".join(str(error).split())
    except psycopg.Error:
        password = said = ""  # no connection string: what it says may be a secret
    if not said or (password and password in said):
        said = type(error).__name__
    raise StoreError(f"cannot reach the database: {said}") from error
