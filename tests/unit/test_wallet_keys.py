"""Key files: readable by their owner only, written whole, never overwritten."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from rahba.ids import RandomIds
from wallet.errors import KeystoreError
from wallet.keys import agent_signer, bare_signer, new_seed


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_agents_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "agents" / "a" / "key"
    signer = agent_signer(path)
    assert agent_signer(path).did == signer.did
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["key"]
    assert len(path.read_bytes()) == 32


def test_two_hosts_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    path, found = tmp_path / "key", []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(agent_signer(path).did)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeystoreError, match="32 bytes"):
        agent_signer(path)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "key"
    agent_signer(path)
    path.chmod(bits)
    with pytest.raises(KeystoreError, match="0600"):
        agent_signer(path)


def test_a_key_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bare_signer(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


def test_seeds_are_32_fresh_bytes() -> None:
    first, second = new_seed(RandomIds()), new_seed(RandomIds())
    assert len(first) == len(second) == 32
    assert first != second
