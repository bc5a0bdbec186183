"""API keys: a token that stands for a session key with a budget, and how one is made and ended.

What it does: makes a session key, lets the owner's wallet grant it a budget on the ledger, and
stores a record by which a gateway can act for whoever presents the token.

Rules:

* A token is ``rhb_<network>_<32 base32 characters>`` (160 random bits). It is shown once.
* The store knows the token's SHA-256 only. The seed of the session key is sealed under a key
  derived from the token itself: who steals the store can neither call nor sign.
* The budget is the ledger's to enforce, not the gateway's; revoking takes effect there first.

    >>> parse_token("rhb_dev_" + "a" * 32).network
    'dev'
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from base64 import b32encode
from dataclasses import dataclass
from typing import Final

import msgspec
from nacl import bindings, exceptions
from typing_extensions import override

from broker.transports.redis.wire import Wire
from rahba.clock import Clock, SystemClock
from rahba.encoding import b64, sha256_hex, unb64
from rahba.envelope import Signer
from rahba.errors import BadInputError, BadSignatureError, LocalError
from rahba.ids import Ids, RandomIds
from wallet.account import Wallet
from wallet.errors import UnknownSessionError
from wallet.keys import new_seed
from wallet.transactions import Spending

SESSION_TYPES: Final[tuple[Spending, ...]] = ("hold", "release", "challenge")
MAX_LABEL_CHARS: Final = 64
_TOKEN: Final = re.compile(r"rhb_([a-z0-9]{1,16})_([a-z2-7]{32})", re.ASCII)
_INDEX: Final = "{k}:index"
_SECRET_BYTES: Final = 20
_KEPT_MS: Final = 30 * 24 * 3600 * 1000


class KeyRequiredError(LocalError):
    """The route spends or deploys, and the request names no key."""

    code = "key_required"
    hint = "send Authorization: Bearer rhb_…; `rahba keys new` makes one"


class KeyUnknownError(LocalError):
    """No such key is known: mistyped, of another network, or forgotten."""

    code = "key_unknown"


class KeyExpiredError(LocalError):
    """The key is past its time."""

    code = "key_expired"


class KeyRevokedError(LocalError):
    """The owner has revoked the key."""

    code = "key_revoked"


class KeyRecord(msgspec.Struct, frozen=True):
    """What is stored of a key, under the hash of its token. ``sealed`` needs the token to open."""

    hash: str
    network: str
    account: str
    session: str
    sealed: str
    label: str
    budget: str
    created: int
    expires: int
    revoked: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A well-formed token; ``hash`` is all that may be stored or logged of it."""

    text: str
    network: str

    @override
    def __repr__(self) -> str:
        """Name the hash only."""
        return f"Token({self.hash[:8]})"

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the token in hex."""
        return sha256_hex(self.text.encode())

    def box(self) -> Box:
        """Return the box that only this token opens."""
        raw = self.text.encode()
        return Box(hashlib.blake2b(raw, digest_size=32, person=b"rahba.key.box").digest())


class Box:
    """Seals bytes under a token (XSalsa20-Poly1305); without the token nothing opens it."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Keep the 32-byte key."""
        self._key = key

    @override
    def __repr__(self) -> str:
        """Show nothing."""
        return "Box()"

    def seal(self, plain: bytes, ids: Ids) -> str:
        """Return base64 of nonce and sealed bytes."""
        nonce = new_seed(ids)[: bindings.crypto_secretbox_NONCEBYTES]
        return b64(nonce + bindings.crypto_secretbox(plain, nonce, self._key))

    def open(self, sealed: str) -> bytes:
        """Open what :meth:`seal` made.

        Raises:
            BadSignatureError: it was sealed under another token, or altered.
        """
        raw = unb64(sealed)
        try:
            return bindings.crypto_secretbox_open(
                raw[bindings.crypto_secretbox_NONCEBYTES :],
                raw[: bindings.crypto_secretbox_NONCEBYTES],
                self._key,
            )
        except (exceptions.CryptoError, exceptions.ValueError, ValueError) as error:
            raise BadSignatureError("the sealed bytes do not open under this key") from error


def parse_token(text: str) -> Token:
    """Read a token.

    Raises:
        KeyUnknownError: it does not have the form of a token.
    """
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise KeyUnknownError("not an API key of this market")
    return Token(text, match.group(1))


async def issue_key(
    wallet: Wallet,
    wire: Wire,
    budget_fals: int,
    label: str,
    expires_ms: int,
    *,
    network: str = "dev",
    clock: Clock | None = None,
    ids: Ids | None = None,
) -> str:
    """Make a key that may spend ``budget_fals`` of the wallet's account until ``expires_ms``.

    1. Make the session key and the token.
    2. Store the record: from here on the token opens it, but can spend nothing yet.
    3. Grant the session on the ledger. If that is refused the record is removed again.

    Returns:
        The token: it is nowhere else, show it to its owner.
    """
    clock, ids = clock or SystemClock(), ids or RandomIds()
    if not 0 < len(label) <= MAX_LABEL_CHARS:
        raise BadInputError("a label has 1 to 64 characters", limit=MAX_LABEL_CHARS)
    if expires_ms <= clock.now_ms():
        raise BadInputError("the key would be past its time already", expires=expires_ms)
    seed = new_seed(ids)  # 1
    secret = new_seed(ids)[:_SECRET_BYTES]
    token = parse_token(f"rhb_{network}_{b32encode(secret).decode().lower()}")
    record = KeyRecord(
        hash=token.hash,
        network=network,
        account=wallet.account,
        session=Signer(seed).did,
        sealed=token.box().seal(seed, ids),
        label=label,
        budget=str(budget_fals),
        created=clock.now_ms(),
        expires=expires_ms,
    )
    await _store(wire, record)  # 2
    try:
        await wallet.grant(  # 3
            record.session, budget_fals, budget_fals, None, SESSION_TYPES, expires_ms
        )
    except BaseException:
        await wire.call("DEL", _place(record.hash))
        await wire.call("ZREM", _INDEX, record.hash)
        raise
    return token.text


async def revoke_key(
    wallet: Wallet, wire: Wire, key_hash: str, *, clock: Clock | None = None
) -> KeyRecord:
    """End a key: its session on the ledger first, then its record. Again is harmless.

    Raises:
        KeyUnknownError: no key of this account has that hash.
    """
    record = await find_key(wire, key_hash)
    if record is None or record.account != wallet.account:
        raise KeyUnknownError("this account has no such key", hash=key_hash[:64])
    if record.revoked is not None:
        return record
    with contextlib.suppress(UnknownSessionError):  # revoked before, and the record not written
        await wallet.revoke(record.session)
    ended = msgspec.structs.replace(record, revoked=(clock or SystemClock()).now_ms())
    await _store(wire, ended)
    return ended


async def list_keys(wire: Wire, *, account: str | None = None) -> list[KeyRecord]:
    """Return the keys, newest first, of one account or of all."""
    hashes: list[bytes] = await wire.call("ZRANGE", _INDEX, 0, 999, "REV")
    found = [await find_key(wire, name.decode()) for name in hashes]
    return [key for key in found if key is not None and account in {None, key.account}]


async def find_key(wire: Wire, key_hash: str) -> KeyRecord | None:
    """Return the record under the hash of a token."""
    raw = await wire.call("GET", _place(key_hash))
    return None if raw is None else msgspec.json.decode(raw, type=KeyRecord)


async def _store(wire: Wire, record: KeyRecord) -> None:
    await wire.call("ZADD", _INDEX, record.created, record.hash)
    await wire.call(
        "SET", _place(record.hash), msgspec.json.encode(record), "PXAT", record.expires + _KEPT_MS
    )


def _place(key_hash: str) -> str:
    return f"{{k:{key_hash}}}"
