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

from rahba.merkle import leaf_hash
from tests.fixtures.log_files import files
from tests.fixtures.wallet import LedgerRig
from wallet.stores.tiles import GRACE, TileDirectory
from wallet.tiles import tiles_of


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


async def test_what_is_missing_is_written_again_and_what_is_outgrown_goes(
    folder: Path, sqlite_rig: LedgerRig
) -> None:
    store, log = sqlite_rig.ledger._store, sqlite_rig.ledger.log
    for name in files(folder):
        if "entries" in name:
            (folder / name).unlink()
    tiles = TileDirectory(folder, store, log)
    tiles.publish("note", log.size)
    before = files(folder)
    assert (folder / "checkpoint").read_text("utf-8") == "note"
    assert len(before) >= sum(1 for _ in tiles_of(log.size)) + 1
    for size in range(2, 2 + GRACE + 10):
        TileDirectory(folder / "other", store, log).publish("n", size)
    fresh = TileDirectory(folder / "again", store, log)
    for size in range(2, 2 + GRACE + 10):
        fresh.publish("n", size)
    assert len([name for name in files(folder / "again") if ".p/" in name]) == 2 * GRACE
