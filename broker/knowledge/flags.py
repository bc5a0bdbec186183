"""Flags on keys: hints with a reason and an expiry, never a verdict; pure.

A flag is kept for ``FLAG_MS``, and its like again makes it last longer. It is told on the feed
when it is new, and at most every ``TELL_EVERY_MS`` after that. At most ``MAX_FLAGS`` are kept; the
oldest go first. Nothing in the market acts upon a flag by itself.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Kind = Literal["price", "ring"]

FLAG_MS: Final = 24 * 3_600_000
TELL_EVERY_MS: Final = 3_600_000
MAX_FLAGS: Final = 1_024


class Flag(msgspec.Struct, frozen=True):
    """What looked odd about ``agents``; ``times`` within its life, last at ``at_ms``."""

    kind: Kind
    agents: tuple[str, ...]
    skill: str
    agreement: str
    reason: str
    score: float
    at_ms: int
    since_ms: int
    until_ms: int
    told_ms: int
    times: int = 1


class Board(msgspec.Struct):
    """The flags that stand, by what they are about."""

    flags: dict[str, Flag] = {}

    def raise_flag(
        self,
        kind: Kind,
        agents: tuple[str, ...],
        *,
        skill: str,
        agreement: str,
        reason: str,
        score: float,
        at_ms: int,
    ) -> Flag | None:
        """Raise a flag, or note it once more; returns it if it is to be told now."""
        key = " ".join((kind, skill, *agents))
        old = self.flags.pop(key, None)
        if old is not None and old.until_ms <= at_ms:
            old = None
        tell = old is None or at_ms >= old.told_ms + TELL_EVERY_MS
        flag = Flag(
            kind=kind,
            agents=agents,
            skill=skill,
            agreement=agreement,
            reason=reason,
            score=round(score, 3),
            at_ms=at_ms,
            since_ms=at_ms if old is None else old.since_ms,
            until_ms=at_ms + FLAG_MS,
            told_ms=at_ms if old is None or tell else old.told_ms,
            times=1 if old is None else old.times + 1,
        )
        self.flags[key] = flag  # the dictionary is in the order of expiry
        while self.flags and (first := next(iter(self.flags))) != key:
            if len(self.flags) <= MAX_FLAGS and self.flags[first].until_ms > at_ms:
                break
            del self.flags[first]
        return flag if tell else None

    def of(self, agent: str, *, now_ms: int) -> list[Flag]:
        """Return the flags on one key that have not expired, newest first."""
        return [flag for flag in self.by_agent().get(agent, []) if flag.until_ms > now_ms]

    def by_agent(self) -> dict[str, list[Flag]]:
        """Return each key's flags, newest first, expired ones included."""
        found: dict[str, list[Flag]] = {}
        for flag in reversed(self.flags.values()):
            for agent in flag.agents:
                found.setdefault(agent, []).append(flag)
        return found
