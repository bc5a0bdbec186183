"""Idempotency-Key: a write that is sent again is answered again, and never carried out twice.

What it does: reserves a key before anything is spent, keeps the answer for a day in Redis, and
gives it back to whoever sends the same request with the same key, over any gateway.

Rules:

* A key belongs to its API key; what is compared is the hash of method, path and body.
* The reservation fixes the id of the thing to be made (``resource``). If the gateway dies, the
  retry gets the *same* id once the reservation lapses, so that it resumes instead of repeating.
* Stored answers are sealed under the caller's API key: the store reveals no output.

Reserve -> ``Fresh`` (act, then ``finish``), ``Resumed`` (look the resource up first), or the stored
answer; a running twin raises ``InProgressError``, another body ``KeyReusedError``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import msgspec

from api.http.errors import InProgressError, KeyReusedError
from api.keys import Box
from broker.transports.redis.wire import Script, Wire
from rahba.errors import BadInputError
from rahba.ids import Ids

MAX_KEY_CHARS: Final = 128
_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)

# A reservation is "doing" until the server's clock passes `until`; then the next asker has it.
_RESERVE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local old = redis.call('HMGET', KEYS[1], 'request', 'resource', 'until', 'answer')
if not old[1] then
  redis.call('HSET', KEYS[1], 'request', ARGV[1], 'resource', ARGV[2], 'until', now + ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  return {'fresh', ARGV[2]}
end
if old[1] ~= ARGV[1] then return {'reused', ''} end
if old[4] then return {'done', old[4]} end
if tonumber(old[3]) > now then return {'doing', old[2]} end
redis.call('HSET', KEYS[1], 'until', now + ARGV[3])
return {'resumed', old[2]}
""")


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer as it is kept."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to carry a request out, once. ``resumed`` says that somebody began before."""

    place: str
    resource: str
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Reservations and answers in Redis; see the module for what it guarantees."""

    wire: Wire
    ids: Ids
    reservation_ms: int
    kept_s: int

    async def reserve(self, owner: str, key: str, request: str, box: Box) -> Reservation | Answer:
        """Reserve ``key`` of ``owner`` for the request with this hash, or return its answer.

        Raises:
            BadInputError: the key is not 1 to 128 printable ASCII characters.
            InProgressError: the first one is still being carried out.
            KeyReusedError: the key was used for another request.
        """
        if _KEY.fullmatch(key) is None:
            raise BadInputError("an Idempotency-Key has 1 to 128 printable ASCII characters")
        place = f"{{i:{owner[:32]}:{hashlib.sha256(key.encode()).hexdigest()[:32]}}}"
        verdict, value = await self.wire.run(
            _RESERVE, [place], request, self.ids.new(), self.reservation_ms, self.kept_s
        )
        match verdict:
            case b"fresh" | b"resumed":
                return Reservation(place, value.decode(), resumed=verdict == b"resumed")
            case b"done":
                return msgspec.json.decode(box.open(value.decode()), type=Answer)
            case b"doing":
                raise InProgressError(headers={"retry-after": "1"}, resource=value.decode())
            case _:
                raise KeyReusedError

    async def finish(self, reservation: Reservation, answer: Answer, box: Box) -> None:
        """Keep the answer; from now on the same request gets it back."""
        sealed = box.seal(msgspec.json.encode(answer), self.ids)
        await self.wire.call("HSET", reservation.place, "answer", sealed)

    async def extend(self, reservation: Reservation, until_ms: int) -> None:
        """Keep the reservation while the work goes on."""
        await self.wire.call("HSET", reservation.place, "until", until_ms)

    async def forget(self, reservation: Reservation) -> None:
        """Give the key back: the request was refused before anything was done."""
        await self.wire.call("DEL", reservation.place)


def request_hash(method: str, path: str, body: bytes) -> str:
    """Return the hash by which two requests count as the same."""
    return hashlib.sha256(b"%s %s\n%s" % (method.encode(), path.encode(), body)).hexdigest()
