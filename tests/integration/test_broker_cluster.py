"""A wire to a real cluster: routing, redirections, scripts, blocking readers, refusals."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hiredis import ReplyError

from broker.errors import BrokerUnreachableError
from broker.transports.redis import connect
from broker.transports.redis.cluster import (
    MAX_REDIRECTIONS,
    ClusterWire,
    CrossSlotError,
    Node,
)
from broker.transports.redis.dial import dial
from broker.transports.redis.slots import slot_of_key
from broker.transports.redis.wire import BadRedisUrlError, RedisTooOldError, Script, Wire
from rahba.clock import SystemClock
from rahba.errors import RahbaError
from tests.fixtures.cluster import RedisCluster

KEYS = [f"key-{number}" for number in range(60)]


def slot_taught(wire: ClusterWire, key: str) -> int:
    """Return the port of the node that the wire believes in."""
    node = wire._serving[slot_of_key(key)]
    assert node is not None
    return node.address.port


async def test_what_is_at_an_address_is_found_out(
    each_cluster: RedisCluster, redis_url: str
) -> None:
    for url, kind in ((each_cluster.url, ClusterWire), (redis_url, Wire)):
        wire = await dial(url)
        assert type(wire) is kind
        assert await wire.call("ECHO", "here") == b"here"
        assert await wire.check() >= "6.2"
        await wire.close()
    with pytest.raises(BadRedisUrlError):
        await dial(each_cluster.url.removesuffix("0") + "1")
    with pytest.raises(BrokerUnreachableError):
        await dial("redis://127.0.0.1:1", patience_s=0.1)


async def test_each_key_is_kept_by_its_node_and_answered_in_order(
    each_cluster: RedisCluster, cluster_wire: ClusterWire
) -> None:
    await asyncio.gather(*(cluster_wire.call("SET", key, key) for key in KEYS))
    answers = await cluster_wire.many(*(("GET", key) for key in KEYS))
    assert answers == [key.encode() for key in KEYS]
    kept = [member.do("DBSIZE") for member in each_cluster.members]
    assert sum(kept) == len(KEYS)
    assert all(kept)


async def test_a_refused_command_fails_alone_and_after_the_others(
    cluster_wire: ClusterWire,
) -> None:
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        await cluster_wire.many(("SET", "one", "x"), ("LPUSH", "one", "y"), ("SET", "two", "z"))
    assert await cluster_wire.call("GET", "two") == b"z"


async def test_a_script_is_loaded_where_it_is_not_known(
    each_cluster: RedisCluster, cluster_wire: ClusterWire
) -> None:
    script = Script("return {KEYS[1], redis.call('GET', KEYS[1]), ARGV[1]}")
    for _ in range(2):
        for key in KEYS[:20]:
            await cluster_wire.call("SET", key, "v")
            assert await cluster_wire.run(script, [key], "a") == [key.encode(), b"v", b"a"]
        for member in each_cluster.members:
            member.do("SCRIPT", "FLUSH")
    assert await cluster_wire.run(Script("return ARGV[1]"), [], "keyless") == b"keyless"


async def test_keys_of_two_slots_in_one_script_are_a_typed_error(
    cluster_wire: ClusterWire,
) -> None:
    script = Script("return redis.call('MGET', KEYS[1], KEYS[2])")
    assert await cluster_wire.run(script, ["{tag}a", "{tag}b"]) == [None, None]
    for call in (
        cluster_wire.run(script, ["one", "two"]),
        cluster_wire.call("MGET", "one", "two"),
    ):
        with pytest.raises(CrossSlotError) as raised:
            await call
        assert isinstance(raised.value, RahbaError)
        assert isinstance(raised.value, ReplyError)  # whoever handles refusals handles it
        assert "hash tag" in raised.value.hint


async def test_a_slot_on_its_way_is_followed_by_asking(
    each_cluster: RedisCluster, cluster_wire: ClusterWire
) -> None:
    await cluster_wire.call("SET", "{way}old", "kept")
    with each_cluster.moving("{way}") as (source, target):
        assert await cluster_wire.call("GET", "{way}old") == b"kept"
        await cluster_wire.call("SET", "{way}new", "asked")
        assert await cluster_wire.call("GET", "{way}new") == b"asked"
        assert target.do("CLUSTER", "COUNTKEYSINSLOT", slot_of_key("{way}")) == 1
        assert slot_taught(cluster_wire, "{way}") == source.port
    assert source.do("CLUSTER", "COUNTKEYSINSLOT", slot_of_key("{way}")) == 0
    assert slot_taught(cluster_wire, "{way}") == source.port
    got = await cluster_wire.many(("GET", "{way}old"), ("GET", "{way}new"))
    assert got == [b"kept", b"asked"]
    assert slot_taught(cluster_wire, "{way}") == target.port


async def test_keys_split_between_two_nodes_are_waited_for(
    each_cluster: RedisCluster, cluster_wire: ClusterWire
) -> None:
    await cluster_wire.many(("SET", "{split}a", 1), ("SET", "{split}b", 2))
    with each_cluster.moving("{split}") as (source, target):
        each_cluster.carry(slot_of_key("{split}"), source, target, most=1)
        asked = asyncio.create_task(cluster_wire.call("MGET", "{split}a", "{split}b"))
        await asyncio.sleep(0.2)
        assert not asked.done()
    assert await asked == [b"1", b"2"]


async def test_a_script_waits_for_its_slot_to_arrive(
    each_cluster: RedisCluster, cluster_wire: ClusterWire
) -> None:
    move = Script("""
      local had = redis.call('GET', KEYS[1] .. ':unnamed')
      return {had, redis.call('INCR', KEYS[1])}
    """)
    await cluster_wire.call("SET", "{script}:unnamed", "kept")
    with each_cluster.moving("{script}") as (_, target):
        running = asyncio.create_task(cluster_wire.run(move, ["{script}"]))
        await asyncio.sleep(0.3)
        assert not running.done()
        assert target.do("CLUSTER", "COUNTKEYSINSLOT", slot_of_key("{script}")) == 0
    assert await running == [b"kept", 1]


async def test_a_script_whose_slot_does_not_arrive_is_given_up(
    each_cluster: RedisCluster,
) -> None:
    wire = ClusterWire(each_cluster.url, patience_s=0.2)
    with each_cluster.moving("{stuck}"), pytest.raises(BrokerUnreachableError, match="ASK"):
        await wire.run(Script("return redis.call('INCR', KEYS[1])"), ["{stuck}"])
    await wire.close()


async def test_a_move_under_load_loses_and_doubles_nothing(
    each_cluster: RedisCluster, cluster_wire: ClusterWire
) -> None:
    acknowledged, stop = 0, False

    async def push() -> None:
        nonlocal acknowledged
        while not stop:
            await cluster_wire.call("INCR", "{load}")
            acknowledged += 1

    pushing = [asyncio.create_task(push()) for _ in range(8)]
    for _ in range(4):
        await asyncio.sleep(0.05)
        moving = each_cluster.moving("{load}")
        await asyncio.to_thread(moving.__enter__)
        await asyncio.sleep(0.05)
        await asyncio.to_thread(moving.__exit__, None, None, None)
    stop = True
    await asyncio.gather(*pushing)
    assert acknowledged > 100
    assert int(await cluster_wire.call("GET", "{load}")) == acknowledged


async def test_a_slot_that_valkey_moves_whole_keeps_nobody_waiting(
    valkey_cluster: RedisCluster,
) -> None:
    wire = ClusterWire(valkey_cluster.emptied())
    await asyncio.gather(*(wire.call("SET", f"{{whole}}:{n}", bytes(500)) for n in range(5_000)))
    count = Script("return redis.call('INCR', KEYS[1] .. ':unnamed')")
    acknowledged, longest_s, stop = 0, 0.0, False

    async def push() -> None:
        nonlocal acknowledged, longest_s
        loop = asyncio.get_running_loop()
        while not stop:
            started = loop.time()
            await wire.run(count, ["{whole}"])
            acknowledged += 1
            longest_s = max(longest_s, loop.time() - started)

    pushing = [asyncio.create_task(push()) for _ in range(4)]
    slot, source = slot_of_key("{whole}"), valkey_cluster.master_of("{whole}")
    target = next(one for one in valkey_cluster.members if one is not source)
    words = ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
    await asyncio.to_thread(source.do, *words)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(valkey_cluster.master_of, "{whole}") is source:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    stop = True
    await asyncio.gather(*pushing)
    assert int(await wire.call("GET", "{whole}:unnamed")) == acknowledged
    assert slot_taught(wire, "{whole}") == target.port
    assert longest_s < 2
    await wire.close()


async def test_a_blocked_reader_finds_its_slot_again(
    each_cluster: RedisCluster, cluster_wire: ClusterWire
) -> None:
    await cluster_wire.call("XADD", "{read}", "*", "e", "old")
    line = await cluster_wire.own_line("{read}", answer_seconds=10)
    assert line.address.port == each_cluster.master_of("{read}").port
    waiting = line.call("XREAD", "BLOCK", 8_000, "STREAMS", "{read}", "$")
    with each_cluster.moving("{read}") as (_, target):
        await asyncio.sleep(0.05)
    with pytest.raises(ConnectionResetError):
        await waiting
    assert line.closed
    again = await cluster_wire.own_line("{read}", answer_seconds=10)
    assert again.address.port == target.port
    waiting = again.call("XREAD", "BLOCK", 8_000, "STREAMS", "{read}", "$")
    await cluster_wire.call("XADD", "{read}", "*", "e", "news")
    [[_, [[_, entry]]]] = await waiting
    assert entry == [b"e", b"news"]
    await again.aclose()
    await line.aclose()


async def test_a_blocked_line_is_woken_at_its_own_node(cluster_wire: ClusterWire) -> None:
    for key in KEYS[:8]:
        line = await cluster_wire.own_line(key, answer_seconds=10)
        waiting = line.call("BLPOP", key, 8)
        await line_blocks(cluster_wire, key, line.number)
        started = asyncio.get_running_loop().time()
        await cluster_wire.unblock(line)
        assert await waiting is None
        assert asyncio.get_running_loop().time() - started < 2
        await line.aclose()
        await cluster_wire.unblock(line)  # one that is closed blocks nobody


async def line_blocks(wire: ClusterWire, key: str, number: int) -> None:
    """Wait until the server has the line among those that block."""
    while True:
        listed = str(await wire.call_near([key], "CLIENT", "LIST"), "utf-8")
        mine = next(line for line in listed.splitlines() if line.startswith(f"id={number} "))
        if "flags=b" in mine:
            return
        await asyncio.sleep(0.01)


async def test_nodes_that_disagree_are_not_followed_for_ever(
    cluster_wire: ClusterWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster_wire.call("PING")
    wrong = next(node for node in cluster_wire._nodes.values())
    followed = 0

    async def astray(errand: object) -> asyncio.Future[bytes]:
        nonlocal followed
        followed += 1
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        future.set_exception(ReplyError(f"MOVED 1 127.0.0.1:{wrong.address.port}"))
        return future

    monkeypatch.setattr(cluster_wire, "_send", astray)
    monkeypatch.setattr("broker.transports.redis.cluster.RETRY_SECONDS", 0.001)
    monkeypatch.setattr(Node, "open_line", property(lambda _: None))
    with pytest.raises(BrokerUnreachableError, match="disagree"):
        await cluster_wire.call("GET", "key")
    assert followed == MAX_REDIRECTIONS + 1


async def test_lines_to_nodes_that_serve_nothing_are_dropped(
    each_cluster: RedisCluster,
) -> None:
    named = each_cluster.url.replace("127.0.0.1", "localhost")
    wire = ClusterWire(named)
    await wire.call("PING")
    assert {host for host, _ in wire._nodes} == {"127.0.0.1"}
    assert len(wire._nodes) == 3
    await wire.close()


async def test_a_wrong_password_and_a_closed_wire_are_reported(
    each_cluster: RedisCluster,
) -> None:
    wrong = ClusterWire(each_cluster.url.replace("redis://:", "redis://:x"), patience_s=0.2)
    with pytest.raises(BrokerUnreachableError, match="WRONGPASS"):
        await wrong.call("GET", "key")
    await wrong.close()
    with pytest.raises(BrokerUnreachableError, match="closed"):
        await wrong.call("GET", "key")
    with pytest.raises(ConnectionError, match="closed"):
        await wrong.own_line("key", answer_seconds=1)


async def test_a_cluster_below_the_floor_is_refused(
    each_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.transports.redis.wire.FLOOR", (99, 0))
    with pytest.raises(RedisTooOldError):
        await connect(each_cluster.url, SystemClock())


async def test_a_cancelled_caller_disturbs_nobody(cluster_wire: ClusterWire) -> None:
    await cluster_wire.many(*(("SET", key, key) for key in KEYS))
    tasks = [asyncio.create_task(cluster_wire.call("GET", key)) for key in KEYS]
    await asyncio.sleep(0)
    tasks[3].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tasks[3]
    answers = await asyncio.gather(*tasks[4:])
    assert answers == [key.encode() for key in KEYS[4:]]
