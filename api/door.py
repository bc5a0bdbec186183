"""Bare ASGI for small servers: a reply, a body within limits, and a server on one address.

The ledger and the witnesses speak through it: few routes, raw bytes, nothing in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import uvicorn
from typing_extensions import override

from rahba.errors import BadInputError, TooLargeError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
BODY_TIMEOUT_S: Final = 10.0
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


class SlowBodyError(BadInputError):
    """The body did not arrive in time."""

    code = "slow_body"


class HungUpError(Exception):
    """The caller hung up before the request was complete."""


class Reply(NamedTuple):
    """What goes back; ``headers`` come on top of those that every reply has."""

    body: bytes
    kind: str = JSON
    status: int = 200
    headers: Mapping[str, str] = _NO_HEADERS


async def send_reply(send: Send, reply: Reply) -> None:
    """Answer a request."""
    encoded = [
        (b"content-type", reply.kind.encode()),
        (b"content-length", b"%d" % len(reply.body)),
        (b"x-content-type-options", b"nosniff"),
    ]
    encoded += [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
    await send({"type": "http.response.body", "body": reply.body})


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the whole body.

    Raises:
        TooLargeError, SlowBodyError: it is beyond the limits.
        HungUpError: the caller is gone.
    """
    declared = header_of(scope, b"content-length")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLargeError("body too large", limit_bytes=limit)
    chunks = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HungUpError
                chunks += message.get("body", b"")
                if len(chunks) > limit:
                    raise TooLargeError("body too large", limit_bytes=limit)
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise SlowBodyError("the body did not arrive in time") from error
    return bytes(chunks)


def header_of(scope: Scope, name: bytes) -> str:
    """Return a header field, or nothing."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return ""


class _Server(uvicorn.Server):
    """Uvicorn that says when it listens, and leaves signals to whoever runs the loop."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    @override
    def capture_signals(self) -> Generator[None]:
        yield


async def serve_app(
    app: App, host: str, port: int, *, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until cancelled; open requests are answered first (5 s at most).

    ``ready`` is called with the address once it listens (``port`` 0: any free one). Signals are
    the caller's.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=5,
    )
    with _listen(host, port) as door:
        address = f"http://{host}:{door.getsockname()[1]}"
        server = _Server(config, lambda: ready(address) if ready else None)
        running = asyncio.create_task(server.serve(sockets=[door]))
        try:
            await asyncio.shield(running)
        finally:
            server.should_exit = True
            await running


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off (40 ms a request) only for sockets that say they are TCP.
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(1_024)
    except OSError:
        door.close()
        raise
    return door
