"""The log as static files on a plain file server, read by independent verifiers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from tlog_scales.backend import HttpBackend, LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey
from tlog_scales.tlog import InclusionProofInvalid

from rahba.clock import ManualClock
from rahba.merkle import leaf_hash
from tests.fixtures.log_files import files
from tests.fixtures.wallet import START_MS, LedgerRig, did
from wallet.merkle import MerkleLog
from wallet.ports import Entry
from wallet.stores.memory import MemoryStore
from wallet.stores.tiles import GRACE, TileDirectory
from wallet.tiles import tile_path, tiles_of


async def test_an_independent_reader_verifies_the_whole_log_over_http(
    served: str, sqlite_rig: LedgerRig
) -> None:
    vkey = Vkey.from_string(await sqlite_rig.ledger.verifier_key())

    def read() -> None:
        reader = TilesReader(HttpBackend(served))
        checkpoint = reader.get_checkpoint()
        checkpoint.verify(vkey)
        assert reader.calculate_root_hash() == checkpoint.root_hash
        log = sqlite_rig.ledger.log
        for index in (0, 1, 255, 256, 511, 512, checkpoint.size - 1):
            entry = reader.get_entry(index)
            assert leaf_hash(entry) == log.node(0, index)
            proof = reader.get_inclusion_proof(index, checkpoint.size)
            assert proof.node_hashes == log.inclusion(index, checkpoint.size)
        for old in (1, 2, 255, 256, 300):
            theirs = reader.get_consistency_proof(old, checkpoint.size)
            assert theirs.node_hashes == log.consistency(old, checkpoint.size)

    await asyncio.to_thread(read)


async def test_an_independent_reader_refuses_a_forged_tile_and_a_forged_checkpoint(
    folder: Path, sqlite_rig: LedgerRig
) -> None:
    vkey = Vkey.from_string(await sqlite_rig.ledger.verifier_key())
    log = sqlite_rig.ledger.log
    for name, index in (("tile/0/000", 1), ("tile/0/001", 257)):
        path = folder / name
        honest = path.read_bytes()
        path.write_bytes(bytes([honest[0] ^ 1]) + honest[1:])
        reader = TilesReader(LocalBackend(folder))
        checkpoint = reader.get_checkpoint()
        proof = reader.get_inclusion_proof(index, checkpoint.size)
        with pytest.raises(InclusionProofInvalid):
            proof.check(log.node(0, index), checkpoint.root_hash)
        path.write_bytes(honest)
    widths = [name for name in files(folder) if name.startswith("tile/1/")]
    upper = folder / max(widths, key=lambda name: int(name.rpartition("/")[2]))
    honest = upper.read_bytes()
    upper.write_bytes(honest[:32] + bytes(32))
    reader = TilesReader(LocalBackend(folder))
    checkpoint = reader.get_checkpoint()
    assert reader.calculate_root_hash() != checkpoint.root_hash
    upper.write_bytes(honest)
    entries = folder / "tile/entries/000"
    raw = bytearray(entries.read_bytes())
    raw[100] ^= 1
    entries.write_bytes(bytes(raw))
    reader = TilesReader(LocalBackend(folder))
    reader.get_checkpoint()
    assert leaf_hash(reader.get_entry(0)) != sqlite_rig.ledger.log.node(0, 0)
    note = (folder / "checkpoint").read_text("utf-8")
    size = note.split("\n")[1]
    (folder / "checkpoint").write_text(note.replace(size, str(int(size) - 1), 1), "utf-8")
    forged = TilesReader(LocalBackend(folder)).get_checkpoint()
    with pytest.raises(InvalidSignature):
        forged.verify(vkey)


async def test_the_files_are_the_bytes_that_the_ledger_serves(
    folder: Path, sqlite_rig: LedgerRig
) -> None:
    from api.ledger_http import LedgerApp

    app = LedgerApp(sqlite_rig.ledger, log=sqlite_rig.ledger.log)
    names = [name for name in files(folder) if name != "checkpoint" and ".p" not in name]
    for name in names:
        path = folder / name
        reply = await app._tile(name.removeprefix("tile/"), {})
        assert reply.body == path.read_bytes(), name
    assert len(names) > 3


async def test_what_is_missing_or_damaged_is_written_again_after_a_start(
    folder: Path, sqlite_rig: LedgerRig
) -> None:
    store, log = sqlite_rig.ledger._store, sqlite_rig.ledger.log
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    (folder / "tile/entries/000").unlink()
    (folder / "tile/entries/001").write_bytes(before["tile/entries/001"][:-9])
    (folder / "tile/0/000").write_bytes(bytes(8_192))
    (folder / "tile/0/001").write_bytes(b"")
    (folder / "tile/1/000.p/2").write_bytes(b"")
    TileDirectory(folder, store, log).publish(before["checkpoint"].decode(), log.size)
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


async def test_only_the_newest_files_are_compared_if_the_folder_is_of_this_log(
    folder: Path, sqlite_rig: LedgerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wallet.stores.tiles.DOUBTED", 1)
    store, log = sqlite_rig.ledger._store, sqlite_rig.ledger.log
    note = (folder / "checkpoint").read_text("utf-8")
    old, new = folder / "tile/0/000", folder / "tile/0/001"
    honest = old.read_bytes(), new.read_bytes()
    for path in (old, new):
        path.write_bytes(b"damaged")
    TileDirectory(folder, store, log).publish(note, log.size)
    assert (old.read_bytes(), new.read_bytes()) == (b"damaged", honest[1])
    (folder / "checkpoint").write_text(note.replace("\n", "\n1", 1), "utf-8")
    TileDirectory(folder, store, log).publish(note, log.size)
    assert old.read_bytes() == honest[0]


async def test_a_folder_of_another_log_is_written_anew_also_beyond_this_one(
    folder: Path, tmp_path: Path
) -> None:
    """A restored backup grows again, with other entries at the same places."""
    store = MemoryStore()
    rig = LedgerRig(lambda: store, ManualClock(START_MS))
    await rig.open()
    await rig.funded("chadia", 10_000_000)
    tiles = TileDirectory(folder, store, rig.ledger.log)
    note, size = await rig.ledger.next_checkpoint(rig.ledger.log.size - 1)
    tiles.publish(note, size)
    chadia = rig.wallet("chadia")
    raws = [await chadia.sign_transfer(did("dalila"), 1) for _ in range(300)]
    await rig.ledger.submit_many(raws)
    note, size = await rig.ledger.next_checkpoint(rig.ledger.log.size - 1)
    tiles.publish(note, size)
    reader = TilesReader(LocalBackend(folder))
    checkpoint = reader.get_checkpoint()
    assert checkpoint.size == size > 256
    assert reader.calculate_root_hash() == checkpoint.root_hash
    for index in range(size):
        assert leaf_hash(reader.get_entry(index)) == rig.ledger.log.node(0, index)
    await rig.ledger.close()


def test_partial_tiles_stay_until_the_full_one_is_there_and_a_while_longer(tmp_path: Path) -> None:
    raws = [b"entry %d" % number for number in range(600)]
    store, log = MemoryStore(), MerkleLog(leaf_hash(raw) for raw in raws)
    store.acquire()
    entries = [Entry(seq, raw, leaf_hash(raw), 0) for seq, raw in enumerate(raws)]
    store.append(entries, [], None)
    tiles = TileDirectory(tmp_path, store, log)
    for size in range(100, 256):
        tiles.publish("note", size)
    partial = {f"tile/{kind}/000.p/{size}" for kind in ("0", "entries") for size in range(100, 256)}
    assert set(files(tmp_path)) == {"checkpoint", *partial}
    for size in range(256, 256 + GRACE - 1):
        tiles.publish("note", size)
        assert partial < set(files(tmp_path))
    again = TileDirectory(tmp_path, store, log)  # a start forgets nothing
    for size in range(400, 400 + GRACE):
        again.publish("note", size)
    names = files(tmp_path)
    assert partial.isdisjoint(names)
    assert not (tmp_path / "tile/0/000.p").exists()
    assert {"tile/0/000", "tile/entries/000", "tile/0/001.p/144", "tile/1/000.p/1"} < set(names)


def test_every_size_shows_exactly_the_tiles_that_the_format_asks_for(tmp_path: Path) -> None:
    raws = [b"%d" % number for number in range(70_000)]
    store, log = MemoryStore(), MerkleLog(leaf_hash(raw) for raw in raws)
    store.acquire()
    entries = [Entry(seq, raw, leaf_hash(raw), 0) for seq, raw in enumerate(raws)]
    store.append(entries, [], None)
    tiles = TileDirectory(tmp_path, store, log)
    for size in (1, 255, 256, 257, 512, 65_535, 65_536, 65_537, 70_000):
        tiles.publish("note", size)
        wanted = {tile_path(tile) for tile in tiles_of(size)}
        assert wanted <= set(files(tmp_path))
    assert sum(1 for name in wanted if "/0/" in name and ".p" not in name) == 273
    assert {"tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"} < wanted
    assert not [name for name in files(tmp_path) if name.endswith(".new")]
