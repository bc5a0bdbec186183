"""Private files: their owner's alone, whole or not there, never replaced by accident."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from wallet.errors import KeystoreError
from wallet.private_files import make_folder, read_private, replace, write_new


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_private_in_private_folders_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "a" / "b" / "key"
        assert write_new(path, b"one")
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert read_private(path, 100) == b"one"


def test_a_file_that_is_there_is_not_written_again_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert write_new(path, b"one")
    assert not write_new(path, b"two")
    assert read_private(path, 100) == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_a_record_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "record"
    replace(path, b"one")
    replace(path, b"two")
    assert read_private(path, 100) == b"two"
    assert mode(path) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["record"]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record"
    replace(path, b"one")

    def full(handle: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("wallet.private_files.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        replace(path, b"two")
    assert read_private(path, 100) == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["record"]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o644, 0o610])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "key"
    write_new(path, b"one")
    path.chmod(bits)
    with pytest.raises(KeystoreError, match="0600"):
        read_private(path, 100)


def test_a_folder_or_a_pipe_is_no_private_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(KeystoreError):
            read_private(path, 100)


def test_a_file_beyond_its_limit_is_seen_to_be(tmp_path: Path) -> None:
    write_new(tmp_path / "key", b"x" * 50)
    assert len(read_private(tmp_path / "key", 10)) == 11


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    make_folder(tmp_path / "open")
    assert mode(tmp_path / "open") == 0o755
