"""The frame around every request: size limits before the routes, figures and headers after them.

One plain ASGI middleware, so that a request pays for one hop. Limits on address, header fields and
body hold while bytes stream in; a body that lies about its length is cut off all the same.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import HeadersTooLargeError, HttpError, QueryTooLongError
from api.http.metrics import Metrics
from api.http.problems import problem_of
from api.http.settings import GatewaySettings
from rahba.errors import RahbaError, TooLargeError

_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Frame:
    """Refuses what is too large, counts what was served."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings, metrics: Metrics) -> None:
        """Wrap ``app``."""
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s, status = perf_counter(), 500

        async def framed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            try:
                self._check(scope)
            except RahbaError as error:
                await problem_of(error).response()(scope, receive, framed_send)
                return
            await self._app(scope, self._counted(receive), framed_send)
        finally:
            self._metrics.served(scope, status, perf_counter() - begun_s)

    def _check(self, scope: Scope) -> None:
        limits = self._settings
        if (
            len(scope.get("raw_path") or b"") + len(scope["query_string"])
            > limits.max_address_bytes
        ):
            raise QueryTooLongError("the address is too long", limit_bytes=limits.max_address_bytes)
        size, length = 0, b""
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"content-length":
                length = value
        if size > limits.max_header_bytes:
            raise HeadersTooLargeError("too many headers", limit_bytes=limits.max_header_bytes)
        if not length:
            return
        if not length.isdigit():
            raise HttpError("Content-Length is not a number")
        if len(length) > 18 or int(length) > limits.max_body_bytes:
            raise TooLargeError("the body is too large", limit_bytes=limits.max_body_bytes)

    def _counted(self, receive: Receive) -> Receive:
        left = self._settings.max_body_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                limit = self._settings.max_body_bytes
                raise TooLargeError("the body is too large", limit_bytes=limit)
            return message

        return counted
