"""A server that is killed while it writes comes back with everything that it had acknowledged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.embedded_redis import EmbeddedRedis
from broker.errors import BrokerUnreachableError
from broker.transports.redis.wire import Wire
from tests.fixtures.broker import kill_now

KILLS = 4
WRITERS = 16


@pytest.mark.long
@pytest.mark.redis
async def test_a_killed_server_has_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    url = server.start()
    try:
        for _ in range(KILLS):
            wire, acknowledged = Wire(url, patience_s=0.1), dict[str, bytes]()
            writing = [
                asyncio.create_task(_write(wire, f"key {number}", acknowledged))
                for number in range(WRITERS)
            ]
            await asyncio.sleep(1.2)
            await asyncio.to_thread(kill_now, server)
            await asyncio.gather(*writing)
            await wire.close()
            assert server.start() == url
            wire = Wire(url)
            kept = await wire.call("MGET", *acknowledged)
            await wire.close()
            # A write may have taken effect without its answer: never the other way round.
            assert all(
                int(found) >= int(value)
                for found, value in zip(kept, acknowledged.values(), strict=True)
            )
    finally:
        server.stop()


async def _write(wire: Wire, key: str, acknowledged: dict[str, bytes]) -> None:
    number = 0
    while True:
        number += 1
        value = b"%020d" % number
        try:
            await wire.call("SET", key, value)
        except BrokerUnreachableError:
            return
        acknowledged[key] = value
