"""`rahba up` on a Redis Cluster: agents sell, heavy jobs run, and a master may be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.transports.redis.directory import CARDS
from broker.transports.redis.mailbox import stream_of
from tests.fixtures.cluster import RedisCluster, program_of
from tests.fixtures.market import RunningMarket, market_env, running_market

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

TEXT = "I am delighted: the caravan came early, and the dates are wonderful."
AGAIN_SECONDS = 40.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Run three masters and their replicas."""
    running = RedisCluster(program_of("valkey"), tmp_path_factory.mktemp("cluster"), replicas=True)
    yield running
    running.stop()


def tried(market: RunningMarket, *arguments: str) -> tuple[int, Any]:
    """Run a command that may fail; returns its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments, "--json"],
        env=market.env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, orjson.loads(done.stdout) if done.stdout else None


def test_a_market_on_a_cluster_trades_without_workers_and_outlives_its_masters(
    cluster: RedisCluster, tmp_path: Path
) -> None:
    with running_market(tmp_path, market_env(tmp_path) | {"REDIS_URL": cluster.url}) as market:
        market.rahba("deploy", "sentiment", "--name", "mood", "--wait")
        market.rahba("deploy", "data-analyst", "--name", "sums", "--wait")
        buy = ("call", "text.sentiment", "--arg", f"text={TEXT}")
        assert market.rahba(*buy)["state"] == "settled"
        table = ("--arg", "table=n\n1\n2\n", "--arg", "sql=select sum(n) from data")
        assert market.rahba("call", "data.analyse", *table)["state"] == "settled"
        _, report = tried(market, "doctor")
        found = {one["check"]: one for one in report["findings"]}
        assert [one for one in found.values() if one["state"] == "broken"] == []
        assert "3 masters" in found["broker"]["detail"]
        assert "worker" not in found["processes"]["detail"]
        for key in (CARDS, stream_of("anybody")):
            victim = cluster.master_of(key)
            cluster.settle()
            victim.kill()
            deadline = time.monotonic() + AGAIN_SECONDS
            while (answer := tried(market, *buy))[0] != 0:
                assert time.monotonic() < deadline, answer
            assert answer[1]["state"] == "settled"
            cluster.mend()
        assert tried(market, "ledger", "verify")[0] == 0
