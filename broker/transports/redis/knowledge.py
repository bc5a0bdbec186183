"""What was learnt from the feed, kept in Redis: one state for all processes, and who told what."""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from broker.observer import KnowledgeStore
from broker.transports.redis.wire import Script, Wire

STATE: Final = "{knowledge}:state"
TOLD: Final = "{knowledge}:told:"

# Only what knows more of the feed takes the place of what is kept. Ids are milliseconds-number.
_SAVE: Final = Script("""
local function parts(id)
  local head, tail = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(head), tonumber(tail)
end
local old = redis.call('HGET', KEYS[1], 'id')
if old then
  local oh, ot = parts(old)
  local nh, nt = parts(ARGV[1])
  if nh < oh or (nh == oh and nt <= ot) then return 0 end
end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'state', ARGV[2])
return 1
""")


class RedisKnowledgeStore(KnowledgeStore):
    """Guarantees: the state kept never forgets; a notice is claimed by one process only."""

    def __init__(self, wire: Wire) -> None:
        """Keep over ``wire``."""
        self._wire = wire

    @override
    async def load(self) -> bytes | None:
        found: bytes | None = await self._wire.call("HGET", STATE, "state")
        return found

    @override
    async def save(self, raw: bytes, last_id: str) -> bool:
        return bool(await self._wire.run(_SAVE, [STATE], last_id, raw))

    @override
    async def claim(self, name: str, lasts_ms: int) -> bool:
        taken = await self._wire.call("SET", TOLD + name, b"1", "NX", "PX", lasts_ms)
        return taken is not None
