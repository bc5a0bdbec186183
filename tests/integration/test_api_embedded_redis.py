"""The embedded server: one process, one directory, nothing orphaned."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis

from api.embedded_redis import (
    DirectoryInUseError,
    EmbeddedRedis,
    NoServerProgramError,
    ServerStartError,
    find_program,
)
from tests.fixtures.broker import kill_now

OWNER = """
import sys, time
from pathlib import Path
from api.embedded_redis import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1]))
print(server.start(), server.pid, flush=True)
time.sleep(60)
"""


def wait_until_gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_data_and_address_survive_a_restart(server_directory: Path) -> None:
    server = EmbeddedRedis(server_directory)
    url = server.start()
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
    pid = server.pid
    assert pid is not None
    server.stop()
    assert wait_until_gone(pid)
    assert server.pid is None
    assert EmbeddedRedis(server_directory).directory == server_directory.resolve()
    again = EmbeddedRedis(server_directory)
    assert again.start() == url
    with redis.Redis.from_url(url) as client:
        assert client.get("key") == b"value"
    again.stop()


def test_a_directory_with_an_odd_name_will_do(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / 'two words, a "quote" and a \\')
    with redis.Redis.from_url(server.start()) as client:
        assert client.ping()
    server.stop()


def test_starting_twice_is_starting_once(server_directory: Path) -> None:
    server = EmbeddedRedis(server_directory)
    assert server.start() == server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()


def test_a_killed_server_comes_back_at_its_address(server_directory: Path) -> None:
    server = EmbeddedRedis(server_directory)
    url = server.start()
    kill_now(server)
    assert not server.running
    assert server.start() == url
    server.stop()


def test_strangers_are_refused_and_secrets_are_private(server_directory: Path) -> None:
    server = EmbeddedRedis(server_directory)
    url = server.start()
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    with redis.Redis(port=port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    for name in ("server.json", "redis.conf"):
        assert stat.S_IMODE((server_directory / name).stat().st_mode) == 0o600
    pid = server.pid
    assert pid is not None
    assert url.split(":")[2].split("@")[0] not in " ".join(psutil.Process(pid).cmdline())
    server.stop()


def test_two_markets_do_not_share_a_directory(server_directory: Path) -> None:
    server = EmbeddedRedis(server_directory)
    server.start()
    pid = server.pid
    with pytest.raises(DirectoryInUseError):
        EmbeddedRedis(server_directory).start()
    assert server.pid == pid
    server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_the_server_ends_when_its_owner_is_killed(server_directory: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(server_directory)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        url, pid = owner.stdout.readline().split()
        owner.kill()
    assert wait_until_gone(int(pid))
    server = EmbeddedRedis(server_directory)
    assert server.start() == url
    server.stop()


def test_an_orphan_is_ended_by_the_next_start(server_directory: Path) -> None:
    server = EmbeddedRedis(server_directory)
    url = server.start()
    server.stop()
    program = find_program()
    orphan = subprocess.Popen([program, "redis.conf"], cwd=server_directory)
    deadline = time.monotonic() + 5
    while not (server_directory / "redis.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.start() == url
    assert orphan.wait(5) is not None
    assert server.pid != orphan.pid
    server.stop()


def test_a_pidfile_that_names_somebody_else_harms_nobody(server_directory: Path) -> None:
    server_directory.mkdir(parents=True)
    bystander = subprocess.Popen(["sleep", "30"], cwd=server_directory)
    for content in (str(bystander.pid), "not a pid", "", "999999999"):
        (server_directory / "redis.pid").write_text(content)
        server = EmbeddedRedis(server_directory)
        server.start()
        server.stop()
        assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_taken_port_is_replaced_by_a_free_one(server_directory: Path, tmp_path: Path) -> None:
    first = EmbeddedRedis(server_directory)
    first.start()
    other_directory = tmp_path / "other"
    other_directory.mkdir()
    shutil.copy(server_directory / "server.json", other_directory / "server.json")
    other = EmbeddedRedis(other_directory)
    assert other.start() != first.url
    other.stop()
    first.stop()


@pytest.mark.parametrize("kept", [b"", b"{", b'{"port": "\xff"}'])
def test_a_garbled_address_is_chosen_anew(server_directory: Path, kept: bytes) -> None:
    server_directory.mkdir(exist_ok=True)
    (server_directory / "server.json").write_bytes(kept)
    server = EmbeddedRedis(server_directory)
    with redis.Redis.from_url(server.start()) as client:
        assert client.ping()
    server.stop()


def test_a_server_that_does_not_start_says_why(server_directory: Path) -> None:
    server = EmbeddedRedis(server_directory, program=Path("/bin/false"))
    with pytest.raises(ServerStartError):
        server.start()
    assert not server.running
    server_directory.joinpath("appendonlydir").mkdir(exist_ok=True)
    manifest = server_directory / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("nonsense\n")
    with pytest.raises(ServerStartError) as raised:
        EmbeddedRedis(server_directory).start()
    assert "AOF" in str(raised.value.facts["log"])


def test_a_machine_without_any_server_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoServerProgramError) as raised:
        find_program()
    assert "REDIS_URL" in raised.value.hint


def test_a_server_on_the_path_is_found_without_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program() == program


def test_termination_leaves_no_process_behind(server_directory: Path) -> None:
    server = EmbeddedRedis(server_directory)
    server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)
    server.stop()
    assert wait_until_gone(pid)
    assert not (server_directory / "redis.pid").exists()
