"""Where a command belongs in a Redis Cluster: its key's slot, and what redirections say.

Pure functions over what is sent and answered; the rules are those of the Redis Cluster
specification (redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec).

    >>> slot_of(("HGET", "{dir}:cards", "agent")) == slot_of(("GET", "{dir}:meta"))
    True
    >>> slot_of(("PING",)) is None
    True
    >>> Redirection.of("MOVED 3999 10.0.0.7:6381")
    Redirection(asking=False, slot=3999, host='10.0.0.7', port=6381)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS
_KEYLESS: Final = frozenset({
    "ACL", "AUTH", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO", "FLUSHALL",
    "FLUSHDB", "FUNCTION", "HELLO", "INFO", "LATENCY", "PING", "PUBLISH", "SCRIPT", "SLOWLOG",
    "TIME", "WAIT",
})  # fmt: skip
_SECOND: Final = frozenset({"MEMORY", "OBJECT", "XGROUP", "XINFO"})
_COUNTED: Final = frozenset({"EVAL", "EVALSHA", "EVALSHA_RO", "EVAL_RO", "FCALL", "FCALL_RO"})
_STREAMS: Final = frozenset({"XREAD", "XREADGROUP"})


@dataclass(frozen=True, slots=True)
class Redirection:
    """A node's answer that a slot is (``asking``: for this command alone) served elsewhere.

    An empty ``host`` is that of the node that answered.
    """

    asking: bool
    slot: int
    host: str
    port: int

    @classmethod
    def of(cls, refusal: str) -> Redirection | None:
        """Read a refusal; ``None`` if it is another one."""
        kind, *rest = refusal.split(" ")
        if kind not in {"MOVED", "ASK"} or len(rest) < 2:
            return None
        host, _, port = rest[1].rpartition(":")
        if not (rest[0].isdigit() and port.isdigit() and int(rest[0]) < SLOTS):
            return None
        return cls(kind == "ASK", int(rest[0]), _named(host), int(port))


@dataclass(frozen=True, slots=True)
class Stretch:
    """The slots from ``first`` to ``last`` and the master that serves them."""

    first: int
    last: int
    host: str
    port: int


def slot_of(command: Sequence[str | int | bytes]) -> int | None:
    """Return the slot of the first key that ``command`` names; ``None`` if it names none."""
    name = str(command[0]).upper()
    place = 1
    if name in _KEYLESS:
        return None
    if name in _COUNTED:
        if not int(command[2]):
            return None
        place = 3
    elif name in _SECOND:
        place = 2
    elif name in _STREAMS:
        place = command.index("STREAMS") + 1
    return slot_of_key(command[place]) if len(command) > place else None


def is_script(command: Sequence[str | int | bytes]) -> bool:
    """Say whether ``command`` runs a script, which may use more keys than it names."""
    return str(command[0]).upper() in _COUNTED


def slot_of_key(key: str | int | bytes) -> int:
    """Return the slot of a key: the checksum of what stands in its first braces, or of it all."""
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def read_slots(answer: Any) -> list[Stretch]:
    """Read the answer to ``CLUSTER SLOTS``; other than the first node of each are replicas."""
    return [
        Stretch(int(first), int(last), _named(str(host or b"", "ascii")), int(port))
        for first, last, (host, port, *_), *_ in answer
    ]


def _named(host: str) -> str:
    return "" if host == "?" else host  # a node that does not know its own name
