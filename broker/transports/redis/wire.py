"""One multiplexed connection to Redis: every command of a loop tick leaves in one write.

* :class:`Line` is one connection: replies come back in the order of the calls, so any number of
  callers share it, and a cancelled caller disturbs nobody.
* :class:`Wire` keeps a line open. After a loss it connects again; a call that cannot be sent
  within ``patience_s`` raises :class:`~broker.errors.BrokerUnreachableError`, as does a call whose
  answer was lost (it may or may not have taken effect: every command of ours may be repeated).
* A wire leads to one server. Where there is a cluster it is a
  :class:`~broker.transports.redis.cluster.ClusterWire`; :func:`~broker.transports.redis.dial.dial`
  finds out which one it takes.
* Limits: calls in flight a line, seconds to wait for an answer, bytes of one answer.

    wire = Wire("redis://127.0.0.1:6379/0")
    await wire.call("SET", "key", b"value")
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, cast

import hiredis
from redis.connection import parse_url
from redis.exceptions import RedisError
from typing_extensions import override

from broker.errors import BrokerUnreachableError
from rahba.encoding import sha256_hex
from rahba.errors import LocalError

Reply = Any
Argument = str | int | bytes

MAX_IN_FLIGHT: Final = 20_000
ANSWER_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 3.0
RETRY_SECONDS: Final = 0.05
FLOOR: Final = (6, 2)


class BadRedisUrlError(LocalError):
    """The address of the broker cannot be read."""

    code = "bad_redis_url"
    hint = "redis://[:password@]host:port/db, rediss://... or unix:///path?db=0"


class RedisTooOldError(LocalError):
    """The server speaks less than Redis 6.2."""

    code = "redis_too_old"
    hint = "use Valkey, or Redis 6.2 or later"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is and how to log in; never printed with its password."""

    host: str
    port: int
    path: str | None
    tls: bool
    login: tuple[str, ...]
    database: int

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a Redis URL."""
        try:
            parts: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
        except (ValueError, RedisError) as error:
            raise BadRedisUrlError("not a Redis URL") from error
        login = tuple(str(parts[key]) for key in ("username", "password") if parts.get(key))
        return cls(
            host=str(parts.get("host", "127.0.0.1")),
            port=int(parts.get("port", 6379)),
            path=str(parts["path"]) if "path" in parts else None,
            tls=url.startswith("rediss://"),
            login=login,
            database=int(parts.get("db", 0)),
        )


class Line(asyncio.Protocol):
    """One connection; made by :meth:`open`."""

    address: Address
    number: int  #: the server's name for it, known of the lines that :meth:`Wire.own_line` opens

    def __init__(self, answer_seconds: float) -> None:
        """Wait at most ``answer_seconds`` for each answer."""
        self._reader = hiredis.Reader(notEnoughData=self)
        self._answer_seconds = answer_seconds
        self._expected: deque[tuple[float, asyncio.Future[Reply]]] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.closed = False

    @classmethod
    async def open(cls, address: Address, *, answer_seconds: float = ANSWER_SECONDS) -> Self:
        """Connect, log in and choose the database.

        Raises:
            OSError: the server cannot be reached, or is still loading its data.
            hiredis.ReplyError: it refuses the login.
        """
        loop = asyncio.get_running_loop()
        line = cls(answer_seconds)
        line.address = address
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if address.path is not None:
                    await loop.create_unix_connection(lambda: line, address.path)
                else:
                    context = ssl.create_default_context() if address.tls else None
                    await loop.create_connection(
                        lambda: line, address.host, address.port, ssl=context
                    )
                if address.login:
                    await line.call("AUTH", *address.login)
                if address.database:
                    await line.call("SELECT", address.database)
                await line.call("PING")
        except hiredis.ReplyError as error:
            line.close()
            if str(error).startswith("LOADING"):
                raise ConnectionError("the server is loading its data") from error
            raise
        except BaseException:
            line.close()
            raise
        return line

    @property
    def idle(self) -> bool:
        """Say whether nobody waits for an answer."""
        return not self._expected

    def call(self, *command: Argument) -> asyncio.Future[Reply]:
        """Send one command with this tick's others; the future holds its answer."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.closed:
            future.set_exception(ConnectionResetError("the connection is closed"))
            return future
        if len(self._expected) >= MAX_IN_FLIGHT:
            future.set_exception(ConnectionError("too many calls in flight"))
            return future
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(cast("bytes", hiredis.pack_command(cast("Any", command))))
        self._expected.append((self._loop.time() + self._answer_seconds, future))
        if self._watch is None:
            self._watch = self._loop.call_later(self._answer_seconds, self._look)
        return future

    def close(self) -> None:
        """Drop the connection; calls in flight fail."""
        if self._transport is not None:
            self._transport.abort()
        elif not self._gone.done():
            self._gone.set_result(None)
        self._lose(None)

    async def aclose(self) -> None:
        """Drop the connection and wait until the socket is closed."""
        self.close()
        await self._gone

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not self:
                self._answer(reply)
        except (hiredis.ProtocolError, IndexError):
            self.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc)
        self._gone.set_result(None)

    def _answer(self, reply: Reply) -> None:
        _, future = self._expected.popleft()
        if future.done():  # its caller has gone
            return
        if isinstance(reply, hiredis.ReplyError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(out))

    def _look(self) -> None:
        """Give up on a server that owes an answer for too long."""
        self._watch = None
        if not self._expected or self.closed:
            return
        remaining = self._expected[0][0] - self._loop.time()
        if remaining <= 0:
            self.close()
        else:
            self._watch = self._loop.call_later(remaining, self._look)

    def _lose(self, cause: Exception | None) -> None:
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._expected:
            _, future = self._expected.popleft()
            if not future.done():
                lost = ConnectionResetError("the connection was lost")
                lost.__cause__ = cause
                future.set_exception(lost)
                future.exception()  # a caller that has gone need not look


async def numbered(line: Line) -> Line:
    """Ask the server for the number of a new line; raises OSError."""
    try:
        line.number = int(await line.call("CLIENT", "ID"))
    except BaseException:
        line.close()
        raise
    return line


class Script:
    """A Lua script, sent by its digest and by its text only when the server lacks it."""

    def __init__(self, source: str) -> None:
        """Keep the text."""
        self.source = source
        self.name = sha256_hex(source.encode())[:8]
        self.sha: str | None = None


class Wire:
    """Keeps one line open for all callers of a loop; safe for any number of tasks of it."""

    def __init__(self, url: str | Address, *, patience_s: float = 3.0) -> None:
        """Connect on first use; wait ``patience_s`` for an unreachable server before giving up."""
        self._address = Address.of(url) if isinstance(url, str) else url
        self._patience_s = patience_s
        self._line: Line | None = None
        self._opening: asyncio.Task[Line] | None = None
        self._closed = False

    async def call(self, *command: Argument) -> Reply:
        """Send one command and return its answer.

        Raises:
            BrokerUnreachableError: no connection in time, or the answer was lost.
            hiredis.ReplyError: the server refuses the command.
        """
        line = self._line
        if line is None or line.closed:
            line = await self._open()
        try:
            return await line.call(*command)
        except OSError as error:
            raise BrokerUnreachableError(f"the broker did not answer: {error}") from error

    async def many(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Send several commands at once and return their answers, in order; errors as of `call`.

        Where one is refused, all have been carried out as far as they could be.
        """
        line = self._line
        if line is None or line.closed:
            line = await self._open()
        futures = [line.call(*command) for command in commands]
        answers: list[Reply] = []
        failure: BrokerUnreachableError | hiredis.ReplyError | None = None
        for future in futures:
            try:
                answers.append(await future)
            except OSError as error:
                failure = BrokerUnreachableError(f"the broker did not answer: {error}")
                failure.__cause__ = error
            except hiredis.ReplyError as error:
                failure = error
        if failure is not None:
            raise failure
        return answers

    async def run(self, script: Script, keys: list[str], *arguments: Argument) -> Reply:
        """Run a script; it is loaded where the server does not know it (any more)."""
        tail = (len(keys), *keys, *arguments)
        if script.sha is not None:
            try:
                return await self.call("EVALSHA", script.sha, *tail)
            except hiredis.ReplyError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
        loaded = await self.call_near(keys, "SCRIPT", "LOAD", script.source)
        script.sha = loaded.decode("ascii")
        return await self.call("EVAL", script.source, *tail)

    async def call_near(self, keys: Sequence[str], *command: Argument) -> Reply:  # noqa: ARG002
        """Send a command that names no key to the server that keeps ``keys``; else as `call`."""
        return await self.call(*command)

    async def everywhere(self, *command: Argument) -> list[Reply]:
        """Send a command that names no key to every server there is; errors as of `call`."""
        return [await self.call(*command)]

    async def own_line(self, key: str, *, answer_seconds: float) -> Line:  # noqa: ARG002
        """Open a connection of one's own to the server that keeps ``key``, to block on it.

        Raises:
            OSError: the server cannot be reached.
        """
        if self._closed:
            raise ConnectionError("the broker was closed")
        return await numbered(await Line.open(self._address, answer_seconds=answer_seconds))

    async def unblock(self, line: Line) -> None:
        """End what blocks one's own ``line`` now: it answers as if its time were up."""
        await self.call("CLIENT", "UNBLOCK", line.number)

    async def check(self) -> str:
        """Return the server's version; refuse one below the floor."""
        info = str(await self.call("INFO", "server"), "utf-8", "replace")
        facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        version = facts.get("redis_version", "0.0")
        if tuple(int(part) for part in version.split(".")[:2]) < FLOOR:
            raise RedisTooOldError("the server is too old", version=version)
        return version

    async def close(self) -> None:
        """Close; later calls fail."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._line is not None:
            await self._line.aclose()

    async def _open(self) -> Line:
        if self._closed:
            raise BrokerUnreachableError("the broker was closed")
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._keep_trying())
        try:
            return await asyncio.shield(self._opening)
        except (OSError, hiredis.ReplyError) as error:
            raise BrokerUnreachableError(f"the broker cannot be reached: {error}") from error

    async def _keep_trying(self) -> Line:
        deadline = asyncio.get_running_loop().time() + self._patience_s
        while True:
            try:
                self._line = await Line.open(self._address)  # kept even if nobody waits any more
            except OSError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            else:
                return self._line
            await asyncio.sleep(RETRY_SECONDS)
