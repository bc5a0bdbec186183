"""The frame: limits hold before a route runs, figures are kept after it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from api.http.frame import Frame
from api.http.metrics import Metrics
from api.http.replies import Reply
from api.http.settings import GatewaySettings
from rahba.errors import TooLargeError

SETTINGS = GatewaySettings(max_body_bytes=10, max_header_bytes=100, max_address_bytes=20)


async def read_all(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await Reply({"size": size})(scope, receive, send)


async def serve(
    *chunks: bytes, headers: tuple[tuple[bytes, bytes], ...] = (), path: bytes = b"/"
) -> tuple[int, dict[bytes, bytes], Any]:
    """Send one request through the frame; returns status, header fields and document."""
    metrics, sent = Metrics(), []
    left = list(chunks or (b"",))

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path.decode(),
        "raw_path": path,
        "query_string": b"",
        "headers": list(headers),
    }
    await Frame(read_all, SETTINGS, metrics)(scope, receive, send)
    status = sent[0]["status"]
    assert f'status="{status}"'.encode() in metrics.text()
    return status, dict(sent[0]["headers"]), orjson.loads(sent[1]["body"])


async def test_a_body_within_its_limit_passes_whole() -> None:
    status, headers, document = await serve(b"12345", b"67890")
    assert (status, document) == (200, {"size": 10})
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"cache-control"] == b"no-store"


async def test_a_body_beyond_its_limit_is_cut_off_while_it_streams_in() -> None:
    with pytest.raises(TooLargeError):
        await serve(b"12345", b"67890", b"1")


@pytest.mark.parametrize(
    ("headers", "path", "status", "code"),
    [
        (((b"content-length", b"11"),), b"/", 413, "too_large"),
        (((b"content-length", b"9" * 30),), b"/", 413, "too_large"),
        (((b"content-length", b"ten"),), b"/", 400, "local_error"),
        (((b"x", b"y" * 100),), b"/", 431, "headers_too_large"),
        ((), b"/" + b"x" * 20, 414, "query_too_long"),
    ],
)
async def test_what_is_too_large_never_reaches_a_route(
    headers: tuple[tuple[bytes, bytes], ...], path: bytes, status: int, code: str
) -> None:
    told, fields, document = await serve(b"x" * 5, headers=headers, path=path)
    assert (told, document["code"]) == (status, code)
    assert fields[b"content-type"] == b"application/problem+json"
