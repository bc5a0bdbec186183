"""Where heavy jobs wait when the market's Redis is a cluster: nowhere, or where somebody said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.market import Whereabouts
from api.market_checks import check_broker, check_processes
from api.queue import WITHOUT_WORKERS, QueueOnClusterError, find_queue
from api.settings import next_database
from rahba.clock import SystemClock
from tests.fixtures.cluster import RedisCluster
from tests.fixtures.market import market_env

HERE = "http://127.0.0.1:1"
NOBODY = "redis://127.0.0.1:1/0"


async def test_a_server_is_the_queue_and_a_cluster_is_none(
    valkey_cluster: RedisCluster, redis_url: str
) -> None:
    cluster = valkey_cluster.url
    assert await find_queue(cluster, next_database(cluster)) is None
    assert await find_queue(cluster, "") is None
    for queue in (redis_url, next_database(redis_url), "amqp://127.0.0.1", NOBODY):
        assert await find_queue(cluster, queue) == queue
    assert await find_queue(redis_url, next_database(redis_url)) == next_database(redis_url)
    assert await find_queue("unix:///run/redis.sock", redis_url) == redis_url


async def test_a_cluster_that_is_named_as_the_queue_is_refused_with_the_next_step(
    valkey_cluster: RedisCluster, redis_url: str
) -> None:
    cluster, other = valkey_cluster.url, valkey_cluster.members[1].url
    for market in (redis_url, cluster, "unix:///run/redis.sock", "redis://host/word"):
        with pytest.raises(QueueOnClusterError) as raised:
            await find_queue(market, other)
        assert "CELERY_BROKER_URL" in raised.value.hint


async def test_the_doctor_says_where_heavy_jobs_go(
    valkey_cluster: RedisCluster, empty_redis: str
) -> None:
    cluster = valkey_cluster.emptied()
    for queue, state, detail in (
        ("", "ok", WITHOUT_WORKERS),
        (next_database(cluster), "ok", WITHOUT_WORKERS),
        (cluster, "broken", "Celery does not work on a Redis Cluster"),
        (empty_redis, "ok", "0 heavy jobs wait"),
    ):
        where = Whereabouts(os.getpid(), "/nowhere", cluster, queue, HERE, HERE)
        found = {one.check: one async for one in check_broker(where, SystemClock())}
        assert found["broker"].state == "ok"
        assert "3 masters of a cluster answer" in found["broker"].detail
        assert found["agents"].state == "warning"
        assert found["workers"].state == state
        assert found["workers"].detail.startswith(detail)
        missing = check_processes(where).detail
        assert ("worker" in missing) == bool(queue)


@pytest.mark.parametrize("named", [False, True])
def test_a_worker_on_a_cluster_ends_with_the_next_step(
    valkey_cluster: RedisCluster, tmp_path: Path, *, named: bool
) -> None:
    url = valkey_cluster.url
    env = market_env(tmp_path) | {"REDIS_URL": url} | ({"CELERY_BROKER_URL": url} if named else {})
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "worker"],
        env=env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert b"set CELERY_BROKER_URL" in done.stderr
    assert b"Traceback" not in done.stderr
