"""A witness over HTTP (C2SP ``tlog-witness``). Bare ASGI.

``POST /add-checkpoint`` is the protocol; ``GET /vkey`` gives the key for other people's policies,
``GET /evidence`` what was kept against logs that contradicted themselves.

    await serve_witness(watch, store, "127.0.0.1", 8702)
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import orjson

from api.door import (
    TEXT,
    HungUpError,
    Receive,
    Reply,
    Scope,
    Send,
    read_body,
    send_reply,
    serve_app,
)
from rahba.errors import RahbaError, TooLargeError
from wallet.stores.witness import WitnessStore
from wallet.watch import Watch
from wallet.witness import MAX_BODY_BYTES

logger = logging.getLogger("rahba.witness.http")


class WitnessApp:
    """The ASGI application over one witness."""

    def __init__(self, watch: Watch, store: WitnessStore) -> None:
        """Serve ``watch``, which writes to ``store``."""
        self._watch = watch
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError("a witness speaks HTTP only")
        try:
            reply = await self._answer(scope, receive)
        except HungUpError:
            return
        except RahbaError as error:
            status = 413 if isinstance(error, TooLargeError) else 503 if error.retryable else 400
            reply = Reply(error.message.encode(), TEXT, status)
        except Exception:  # the one supervised boundary: a defect must not end the server
            logger.exception("request failed: %s", scope["path"][:256])
            reply = Reply(b"the witness could not answer; its own log says why", TEXT, 500)
        await send_reply(send, reply)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        match scope["method"], scope["path"]:
            case "POST", "/add-checkpoint":
                body = await read_body(scope, receive, MAX_BODY_BYTES)
                ruling = await self._watch.add_checkpoint(body)
                return Reply(ruling.body.encode(), ruling.kind, ruling.status)
            case "GET", "/healthz":
                return Reply(b'{"status":"ok"}', headers={"cache-control": "no-store"})
            case "GET", "/vkey":
                return Reply(f"{self._watch.vkey}\n".encode(), TEXT)
            case "GET", "/evidence":
                found = [orjson.loads(bundle) for bundle in self._store.evidence()]
                return Reply(orjson.dumps(found))
            case _, "/add-checkpoint":
                return Reply(b"only POST has a meaning here", TEXT, 405, {"allow": "POST"})
            case _:
                return Reply(b"there is no such address", TEXT, 404)


async def serve_witness(
    watch: Watch,
    store: WitnessStore,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled; ``ready`` is called with the address once it listens."""
    await serve_app(WitnessApp(watch, store), host, port, ready=ready)
