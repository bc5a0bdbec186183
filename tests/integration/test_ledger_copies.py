"""A ledger is exported, imported, backed up and restored: what comes back is the same ledger."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.fixtures.wallet import DEAL, LedgerRig, did
from wallet.archive import Archive, ArchiveError, ArchiveSource, audit_archive
from wallet.backup import BackupError, back_up_file, back_up_log, open_backup
from wallet.cosigning import RolledBackError
from wallet.errors import LedgerCorruptError, StoreError, WrongGenesisError
from wallet.export import export_log
from wallet.ports import Entry, Store
from wallet.rebuild import NotEmptyError, write_log
from wallet.restore import Known, import_log, restore_backup
from wallet.service import Sequencer
from wallet.sources import LedgerSource, Rest, StoreSource
from wallet.stores.memory import MemoryStore
from wallet.stores.postgres import PostgresStore
from wallet.stores.sqlite import SqliteStore
from wallet.stores.tiles import TileDirectory

KNOWN = Known()


async def trade(rig: LedgerRig, payments: int) -> None:
    """Pay, hold, capture, rotate nothing away, and be refused once."""
    amina = rig.wallet("amina")
    await amina.faucet(10_000_000)
    for _ in range(payments):
        await amina.transfer(did("brahim"), 5)
        rig.clock.advance(1)
    hold = await amina.hold(did("chaima"), 7_000, rig.clock.now_ms() + 60_000, DEAL)
    await rig.wallet("chaima").capture(hold.id, 4_000)
    raw = await amina.sign_transfer(did("brahim"), 10**15)
    assert (await rig.ledger.submit(raw)).outcome == "refused"


def store_at(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "ledger.db")


@pytest.fixture
async def ledger_file(
    sqlite_rig: LedgerRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return the file of a closed ledger of more than 330 entries in many intervals."""
    monkeypatch.setattr("wallet.service.INTERVAL_S", 0.01)
    await trade(sqlite_rig, 320)
    await sqlite_rig.ledger.close()
    return tmp_path / "ledger.db"


@pytest.fixture
def source(ledger_file: Path) -> Iterator[StoreSource]:
    found = StoreSource(SqliteStore(ledger_file))
    yield found
    found._store.close()


def everything(store: Store) -> dict[str, Any]:
    return {
        "entries": store.read(0, 10_000),
        "verdicts": store.verdicts(),
        "checkpoint": store.checkpoint(),
        "witnessed": store.witnessed(),
    }


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def empty_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    makers = {
        "memory": MemoryStore,
        "sqlite": lambda: SqliteStore(tmp_path / "new" / "ledger.db"),
        "postgres": lambda: PostgresStore(request.getfixturevalue("postgres_url")),
    }
    store: Store = makers[request.param]()
    yield store
    store.close()


async def test_an_export_imports_into_any_store_as_the_same_ledger(
    source: StoreSource, empty_store: Store, tmp_path: Path, sqlite_rig: LedgerRig
) -> None:
    done = await export_log(source, tmp_path / "out")
    report = await import_log(
        ArchiveSource(Archive(tmp_path / "out")), empty_store, Known(done.log.vkey)
    )
    assert (report.entries, report.root) == (done.size, done.root)
    assert everything(empty_store) == everything(source._store)
    found = empty_store.snapshot()
    assert found is not None
    assert found[0] == done.size
    for _ in found[1]:
        pass
    words = {"genesis": None, "operator": sqlite_rig.operator}
    words |= {"clock": sqlite_rig.clock, "ids": sqlite_rig.ids}
    async with await Sequencer.open(empty_store, **words) as ledger:  # type: ignore[arg-type]
        assert (await ledger.supply()).equal
        assert ledger.log.size == done.size, "nothing was left open"
        sqlite_rig.ledger = ledger
        assert (await sqlite_rig.wallet("amina").transfer(did("brahim"), 5)).ok


async def test_two_exports_of_one_checkpoint_are_the_same_files(
    source: StoreSource, tmp_path: Path
) -> None:
    await export_log(source, tmp_path / "one")
    await export_log(ArchiveSource(Archive(tmp_path / "one")), tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert audit_archive(Archive(tmp_path / "two")).ok


async def test_an_export_grows_with_its_log(sqlite_rig: LedgerRig, tmp_path: Path) -> None:
    await trade(sqlite_rig, 270)
    await sqlite_rig.reopen()  # closes the interval
    first = await export_log(StoreSource(store_at(tmp_path)), tmp_path / "out")
    await trade(sqlite_rig, 300)
    await sqlite_rig.reopen()
    second = await export_log(StoreSource(store_at(tmp_path)), tmp_path / "out")
    assert (first.kept, second.kept) == (0, 256)
    assert second.size > first.size + 300
    await export_log(StoreSource(store_at(tmp_path)), tmp_path / "anew")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "anew"), "no partial tile is left"
    older = StoreSource(store_at(tmp_path))
    older.note = Archive(tmp_path / "out").checkpoint()
    assert (await export_log(older, tmp_path / "out")).kept == second.size // 256 * 256


class Interrupted:
    """A source that breaks off after so many entries."""

    def __init__(self, source: StoreSource, entries: int) -> None:
        self.source = source
        self.note = source.note
        self.left = entries

    async def pages(self, start: int) -> AsyncIterator[list[Entry]]:
        async for page in self.source.pages(start):
            if self.left < len(page):
                yield page[: self.left]
                raise StoreError("the line is cut")
            self.left -= len(page)
            yield page

    async def rest(self) -> Rest:
        return await self.source.rest()

    async def close(self) -> None:
        pass


async def test_an_interrupted_export_is_no_archive_and_goes_on_where_it_was(
    source: StoreSource, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(StoreError, match="the line is cut"):
        await export_log(Interrupted(source, 300), out)
    assert not Archive(out).complete
    with pytest.raises(ArchiveError):
        ArchiveSource(Archive(out))
    torn = out / "tile" / "entries" / "000"
    assert (await export_log(source, out)).kept == 256
    torn.write_bytes(torn.read_bytes()[:-100])
    assert (await export_log(source, out)).kept == 0, "what is torn is written again"
    assert audit_archive(Archive(out)).ok


async def test_an_export_refuses_another_log_and_an_older_state(
    source: StoreSource, memory_rig: LedgerRig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export_log(source, out)
    before = files_of(out)
    await trade(memory_rig, 5)
    await memory_rig.reopen()
    shorter = LedgerSource(memory_rig.ledger, await memory_rig.ledger.checkpoint())
    with pytest.raises(ArchiveError):
        await export_log(shorter, out)
    with pytest.raises(WrongGenesisError):
        await export_log(source, tmp_path / "else", vkey="rahba.dev/log+00000000+AQ==")
    assert Archive(out).checkpoint() == before["checkpoint"].decode()


async def test_every_damaged_file_of_an_archive_is_noticed(
    source: StoreSource, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export_log(source, out)
    for name, content in files_of(out).items():
        if name in {"log.json", "refusals.json"}:
            continue  # no part of the log: see below
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        (out / name).write_bytes(changed)
        try:
            assert not audit_archive(Archive(out)).ok, name
        except ArchiveError:
            assert name == "checkpoint"
        (out / name).write_bytes(content)
    assert audit_archive(Archive(out)).ok


async def test_a_flipped_byte_in_an_archive_is_named_by_its_entry(
    source: StoreSource, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    await export_log(source, out)
    bundle = out / "tile" / "entries" / "000"
    raw = bytearray(bundle.read_bytes())
    place = raw.index(b"eyJ", 2 + len(Archive(out).bundle(0)[0].raw) + 4)
    raw[place + 40] ^= 1
    bundle.write_bytes(raw)
    assert audit_archive(Archive(out)).problems[0].seq == 1
    with pytest.raises(LedgerCorruptError) as caught:
        await import_log(ArchiveSource(Archive(out)), MemoryStore(), KNOWN)
    assert caught.value.facts["seq"] == 1


@pytest.mark.parametrize("raw", [b"{", b'[["\xff"]]', b"[" * 5_000, b"[[1]]"])
async def test_damaged_refusals_of_an_archive_are_an_error_that_says_so(
    source: StoreSource, tmp_path: Path, raw: bytes
) -> None:
    out = tmp_path / "out"
    await export_log(source, out)
    (out / "refusals.json").write_bytes(raw)
    with pytest.raises(ArchiveError, match=r"refusals.json is damaged"):
        await import_log(ArchiveSource(Archive(out)), MemoryStore(), KNOWN)


async def test_an_import_writes_over_nothing(
    source: StoreSource, memory_rig: LedgerRig, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "new.db")
    await import_log(source, store, KNOWN)
    with pytest.raises(NotEmptyError):
        await import_log(source, store, KNOWN)
    store.close()
    other = MemoryStore()
    other.acquire()
    other.append(store_at(tmp_path).read(0, 1), [], None)
    other.append([Entry(1, b"x", bytes(32), 0)], [], None)
    with pytest.raises(NotEmptyError):
        await import_log(source, other, KNOWN)


async def test_half_an_import_does_not_start_and_is_gone_on_with(
    source: StoreSource, tmp_path: Path, sqlite_rig: LedgerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.rebuild.GROUP", 50)
    path = tmp_path / "new.db"
    store = SqliteStore(path)
    with pytest.raises(StoreError):
        await write_log(Interrupted(source, 200), store)
    assert 0 < store.size() < 200
    store.close()
    words = {"genesis": None, "operator": sqlite_rig.operator}
    words |= {"clock": sqlite_rig.clock, "ids": sqlite_rig.ids}
    with pytest.raises(LedgerCorruptError):
        await Sequencer.open(SqliteStore(path), **words)  # type: ignore[arg-type]
    store = SqliteStore(path)
    await import_log(source, store, KNOWN)
    assert everything(store) == everything(source._store)
    store.close()


async def test_a_backup_is_made_while_the_ledger_runs_and_restores_to_what_it_was(
    sqlite_rig: LedgerRig, tmp_path: Path
) -> None:
    await trade(sqlite_rig, 50)
    ledger, amina = sqlite_rig.ledger, sqlite_rig.wallet("amina")
    busy = [asyncio.create_task(amina.transfer(did("brahim"), 1)) for _ in range(200)]
    await busy[0]
    manifest = await asyncio.to_thread(back_up_file, tmp_path / "ledger.db", tmp_path / "bak", 7)
    assert all(answer.ok for answer in await asyncio.gather(*busy))
    assert 50 < manifest.size <= ledger.log.size
    assert open_backup(tmp_path / "bak") == manifest
    report = await restore_backup(tmp_path / "bak", tmp_path / "restored.db", KNOWN)
    assert report.entries == manifest.size
    restored, store = SqliteStore(tmp_path / "restored.db"), store_at(tmp_path)
    assert restored.read(0, 1_000) == store.read(0, manifest.size)
    assert not [name for name in os.listdir(tmp_path) if "restoring" in name]  # noqa: PTH208
    store.close()
    restored.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest", "bytes", "unfinished"])
async def test_a_damaged_backup_is_not_restored(
    ledger_file: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "bak"
    back_up_file(ledger_file, folder, 7)
    file, manifest = folder / "ledger.sqlite", folder / "manifest.json"
    raw = file.read_bytes()
    if damage == "flip":
        file.write_bytes(raw[:9_000] + bytes([raw[9_000] ^ 1]) + raw[9_001:])
    elif damage == "cut":
        file.write_bytes(raw[:-4_096])
    elif damage == "gone":
        file.unlink()
    elif damage == "manifest":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    elif damage == "bytes":
        manifest.write_bytes(manifest.read_bytes().replace(b"rahba-backup", b"rahba\xffbackup"))
    else:
        manifest.unlink()
    with pytest.raises(BackupError):
        await restore_backup(folder, tmp_path / "restored.db", KNOWN)
    assert not (tmp_path / "restored.db").exists()


async def test_a_backup_whose_manifest_was_made_to_fit_is_still_audited(
    ledger_file: Path, tmp_path: Path
) -> None:
    """Somebody changes a payment in the copy and the manifest with it."""
    damaged = apsw.Connection(str(ledger_file))
    damaged.execute(
        "UPDATE entries SET raw = CAST(replace(raw, 'sig', 'gis') AS BLOB) WHERE seq = 9"
    )
    damaged.close()
    with pytest.raises(LedgerCorruptError) as caught:
        back_up_file(ledger_file, tmp_path / "bak", 7)
    assert caught.value.facts["seq"] == 9
    assert not (tmp_path / "bak" / "manifest.json").exists()


async def test_nothing_is_written_over_by_backup_or_restore(
    ledger_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bak"
    back_up_file(ledger_file, folder, 7)
    with pytest.raises(BackupError):
        back_up_file(ledger_file, folder, 8)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "letters.txt").write_text("dear")
    with pytest.raises(BackupError):
        back_up_file(ledger_file, strange, 8)
    with pytest.raises(BackupError):
        await restore_backup(folder, ledger_file, KNOWN)
    (tmp_path / "half.db-wal").write_bytes(b"what a ledger that was moved away left")
    with pytest.raises(BackupError):
        await restore_backup(folder, tmp_path / "half.db", KNOWN)


async def test_a_ledger_in_a_database_is_backed_up_as_an_archive(
    source: StoreSource, postgres_url: str, tmp_path: Path
) -> None:
    store = PostgresStore(postgres_url)
    await import_log(source, store, KNOWN)
    manifest = await back_up_log(StoreSource(store), tmp_path / "bak", 7)
    assert manifest.kind == "archive"
    assert open_backup(tmp_path / "bak") == manifest
    with pytest.raises(NotEmptyError):
        await restore_backup(tmp_path / "bak", store, KNOWN)
    store.close()
    await restore_backup(tmp_path / "bak", tmp_path / "restored.db", KNOWN)
    restored = SqliteStore(tmp_path / "restored.db")
    assert everything(restored) == everything(source._store)
    restored.close()


async def test_a_tail_brings_a_backup_up_to_date(sqlite_rig: LedgerRig, tmp_path: Path) -> None:
    await trade(sqlite_rig, 40)
    back_up_file(tmp_path / "ledger.db", tmp_path / "bak", 7)
    await trade(sqlite_rig, 300)
    await sqlite_rig.reopen()
    ledger = sqlite_rig.ledger
    note = await ledger.checkpoint()
    report = await restore_backup(
        tmp_path / "bak",
        tmp_path / "restored.db",
        Known(older=note),
        tail=LedgerSource(ledger, note),
    )
    assert report.root == ledger.log.root().hex()
    restored, store = SqliteStore(tmp_path / "restored.db"), store_at(tmp_path)
    assert restored.read(0, 1_000) == store.read(0, 1_000)
    assert restored.checkpoint() == note
    store.close()
    restored.close()
    with pytest.raises(RolledBackError):
        await restore_backup(tmp_path / "bak", tmp_path / "again.db", Known(older=note))


async def test_a_tail_of_another_log_is_refused(sqlite_rig: LedgerRig, tmp_path: Path) -> None:
    """The same operator, the same network, another history after the backup."""
    await trade(sqlite_rig, 40)
    await sqlite_rig.ledger.close()
    back_up_file(tmp_path / "ledger.db", tmp_path / "bak", 7)
    shutil.copy(tmp_path / "ledger.db", tmp_path / "fork.db")
    fork = LedgerRig(lambda: SqliteStore(tmp_path / "fork.db"), sqlite_rig.clock)
    fork.genesis = sqlite_rig.genesis
    await fork.open()
    sqlite_rig.make_store = lambda: store_at(tmp_path)
    await sqlite_rig.open()
    await trade(sqlite_rig, 30)
    await trade(fork, 60)
    await fork.reopen()
    await sqlite_rig.reopen()
    back_up_file(tmp_path / "ledger.db", tmp_path / "later", 8)
    note = await fork.ledger.checkpoint()
    with pytest.raises(LedgerCorruptError):
        await restore_backup(
            tmp_path / "later", tmp_path / "new.db", KNOWN, tail=LedgerSource(fork.ledger, note)
        )
    assert not (tmp_path / "new.db").exists()
    await fork.ledger.close()


async def test_the_folder_that_a_ledger_publishes_is_an_archive_too(
    sqlite_rig: LedgerRig, tmp_path: Path
) -> None:
    ledger, out = sqlite_rig.ledger, tmp_path / "log"
    tiles = TileDirectory(out, ledger._store, ledger.log)
    for _ in range(2):
        await trade(sqlite_rig, 140)
        note, size = await ledger.next_checkpoint(ledger.log.size - 1)
        tiles.publish(note, size)
    assert audit_archive(Archive(out)).ok
    new = SqliteStore(tmp_path / "new.db")
    report = await import_log(ArchiveSource(Archive(out)), new, KNOWN)
    assert report.entries == size
    assert new.read(0, 1_000) == ledger._store.read(0, size)
    new.close()
