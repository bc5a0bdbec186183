"""The lock of the one process that writes a ledger's file; its bytes count that process's beats.

The lock of a process that is frozen cannot be taken from it. Who takes its place puts another
file in the place of this one, once the fencing token keeps the frozen one from writing.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from wallet.errors import StoreLockedError


class LockFile:
    """Held from when it is made until it is closed, or its process ends."""

    def __init__(self, path: Path, *, steal: bool = False) -> None:
        """Lock the file; with ``steal`` one of ours, if another process has it.

        Raises:
            StoreLockedError: another process has it.
        """
        self._path = path
        self._draft: Path | None = None
        self._beat = 0
        handle = _locked(path)
        if handle is None:
            if not steal:
                raise StoreLockedError("another process has this ledger open", path=str(path))
            handle, name = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._draft = Path(name)
        self._handle = handle

    def settle(self) -> None:
        """Put our file where others look: who had the lock is fenced now."""
        if self._draft is not None:
            self._draft.replace(self._path)
            self._draft = None

    def beat(self) -> None:
        """Count one more; who watches runs on the same machine, so no disk need know."""
        self._beat += 1
        os.pwrite(self._handle, self._beat.to_bytes(8, "big"), 0)

    def close(self) -> None:
        """Let go of the lock; may be called twice. The file stays."""
        if self._draft is not None:
            self._draft.unlink(missing_ok=True)
            self._draft = None
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def read_beat(path: Path) -> int:
    """Return what whoever holds the lock has counted."""
    with suppress(FileNotFoundError):
        return int.from_bytes(path.read_bytes()[:8], "big")
    return 0


def _locked(path: Path) -> int | None:
    """Open and lock the file that is at ``path``; ``None`` if another process has the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # another file was put there meanwhile
