"""What a witness must not forget, in a SQLite file of its own: newest checkpoints, evidence.

``keep`` is durable when it returns (FULL), so it comes before the cosignature leaves. One process
has the file at a time; within it, any thread.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any, Final

import apsw

from wallet.errors import StoreError
from wallet.stores.lockfile import LockFile
from wallet.witness import Seen

MAX_BUNDLES: Final = 100  # of each log
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen (
  origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS evidence (
  number INTEGER PRIMARY KEY, origin TEXT NOT NULL, bundle TEXT NOT NULL UNIQUE
) STRICT;
"""


class WitnessStore:
    """The file ``path``; safe to be called from several threads."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            StoreError: another witness has it, or it is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._turn = Lock()
        self._lock = LockFile(path.with_name(path.name + ".lock"))
        try:
            self._file = apsw.Connection(str(path))
            self._file.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL").fetchall()
            self._file.execute(_SCHEMA).fetchall()
        except apsw.Error as error:
            self._lock.close()
            raise StoreError(f"cannot open the witness's file: {error}", path=str(path)) from error

    def newest(self, origin: str) -> Seen | None:
        """Return the newest cosigned checkpoint of a log."""
        rows = self._ask("SELECT size, root, note FROM seen WHERE origin = ?", origin)
        return Seen._make(rows[0]) if rows else None

    def origins(self) -> list[str]:
        """Return the logs that were ever cosigned."""
        return [name for (name,) in self._ask("SELECT origin FROM seen ORDER BY origin")]

    def keep(self, origin: str, before: Seen | None, now: Seen) -> None:
        """Replace ``before``, and nothing else, by ``now``; it is durable when this returns.

        Raises:
            StoreError: it could not be written, or something else was kept meanwhile.
        """
        with self._turn:
            if before is None:
                self._write("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", (origin, *now))
            else:
                self._write(
                    "UPDATE seen SET size = ?, root = ?, note = ?"
                    " WHERE origin = ? AND size = ? AND root = ?",
                    (*now, origin, *before[:2]),
                )
            if self._file.changes() != 1:
                raise StoreError("another checkpoint was cosigned meanwhile", size=now.size)

    def accuse(self, origin: str, bundle: str) -> None:
        """Keep a bundle of evidence against a log, once, within a limit for each log."""
        with self._turn:
            self._write(
                "INSERT OR IGNORE INTO evidence (origin, bundle)"
                " SELECT ?, ? WHERE (SELECT count(*) FROM evidence WHERE origin = ?) < ?",
                (origin, bundle, origin, MAX_BUNDLES),
            )

    def accused(self, origin: str) -> bool:
        """Say whether there is evidence against a log."""
        return bool(self._ask("SELECT 1 FROM evidence WHERE origin = ? LIMIT 1", origin))

    def evidence(self, limit: int = MAX_BUNDLES) -> list[str]:
        """Return what was kept first against each log, before what was kept later against any."""
        rows = self._ask(
            "SELECT bundle FROM evidence"
            " ORDER BY row_number() OVER (PARTITION BY origin ORDER BY number), number LIMIT ?",
            limit,
        )
        return [bundle for (bundle,) in rows]

    def close(self) -> None:
        """Close the file and let go of it."""
        with self._turn:
            self._file.close()
            self._lock.close()

    def _ask(self, statement: str, *values: str | int) -> list[tuple[Any, ...]]:
        with self._turn:
            try:
                return self._file.execute(statement, values).fetchall()
            except apsw.Error as error:
                raise StoreError(f"nothing was read: {error}") from error

    def _write(self, statement: str, values: tuple[str | int | bytes, ...]) -> None:
        try:
            self._file.execute(statement, values)
        except apsw.Error as error:
            raise StoreError(f"nothing was written: {error}") from error
