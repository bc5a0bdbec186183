"""Verifies ECDSA over the curve P-256 with SHA-256: what JOSE calls ES256.

Only verifying: everything here is public, so that time spent may tell whatever it likes. It is kept
because no library of ours knows this curve, and a card is verified a few times a minute, not more.

Source: FIPS 186-5 section 6.4.2; the curve's numbers are of SP 800-186 section 3.2.1.3.
"""

from __future__ import annotations

import hashlib
from typing import Final

P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
N: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

# A point as (X, Y, Z) with x = X/Z^2, y = Y/Z^3; Z = 0 is the point at infinity.
_Point = tuple[int, int, int]
_NOWHERE: Final[_Point] = (1, 1, 0)


def on_curve(x: int, y: int) -> bool:
    """Say whether (x, y) is a point of the curve."""
    return 0 <= x < P and 0 <= y < P and (y * y - (x * x * x - 3 * x + B)) % P == 0


def verifies(public: tuple[int, int], message: bytes, signature: bytes) -> bool:
    """Say whether ``signature``, r and s of 32 bytes each, is of ``message`` by ``public``.

    1. The key is a point of the curve (which has no small subgroups).
    2. r and s are from 1 to N - 1.
    3. The x of u1 G + u2 Q is r.
    """
    if not on_curve(*public) or len(signature) != 64:  # 1
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < N and 0 < s < N):  # 2
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(s, -1, N)
    x, _, z = _sum_of(digest * inverse % N, r * inverse % N, public)
    return z != 0 and (x * pow(z, -2, P)) % P % N == r  # 3


def _sum_of(first: int, second: int, public: tuple[int, int]) -> _Point:
    """Return ``first`` times G plus ``second`` times the key, both bit by bit together."""
    base, key = (*G, 1), (*public, 1)
    table = {(1, 0): base, (0, 1): key, (1, 1): _add(base, key)}
    total = _NOWHERE
    for bit in range(255, -1, -1):
        total = _double(total)
        pair = (first >> bit & 1, second >> bit & 1)
        if pair != (0, 0):
            total = _add(total, table[pair])
    return total


def _double(point: _Point) -> _Point:
    x, y, z = point
    if z == 0:
        return _NOWHERE
    y2 = y * y % P
    s = 4 * x * y2 % P
    m = 3 * (x - z * z) * (x + z * z) % P
    x2 = (m * m - 2 * s) % P
    return x2, (m * (s - x2) - 8 * y2 * y2) % P, 2 * y * z % P


def _add(one: _Point, other: _Point) -> _Point:
    if one[2] == 0:
        return other
    if other[2] == 0:
        return one
    (x1, y1, z1), (x2, y2, z2) = one, other
    u1, u2 = x1 * z2 * z2 % P, x2 * z1 * z1 % P
    s1, s2 = y1 * z2**3 % P, y2 * z1**3 % P
    if u1 == u2:
        return _double(one) if s1 == s2 else _NOWHERE
    h, r = u2 - u1, s2 - s1
    h2 = h * h % P
    h3, v = h * h2 % P, u1 * h2 % P
    x3 = (r * r - h3 - 2 * v) % P
    return x3, (r * (v - x3) - s1 * h3) % P, h * z1 * z2 % P
