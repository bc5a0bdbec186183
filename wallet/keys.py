"""Where keys sleep: files that only their owner reads.

* :func:`save_keystore` locks a seed with a passphrase (argon2id, then SecretBox); to open one
  takes about a second, on purpose.
* :func:`agent_signer` keeps a bare seed of 32 bytes, for hosts that must start by themselves.
* Files have mode 0600, are written whole and synced before they get their name, and are never
  overwritten. A file that others can read is refused.

Seeds never leave this module but inside a :class:`~rahba.envelope.Signer`.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from nacl import bindings, exceptions, pwhash, secret

from rahba.encoding import b64, canonical, decode_as, unb64
from rahba.envelope import Signer
from rahba.errors import RahbaError
from rahba.ids import Ids, RandomIds
from wallet.errors import KeystoreError

SEED_BYTES: Final = 32
MAX_FILE_BYTES: Final = 4_096
MEMORY_BYTES: Final = 64 * 1024 * 1024
PASSES: Final = 3
_MODE: Final = 0o600


class _Keystore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: public name of the key, what the passphrase goes through, and the locked seed."""

    did: str
    kdf: Literal["argon2id"]
    memory: Annotated[int, msgspec.Meta(ge=pwhash.argon2id.MEMLIMIT_MIN, le=2**30)]
    passes: Annotated[int, msgspec.Meta(ge=1, le=16)]
    salt: str
    box: str
    v: Literal[1]


def new_seed(ids: Ids) -> bytes:
    """Return 32 random bytes for a key."""
    return bytes.fromhex(ids.new() + ids.new())


def agent_signer(path: Path, *, ids: Ids | None = None) -> Signer:
    """Return the signer of the bare key file ``path``, making the file the first time.

    Raises:
        KeystoreError: the file is readable by others, or not 32 bytes.
    """
    try:
        seed = _load(path)
    except FileNotFoundError:
        _save(path, new_seed(ids or RandomIds()))
        seed = _load(path)
    if len(seed) != SEED_BYTES:
        raise KeystoreError("a key file has 32 bytes", path=str(path))
    return Signer(seed)


def save_keystore(
    path: Path,
    seed: bytes,
    passphrase: str,
    *,
    ids: Ids | None = None,
    memory: int = MEMORY_BYTES,
    passes: int = PASSES,
) -> None:
    """Lock ``seed`` with ``passphrase`` in the new file ``path``.

    Raises:
        KeystoreError: the file exists.
    """
    ids = ids or RandomIds()
    salt = bytes.fromhex(ids.new())
    nonce = bytes.fromhex(ids.new() + ids.new())[: secret.SecretBox.NONCE_SIZE]
    key = _stretch(passphrase, salt, memory, passes)
    store = _Keystore(
        did=Signer(seed).did,
        kdf="argon2id",
        memory=memory,
        passes=passes,
        salt=b64(salt),
        box=b64(bytes(secret.SecretBox(key).encrypt(seed, nonce))),
        v=1,
    )
    if not _save(path, canonical(store)):
        raise KeystoreError("a key is never overwritten", path=str(path))


def open_keystore(path: Path, passphrase: str) -> Signer:
    """Return the signer locked in ``path``.

    Raises:
        KeystoreError: no such file, readable by others, damaged, or the wrong passphrase.
    """
    try:
        store = decode_as(_load(path), _Keystore, max_bytes=MAX_FILE_BYTES)
        key = _stretch(passphrase, unb64(store.salt), store.memory, store.passes)
        signer = Signer(secret.SecretBox(key).decrypt(unb64(store.box)))
    except exceptions.CryptoError as error:
        raise KeystoreError("wrong passphrase, or a damaged file", path=str(path)) from error
    except (RahbaError, ValueError, OSError) as error:
        raise KeystoreError(f"not a keystore: {error}", path=str(path)) from error
    if signer.did != store.did:
        raise KeystoreError("the keystore holds another key than it says", path=str(path))
    return signer


def _stretch(passphrase: str, salt: bytes, memory: int, passes: int) -> bytes:
    return pwhash.argon2id.kdf(
        secret.SecretBox.KEY_SIZE, passphrase.encode(), salt, opslimit=passes, memlimit=memory
    )


def _load(path: Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
            raise KeystoreError("a key file is readable by its owner only (0600)", path=str(path))
        return os.read(handle, MAX_FILE_BYTES + 1)
    finally:
        os.close(handle)


def _save(path: Path, content: bytes) -> bool:
    """Write a new file durably; ``False`` if there is one already, which is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{bindings.randombytes(8).hex()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        os.write(handle, content)
        os.fsync(handle)
        os.link(draft, path)  # unlike a rename, never replaces what another process made
    except FileExistsError:
        return False
    finally:
        os.close(handle)
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
