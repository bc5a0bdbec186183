"""How the gateway is served: uvicorn with uvloop and httptools, on an address of one's own.

Unlike plain uvicorn it ends its event streams before it waits for open requests, and it stops when
``stop`` is set: signals are the business of whoever calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator
from typing import Final

import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from api.http.gateway import Gateway

_GRACE_S: Final = 5


class _Server(uvicorn.Server):
    """Leaves signals alone, says when it listens, and ends streams before it waits."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._gateway, self._ready = gateway, ready

    @contextlib.contextmanager
    @override
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.drain()
        await super().shutdown(sockets)


async def serve(
    app: FastAPI,
    *,
    host: str,
    port: int,
    stop: asyncio.Event | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until ``stop`` is set (or this is cancelled); ``ready`` gets the address.

    With ``port`` 0 the system chooses one.
    """
    gateway = app.state.gateway
    assert isinstance(gateway, Gateway)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        backlog=1_024,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=1_024) as door:
        address = f"http://{f'[{host}]' if ':' in host else host}:{door.getsockname()[1]}"
        server = _Server(config, gateway, lambda: ready(address) if ready else None)
        running = asyncio.create_task(server.serve(sockets=[door]))
        waiting = asyncio.create_task((stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server.should_exit = True
            waiting.cancel()
            await asyncio.shield(running)
