"""Tiles: the paths of C2SP tlog-tiles, and bytes that are the log's own hashes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rahba.errors import TooLargeError
from rahba.merkle import OutOfRangeError, leaf_hash
from wallet.merkle import MerkleLog
from wallet.tiles import (
    WIDTH,
    BadTileError,
    Tile,
    check_tile,
    entry_bundle,
    hash_tile,
    read_tile_path,
    split_bundle,
    split_hashes,
    tile_path,
    tiles_of,
)

SIZE = 700
ENTRIES = [f"entry {number}".encode() for number in range(SIZE)]
LOG = MerkleLog(leaf_hash(entry) for entry in ENTRIES)


@given(
    st.one_of(st.none(), st.integers(0, 63)),
    st.integers(0, 10**18 - 1),
    st.integers(1, WIDTH),
)
def test_every_tile_has_one_path(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert read_tile_path(tile_path(tile)) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/1",
        "tile/64/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/x/000",
        "tile/0/x000/001",
        "tile/0/000/001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/007",
        "tile/0/000/",
        "tile/0/../000",
        "tile/0/\u0660\u0660\u0660",  # digits of another script
        "tile/0/" + "x001/" * 6 + "001",
        "tile/entries/000.p/300",
    ],
)
def test_a_path_that_names_no_tile_is_refused(path: str) -> None:
    with pytest.raises(BadTileError):
        read_tile_path(path)


def test_a_log_of_70000_leaves_has_the_tiles_of_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    at = {level: [tile for tile in tiles if tile.level == level] for level in (None, 0, 1, 2, 3)}
    assert len(at[0]) == 274
    assert at[0][-1] == Tile(0, 273, 112)
    assert at[1] == [Tile(1, 0), Tile(1, 1, 17)]
    assert at[2] == [Tile(2, 0, 1)]
    assert at[3] == []
    assert len(at[None]) == 274
    assert list(tiles_of(256)) == [Tile(None, 0), Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


def test_level_zero_holds_the_leaf_hashes() -> None:
    found = [
        item
        for tile in tiles_of(SIZE)
        if tile.level == 0
        for item in split_hashes(hash_tile(LOG, tile))
    ]
    assert found == [leaf_hash(entry) for entry in ENTRIES]


def test_every_hash_above_is_the_root_of_a_full_tile_below() -> None:
    above = split_hashes(hash_tile(LOG, Tile(1, 0, SIZE // WIDTH)))
    below = [split_hashes(hash_tile(LOG, Tile(0, index))) for index in range(SIZE // WIDTH)]
    assert above == [MerkleLog(hashes).root() for hashes in below]


def test_from_the_tiles_alone_one_computes_the_root() -> None:
    leaves = [
        leaf_hash(entry)
        for tile in tiles_of(SIZE)
        if tile.level is None
        for entry in split_bundle(entry_bundle(ENTRIES[tile.start : tile.start + tile.width]))
    ]
    assert MerkleLog(leaves).root() == LOG.root()


def test_no_tile_beyond_the_size_is_served() -> None:
    for tile in (
        Tile(0, 2),
        Tile(0, 2, SIZE % WIDTH + 1),
        Tile(1, 0),
        Tile(5, 0, 1),
        Tile(None, 3),
    ):
        with pytest.raises(OutOfRangeError):
            check_tile(tile, SIZE)
    with pytest.raises(OutOfRangeError):
        hash_tile(LOG, Tile(0, 2))
    with pytest.raises(BadTileError):
        hash_tile(LOG, Tile(None, 0))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=WIDTH))
def test_a_bundle_reads_back_as_it_was_written(entries: list[bytes]) -> None:
    assert split_bundle(entry_bundle(entries)) == entries


@given(st.binary(max_size=100))
def test_bytes_that_are_no_bundle_are_refused(raw: bytes) -> None:
    try:
        entries = split_bundle(raw)
    except BadTileError:
        return
    assert entry_bundle(entries) == raw


def test_bundles_and_tiles_have_limits() -> None:
    with pytest.raises(TooLargeError):
        entry_bundle([bytes(65_536)])
    for entries in ([], [b""] * 257):
        with pytest.raises(BadTileError):
            entry_bundle(entries)
    for raw in (b"", bytes(31), bytes(257 * 32)):
        with pytest.raises(BadTileError):
            split_hashes(raw)
