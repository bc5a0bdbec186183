"""Files that only their owner reads: written whole and durably, or not at all.

* Mode 0600 in folders of mode 0700. A file that others can read is refused, not mended: nobody
  knows who has read it.
* :func:`write_new` never replaces a file, however many processes try at once: for keys.
* :func:`replace` puts new content in the place of the old, so that a crash leaves one of both: for
  records of what is public.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nacl import bindings

from wallet.errors import KeystoreError

MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


def read_private(path: Path, max_bytes: int) -> bytes:
    """Return the content, up to one byte more than ``max_bytes`` (which tells that it is more).

    Raises:
        KeystoreError: others can read it, or it is no file.
        FileNotFoundError: there is none.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
            raise KeystoreError("a key file is readable by its owner only (0600)", path=str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)
    finally:
        os.close(handle)


def write_new(path: Path, content: bytes) -> bool:
    """Write a new file; ``False`` if there is one already, which is left as it is."""

    def publish(draft: Path) -> None:
        path.hardlink_to(draft)  # unlike a rename, never replaces what another process made

    try:
        _write(path, content, publish)
    except FileExistsError:
        return False
    return True


def replace(path: Path, content: bytes) -> None:
    """Write the file, whether it is there or not."""

    def publish(draft: Path) -> None:
        draft.replace(path)

    _write(path, content, publish)


def make_folder(folder: Path) -> None:
    """Make a folder for private files, durably; one that is there already is left as it is."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, content: bytes, publish: Callable[[Path], None]) -> None:
    make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{bindings.randombytes(8).hex()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(draft)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)
