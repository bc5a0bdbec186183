"""One connection for everybody: order, cancellation, size, scripts, time-outs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hiredis import ReplyError

from broker.errors import BrokerUnreachableError
from broker.transports.redis.lua_files import load
from broker.transports.redis.wire import Address, Line, RedisTooOldError, Script, Wire


@pytest_asyncio.fixture
async def wire(empty_redis: str) -> AsyncIterator[Wire]:
    made = Wire(empty_redis, patience_s=0.3)
    yield made
    await made.close()


async def test_a_thousand_concurrent_calls_each_get_their_own_answer(wire: Wire) -> None:
    answers = await asyncio.gather(*(wire.call("ECHO", f"{n}") for n in range(1_000)))
    assert answers == [b"%d" % n for n in range(1_000)]


async def test_the_calls_of_one_tick_leave_in_one_write(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await wire.call("PING")
    line = wire._line
    assert line is not None
    assert line._transport is not None
    writes: list[int] = []
    write = line._transport.write
    monkeypatch.setattr(
        line, "_transport", _Counting(line._transport, lambda raw: (writes.append(1), write(raw)))
    )
    await asyncio.gather(*(wire.call("ECHO", "x") for _ in range(50)))
    assert writes == [1]


class _Counting:
    """A transport that counts its writes."""

    def __init__(self, inner: object, write: object) -> None:
        self._inner = inner
        self.write = write

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


async def test_a_cancelled_caller_disturbs_nobody(wire: Wire) -> None:
    await wire.call("PING")
    tasks = [asyncio.create_task(wire.call("ECHO", f"{n}")) for n in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[3], asyncio.CancelledError)
    assert [answers[n] for n in range(10) if n != 3] == [b"%d" % n for n in range(10) if n != 3]


async def test_a_line_whose_caller_has_gone_is_kept_for_the_next(wire: Wire) -> None:
    first = asyncio.create_task(wire.call("PING"))
    while wire._opening is None:  # noqa: ASYNC110  # it begins within the next tick
        await asyncio.sleep(0)
    wire._opening.add_done_callback(lambda _: first.cancel())
    with pytest.raises(asyncio.CancelledError):
        await first
    assert wire._line is wire._opening.result()
    assert await wire.call("PING") == b"PONG"
    assert wire._line is wire._opening.result()


async def test_a_refused_command_fails_alone(wire: Wire) -> None:
    good, bad = await asyncio.gather(
        wire.call("ECHO", "x"), wire.call("NONSENSE"), return_exceptions=True
    )
    assert good == b"x"
    assert isinstance(bad, ReplyError)


async def test_large_values_pass_unharmed(wire: Wire) -> None:
    value = bytes(range(256)) * 16_384
    await wire.call("SET", "key", value)
    assert await wire.call("GET", "key") == value


async def test_a_script_is_loaded_again_when_the_server_forgot_it(wire: Wire) -> None:
    script = Script("return {KEYS[1], ARGV[1]}")
    for _ in range(2):
        assert await wire.run(script, ["key"], "value") == [b"key", b"value"]
        await wire.call("SCRIPT", "FLUSH")
    source = load("head", "rules").source
    assert source.startswith("-- KEYS[1]")
    assert "-- The rules" in source


async def test_a_server_that_stays_silent_is_given_up(wire: Wire, empty_redis: str) -> None:
    line = await Line.open(Address.of(empty_redis), answer_seconds=0.2)
    started = asyncio.get_running_loop().time()
    with pytest.raises(ConnectionResetError):
        await line.call("BLPOP", "nothing", 5)
    assert asyncio.get_running_loop().time() - started < 2
    with pytest.raises(ConnectionResetError):
        await line.call("PING")
    await line.aclose()


async def test_a_lost_connection_is_opened_again(wire: Wire) -> None:
    await wire.call("PING")
    assert wire._line is not None
    wire._line.close()
    assert await wire.call("ECHO", "back") == b"back"


async def test_a_wrong_password_is_reported_as_unreachable(empty_redis: str) -> None:
    wrong = Wire(empty_redis.replace("redis://:", "redis://:x"), patience_s=0.1)
    with pytest.raises(BrokerUnreachableError):
        await wrong.call("PING")
    await wrong.close()


async def test_after_closing_nothing_is_sent(wire: Wire) -> None:
    await wire.close()
    with pytest.raises(BrokerUnreachableError):
        await wire.call("PING")


async def test_a_server_below_the_floor_is_refused(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await wire.check() >= "6.2"
    monkeypatch.setattr("broker.transports.redis.wire.FLOOR", (99, 0))
    with pytest.raises(RedisTooOldError):
        await wire.check()


def test_addresses_are_read() -> None:
    plain = Address.of("redis://:secret@127.0.0.1:7000/3")
    assert (plain.host, plain.port, plain.database, plain.login, plain.path) == (
        "127.0.0.1", 7000, 3, ("secret",), None,
    )  # fmt: skip
    assert Address.of("unix:///run/redis.sock?db=1").path == "/run/redis.sock"
    assert Address.of("rediss://user:pw@host/0").tls
    assert Address.of("rediss://user:pw@host/0").login == ("user", "pw")
