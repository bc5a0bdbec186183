"""Keys from one seed: SLIP-0010 for Ed25519, where every step is hardened.

* A path names each step with its apostrophe: ``m/44'/5392450'/0'/0'/0'``. A step without one would
  be a public derivation, which Ed25519 has not: it is refused, never read as hardened.
* Rahba's keys lie at ``m/44'/5392450'/account'/agent'/key'`` (:func:`agent_path`): one account for
  each purpose of the owner, one agent for each body that signs, and ``key`` counts its rotations.
* A branch never shows what it holds; only :attr:`Branch.seed` hands out the 32 bytes of its key.

    >>> agent_path(agent=2)
    "m/44'/5392450'/0'/2'/0'"
    >>> master(bytes(64)).along(agent_path()) == derive(bytes(64), agent_path())
    True
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from typing_extensions import override

from rahba.errors import BadInputError

HARDENED: Final = 2**31
PURPOSE: Final = 44
COIN: Final = 5_392_450  # "RHB" in ASCII; free in SLIP-0044
MAX_DEPTH: Final = 10
MIN_SEED_BYTES: Final = 16
MAX_SEED_BYTES: Final = 64
_CURVE: Final = b"ed25519 seed"
_STEP: Final = re.compile(r"(0|[1-9][0-9]{0,9})'", re.ASCII)


class BadPathError(BadInputError):
    """A derivation path is malformed, too deep, or has a step that is not hardened."""

    code = "bad_path"
    hint = "a path looks like m/44'/5392450'/0'/0'/0': every step has its apostrophe"


class Branch:
    """A place in the tree of keys: a key and the chain code that leads on. Never prints them."""

    __slots__ = ("_chain", "_key")

    def __init__(self, key: bytes, chain: bytes) -> None:
        """Keep a key and its chain code, 32 bytes each."""
        self._key = key
        self._chain = chain

    @override
    def __repr__(self) -> str:
        """Show nothing."""
        return "Branch()"

    @override
    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, Branch):
            return NotImplemented
        return hmac.compare_digest(self._key + self._chain, other._key + other._chain)

    @override
    def __hash__(self) -> int:
        """Hash by what is compared."""
        return hash((self._key, self._chain))

    @property
    def seed(self) -> bytes:
        """Return the 32 bytes from which :class:`rahba.envelope.Signer` makes the key pair."""
        return self._key

    @property
    def chain(self) -> bytes:
        """Return the chain code; with the seed it opens everything below."""
        return self._chain

    def child(self, index: int) -> Branch:
        """Return the hardened child ``index`` (below 2^31, the apostrophe is understood)."""
        if not 0 <= index < HARDENED:
            raise BadPathError("a step is a number below 2^31")
        step = (HARDENED + index).to_bytes(4, "big")
        return _split(hmac.digest(self._chain, b"\0" + self._key + step, "sha512"))

    def along(self, path: str) -> Branch:
        """Return what lies at ``path`` below this branch, of which ``m`` is the name."""
        branch = self
        for index in parse_path(path):
            branch = branch.child(index)
        return branch


def master(seed: bytes) -> Branch:
    """Return the root of all keys of a seed (16 to 64 bytes; a BIP-39 seed has 64)."""
    if not MIN_SEED_BYTES <= len(seed) <= MAX_SEED_BYTES:
        raise BadInputError(f"a seed has {MIN_SEED_BYTES} to {MAX_SEED_BYTES} bytes")
    return _split(hmac.digest(_CURVE, seed, hashlib.sha512))


def derive(seed: bytes, path: str) -> Branch:
    """Return what lies at ``path`` below ``seed``."""
    return master(seed).along(path)


def agent_path(*, account: int = 0, agent: int = 0, key: int = 0) -> str:
    """Return the path of an agent's key; ``key`` is one higher after each rotation."""
    path = f"m/{PURPOSE}'/{COIN}'/{account}'/{agent}'/{key}'"
    parse_path(path)
    return path


def next_path(path: str) -> str:
    """Return the path whose last step is one higher: where a rotated key comes from."""
    *before, last = parse_path(path) or (-1,)
    if last < 0:
        raise BadPathError("the root has no successor")
    following = "/".join(["m", *(f"{index}'" for index in (*before, last + 1))])
    parse_path(following)
    return following


def parse_path(path: str) -> tuple[int, ...]:
    """Return the steps of a path, without their apostrophes.

    Raises:
        BadPathError: it is none, is deeper than ``MAX_DEPTH``, or a step is not hardened.
    """
    root, *steps = path.split("/", MAX_DEPTH + 1)
    matches = [_STEP.fullmatch(step) for step in steps]
    if root != "m" or len(steps) > MAX_DEPTH:
        raise BadPathError(f"a path begins with m and has at most {MAX_DEPTH} steps")
    indices = tuple(int(match.group(1)) for match in matches if match is not None)
    if len(indices) != len(steps) or any(index >= HARDENED for index in indices):
        raise BadPathError("each step is a number below 2^31 and its apostrophe")
    return indices


def _split(digest: bytes) -> Branch:
    return Branch(digest[:32], digest[32:])
