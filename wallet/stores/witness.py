"""What a witness must not forget, in a SQLite file of its own: newest checkpoints, evidence.

``keep`` is durable when it returns (FULL), so it comes before the cosignature leaves. One process
has the file at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from wallet.errors import StoreError
from wallet.stores.lockfile import LockFile
from wallet.witness import Seen

MAX_BUNDLES: Final = 1_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS seen (
  origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS evidence (
  number INTEGER PRIMARY KEY, bundle TEXT NOT NULL UNIQUE
) STRICT;
"""


class WitnessStore:
    """The file ``path``; for one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            StoreError: another witness has it, or it is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        rows = self._file.execute("SELECT size, root, note FROM seen WHERE origin = ?", (origin,))
        for row in rows:
            return Seen._make(row)
        return None

    def origins(self) -> list[str]:
        """Return the logs that were ever cosigned."""
        return [name for (name,) in self._file.execute("SELECT origin FROM seen ORDER BY origin")]

    def keep(self, origin: str, seen: Seen) -> None:
        """Remember a checkpoint durably; it is never replaced by a smaller one.

        Raises:
            StoreError: it could not be written, or a larger one is kept.
        """
        try:
            self._file.execute(
                "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE"
                " SET size = excluded.size, root = excluded.root, note = excluded.note"
                " WHERE excluded.size >= seen.size",
                (origin, *seen),
            )
        except apsw.Error as error:
            raise StoreError(f"nothing was written: {error}") from error
        if self._file.changes() != 1:
            raise StoreError("a larger checkpoint was cosigned meanwhile", size=seen.size)

    def accuse(self, bundle: str) -> None:
        """Keep a bundle of evidence, once, within a limit."""
        try:
            self._file.execute(
                "INSERT OR IGNORE INTO evidence (bundle)"
                " SELECT ? WHERE (SELECT count(*) FROM evidence) < ?",
                (bundle, MAX_BUNDLES),
            )
        except apsw.Error as error:
            raise StoreError(f"nothing was written: {error}") from error

    def evidence(self) -> list[str]:
        """Return all bundles that were kept."""
        rows = self._file.execute("SELECT bundle FROM evidence ORDER BY number")
        return [bundle for (bundle,) in rows]

    def close(self) -> None:
        """Close the file and let go of it."""
        self._file.close()
        self._lock.close()
