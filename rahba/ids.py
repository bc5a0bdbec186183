"""Names of things: agents are ``did:key`` of their Ed25519 key; the rest are 128-bit random ids.

``did:key`` = "did:key:z" + base58btc(0xed 0x01 + 32 key bytes); see the W3C CCG did:key method.
Randomness comes in as an :class:`Ids` so that a test can replay it.
"""

from __future__ import annotations

import re
import secrets
from functools import lru_cache
from typing import Final, Protocol

from nacl import bindings

from rahba.errors import BadInputError

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_INDEX: Final = {char: value for value, char in enumerate(_ALPHABET)}
_ED25519: Final = b"\xed\x01"
_PREFIX: Final = "did:key:z"
_DID_CHARS: Final = 56
_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SKILL: Final = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+){0,7}", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class BadIdError(BadInputError):
    """An id is malformed or names a key that is no valid curve point."""

    code = "bad_id"


class Ids(Protocol):
    """Makes fresh ids and salts."""

    def new(self) -> str:
        """Return 128 random bits as 32 lower-case hex digits."""
        ...

    def salt(self) -> int:
        """Return a random integer below 2^53, never 0."""
        ...


class RandomIds:
    """Ids from the machine's secure randomness."""

    def new(self) -> str:
        """Return 128 random bits as 32 lower-case hex digits."""
        return secrets.token_hex(16)

    def salt(self) -> int:
        """Return a random integer below 2^53, never 0."""
        return secrets.randbelow(2**53 - 1) + 1


@lru_cache(maxsize=65_536)
def did_of(public_key: bytes) -> str:
    """Return the ``did:key`` of a 32-byte Ed25519 public key."""
    if len(public_key) != bindings.crypto_sign_PUBLICKEYBYTES:
        raise BadIdError("an Ed25519 public key has 32 bytes")
    number = int.from_bytes(_ED25519 + public_key, "big")
    chars = []
    while number:
        number, rest = divmod(number, 58)
        chars.append(_ALPHABET[rest])
    return _PREFIX + "".join(reversed(chars))


@lru_cache(maxsize=65_536)
def key_of(did: str) -> bytes:
    """Return the 32-byte Ed25519 key of a ``did:key``; small-order and invalid points are refused.

    Raises:
        BadIdError: not a ``did:key`` of a valid Ed25519 point, or not in its one spelling.
    """
    if not did.startswith(_PREFIX) or len(did) != _DID_CHARS:
        raise BadIdError("not an Ed25519 did:key")
    number = 0
    for char in did[len(_PREFIX) :]:
        value = _INDEX.get(char)
        if value is None:
            raise BadIdError("not base58btc")
        number = number * 58 + value
    raw = number.to_bytes(35, "big").lstrip(b"\0")
    key = raw[len(_ED25519) :]
    if not raw.startswith(_ED25519) or len(raw) != len(_ED25519) + 32 or did_of(key) != did:
        raise BadIdError("not an Ed25519 did:key")
    if not bindings.crypto_core_ed25519_is_valid_point(key):
        raise BadIdError("the key is not a valid point of the prime-order group")
    return key


def check_id(text: str) -> str:
    """Return ``text`` if it is 32 lower-case hex digits."""
    if _ID.fullmatch(text) is None:
        raise BadIdError("an id is 32 lower-case hex digits")
    return text


def is_digest(text: str) -> bool:
    """Say whether ``text`` is 64 lower-case hex digits."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: str) -> str:
    """Return ``text`` if it is 64 lower-case hex digits."""
    if not is_digest(text):
        raise BadIdError("a digest is 64 lower-case hex digits")
    return text


def check_skill(text: str) -> str:
    """Return ``text`` if it names a skill, such as ``text.summarise`` (at most 64 characters)."""
    if len(text) > 64 or _SKILL.fullmatch(text) is None:
        raise BadIdError(f"not a skill name: {text[:64]!r}")
    return text


def short(name: str) -> str:
    """Return the last eight characters of a did or digest, for people."""
    return name[-8:]
