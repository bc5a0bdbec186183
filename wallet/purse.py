"""The folder of one wallet: which key signs for its account, which one comes next, its outbox.

* The record (``wallet.json``) is public knowledge: whose account it is, the key in force, the key
  that a rotation brings in, and those that were replaced. It is written whole, and only when a
  rotation moves; without one the first key is in force. The keys' own files are never touched.
* A named wallet is locked by a passphrase. The wallet of a market's owner is a bare key, so that
  the market starts by itself; it can be rotated all the same.
* A key goes through ``prepare`` -> ``announce`` -> ``activate`` or ``abandon``, each durable when
  it returns: after a crash at any point a key is there that signs, and which one is known as soon
  as the ledger has answered (:mod:`wallet.rotation`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from rahba.encoding import canonical, decode_as
from rahba.envelope import Signer
from rahba.errors import BadInputError, LocalError, RahbaError
from rahba.ids import Ids, short
from wallet.errors import KeystoreError
from wallet.keys import agent_signer, bare_signer, new_seed
from wallet.keystore import Origin, bare_origin, label_of, open_keystore, save_keystore
from wallet.private_files import make_folder, read_private, replace, write_new
from wallet.slip10 import next_path, parse_path

FOLDER: Final = "wallets"
OWNER: Final = "owner"
MAX_RECORD_BYTES: Final = 64 * 1024
MAX_RETIRED: Final = 256
_CHAIN: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)


class UnknownWalletError(LocalError):
    """There is no wallet of that name in the data folder."""

    code = "unknown_wallet"
    hint = "`rahba wallet ls` lists them, `rahba wallet new NAME` makes one"


class WalletExistsError(LocalError):
    """A wallet of that name is there already; it is never overwritten."""

    code = "wallet_exists"
    hint = "choose another name"


class WalletBusyError(LocalError):
    """Another process is rotating this wallet's key."""

    code = "wallet_busy"
    retryable = True


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a key of the wallet sleeps: its file, and its path below the phrase in it, if any."""

    did: str
    file: str
    path: str | None


class Coming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The key that a rotation brings in; ``tx`` once the rotation is signed."""

    key: Key
    tx: str | None


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What everybody may know of a wallet. ``account`` is the ``did:key`` of its first key."""

    account: str
    active: Key
    coming: Coming | None
    retired: tuple[Key, ...]
    v: Literal[1] = 1


class Purse:
    """One wallet's folder; :meth:`owner` and :meth:`named` find it."""

    def __init__(self, folder: Path, name: str, *, first: str, locked: bool) -> None:
        """Use ``folder``; ``first`` names the file of the first key, ``locked`` or bare."""
        self.name = name
        self.locked = locked
        self._folder = folder
        self.first = folder / first
        stem = "wallet" if locked else OWNER
        self._record = folder / f"{stem}.json"
        self.outbox = folder / f"{stem}.outbox"

    @classmethod
    def owner(cls, data_dir: Path) -> Purse:
        """Return the bare wallet of a market's owner, making its key the first time."""
        purse = cls(data_dir, OWNER, first=f"{OWNER}.key", locked=False)
        agent_signer(purse.first)
        return purse

    @classmethod
    def named(cls, data_dir: Path, name: str) -> Purse:
        """Return a named wallet.

        Raises:
            UnknownWalletError: there is none.
        """
        purse = cls._at(data_dir, name)
        if not purse.first.exists():
            raise UnknownWalletError("there is no such wallet", name=name)
        return purse

    @classmethod
    def create(cls, data_dir: Path, name: str, origin: Origin, passphrase: str) -> Purse:
        """Make a named wallet from ``origin``, locked with ``passphrase``.

        Raises:
            WalletExistsError: there is one.
        """
        purse = cls._at(data_dir, name)
        path = purse.first
        if path.exists():
            raise WalletExistsError("there is a wallet of that name", name=name)
        save_keystore(path, origin, passphrase)
        return purse

    @classmethod
    def all_named(cls, data_dir: Path) -> list[Purse]:
        """Return the named wallets, by name."""
        names = sorted(path.name for path in (data_dir / FOLDER).glob("*/") if path.is_dir())
        purses = [cls._at(data_dir, name) for name in names if _NAME.fullmatch(name)]
        return [purse for purse in purses if purse.first.exists()]

    @classmethod
    def _at(cls, data_dir: Path, name: str) -> Purse:
        if _NAME.fullmatch(name) is None or name == OWNER:
            raise BadInputError("a wallet's name is 1 to 32 of a-z, 0-9 and -, and not `owner`")
        return cls(data_dir / FOLDER / name, name, first="keystore.json", locked=True)

    @property
    def account(self) -> str:
        """Return the account that this wallet acts for."""
        return self.record().account

    def seen(self, chain: str) -> Path:
        """Return the file of the newest checkpoint that was seen of a chain's log."""
        if _CHAIN.fullmatch(chain) is None:
            raise BadInputError("a chain's id is 16 lower-case hex digits")
        return self._record.with_suffix(f".{chain}.seen")

    def record(self) -> Record:
        """Return what is known of the wallet's keys.

        Raises:
            KeystoreError: the record is damaged.
        """
        first = self._first_record()
        try:
            raw = read_private(self._record, MAX_RECORD_BYTES)
            record = decode_as(raw, Record, max_bytes=MAX_RECORD_BYTES)
        except FileNotFoundError:
            return first
        except RahbaError as error:
            raise KeystoreError(
                f"the wallet's record is damaged: {error}", path=str(self._record)
            ) from error
        if record.account != first.account:
            raise KeystoreError("the record is another wallet's", path=str(self._record))
        return record

    def signer(self, passphrase: str | None, key: Key | None = None) -> Signer:
        """Return the signer of a key of this wallet (default: the one in force).

        Raises:
            WrongPassphraseError, KeystoreError: the key cannot be opened.
        """
        key = key or self.record().active
        path = self._folder / key.file
        if self.locked:
            signer = open_keystore(path, passphrase or "").signer(key.path)
        else:
            signer = bare_signer(path)
        if signer.did != key.did:
            raise KeystoreError("the file holds another key than it should", path=str(path))
        return signer

    def origin(self, passphrase: str | None) -> Origin:
        """Open what the key in force comes from, for the account of this wallet."""
        record = self.record()
        path = self._folder / record.active.file
        found = open_keystore(path, passphrase or "") if self.locked else bare_origin(path)
        return found.at(record.active.path, record.account)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes from rotating this wallet meanwhile.

        Raises:
            WalletBusyError: one is at it.
        """
        make_folder(self._folder)
        path = self._record.with_suffix(".lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WalletBusyError("another process is at it", name=self.name) from error
            yield
        finally:
            os.close(handle)

    def prepare(self, passphrase: str | None, ids: Ids, given: Origin | None = None) -> Key:
        """Make the next key and write down that it is coming; one that is already, stays.

        It is ``given``, or the next below the phrase of the key in force, or a fresh one.
        """
        record = self.record()
        if record.coming is not None:
            if given is not None and given.did != record.coming.key.did:
                raise BadInputError("another rotation of this wallet has begun: finish it first")
            return record.coming.key
        if len(record.retired) >= MAX_RETIRED:
            raise BadInputError("the wallet was rotated too often", limit=MAX_RETIRED)
        key = self._next(record, passphrase, ids, given)
        self._save(msgspec.structs.replace(record, coming=Coming(key, None)))
        return key

    def announce(self, tx_id: str) -> None:
        """Write down which transaction brings the coming key in."""
        record = self.record()
        assert record.coming is not None
        coming = msgspec.structs.replace(record.coming, tx=tx_id)
        self._save(msgspec.structs.replace(record, coming=coming))

    def activate(self) -> None:
        """Put the coming key in force: the ledger has logged its rotation."""
        record = self.record()
        assert record.coming is not None
        retired = (*record.retired, record.active)
        self._save(
            msgspec.structs.replace(record, active=record.coming.key, coming=None, retired=retired)
        )

    def abandon(self) -> None:
        """Keep the key in force: the ledger has refused the rotation. The other's file stays."""
        record = self.record()
        assert record.coming is not None
        retired = (*record.retired, record.coming.key)
        self._save(msgspec.structs.replace(record, coming=None, retired=retired))

    def adopt(self, path: str, did: str) -> None:
        """Take the key at ``path`` as the one in force: a wallet that comes back from its phrase.

        Refused once the wallet was rotated here, when its own record knows better.
        """
        record = self.record()
        if record.coming is not None or record.retired:
            raise BadInputError("this wallet knows its keys already")
        active = Key(did, record.active.file, path)
        if active != record.active:
            self._save(msgspec.structs.replace(record, active=active, retired=(record.active,)))

    def _first_record(self) -> Record:
        if not self.locked:
            did = account = bare_signer(self.first).did
            path = None
        else:
            did, path, account = label_of(self.first)
        return Record(account, Key(did, self.first.name, path), None, ())

    def _next(self, record: Record, passphrase: str | None, ids: Ids, given: Origin | None) -> Key:
        active = record.active
        if not self.locked:
            if given is not None:
                raise BadInputError("the owner's wallet takes fresh keys only")
            seed = new_seed(ids)
            key = Key(Signer(seed).did, f"{OWNER}-{short(Signer(seed).did)}.key", None)
            if not write_new(self._folder / key.file, seed):
                raise KeystoreError("a key is never overwritten", path=key.file)
            return key
        origin = self.origin(passphrase)
        if given is None and origin.has_phrase:
            path = _unused_path(record)
            return Key(origin.signer(path).did, active.file, path)
        fresh = given or Origin.from_seed(new_seed(ids))
        key = Key(fresh.did, f"key-{short(fresh.did)}.json", fresh.path)
        if not (self._folder / key.file).exists():  # left by a crash before it was written down
            save_keystore(self._folder / key.file, fresh, passphrase or "")
        return key

    def _save(self, record: Record) -> None:
        replace(self._record, canonical(record))


def _unused_path(record: Record) -> str:
    """Return the path after the last one that was ever used below the phrase in force."""
    used = [key for key in (record.active, *record.retired) if key.file == record.active.file]
    paths = [key.path for key in used if key.path is not None]
    siblings = [path for path in paths if _parent(path) == _parent(record.active.path or "m")]
    return next_path(max(siblings, key=parse_path))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
