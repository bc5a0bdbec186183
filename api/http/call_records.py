"""What is kept of a call, and how its outcome is written for its owner.

* A record is in Redis before anything is done about the call, and for seven days after.
* The outcome (output included) is sealed under the caller's API key; the rest is bookkeeping.
* The end of a call is written once: the first end stands.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson

from agents.brains.clerk import MAX_WISH_CHARS
from agents.negotiation import Weights
from agents.routing import Route
from api.http.errors import UnknownCallError
from api.keys import Box
from broker.transports.redis.wire import Script, Wire
from rahba.ids import Ids, check_id
from rahba.messages import Mode, Needs
from rahba.money import parse_fals

CallState = Literal["accepted", "running", "delivered", "settled", "failed"]

#: The result is in. A ``delivered`` call may still become ``settled``, and nothing else.
DONE: Final[frozenset[CallState]] = frozenset({"delivered", "settled", "failed"})
_ALIVE_MS: Final = 6_000

# An ended call stays as it ended, whoever comes late.
_WRITE: Final = Script("""
local old = redis.call('HGET', KEYS[1], 'state')
if old == 'settled' or old == 'failed' then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'record', ARGV[2])
return 1
""")


class CallRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/calls``. ``deadline_ms`` counts from now; ``budget`` is in fals.

    ``needs`` is what a service must be like, ``weights`` what matters how much among those that
    are; ``min_penalty`` (thousandths of the price) is what a seller must put up. A ``wish`` says
    all this in words, and is written down before any seller is heard; it only narrows the rest.
    With ``route`` sellers are tried one after the other at their posted prices: by what they
    delivered lately (``thompson``), or the ``cheapest`` first.
    """

    input: dict[str, Any]
    budget: str
    skill: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    agent: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    mode: Mode | None = None
    route: Route | None = None
    deadline_ms: Annotated[int, msgspec.Meta(ge=100)] | None = None
    rounds: Annotated[int, msgspec.Meta(ge=1, le=20)] = 6
    needs: Needs = Needs()
    weights: Weights = Weights()
    min_penalty: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    wish: Annotated[str, msgspec.Meta(max_length=MAX_WISH_CHARS)] | None = None

    @property
    def budget_fals(self) -> int:
        """Return the budget as an integer of fals."""
        return parse_fals(self.budget)


class CallRecord(msgspec.Struct, frozen=True):
    """A call as it is stored. ``sealed`` holds the outcome, once there is one."""

    id: str
    key: str
    account: str
    group: str
    gateway: str
    skill: str | None
    agent: str | None
    mode: str | None
    budget: str
    deadline: int
    request: str
    created: int
    state: CallState = "accepted"
    finished: int | None = None
    sealed: str | None = None

    def document(self, box: Box) -> dict[str, object]:
        """Return what the call's owner sees."""
        shown: dict[str, object] = {
            "id": self.id,
            "state": self.state,
            "group": self.group,
            "skill": self.skill,
            "agent": self.agent,
            "budget_fals": self.budget,
            "deadline": self.deadline,
            "created": self.created,
            "finished": self.finished,
        }
        if self.sealed is not None:
            shown |= orjson.loads(box.open(self.sealed))
        return shown

    def ended(
        self, state: CallState, outcome: dict[str, object], at_ms: int, box: Box, ids: Ids
    ) -> CallRecord:
        """Return the record with an outcome."""
        return msgspec.structs.replace(
            self, state=state, finished=at_ms, sealed=box.seal(orjson.dumps(outcome), ids)
        )


class CallRecords:
    """The calls in Redis, and which gateways are alive to work on them."""

    def __init__(self, wire: Wire, *, kept_s: int) -> None:
        """Keep each call for ``kept_s``."""
        self._wire, self._kept_s = wire, kept_s

    async def create(self, record: CallRecord) -> bool:
        """Write a new call; false if there is one of this id already."""
        place = _place(record.id)
        raw = msgspec.json.encode(record)
        made, _ = await asyncio.gather(  # both leave in one write
            self._wire.call("HSETNX", place, "record", raw),
            self._wire.call("EXPIRE", place, self._kept_s),
        )
        return bool(made)

    async def write(self, record: CallRecord) -> bool:
        """Write a call's progress or end; false if it had ended before."""
        raw = msgspec.json.encode(record)
        return bool(await self._wire.run(_WRITE, [_place(record.id)], record.state, raw))

    async def read(self, call_id: str) -> CallRecord:
        """Return a call, or raise :class:`UnknownCallError`."""
        record = await self.find(check_id(call_id))
        if record is None:
            raise UnknownCallError("there is no such call", call=call_id)
        return record

    async def find(self, call_id: str) -> CallRecord | None:
        """Return a call, if there is one."""
        raw = await self._wire.call("HGET", _place(call_id), "record")
        return None if raw is None else msgspec.json.decode(raw, type=CallRecord)

    async def beat(self, gateway: str) -> None:
        """Say that a gateway is alive."""
        await self._wire.call("SET", f"{{gw:{gateway}}}", b"1", "PX", _ALIVE_MS)

    async def alive(self, gateway: str) -> bool:
        """Say whether a gateway has been heard of lately."""
        return bool(await self._wire.call("EXISTS", f"{{gw:{gateway}}}"))


def _place(call_id: str) -> str:
    return f"{{c:{call_id}}}"
