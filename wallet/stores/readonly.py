"""The log of a SQLite file, read by somebody who must not change it: an auditor, a backup.

Works beside a running sequencer (readers do not disturb WAL, and this one never checkpoints) as
well as on a file at rest. Takes no lock; what is appended later is not seen by a running read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw

from wallet.errors import StoreError
from wallet.ports import Entry, Store

_BUSY_MS = 5_000
_PAGE = 2_000
_KINDS = (int, bytes, bytes, int, bytes)


def pages(store: Store) -> Iterator[Entry]:
    """Yield every entry of a store in order, without acquiring it."""
    size = 0
    while page := store.read(size, _PAGE):
        yield from page
        size += len(page)


class ReadOnlyLog:
    """The entries and the checkpoint of the ledger file at ``path``.

    Checkpoint and entries are of one moment, even while a sequencer goes on writing.
    """

    def __init__(self, path: Path) -> None:
        """Open the file for reading.

        Raises:
            StoreError: there is no such file, or it is no ledger.
        """
        if not path.is_file():
            raise StoreError("there is no ledger file", path=str(path))
        try:
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        except apsw.Error as error:
            raise StoreError(f"cannot open the file: {error}", path=str(path)) from error
        try:
            self._connection.set_busy_timeout(_BUSY_MS)
            self._connection.execute("PRAGMA wal_autocheckpoint = 0; BEGIN")
            rows = self._connection.execute(
                "SELECT note FROM notes WHERE name = 'checkpoint'"
            ).fetchall()
        except (apsw.Error, UnicodeDecodeError) as error:
            self._connection.close()
            raise StoreError(f"not a ledger file: {error}", path=str(path)) from error
        self.checkpoint: str = str(rows[0][0]) if rows else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Entry]:
        """Yield every entry in order.

        Raises:
            StoreError: the file is damaged beyond this point.
        """
        try:
            rows = self._connection.execute(
                "SELECT seq, raw, leaf, log_time, links FROM entries ORDER BY seq"
            )
            for row in rows:
                # A damaged page can give a value of any type, whatever the table asked for.
                if tuple(map(type, row)) != _KINDS:
                    raise StoreError("the file is damaged")
                yield Entry._make(row)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise StoreError(f"the file cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
