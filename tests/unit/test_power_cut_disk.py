"""The disk of the power cuts: what was synced stays; the rest may be lost, torn or reordered."""

from __future__ import annotations

import random

from tests.fixtures.power_cut import DiskFile, Names

SECTOR = 512


def images(file: DiskFile, draws: int = 400) -> set[bytes]:
    return {file.left(random.Random(draw), 0.3) for draw in range(draws)}


def test_what_was_synced_stays() -> None:
    file = DiskFile(SECTOR)
    file.write(b"a" * 3 * SECTOR, 0)
    file.sync()
    assert images(file) == {b"a" * 3 * SECTOR}


def test_a_write_that_was_not_synced_is_kept_lost_or_torn_sector_by_sector() -> None:
    file = DiskFile(SECTOR, b"a" * 2 * SECTOR)
    file.write(b"b" * 2 * SECTOR, 0)
    found = images(file)
    sectors = [b"a" * SECTOR, b"b" * SECTOR]
    assert {first + second for first in sectors for second in sectors} <= found
    assert any(0 < image[:SECTOR].count(b"a") < SECTOR for image in found)


def test_bytes_beside_a_write_do_not_change() -> None:
    file = DiskFile(SECTOR, b"a" * SECTOR)
    file.write(b"b" * 10, 100)
    assert all(image[:100] + image[110:] == b"a" * (SECTOR - 10) for image in images(file))


def test_a_file_may_have_grown_and_hold_nothing_that_was_written() -> None:
    file = DiskFile(SECTOR)
    file.write(b"b" * SECTOR, 0)
    found = images(file)
    assert {b"", bytes(SECTOR), b"b" * SECTOR} <= found
    assert any(len(set(image)) > 2 for image in found), "what another file left there"


def test_a_length_that_was_not_synced_is_any_that_it_had() -> None:
    file = DiskFile(SECTOR, b"a" * 4 * SECTOR)
    file.truncate(SECTOR)
    file.truncate(2 * SECTOR)
    assert {len(image) // SECTOR for image in images(file)} == {1, 2, 4}


def test_names_are_forgotten_or_come_back_until_their_folder_is_synced() -> None:
    names = Names({"old": DiskFile(SECTOR)})
    names.put("old", None)
    names.put("new", DiskFile(SECTOR))
    draws = [frozenset(names.left(random.Random(draw), 0.3)) for draw in range(100)]
    assert set(draws) == {frozenset(given) for given in ((), ("old",), ("new",), ("old", "new"))}
    names.sync()
    assert {frozenset(names.left(random.Random(draw), 0.3)) for draw in range(20)} == {
        frozenset({"new"})
    }
