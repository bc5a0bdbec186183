"""Bare keys of hosts that must start by themselves: files of 32 bytes.

* A key is made once, by whoever comes first, and never overwritten (:mod:`wallet.private_files`).
* A key that a person holds sleeps behind a passphrase instead: :mod:`wallet.keystore`.

Seeds never leave this module but inside a :class:`~rahba.envelope.Signer`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rahba.envelope import Signer
from rahba.ids import Ids, RandomIds
from wallet.errors import KeystoreError
from wallet.private_files import read_private, write_new

SEED_BYTES: Final = 32


def new_seed(ids: Ids) -> bytes:
    """Return 32 random bytes for a key."""
    return bytes.fromhex(ids.new() + ids.new())


def agent_signer(path: Path, *, ids: Ids | None = None) -> Signer:
    """Return the signer of the bare key file ``path``, making the file the first time.

    Raises:
        KeystoreError: the file is readable by others, or not 32 bytes.
    """
    try:
        return bare_signer(path)
    except FileNotFoundError:
        write_new(path, new_seed(ids or RandomIds()))
        return bare_signer(path)


def bare_signer(path: Path) -> Signer:
    """Return the signer of a bare key file that is there.

    Raises:
        KeystoreError: the file is readable by others, or not 32 bytes.
        FileNotFoundError: there is none.
    """
    seed = read_private(path, SEED_BYTES)
    if len(seed) != SEED_BYTES:
        raise KeystoreError("a key file has 32 bytes", path=str(path))
    return Signer(seed)
