"""A witness over HTTP (C2SP ``tlog-witness``). Bare ASGI.

``POST /add-checkpoint`` is the protocol, with ``GET /<SHA-256 of the origin>/checkpoint``: the
newest checkpoint of a log that was cosigned is for anybody. ``GET /vkey`` gives the key for other
people's policies, ``GET /evidence`` what is kept against logs.

    await serve_witness(watch, "127.0.0.1", 8702)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final

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
from rahba.errors import BadInputError, RahbaError, TooLargeError
from wallet.watch import Watch
from wallet.witness import MAX_BODY_BYTES

_CHECKPOINT: Final = re.compile(r"/([0-9a-f]{64})/checkpoint")

logger = logging.getLogger("rahba.witness.http")


class WitnessApp:
    """The ASGI application over one witness."""

    def __init__(self, watch: Watch) -> None:
        """Serve ``watch``."""
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError("a witness speaks HTTP only")
        try:
            reply = await self._answer(scope, receive)
        except HungUpError:
            return
        except RahbaError as error:
            reply = Reply(error.message.encode(), TEXT, _status(error))
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
            case _, "/add-checkpoint":
                return Reply(b"only POST has a meaning here", TEXT, 405, {"allow": "POST"})
            case "GET", path:
                return await self._shown(path)
            case _:
                return Reply(b"there is no such address", TEXT, 404)

    async def _shown(self, path: str) -> Reply:
        checkpoint = _CHECKPOINT.fullmatch(path)
        if checkpoint is not None:
            return await self._checkpoint(checkpoint.group(1))
        match path:
            case "/healthz":
                return Reply(b'{"status":"ok"}', headers={"cache-control": "no-store"})
            case "/vkey":
                return Reply(f"{self._watch.vkey}\n".encode(), TEXT)
            case "/evidence":
                found = [orjson.loads(bundle) for bundle in await self._watch.evidence()]
                return Reply(orjson.dumps(found))
            case _:
                return Reply(b"there is no such address", TEXT, 404)

    async def _checkpoint(self, name: str) -> Reply:
        note = await self._watch.checkpoint(name)
        if note is None:
            return Reply(b"no checkpoint of that log was cosigned", TEXT, 404)
        return Reply(note.encode(), TEXT, headers={"cache-control": "public, max-age=1"})


def _status(error: RahbaError) -> int:
    """Return whose fault it was: the caller's, or ours (the disk, a log that cannot be asked)."""
    if isinstance(error, TooLargeError):
        return 413
    return 400 if isinstance(error, BadInputError) else 503


async def serve_witness(
    watch: Watch,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled; ``ready`` is called with the address once it listens."""
    await serve_app(WitnessApp(watch), host, port, ready=ready)
