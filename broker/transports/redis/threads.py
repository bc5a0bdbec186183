"""Threads on Redis: one hash tag a thread, one script that judges and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Final, cast

from typing_extensions import override

from broker.ports import Ruling, ThreadState, Verdict
from broker.thread import Ending, Said
from broker.threads import (
    MAX_GROUP,
    MAX_RECENT,
    THREAD_TTL_MS,
    Ruled,
    ThreadLimits,
    ThreadStore,
)
from broker.transports.redis.lua_files import load
from broker.transports.redis.wire import Argument, Reply, Wire

GROUPS: Final = "{n}:groups"
MAX_GROUPS: Final = 100_000
MAX_NOTED: Final = 4_096
TRIM_EVERY_MS: Final = 1_000
_THREAD: Final = load("thread")
_JOIN: Final = load("join")
_MEET: Final = load("meet")
_FIELDS: Final = {form: [field.name for field in fields(form)] for form in (Said, Ending)}


def open_between(buyer: str, seller: str) -> str:
    """Return the key of the threads that a buyer has open with a seller."""
    return f"{{p:{buyer}:{seller}}}"


class RedisThreadStore(ThreadStore):
    """Keeps threads for seven days after their last message."""

    def __init__(self, wire: Wire, limits: ThreadLimits | None = None) -> None:
        """Work over ``wire`` within ``limits``."""
        self._wire = wire
        self._limits = limits or ThreadLimits()
        self._noted: dict[str, None] = {}  # groups that are in the list of recent ones by us
        self._trimmed_ms = 0

    @override
    async def say(self, thread: str, said: Said, raw: bytes) -> Ruled:
        return await self._judge(thread, "say", raw, _flat(said))

    @override
    async def end(self, thread: str, ending: Ending) -> Ruled:
        return await self._judge(thread, "end", b"", _flat(ending))

    @override
    async def join(self, group: str, buyer: str, thread: str) -> Verdict:
        keys = [f"{{g:{group}}}:buyer", f"{{g:{group}}}"]
        answer = await self._wire.run(_JOIN, keys, buyer, thread, MAX_GROUP, THREAD_TTL_MS)
        return cast("Verdict", str(answer, "ascii"))

    @override
    async def meet(self, buyer: str, seller: str, thread: str, until_ms: int) -> int:
        most = self._limits.open_threads
        keys = [open_between(buyer, seller)]
        return int(await self._wire.run(_MEET, keys, thread, until_ms, most))

    @override
    async def part(self, buyer: str, seller: str, thread: str) -> None:
        await self._wire.call("ZREM", open_between(buyer, seller), thread)

    @override
    async def note_group(self, group: str, opened_ms: int) -> None:
        if group in self._noted:
            return
        self._noted[group] = None
        commands: list[tuple[Argument, ...]] = [("ZADD", GROUPS, "NX", opened_ms, group)]
        if opened_ms >= self._trimmed_ms + TRIM_EVERY_MS:
            self._trimmed_ms = opened_ms
            commands.append(("ZREMRANGEBYSCORE", GROUPS, "-inf", opened_ms - THREAD_TTL_MS))
            commands.append(("ZREMRANGEBYRANK", GROUPS, 0, -MAX_GROUPS - 1))
        try:
            await self._wire.many(*commands)
        except BaseException:
            _ = self._noted.pop(group, None)
            raise
        while len(self._noted) > MAX_NOTED:
            del self._noted[next(iter(self._noted))]

    @override
    async def note_deal(self, agreement: str, thread: str) -> None:
        await self._wire.call("SET", f"{{d:{agreement}}}", thread, "PX", THREAD_TTL_MS)

    @override
    async def headers(self, threads: Sequence[str]) -> list[dict[str, str]]:
        answers = await self._wire.many(*(("HGETALL", f"{{t:{thread}}}:s") for thread in threads))
        return [_pairs(answer) for answer in answers]

    @override
    async def whole(self, threads: Sequence[str]) -> list[tuple[dict[str, str], tuple[bytes, ...]]]:
        commands: list[tuple[Argument, ...]] = []
        for thread in threads:
            commands.append(("HGETALL", f"{{t:{thread}}}:s"))
            commands.append(("LRANGE", f"{{t:{thread}}}:log", 0, -1))
        answers = await self._wire.many(*commands)
        return [
            (_pairs(header), tuple(log))
            for header, log in zip(answers[::2], answers[1::2], strict=True)
        ]

    @override
    async def members(self, group: str) -> list[str]:
        answer = await self._wire.call("LRANGE", f"{{g:{group}}}", 0, -1)
        return [str(thread, "ascii") for thread in answer]

    @override
    async def recent(self, limit: int, before_ms: int | None) -> list[str]:
        newest = "+inf" if before_ms is None else f"({before_ms}"
        answer = await self._wire.call(
            "ZREVRANGEBYSCORE", GROUPS, newest, "-inf", "LIMIT", 0, min(limit, MAX_RECENT)
        )
        return [str(group, "ascii") for group in answer]

    @override
    async def deal(self, agreement: str) -> str | None:
        thread = await self._wire.call("GET", f"{{d:{agreement}}}")
        return str(thread, "ascii") if thread is not None else None

    async def _judge(
        self, thread: str, operation: str, raw: bytes, fields: list[Argument]
    ) -> Ruled:
        keys = [f"{{t:{thread}}}:s", f"{{t:{thread}}}:log", f"{{t:{thread}}}:ids"]
        answer = await self._wire.run(_THREAD, keys, operation, raw, THREAD_TTL_MS, *fields)
        verdict, first, deliver, at_ms, state, *header = answer
        ruling = Ruling(
            verdict=cast("Verdict", str(verdict, "ascii")),
            state=cast("ThreadState", str(state, "ascii")),
            at_ms=at_ms,
            first=cast("Verdict", str(first, "ascii")) if first else None,
        )
        return Ruled(ruling, deliver == 1, _pairs(header))


def _flat(told: Said | Ending) -> list[Argument]:
    """Return the fields as names and values, one after another."""
    flat: list[Argument] = []
    for name in _FIELDS[type(told)]:
        value: str | int = getattr(told, name)
        flat += (name, int(value) if value is True or value is False else value)
    return flat


def _pairs(flat: list[Reply]) -> dict[str, str]:
    texts = [str(part, "utf-8") for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
