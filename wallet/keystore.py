"""Keys behind a passphrase: what they come from, locked in a file that may be copied anywhere.

* An :class:`Origin` is what keys come from: a recovery phrase, from which every key of a wallet
  comes back (:mod:`wallet.phrase`, :mod:`wallet.slip10`), or one bare seed.
* The passphrase goes through argon2id (about a second, on purpose) and opens a SecretBox. Composed
  and decomposed letters (NFKD) are the same passphrase.
* Outside the box lie the ``did:key`` and the path of the key, and the account if it has another
  name (that of its first key, which was rotated), so that a wallet can be recognised without being
  opened; the box says them again, and it is the box that is believed.
* Files have mode 0600 and are never overwritten. Files of the first version are still read.

Phrase and seed never show in a repr, an error or a log; :meth:`Origin.reveal` alone hands a phrase
out, to be written down.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from nacl import exceptions, pwhash, secret
from typing_extensions import override

from rahba.encoding import b64, canonical, decode_as, unb64
from rahba.envelope import Signer
from rahba.errors import BadInputError, RahbaError
from rahba.ids import Ids, RandomIds
from wallet.errors import KeystoreError
from wallet.keys import SEED_BYTES, new_seed
from wallet.phrase import check_phrase, seed_of
from wallet.private_files import read_private, write_new
from wallet.slip10 import agent_path, derive, parse_path

MAX_FILE_BYTES: Final = 16_384
MAX_PASSPHRASE_CHARS: Final = 1_024
MEMORY_BYTES: Final = 64 * 1024 * 1024
PASSES: Final = 3
Memory = Annotated[int, msgspec.Meta(ge=pwhash.argon2id.MEMLIMIT_MIN, le=2**30)]
Passes = Annotated[int, msgspec.Meta(ge=1, le=16)]


class WrongPassphraseError(KeystoreError):
    """The passphrase is not the one that the keystore was locked with, or the file is damaged."""

    code = "wrong_passphrase"
    hint = "try again; without its passphrase a wallet comes back from its recovery phrase only"


class _Keystore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: whose key it is, what the passphrase goes through, and the locked :class:`_Box`.

    In a file of the first version the box holds a bare seed.
    """

    did: str
    kdf: Literal["argon2id"]
    memory: Memory
    passes: Passes
    salt: str
    box: str
    v: Literal[1, 2]
    path: str | None = None
    account: str | None = None


class _Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the box holds: a phrase with its own passphrase and path, or a seed."""

    did: str
    path: str | None
    phrase: str | None
    extra: str | None
    seed: str | None
    account: str | None = None

    @override
    def __repr__(self) -> str:
        """Name the public half only."""
        return f"_Box({self.did})"


class Origin:
    """What the keys of a wallet come from. Never prints it.

    ``did`` and ``path`` are those of one key, ``account`` is the one that it acts for.
    """

    __slots__ = ("_extra", "_phrase", "_seed", "account", "did", "path")

    def __init__(self, seed: bytes, path: str | None, phrase: str, extra: str) -> None:
        """Use :meth:`from_phrase` or :meth:`from_seed`."""
        self._seed = seed
        self._phrase = phrase
        self._extra = extra
        self.path = path
        self.did = self.signer().did
        self.account = self.did

    @classmethod
    def from_phrase(cls, phrase: str, extra: str = "", path: str | None = None) -> Origin:
        """Take a recovery phrase, its optional passphrase, and the path of a key.

        Raises:
            BadPhraseError, BadPathError: accordingly.
        """
        path = path or agent_path()
        parse_path(path)
        phrase = check_phrase(phrase)
        return cls(seed_of(phrase, extra), path, phrase, extra)

    @classmethod
    def from_seed(cls, seed: bytes) -> Origin:
        """Take the 32 bytes of one key."""
        if len(seed) != SEED_BYTES:
            raise BadInputError(f"a seed has {SEED_BYTES} bytes")
        return cls(seed, None, "", "")

    @override
    def __repr__(self) -> str:
        """Name the public half only."""
        return f"Origin({self.did})"

    @property
    def has_phrase(self) -> bool:
        """Say whether further keys can be derived, and a phrase be written down."""
        return bool(self._phrase)

    def at(self, path: str | None, account: str) -> Origin:
        """Return the same origin for the key at ``path`` that acts for ``account``."""
        found = Origin(self._seed, path, self._phrase, self._extra)
        found.account = account
        return found

    def signer(self, path: str | None = None) -> Signer:
        """Return the signer of the key, or of another one at ``path``."""
        if not self._phrase:
            if path is not None:
                raise KeystoreError("a bare key has no others below it")
            return Signer(self._seed)
        return Signer(derive(self._seed, path or self.path or agent_path()).seed)

    def reveal(self) -> str:
        """Return the phrase, to be shown to its owner and nobody else.

        Raises:
            KeystoreError: this is a bare key.
        """
        if not self._phrase:
            raise KeystoreError("this key came without a recovery phrase")
        return self._phrase

    @property
    def elsewhere(self) -> str | None:
        """Return the account if it has another name than the key, as it is written down."""
        return None if self.account == self.did else self.account

    def boxed(self) -> bytes:
        """Return what goes into the box of a keystore."""
        seed = None if self._phrase else b64(self._seed)
        phrase, extra = self._phrase or None, self._extra or None
        return canonical(_Box(self.did, self.path, phrase, extra, seed, self.elsewhere))


def save_keystore(
    path: Path,
    origin: Origin,
    passphrase: str,
    *,
    ids: Ids | None = None,
    memory: int = MEMORY_BYTES,
    passes: int = PASSES,
) -> None:
    """Lock ``origin`` with ``passphrase`` in the new file ``path``.

    Raises:
        KeystoreError: the file exists, or the passphrase is empty.
    """
    if not 0 < len(passphrase) <= MAX_PASSPHRASE_CHARS:
        raise KeystoreError(f"a passphrase has 1 to {MAX_PASSPHRASE_CHARS} characters")
    ids = ids or RandomIds()
    salt = bytes.fromhex(ids.new())
    nonce = new_seed(ids)[: secret.SecretBox.NONCE_SIZE]
    key = _stretch(_spelled(passphrase), salt, memory, passes)
    store = _Keystore(
        did=origin.did,
        path=origin.path,
        kdf="argon2id",
        memory=memory,
        passes=passes,
        salt=b64(salt),
        box=b64(bytes(secret.SecretBox(key).encrypt(origin.boxed(), nonce))),
        v=2,
        account=origin.elsewhere,
    )
    if not write_new(path, canonical(store)):
        raise KeystoreError("a key is never overwritten", path=str(path))


def open_keystore(path: Path, passphrase: str) -> Origin:
    """Return what is locked in ``path``.

    Raises:
        WrongPassphraseError: the passphrase does not open the box.
        KeystoreError: no such file, readable by others, or damaged.
    """
    try:
        store = _load(path)
        spelled = passphrase if store.v == 1 else _spelled(passphrase)
        key = _stretch(spelled, unb64(store.salt), store.memory, store.passes)
        plain = secret.SecretBox(key).decrypt(unb64(store.box))
        origin = _unbox(store, plain)
    except exceptions.CryptoError:
        raise WrongPassphraseError(
            "wrong passphrase, or a damaged file", path=str(path)
        ) from None  # what was tried is nobody's business
    except (RahbaError, ValueError, OSError) as error:
        raise KeystoreError(f"not a keystore: {error}", path=str(path)) from error
    if (origin.did, origin.path, origin.elsewhere) != (store.did, store.path, store.account):
        raise KeystoreError("the keystore holds another key than it says", path=str(path))
    return origin


class Label(NamedTuple):
    """What a keystore says it holds, before it is opened."""

    did: str
    path: str | None
    account: str


def label_of(path: Path) -> Label:
    """Read what a keystore says it holds.

    Raises:
        KeystoreError: no such file, readable by others, or damaged.
    """
    try:
        store = _load(path)
    except (RahbaError, ValueError, OSError) as error:
        raise KeystoreError(f"not a keystore: {error}", path=str(path)) from error
    return Label(store.did, store.path, store.account or store.did)


def bare_origin(path: Path) -> Origin:
    """Return the origin that a bare key file is (:func:`wallet.keys.agent_signer`)."""
    return Origin.from_seed(read_private(path, SEED_BYTES))


def _load(path: Path) -> _Keystore:
    return decode_as(read_private(path, MAX_FILE_BYTES), _Keystore, max_bytes=MAX_FILE_BYTES)


def _unbox(store: _Keystore, plain: bytes) -> Origin:
    if store.v == 1:
        return Origin.from_seed(plain)
    box = decode_as(plain, _Box, max_bytes=MAX_FILE_BYTES)
    if box.phrase is not None:
        found = Origin.from_phrase(box.phrase, box.extra or "", box.path)
    elif box.seed is not None:
        found = Origin.from_seed(unb64(box.seed))
    else:
        raise BadInputError("the box is empty")
    return found.at(found.path, box.account or found.did)


def _spelled(passphrase: str) -> str:
    return unicodedata.normalize("NFKD", passphrase)


def _stretch(passphrase: str, salt: bytes, memory: int, passes: int) -> bytes:
    return pwhash.argon2id.kdf(
        secret.SecretBox.KEY_SIZE, passphrase.encode(), salt, opslimit=passes, memlimit=memory
    )
