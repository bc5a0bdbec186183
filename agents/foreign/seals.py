"""Who signed a card: the JWS in its ``signatures``.

A signature covers the card's canonical JSON without ``signatures``. Servers add to a signed card
what older clients look for, and leave out or write out what is empty; so three readings are tried:
the card as it came, without empty values, and with the fields of version 1.0 alone. **Only the
reading that verified is used from there on**: what nobody signed is not read.

* A key is taken from the ``jku`` in the signed header if that is https and of the card's origin.
  It then says as much as the certificate of that origin does: who serves the card stands for it.
* EdDSA (Ed25519) and ES256 are verified. Another algorithm, a key from elsewhere or none make a
  card ``unverifiable``, which is shown as such; a signature that does not verify refuses the card.

Source: A2A 1.0, section 8.4; RFC 7515 (JWS), 7517 (keys), 7518 (ES256), 8037 (EdDSA).
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import VerifyKey
from yarl import URL

from agents.foreign import p256
from agents.foreign.errors import BadCardSignatureError, BadForeignCardError
from agents.foreign.jcs import jcs
from rahba.encoding import sha256_hex
from rahba.errors import BadInputError

Seal = Literal["verified", "unsigned", "unverifiable"]
FetchKeys = Callable[[str], Awaitable[object]]

MAX_SIGNATURES: Final = 4
MAX_KEYS: Final = 32
_CURVES: Final = {"EdDSA": ("OKP", "Ed25519"), "ES256": ("EC", "P-256")}

_TEXT: Final[Any] = None  # a leaf: kept whole
_SECURED: Final[Any] = {"schemes": _TEXT}
_EXTENSION: Final[Any] = dict.fromkeys(("uri", "description", "required", "params"))
_FIELDS_OF_1_0: Final[dict[str, Any]] = {
    "name": _TEXT,
    "description": _TEXT,
    "supportedInterfaces": dict.fromkeys(("url", "protocolBinding", "tenant", "protocolVersion")),
    "provider": dict.fromkeys(("url", "organization")),
    "version": _TEXT,
    "documentationUrl": _TEXT,
    "capabilities": {
        "streaming": _TEXT,
        "pushNotifications": _TEXT,
        "extendedAgentCard": _TEXT,
        "extensions": _EXTENSION,
    },
    "securitySchemes": {
        "*": dict.fromkeys(
            (
                "apiKeySecurityScheme",
                "httpAuthSecurityScheme",
                "oauth2SecurityScheme",
                "openIdConnectSecurityScheme",
                "mtlsSecurityScheme",
            )
        )
    },
    "securityRequirements": _SECURED,
    "defaultInputModes": _TEXT,
    "defaultOutputModes": _TEXT,
    "skills": dict.fromkeys(
        ("id", "name", "description", "tags", "examples", "inputModes", "outputModes")
    )
    | {"securityRequirements": _SECURED},
    "iconUrl": _TEXT,
}


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a card's signatures are worth: the part that may be read, and the key's digest."""

    seal: Seal
    card: dict[str, Any]
    key: str = ""


class _Signature(msgspec.Struct, frozen=True):
    protected: Annotated[str, msgspec.Meta(max_length=8_192)]
    signature: Annotated[str, msgspec.Meta(max_length=1_024)]


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str = ""
    jku: str = ""
    crit: list[str] = []


class _Key(msgspec.Struct, frozen=True):
    kty: str
    crv: str = ""
    x: str = ""
    y: str = ""
    kid: str = ""
    alg: str = ""
    use: str = "sig"


async def check_seals(
    value: dict[str, Any], url: str, fetch_keys: FetchKeys, *, allow_private: bool = False
) -> Sealed:
    """Verify the signatures of the card that ``url`` gave; one that holds is enough.

    ``allow_private`` takes keys over plain http too, from the card's origin as ever.

    Raises:
        BadCardSignatureError: signatures could be judged, and none holds.
        BadForeignCardError: ``signatures`` is no list of them.
    """
    plain = {name: item for name, item in value.items() if name != "signatures"}
    signatures = _signatures(value)
    if not signatures:
        return Sealed("unsigned", plain)
    judged = False
    for one in signatures:
        header = _header(one.protected)
        if header is None or not _may_fetch(header, url, allow_private=allow_private):
            continue
        judged = True
        keys = _keys(await fetch_keys(header.jku), header)
        for reading in _readings(plain):
            signer = next((key for key in keys if _holds(key, header, one, reading)), None)
            if signer is not None:
                return Sealed("verified", reading, _thumbprint(signer))
    if judged:
        raise BadCardSignatureError("no signature of the card verifies")
    return Sealed("unverifiable", plain)


def _signatures(value: dict[str, Any]) -> list[_Signature]:
    try:
        found = msgspec.convert(value.get("signatures") or [], list[_Signature])
    except msgspec.ValidationError as error:
        raise BadForeignCardError(f"signatures: {error}"[:300]) from error
    if len(found) > MAX_SIGNATURES:
        raise BadForeignCardError("too many signatures", limit=MAX_SIGNATURES)
    return found


def _header(protected: str) -> _Header | None:
    """Return a header that can be judged: its algorithm known, nothing critical in it unknown."""
    try:
        header = msgspec.json.decode(_unpadded(protected), type=_Header)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        return None
    return header if header.alg in _CURVES and not header.crit else None


def _may_fetch(header: _Header, url: str, *, allow_private: bool) -> bool:
    try:
        jku, card = URL(header.jku), URL(url)
        safe = jku.scheme == "https" or (allow_private and jku.scheme == "http")
        return safe and jku.origin() == card.origin()
    except ValueError:
        return False


def _keys(found: object, header: _Header) -> list[_Key]:
    kty, crv = _CURVES[header.alg]
    listed = found.get("keys") if isinstance(found, dict) else None
    keys = []
    for item in (listed if isinstance(listed, list) else [])[:MAX_KEYS]:
        try:
            key = msgspec.convert(item, _Key)
        except msgspec.ValidationError:
            continue
        fits = (key.kty, key.crv, key.use) == (kty, crv, "sig") and key.alg in {"", header.alg}
        if fits and key.kid == header.kid:
            keys.append(key)
    return keys


def _readings(plain: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plain
    full = _without_empty(plain)
    yield full or {}
    yield _without_empty(_only(plain, _FIELDS_OF_1_0)) or {}


def _holds(key: _Key, header: _Header, one: _Signature, reading: dict[str, Any]) -> bool:
    try:
        covered = f"{one.protected}.{_b64url(jcs(reading))}".encode("ascii")
        signature = _unpadded(one.signature)
        if header.alg == "EdDSA":
            VerifyKey(_unpadded(key.x)).verify(covered, signature)
            return True
        point = int.from_bytes(_unpadded(key.x), "big"), int.from_bytes(_unpadded(key.y), "big")
        return p256.verifies(point, covered, signature)
    except (BadSignatureError, CryptoError, BadInputError, TypeError, ValueError):
        return False


def _thumbprint(key: _Key) -> str:
    """Return the digest of the key's required members (RFC 7638)."""
    members = {"crv": key.crv, "kty": key.kty, "x": key.x} | ({"y": key.y} if key.y else {})
    return sha256_hex(jcs(members))


def _without_empty(value: Any) -> Any:
    """Leave out what is empty, as protocol buffers do: "", [], {} and null, at any depth."""
    if isinstance(value, dict):
        kept = {name: _without_empty(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item is not None} or None
    if isinstance(value, list):
        return [item for item in map(_without_empty, value) if item is not None] or None
    return None if value == "" else value


def _only(value: Any, fields: dict[str, Any] | None) -> Any:
    """Keep the named fields of objects, and of objects in lists."""
    if fields is None:
        return value
    if isinstance(value, list):
        return [_only(item, fields) for item in value]
    if not isinstance(value, dict):
        return value
    if "*" in fields:
        return {name: _only(item, fields["*"]) for name, item in value.items()}
    return {name: _only(item, fields[name]) for name, item in value.items() if name in fields}


def _b64url(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode().translate(_URL_SAFE).rstrip("=")


def _unpadded(text: str) -> bytes:
    if "=" in text:
        raise ValueError("JOSE writes base64url without padding")
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))


_URL_SAFE: Final = str.maketrans("+/", "-_")
