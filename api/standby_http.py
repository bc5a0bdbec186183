"""What a standby of the ledger answers while it waits: that it is one, so clients ask elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from api.door import Receive, Reply, Scope, Send, send_reply, serve_app

_BODY = (
    b'{"type":"/problems/standby","title":"Standby","status":503,"code":"standby",'
    b'"detail":"another process serves this ledger; this one waits to take it over"}'
)
_STANDBY = Reply(_BODY, "application/problem+json", 503, {"retry-after": "1"})


async def serve_standby(
    host: str, port: int, *, ready: Callable[[str], None] | None = None
) -> None:
    """Answer everything, ``/healthz`` above all, with 503 and the code ``standby``."""
    await serve_app(_answer, host, port, ready=ready)


async def _answer(_: Scope, __: Receive, send: Send) -> None:
    await send_reply(send, _STANDBY)
