"""The only place that signs and opens: DSSE envelopes with Ed25519, and sealed boxes.

* An envelope is canonical JSON ``{"payload", "payloadType", "signatures": [{"keyid", "sig"}]}``
  (DSSE v1); what is signed is PAE(payloadType, payload), so a signature for one type of document
  is worth nothing for another. ``keyid`` is the signer's ``did:key``.
* The payload is canonical JSON too; both encodings are checked on opening.
* Where it is allowed, one signature may stand for several payloads: ``of`` are then the SHA-256
  digests of their PAEs, one after another, in base64, and the signature is over those, under a
  type of its own. Each envelope still stands by itself (``docs/adr/0034``).
* Verification is libsodium's, after the key was checked to be a point of the prime-order group.
* ``conceal`` seals bytes to one recipient (X25519 from its Ed25519 key, NaCl's box).

    >>> signer = Signer(bytes(32))
    >>> opened = open_envelope(seal("text/x-demo", {"a": 1}, signer), "text/x-demo")
    >>> opened.payload, opened.signers == (signer.did,)
    (b'{"a":1}', True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec
from nacl import bindings, exceptions
from typing_extensions import override

from rahba.encoding import (
    MAX_BYTES,
    b64,
    canonical,
    decode_exactly,
    encode_text,
    sha256_hex,
    unb64,
)
from rahba.errors import BadInputError, BadSignatureError, TooLargeError
from rahba.ids import did_of, key_of

MAX_SIGNATURES: Final = 4
SIGNATURE_BYTES: Final = 64
MAX_TOGETHER: Final = 8
MAX_USES: Final = 64
MAX_LINES: Final = 1_024
_KEY_BYTES: Final = 32
_BOX_HEAD: Final = _KEY_BYTES + bindings.crypto_box_NONCEBYTES
BATCH_TYPE: Final = "application/vnd.rahba.digests"
_DIGEST_BYTES: Final = 32
_LENGTHS: Final = range(2 * _DIGEST_BYTES, (MAX_TOGETHER + 1) * _DIGEST_BYTES, _DIGEST_BYTES)
_PAE_TAG: Final = b"DSSEv1 "


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    keyid: str
    sig: bytes
    of: bytes = b""


class _Dsse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: bytes
    payloadType: str  # noqa: N815  # DSSE's own spelling
    signatures: list[_Signature]


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified envelope: ``payload`` bytes, who signed them, and the digest of the envelope."""

    payload: bytes
    signers: tuple[str, ...]
    digest: str


class Signer:
    """Holds one Ed25519 key; signs, and reveals what was concealed for it. Never prints it."""

    __slots__ = ("_secret", "_shared", "did", "public_key")

    def __init__(self, seed: bytes) -> None:
        """Derive the key pair from a 32-byte seed (RFC 8032)."""
        self.public_key, self._secret = bindings.crypto_sign_seed_keypair(seed)
        self.did = did_of(self.public_key)
        self._shared: dict[bytes, bytes] = {}  # by the ephemeral keys of senders

    @override
    def __repr__(self) -> str:
        """Name the public half only."""
        return f"Signer({self.did})"

    def sign(self, payload_type: str, payload: bytes) -> str:
        """Return the base64 signature over PAE(payload_type, payload)."""
        return b64(self.sign_bytes(payload_type, payload))

    def sign_bytes(self, payload_type: str, payload: bytes) -> bytes:
        """Return the same signature as 64 bytes."""
        return bindings.crypto_sign(pae(payload_type, payload), self._secret)[:SIGNATURE_BYTES]

    def sign_raw(self, message: bytes) -> bytes:
        """Return the 64-byte signature over bare bytes, for formats with a framing of their own.

        What looks like a DSSE pre-authentication encoding is refused: it must come by ``sign``.
        """
        if message.startswith(_PAE_TAG):
            raise BadInputError("bare bytes must not look like a DSSE encoding")
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def reveal(self, concealed: bytes) -> bytes:
        """Open what :func:`conceal` sealed for this key."""
        if len(concealed) < _BOX_HEAD:
            raise BadSignatureError("the sealed bytes are cut off")
        public, nonce = concealed[:_KEY_BYTES], concealed[_KEY_BYTES:_BOX_HEAD]
        try:
            shared = self._shared.get(public)
            if shared is None:
                secret = bindings.crypto_sign_ed25519_sk_to_curve25519(self._secret)
                shared = bindings.crypto_box_beforenm(public, secret)
            plain = bindings.crypto_box_open_afternm(concealed[_BOX_HEAD:], nonce, shared)
        except (exceptions.CryptoError, ValueError, TypeError) as error:
            raise BadSignatureError("the sealed bytes are not for this key") from error
        while len(self._shared) >= MAX_LINES:
            _ = self._shared.pop(next(iter(self._shared)), None)
        self._shared[public] = shared
        return plain


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding (DSSE protocol, section "Signature")."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def verify(did: str, payload_type: str, payload: bytes, signature: str) -> None:
    """Check one detached signature.

    Raises:
        BadSignatureError: the signature is not ``did``'s over PAE(payload_type, payload).
        BadIdError: ``did`` is no valid key.
    """
    verify_pae(did, pae(payload_type, payload), unb64(signature))


def verify_pae(did: str, message: bytes, signature: bytes) -> None:
    """Check one detached signature over what :func:`pae` returned; errors as of :func:`verify`."""
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignatureError("an Ed25519 signature has 64 bytes")
    try:
        bindings.crypto_sign_open(signature + message, key_of(did))
    except (exceptions.BadSignatureError, exceptions.CryptoError, ValueError) as error:
        raise BadSignatureError("the signature does not verify", signer=did) from error


def verify_raw(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature made by :meth:`Signer.sign_raw`.

    Raises:
        BadSignatureError: the signature is not ``public_key``'s over ``message``.
        BadIdError: ``public_key`` is no valid key.
    """
    key = key_of(did_of(public_key))
    if len(signature) != SIGNATURE_BYTES or message.startswith(_PAE_TAG):
        raise BadSignatureError("not a signature over bare bytes")
    try:
        bindings.crypto_sign_open(signature + message, key)
    except (exceptions.BadSignatureError, exceptions.CryptoError, ValueError) as error:
        raise BadSignatureError("the signature does not verify") from error


def assemble(payload_type: str, payload: bytes, signatures: dict[str, str]) -> bytes:
    """Put detached ``{did: signature}`` and their payload into one envelope; verify separately."""
    signed = [_Signature(did, unb64(sig)) for did, sig in signatures.items()]
    return encode_text(_Dsse(payload, payload_type, signed))


def seal(payload_type: str, body: object, *signers: Signer) -> bytes:
    """Encode ``body`` canonically and sign it by each of ``signers``."""
    payload = canonical(body)
    return assemble(
        payload_type,
        payload,
        {signer.did: signer.sign(payload_type, payload) for signer in signers},
    )


def seal_together(payload_type: str, payloads: Sequence[bytes], signer: Signer) -> list[bytes]:
    """Put each of some canonical payloads into an envelope; ``MAX_TOGETHER`` share a signature."""
    sealed: list[bytes] = []
    for start in range(0, len(payloads), MAX_TOGETHER):
        some = payloads[start : start + MAX_TOGETHER]
        if len(some) == 1:
            signature = _Signature(signer.did, signer.sign_bytes(payload_type, some[0]))
        else:
            of = b"".join(sha256(pae(payload_type, payload)).digest() for payload in some)
            signature = _Signature(signer.did, signer.sign_bytes(BATCH_TYPE, of), of)
        sealed += [encode_text(_Dsse(payload, payload_type, [signature])) for payload in some]
    return sealed


def open_envelope(
    raw: bytes, payload_type: str, *, max_bytes: int = 2 * MAX_BYTES, together: bool = False
) -> Opened:
    """Verify an envelope and return its payload.

    1. It is no larger than ``max_bytes`` and canonical.
    2. It is of ``payload_type`` and carries one to four signatures by different keys.
    3. Every signature verifies; only with ``together`` may it stand for other payloads as well.
    """
    dsse = decode_exactly(raw, _Dsse, max_bytes=max_bytes)  # 1
    names = [item.keyid for item in dsse.signatures]  # 2
    if dsse.payloadType != payload_type:
        raise BadSignatureError("the envelope is of another type", expected=payload_type)
    if not names or len(set(names)) != len(names):
        raise BadSignatureError("an envelope needs signatures, one a key")
    if len(names) > MAX_SIGNATURES:
        raise TooLargeError("too many signatures", limit=MAX_SIGNATURES)
    for item in dsse.signatures:  # 3
        if not item.of:
            verify_pae(item.keyid, pae(payload_type, dsse.payload), item.sig)
        elif together:
            _verify_one_of(item, payload_type, dsse.payload)
        else:
            raise BadSignatureError("a signature of its own is asked for", signer=item.keyid)
    return Opened(dsse.payload, tuple(names), sha256_hex(raw))


def _verify_one_of(signature: _Signature, payload_type: str, payload: bytes) -> None:
    of = signature.of
    if len(of) not in _LENGTHS:
        raise BadSignatureError("not a signature of several", signer=signature.keyid)
    place = of.find(sha256(pae(payload_type, payload)).digest())
    if place < 0 or place % _DIGEST_BYTES:
        raise BadSignatureError("the signature is of other payloads", signer=signature.keyid)
    _verify_batch(signature.keyid, of, signature.sig)


@lru_cache(maxsize=2_048)
def _verify_batch(did: str, of: bytes, signature: bytes) -> None:
    verify_pae(did, pae(BATCH_TYPE, of), signature)


def conceal(recipient: str, plain: bytes, *, sender: str) -> bytes:
    """Seal ``plain`` so that only the holder of ``recipient``'s key can read it.

    ``epk || nonce || box`` (X25519, XSalsa20-Poly1305; NaCl's ``crypto_box``). The secret half of
    the ephemeral key ``epk`` is forgotten at once; what it shares with the recipient serves
    ``MAX_USES`` messages of ``sender`` to it, each under a random nonce of 192 bits. The sender's
    own key opens nothing, and agreeing on a key is paid for once among many messages.
    """
    line = _LINES.pop((sender, recipient), None)
    if line is None or line.uses >= MAX_USES:
        public, secret = bindings.crypto_box_keypair()
        line = _Line(public, bindings.crypto_box_beforenm(_box_key(recipient), secret))
    line.uses += 1
    while len(_LINES) >= MAX_LINES:
        _ = _LINES.pop(next(iter(_LINES)), None)
    _LINES[sender, recipient] = line
    nonce = bindings.randombytes(bindings.crypto_box_NONCEBYTES)
    return line.public + nonce + bindings.crypto_box_afternm(plain, nonce, line.shared)


@dataclass(slots=True)
class _Line:
    """What an ephemeral key shares with one recipient, and how many messages it sealed."""

    public: bytes
    shared: bytes
    uses: int = 0


_LINES: Final[dict[tuple[str, str], _Line]] = {}


@lru_cache(maxsize=4_096)
def _box_key(did: str) -> bytes:
    return bindings.crypto_sign_ed25519_pk_to_curve25519(key_of(did))
