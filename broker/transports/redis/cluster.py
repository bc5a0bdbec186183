"""A wire to a Redis Cluster: one line a node, and every command goes where its first key is.

* The map of slots is asked of any node that answers. A node that refuses a command because its slot
  has moved says where to: the command follows (``MOVED``, ``ASK``), and the map is drawn anew.
* What a node refuses for the moment (a failover, keys on their way) is tried again, and a script
  waits until its slot has arrived: half of its keys may still be at home. All this ends
  after ``patience_s`` with :class:`~broker.errors.BrokerUnreachableError`, as on a single server:
  so does, at once, a call whose answer was lost with its node.
* A reader's own line closes itself when its slot is served elsewhere; the reader sees a connection
  that was lost, and opens the next one at the right node.
* Keys of one command or script share one hash tag, or :class:`CrossSlotError` is raised.

Replicas are not read from. A promoted one may lack the last writes that its master acknowledged:
Redis replicates after it answers (``docs/adr/0032``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hiredis import ReplyError
from typing_extensions import override

from broker.errors import BrokerUnreachableError
from broker.transports.redis.slots import (
    SLOTS,
    Redirection,
    Stretch,
    is_script,
    read_slots,
    slot_of,
    slot_of_key,
)
from broker.transports.redis.wire import (
    RETRY_SECONDS,
    Address,
    Argument,
    Line,
    Reply,
    Wire,
    numbered,
)
from rahba.errors import LocalError

MAX_REDIRECTIONS: Final = 16
AT_ONCE: Final = 3
ASK_SECONDS: Final = 1.0
REDRAW_SECONDS: Final = 1.0
_FOR_NOW: Final = ("CLUSTERDOWN", "LOADING", "MASTERDOWN", "TRYAGAIN")
_ELSEWHERE: Final = ("MOVED", "ASK", *_FOR_NOW)
_CROSSED: Final = ("CROSSSLOT", "non local key", "do not hash to the same slot")


class CrossSlotError(LocalError, ReplyError):
    """The keys of one command or script lie in different slots of the cluster."""

    code = "cross_slot"
    hint = "give all keys of one command or script the same hash tag"


@dataclass(eq=False, slots=True)
class Node:
    """One server of the cluster and the line to it."""

    address: Address
    line: Line | None = None
    opening: asyncio.Task[Line] | None = None

    @property
    def open_line(self) -> Line | None:
        """Return the line if it is open."""
        return self.line if self.line is not None and not self.line.closed else None

    @property
    def idle(self) -> bool:
        """Say whether nobody waits for this node."""
        busy = self.opening is not None and not self.opening.done()
        return not busy and (self.line is None or self.line.idle)

    async def reach(self) -> Line:
        """Return the open line; it is opened once for all who wait.

        Raises:
            OSError: the node cannot be reached.
            hiredis.ReplyError: it refuses the login.
        """
        if (line := self.open_line) is not None:
            return line
        if self.opening is None or self.opening.done():
            self.opening = asyncio.create_task(self._open())
        return await asyncio.shield(self.opening)

    async def close(self) -> None:
        """Drop the line; calls in flight fail."""
        if self.opening is not None:
            self.opening.cancel()
            await asyncio.gather(self.opening, return_exceptions=True)
        if self.line is not None:
            await self.line.aclose()

    async def _open(self) -> Line:
        self.line = await Line.open(self.address)  # kept even if nobody waits any more
        return self.line


class ReadersLine(Line):
    """A line for commands that block; closes where its slot is not served (any more)."""

    heed: Callable[[str, Line], None] | None = None

    @override
    def _answer(self, reply: Reply) -> None:
        if isinstance(reply, ReplyError) and str(reply).startswith(_ELSEWHERE):
            if self.heed is not None:
                self.heed(str(reply), self)
            self.close()
        else:
            super()._answer(reply)


@dataclass(slots=True)
class _Errand:
    """A command on its way: where it went last, and what holds its answer once it was sent."""

    command: Sequence[Argument]
    slot: int | None
    node: Node | None = None
    answer: asyncio.Future[Reply] | None = None
    deadline_s: float = 0.0
    redirections: int = 0


class ClusterWire(Wire):
    """Keeps a line open to each master; safe for any number of tasks of one loop."""

    def __init__(self, url: str | Address, *, patience_s: float = 3.0) -> None:
        """Start from any node, on first use."""
        super().__init__(url, patience_s=patience_s)
        self._nodes: dict[tuple[str, int], Node] = {}
        self._serving: list[Node | None] = [None] * SLOTS
        self._drawing: asyncio.Task[None] | None = None
        self._drawn_s = float("-inf")
        self._turn = 0

    @override
    async def call(self, *command: Argument) -> Reply:
        return await self._settled(self._sent(command, slot_of(command)))

    @override
    async def many(self, *commands: Sequence[Argument]) -> list[Reply]:
        errands = [self._sent(command, slot_of(command)) for command in commands]
        answers: list[Reply] = []
        failure: BrokerUnreachableError | ReplyError | None = None
        for errand in errands:
            try:
                answers.append(await self._settled(errand))
            except (BrokerUnreachableError, ReplyError) as error:
                failure = error
        if failure is not None:
            raise failure
        return answers

    @override
    async def call_near(self, keys: Sequence[str], *command: Argument) -> Reply:
        return await self._settled(self._sent(command, slot_of_key(keys[0]) if keys else None))

    @override
    async def everywhere(self, *command: Argument) -> list[Reply]:
        try:
            await self._draw()
            masters = dict.fromkeys(node for node in self._serving if node is not None)
            lines = [await node.reach() for node in masters]
            return [await line.call(*command) for line in lines]
        except OSError as error:
            raise BrokerUnreachableError(f"the broker did not answer: {error}") from error

    @override
    async def own_line(self, key: str, *, answer_seconds: float) -> Line:
        if self._closed:
            raise ConnectionError("the broker was closed")
        slot = slot_of_key(key)
        try:
            node = self._serving[slot] or await self._found(slot)
            line = await ReadersLine.open(node.address, answer_seconds=answer_seconds)
        except OSError:
            self._redraw()
            raise
        line.heed = self._heed
        return await numbered(line)

    @override
    async def unblock(self, line: Line) -> None:
        if line.closed:
            return
        try:
            node = self._at(line.address)
            await (await node.reach()).call("CLIENT", "UNBLOCK", line.number)
        except OSError as error:
            raise BrokerUnreachableError(f"the broker did not answer: {error}") from error

    @override
    async def close(self) -> None:
        self._closed = True
        if self._drawing is not None:
            self._drawing.cancel()
            await asyncio.gather(self._drawing, return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    def _sent(self, command: Sequence[Argument], slot: int | None) -> _Errand:
        """Send at once where the way is known and open; commands leave in the order of calls."""
        node = self._anyone() if slot is None else self._serving[slot]
        line = None if node is None else node.open_line
        return _Errand(command, slot, node, None if line is None else line.call(*command))

    async def _settled(self, errand: _Errand) -> Reply:
        """Return the answer, wherever the command has to go for it; errors as of `Wire.call`."""
        while True:
            if errand.answer is None:
                errand.answer = await self._send(errand)
            try:
                return await errand.answer
            except OSError as error:
                raise BrokerUnreachableError(f"the broker did not answer: {error}") from error
            except ReplyError as error:
                errand.answer = await self._again(errand, error)

    async def _send(self, errand: _Errand) -> asyncio.Future[Reply]:
        """Send as soon as the node can be reached, within our patience."""
        anew = False
        while not self._closed:
            try:
                errand.node = await self._found(errand.slot, anew=anew)
                return (await errand.node.reach()).call(*errand.command)
            except ReplyError as error:
                raise BrokerUnreachableError(f"the broker cannot be reached: {error}") from error
            except OSError as error:
                await self._wait(errand, f"the broker cannot be reached: {error}", error)
                anew = True
        raise BrokerUnreachableError("the broker was closed")

    async def _again(self, errand: _Errand, refusal: ReplyError) -> asyncio.Future[Reply] | None:
        """Follow a redirection, or wait for a better moment; any other refusal is raised."""
        said = str(refusal)
        if any(crossed in said for crossed in _CROSSED):
            raise CrossSlotError(said, command=str(errand.command[0])) from refusal
        redirection = Redirection.of(said)
        if redirection is None and not said.startswith(_FOR_NOW):
            raise refusal
        if redirection is not None and redirection.asking and is_script(errand.command):
            redirection = None
        errand.redirections += 1
        if errand.redirections > MAX_REDIRECTIONS and redirection is not None:
            raise BrokerUnreachableError("the cluster's nodes disagree on a slot") from refusal
        if redirection is None or errand.redirections > AT_ONCE:
            await self._wait(errand, f"the cluster does not serve this now: {said}", refusal)
        if redirection is not None and redirection.asking:
            return await self._ask(errand, redirection)
        if redirection is None:
            self._redraw()
        else:
            self._moved(redirection, errand.node)
        return None

    async def _ask(self, errand: _Errand, to: Redirection) -> asyncio.Future[Reply] | None:
        """Send this once to the node that a slot is on its way to."""
        node = self._named(to.host, to.port, errand.node)
        try:
            line = await node.reach()
        except OSError as error:
            await self._wait(errand, f"the broker cannot be reached: {error}", error)
            return None
        line.call("ASKING").add_done_callback(_looked_at)
        return line.call(*errand.command)

    async def _wait(self, errand: _Errand, why: str, cause: Exception) -> None:
        """Wait a moment; raises where ``patience_s`` is over."""
        now_s = asyncio.get_running_loop().time()
        errand.deadline_s = errand.deadline_s or now_s + self._patience_s
        if now_s > errand.deadline_s:
            raise BrokerUnreachableError(why) from cause
        await asyncio.sleep(RETRY_SECONDS)

    async def _found(self, slot: int | None, *, anew: bool = False) -> Node:
        """Return the node that serves ``slot``, or any; raises OSError if none is known."""
        if anew or not self._nodes:
            await self._draw()
        node = self._anyone() if slot is None else self._serving[slot]
        if node is None:
            raise ConnectionError("no node of the cluster serves this slot")
        return node

    def _anyone(self) -> Node | None:
        """Return a node that can be talked to now; else each in turn."""
        nodes = list(self._nodes.values())
        for node in nodes:
            if node.open_line is not None:
                return node
        self._turn += 1
        return nodes[self._turn % len(nodes)] if nodes else None

    def _moved(self, to: Redirection, by: Node | None) -> None:
        self._serving[to.slot] = self._named(to.host, to.port, by)
        self._redraw()

    def _heed(self, refusal: str, line: Line) -> None:
        """Learn from what a reader's line was told."""
        redirection = Redirection.of(refusal)
        if redirection is None or redirection.asking:
            self._redraw()
        else:
            self._moved(redirection, self._at(line.address))

    def _redraw(self) -> None:
        """Draw the map anew behind everybody's back, but not more often than need be."""
        idle = self._drawing is None or self._drawing.done()
        now_s = asyncio.get_running_loop().time()
        if idle and not self._closed and now_s - self._drawn_s > REDRAW_SECONDS:
            self._drawn_s = now_s
            self._drawing = asyncio.create_task(self._ask_around())
            self._drawing.add_done_callback(_looked_at)

    async def _draw(self) -> None:
        """Draw the map anew, once for all who wait; raises OSError, ReplyError."""
        if self._drawing is None or self._drawing.done():
            self._drawing = asyncio.create_task(self._ask_around())
            self._drawing.add_done_callback(_looked_at)
        await asyncio.shield(self._drawing)

    async def _ask_around(self) -> None:
        """Ask one node after another, each time from another one on: one alone may be cut off."""
        self._turn += 1
        nodes = [*self._nodes.values()]
        cut = self._turn % len(nodes) if nodes else 0
        failure: Exception | None = None
        for node in [*nodes[cut:], *nodes[:cut], self._at(self._address)]:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    answer = await (await node.reach()).call("CLUSTER", "SLOTS")
            except (OSError, ReplyError) as error:
                failure = error
                continue
            if stretches := read_slots(answer):
                self._install(stretches, node)
                return
        raise failure or ConnectionError("no node knows of a cluster")

    def _install(self, stretches: list[Stretch], by: Node) -> None:
        serving: list[Node | None] = [None] * SLOTS
        for one in stretches:
            node = self._named(one.host, one.port, by)
            serving[one.first : one.last + 1] = [node] * (one.last + 1 - one.first)
        self._serving = serving
        self._drawn_s = asyncio.get_running_loop().time()
        masters = set(map(id, serving))
        for place, node in list(self._nodes.items()):
            if id(node) not in masters and node.idle:
                del self._nodes[place]
                if node.line is not None:
                    node.line.close()

    def _named(self, host: str, port: int, by: Node | None) -> Node:
        near = by.address if by else self._address
        return self._at(replace(self._address, host=host or near.host, port=port, path=None))

    def _at(self, address: Address) -> Node:
        place = (address.path or address.host, address.port)
        return self._nodes.setdefault(place, Node(address))


def _looked_at(future: asyncio.Future[Reply]) -> None:
    """Take note of a failure that nobody waits for."""
    if not future.cancelled():
        _ = future.exception()
