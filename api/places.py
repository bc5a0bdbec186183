"""Where a ledger lies, as people write it: a file, a folder, or an address.

| written | read | written to |
|---|---|---|
| a SQLite file, or a data folder | its ledger | a new ledger |
| a folder made by ``rahba ledger export``, or the one that a ledger publishes | its log | no |
| ``postgresql://...`` | the ledger in that database | a new ledger there |
| ``http://...`` | what the ledger there shows | no |
| nothing | the ledger of the settings | the same |
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from api.bootstrap import LEDGER_FILE, ledger_store
from api.settings import Settings
from rahba.errors import LocalError
from wallet.archive import Archive, ArchiveSource
from wallet.errors import StoreError
from wallet.ports import Store
from wallet.sources import LedgerSource, Source, StoreSource
from wallet.stores.sqlite import SqliteStore
from wallet.transports.http import HttpLedger

_DATABASES = ("postgresql://", "postgres://")
_ADDRESSES = ("http://", "https://")


class BadPlaceError(LocalError):
    """What is written names no ledger, or one that cannot be used so."""

    code = "bad_place"
    hint = "name a SQLite file, a data folder, an exported folder, postgresql://... or http://..."


def is_address(place: str | None) -> bool:
    """Say whether a ledger is to be asked over HTTP."""
    return place is not None and place.startswith(_ADDRESSES)


def database_of(place: str | None, settings: Settings) -> Store | None:
    """Return the store of a place that is a database."""
    url = place if place is not None else settings.ledger_store
    if url is None or not url.startswith(_DATABASES):
        return None
    return ledger_store(replace(settings, ledger_store=url))


def archive_at(place: str | None) -> Archive | None:
    """Return the archive of a place that is one."""
    if place is None or not Path(place).is_dir() or (Path(place) / LEDGER_FILE).exists():
        return None
    archive = Archive(Path(place))
    return archive if archive.complete or (Path(place) / "tile").is_dir() else None


def file_at(place: str | None, settings: Settings) -> Path:
    """Return the SQLite file of a place that is one, whether it exists or not."""
    if place is None:
        return _data_folder(settings) / LEDGER_FILE
    path = Path(place)
    return path / LEDGER_FILE if path.is_dir() else path


def _data_folder(settings: Settings) -> Path:
    folders = (settings.data_dir, settings.data_dir / "demo")
    return next((each for each in folders if (each / LEDGER_FILE).exists()), settings.data_dir)


@contextlib.asynccontextmanager
async def opened_source(place: str | None, settings: Settings) -> AsyncIterator[Source]:
    """Open a ledger to read all of it.

    Raises:
        StoreError: there is none.
    """
    if is_address(place):
        assert place is not None
        async with HttpLedger(place) as ledger:
            yield LedgerSource(ledger, await ledger.checkpoint())
        return
    source = _archived(place) or StoreSource(_existing(place, settings))
    try:
        yield source
    finally:
        await source.close()


def _archived(place: str | None) -> Source | None:
    archive = archive_at(place)
    return ArchiveSource(archive) if archive is not None else None


def _existing(place: str | None, settings: Settings) -> Store:
    store = database_of(place, settings)
    if store is not None:
        return store
    path = file_at(place, settings)
    if not path.is_file():
        raise StoreError("there is no ledger file", path=str(path))
    return SqliteStore(path)


def target_at(place: str | None, settings: Settings) -> Path | Store:
    """Return where a ledger is to be written: the path of a file, or a database.

    Raises:
        BadPlaceError: nothing can be written there.
    """
    if is_address(place) or archive_at(place) is not None:
        raise BadPlaceError("a ledger is written into a file or a database")
    if place is None and settings.ledger_store is None:
        return settings.data_dir / LEDGER_FILE
    return database_of(place, settings) or _named(file_at(place, settings))


def _named(path: Path) -> Path:
    """A new place without a suffix is a folder."""
    return path if path.suffix else path / LEDGER_FILE
