"""An outbox in one SQLite file: what a ``write`` returned from survives a power cut.

* WAL with ``synchronous=FULL``, and the SQLite inside ``apsw`` (see :mod:`wallet.stores.sqlite`).
* Several processes may share the file: a write is one immediate transaction, made after the letters
  that are there were looked at.
* The file has mode 0600: it tells whom its owner pays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import apsw

from rahba.errors import RahbaError
from wallet.outbox import (
    MAX_SETTLED,
    MAX_UNKNOWN,
    Change,
    Keep,
    Letter,
    OutboxError,
    OutboxFullError,
    Settle,
)
from wallet.private_files import write_new

SCHEMA_VERSION: Final = 1
_BUSY_MS: Final = 10_000
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS letters (
  id TEXT PRIMARY KEY, raw BLOB NOT NULL, key TEXT UNIQUE, kept_ms INTEGER NOT NULL,
  outcome TEXT NOT NULL, seq INTEGER, code TEXT, detail TEXT NOT NULL, receipt TEXT,
  settled_ms INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS letters_unknown ON letters (kept_ms) WHERE outcome = 'unknown';
CREATE INDEX IF NOT EXISTS letters_settled ON letters (settled_ms) WHERE outcome != 'unknown';
PRAGMA user_version = {SCHEMA_VERSION};
"""
_FIELDS: Final = ", ".join(Letter._fields)


class SqliteOutbox:
    """Keeps letters in the file ``path``; see :class:`wallet.outbox.OutboxStore`."""

    def __init__(
        self, path: Path, *, max_unknown: int = MAX_UNKNOWN, max_settled: int = MAX_SETTLED
    ) -> None:
        """Open or create the file.

        Raises:
            OutboxError: it is no outbox of this version, or cannot be opened.
        """
        self._max_unknown = max_unknown
        self._max_settled = max_settled
        try:
            write_new(path, b"")  # private from its first moment on, and its name is on disk
            self._file: apsw.Connection | None = _open(path)
        except (apsw.Error, OSError) as error:
            raise OutboxError(f"cannot open the outbox: {error}", path=str(path)) from error

    def write(self, changes: Sequence[Change]) -> list[Letter | RahbaError]:
        """Make all changes in one durable transaction, or none."""
        file = self._alive()
        try:
            file.execute("BEGIN IMMEDIATE")
            try:
                results = [self._make(file, change) for change in changes]
                if any(isinstance(change, Settle) for change in changes):
                    self._prune(file)
                file.execute("COMMIT")
            except BaseException:
                if file.in_transaction:
                    file.execute("ROLLBACK")
                raise
        except apsw.Error as error:
            raise OutboxError(f"nothing was written: {error}") from error
        return results

    def unknown(self, limit: int) -> list[Letter]:
        """Return letters without an answer, oldest first."""
        return list(self._letters("outcome = 'unknown' ORDER BY kept_ms, rowid LIMIT ?", (limit,)))

    def find(self, letter_id: str) -> Letter | None:
        """Return a letter by the id of its transaction."""
        return next(iter(self._letters("id = ?", (letter_id,))), None)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _make(self, file: apsw.Connection, change: Change) -> Letter | RahbaError:
        if isinstance(change, Keep):
            return self._keep(file, change.letter)
        return self._settle(file, change)

    def _keep(self, file: apsw.Connection, letter: Letter) -> Letter | RahbaError:
        there = self.find(letter.id)
        if there is not None:
            return there
        if letter.key is not None:
            for named in self._letters("key = ?", (letter.key,)):
                if named.answer is None or named.answer.ok:
                    return named
                file.execute("UPDATE letters SET key = NULL WHERE id = ?", (named.id,))
        if _number(file, "SELECT count(*) FROM letters WHERE outcome = 'unknown'") >= (
            self._max_unknown
        ):
            return OutboxFullError(
                "too many payments are without an answer", limit=self._max_unknown
            )
        marks = ", ".join("?" * len(letter))
        file.execute(f"INSERT INTO letters ({_FIELDS}) VALUES ({marks})", letter)  # noqa: S608  # names of our own
        return letter

    def _settle(self, file: apsw.Connection, change: Settle) -> Letter | RahbaError:
        answer = change.answer
        file.execute(
            "UPDATE letters SET outcome = ?, seq = ?, code = ?, detail = ?, receipt = ?,"
            " settled_ms = ? WHERE id = ? AND outcome = 'unknown'",
            (
                answer.outcome,
                answer.seq,
                answer.code,
                answer.detail,
                answer.receipt,
                change.now_ms,
                answer.id,
            ),
        )
        there = self.find(answer.id)
        return there or OutboxError("the outbox has no such letter", id=answer.id)

    def _prune(self, file: apsw.Connection) -> None:
        file.execute(
            "DELETE FROM letters WHERE outcome != 'unknown' AND rowid IN (SELECT rowid FROM letters"
            " WHERE outcome != 'unknown' ORDER BY settled_ms DESC, rowid DESC LIMIT -1 OFFSET ?)",
            (self._max_settled,),
        )

    def _letters(self, where: str, values: tuple[object, ...]) -> Iterable[Letter]:
        rows = self._alive().execute(f"SELECT {_FIELDS} FROM letters WHERE {where}", values)  # noqa: S608  # words of our own
        try:
            return [Letter._make(row) for row in rows]
        except apsw.Error as error:
            raise OutboxError(f"cannot read the outbox: {error}") from error

    def _alive(self) -> apsw.Connection:
        if self._file is None:
            raise OutboxError("the outbox is closed")
        return self._file


def _open(path: Path) -> apsw.Connection:
    file = apsw.Connection(str(path))
    file.set_busy_timeout(_BUSY_MS)
    version = _number(file, "PRAGMA user_version")
    if version not in {0, SCHEMA_VERSION}:
        raise OutboxError("the file is of another version", version=version)
    for setting in ("journal_mode = WAL", "synchronous = FULL"):
        file.execute(f"PRAGMA {setting}").fetchall()
    file.execute(_SCHEMA).fetchall()
    return file


def _number(file: apsw.Connection, question: str) -> int:
    for (value,) in file.execute(question):
        return int(value)
    return 0
