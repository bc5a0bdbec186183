"""Records in Redis: deployments in one hash, and the marks of the heavy jobs.

A mark says who works on an order (a lease, renewed while the work goes on) and keeps the result
for as long as anybody may ask for it again. Everything here is a cache of intent: losing it costs
work done twice, never money.
"""

from __future__ import annotations

from typing import Final

from broker.transports.redis.wire import Script, Wire

DEPLOYMENTS_KEY: Final = "{p}:deployments"
REPORTS_KEY: Final = "{p}:reports"
LEASE_MS: Final = 4_000
KEEP_RESULT_S: Final = 24 * 3600

_REPLACE: Final = Script("""
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")
_LEAVE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
_RENEW: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")


class RedisRecords:
    """A ``DeploymentStore`` shared by every process of the market."""

    def __init__(self, wire: Wire, key: str = DEPLOYMENTS_KEY) -> None:
        """Keep the records in the hash ``key``."""
        self._wire = wire
        self._key = key

    async def put(self, key: str, raw: bytes) -> None:
        """Write a record."""
        await self._wire.call("HSET", self._key, key, raw)

    async def get(self, key: str) -> bytes | None:
        """Return a record."""
        found: bytes | None = await self._wire.call("HGET", self._key, key)
        return found

    async def all(self) -> list[bytes]:
        """Return every record."""
        return list(await self._wire.call("HVALS", self._key))

    async def count(self) -> int:
        """Return how many there are."""
        return int(await self._wire.call("HLEN", self._key))

    async def remove(self, key: str) -> None:
        """Forget a record."""
        await self._wire.call("HDEL", self._key, key)

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Write ``new`` only where ``old`` still stands; say whether it did."""
        return bool(await self._wire.run(_REPLACE, [self._key], key, old, new))


class RedisMarks:
    """Who works on which order, and what came of it (``WorkMarks``)."""

    def __init__(self, wire: Wire, lease_ms: int = LEASE_MS) -> None:
        """Keep marks; a lease lasts ``lease_ms``."""
        self._wire = wire
        self._lease_ms = lease_ms

    @property
    def lease_ms(self) -> int:
        """Return how long a lease lasts unless it is renewed."""
        return self._lease_ms

    async def take(self, agreement: str, holder: str) -> bool:
        """Take an order under a lease; false while another holder's lease lasts."""
        key = f"{{w:{agreement}}}:lease"
        taken = await self._wire.call("SET", key, holder, "NX", "PX", self._lease_ms)
        return taken is not None

    async def renew(self, agreement: str, holder: str) -> bool:
        """Extend one's own lease; false if it was lost."""
        key = f"{{w:{agreement}}}:lease"
        return bool(await self._wire.run(_RENEW, [key], holder, self._lease_ms))

    async def leave(self, agreement: str, holder: str) -> None:
        """End one's own lease: the work is over."""
        await self._wire.run(_LEAVE, [f"{{w:{agreement}}}:lease"], holder)

    async def taken(self, agreement: str) -> bool:
        """Say whether somebody works on the order now."""
        return bool(await self._wire.call("EXISTS", f"{{w:{agreement}}}:lease"))

    async def keep(self, agreement: str, result: bytes) -> None:
        """Keep a result to send it again when asked."""
        await self._wire.call("SET", f"{{w:{agreement}}}:result", result, "EX", KEEP_RESULT_S)

    async def kept(self, agreement: str) -> bytes | None:
        """Return a kept result."""
        found: bytes | None = await self._wire.call("GET", f"{{w:{agreement}}}:result")
        return found
