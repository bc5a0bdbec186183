"""Cards and leases on Redis: one script, so that an agent is listed wholly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, cast

from typing_extensions import override

from broker.cards import CardStore, Changes, Entry, Put
from broker.errors import BrokerUnreachableError
from broker.transports.redis.lua_files import load
from broker.transports.redis.wire import Argument, Reply, Wire
from rahba.messages import Card

KEYS: Final = [
    f"{{dir}}:{name}" for name in ("presence", "digests", "cards", "meta", "left", "changes")
]
CARDS: Final = KEYS[2]
BATCH: Final = 500
MAX_LOOKS: Final = 16
_DIRECTORY: Final = load("directory")


class RedisCardStore(CardStore):
    """Presence is one score an agent; the card is kept as it was signed; changes are a stream."""

    def __init__(self, wire: Wire) -> None:
        """Work over ``wire``."""
        self._wire = wire
        self._looks = _Looks(self)

    @override
    async def put(self, card: Card, raw: bytes, digest: str) -> Put:
        outcome, lease_until_ms = await self._do(
            "put", card.agent, digest, raw, card.issued, card.ttl_ms
        )
        name = cast("Literal['new', 'changed', 'returned', 'same', 'stale']", _text(outcome))
        return Put(name, lease_until_ms)

    @override
    async def touch(self, agents: Sequence[str]) -> list[str]:
        gone: list[str] = []
        for start in range(0, len(agents), BATCH):
            answer = await self._do("touch", *agents[start : start + BATCH])
            gone += [_text(agent) for agent in answer]
        return gone

    @override
    async def drop(self, agent: str) -> bool:
        return bool(await self._do("drop", agent))

    @override
    async def present(self, agents: Sequence[str]) -> list[Entry | None]:
        found: list[Entry | None] = []
        for start in range(0, len(agents), BATCH):
            asked = agents[start : start + BATCH]
            found += _entries(asked, await self._do("present", *asked))
        return found

    @override
    async def look(self, after: str, agents: Sequence[str]) -> tuple[bool, list[Entry | None]]:
        newest, entries = await self._looks.ask(agents)
        return newest == after, entries

    async def look_at(self, agents: Sequence[str]) -> tuple[str, list[Entry | None]]:
        """Return the position of the newest change, and the entries of agents."""
        newest, flat = await self._do("look", *agents)
        return _text(newest), _entries(agents, flat)

    @override
    async def position(self) -> str:
        return _text(await self._do("position"))

    @override
    async def changes(self, after: str) -> Changes:
        lost, flat, position = await self._do("changes", after, BATCH)
        kinds, agents = map(_text, flat[::2]), map(_text, flat[1::2])
        return Changes(list(zip(kinds, agents, strict=True)), _text(position), lost=bool(lost))

    @override
    async def scan(self, cursor: str) -> tuple[str, list[tuple[str, bytes]]]:
        following, flat = await self._wire.call("HSCAN", CARDS, cursor, "COUNT", BATCH)
        return _text(following), list(zip(map(_text, flat[::2]), flat[1::2], strict=True))

    @override
    async def count(self) -> int:
        return int(await self._do("count"))

    @override
    async def cards(self, agents: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for start in range(0, len(agents), BATCH):
            found += await self._wire.call("HMGET", CARDS, *agents[start : start + BATCH])
        return found

    @override
    async def sweep(self) -> list[str]:
        return [_text(agent) for agent in await self._do("sweep")]

    async def _do(self, operation: str, *arguments: Argument) -> Reply:
        return await self._wire.run(_DIRECTORY, KEYS, operation, *arguments)


_Asked = tuple[Sequence[str], asyncio.Future[tuple[str, list[Entry | None]]]]


def _fail(asked: Sequence[_Asked], error: Exception) -> None:
    for _, answer in asked:
        if not answer.done():  # its caller may have gone
            answer.set_exception(error)


class _Looks:
    """Looks at who is there, for searches: those of a tick, or of the time of a look, go together.

    Each search is answered by a look that began after it.
    """

    def __init__(self, store: RedisCardStore) -> None:
        self._store = store
        self._asked: list[_Asked] = []
        self._looking: asyncio.Task[None] | None = None

    def ask(self, agents: Sequence[str]) -> asyncio.Future[tuple[str, list[Entry | None]]]:
        """Look at the newest change and at these agents."""
        answer: asyncio.Future[tuple[str, list[Entry | None]]]
        answer = asyncio.get_running_loop().create_future()
        self._asked.append((agents, answer))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return answer

    async def _look(self) -> None:
        while self._asked:
            asked, self._asked = self._asked[:MAX_LOOKS], self._asked[MAX_LOOKS:]
            agents = list(dict.fromkeys(agent for some, _ in asked for agent in some))
            try:
                newest, found = await self._store.look_at(agents)
            except Exception as error:  # noqa: BLE001  # whoever waits is to hear of it
                _fail(asked, error)
                continue
            except BaseException:  # cancelled: nobody is to wait for ever
                _fail([*asked, *self._asked], BrokerUnreachableError("the broker was closed"))
                self._asked = []
                raise
            entries = dict(zip(agents, found, strict=True))
            for some, answer in asked:
                if not answer.done():
                    answer.set_result((newest, [entries[agent] for agent in some]))


def _entries(agents: Sequence[str], flat: list[Reply]) -> list[Entry | None]:
    pairs = zip(agents, flat[::2], flat[1::2], strict=True)
    return [
        Entry(agent, _text(digest), until_ms) if until_ms else None
        for agent, digest, until_ms in pairs
    ]


def _text(raw: bytes) -> str:
    return str(raw, "ascii")
