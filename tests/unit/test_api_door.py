"""A body within limits, and a server that says where it listens."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from api import door
from rahba.errors import TooLargeError


def receiver(*messages: dict[str, Any]) -> door.Receive:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.sleep(3_600)
        raise AssertionError

    return receive


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_is_put_together_within_its_limit() -> None:
    scope: dict[str, Any] = {"headers": []}
    parts = [part(b"ab", more=True), part(b"cd")]
    assert await door.read_body(scope, receiver(*parts), 4) == b"abcd"
    with pytest.raises(TooLargeError):
        await door.read_body(scope, receiver(*parts), 3)
    declared = {"headers": [(b"content-length", b"9")]}
    with pytest.raises(TooLargeError):
        await door.read_body(declared, receiver(), 8)


async def test_who_hangs_up_or_dawdles_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scope: dict[str, Any] = {"headers": []}
    with pytest.raises(door.HungUpError):
        await door.read_body(scope, receiver({"type": "http.disconnect"}), 4)
    monkeypatch.setattr(door, "BODY_TIMEOUT_S", 0.01)
    with pytest.raises(door.SlowBodyError):
        await door.read_body(scope, receiver(part(b"a", more=True)), 4)


async def test_a_server_tells_its_address_and_ends_when_cancelled() -> None:
    async def app(scope: door.Scope, receive: door.Receive, send: door.Send) -> None:
        await door.send_reply(send, door.Reply(b"{}", headers={"x-test": "1"}))

    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(door.serve_app(app, "127.0.0.1", 0, ready=address.set_result))
    async with aiohttp.ClientSession() as web, web.get(await address) as reply:
        assert (reply.status, await reply.read()) == (200, b"{}")
        assert (reply.headers["x-test"], reply.content_type) == ("1", "application/json")
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert address.result().startswith("http://127.0.0.1:")
