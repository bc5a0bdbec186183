"""A market on one machine: found by its file, kept alive, refused where another one is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from api.bootstrap import NoBrokerError, linked, located
from api.market import (
    FILE,
    LocalMarket,
    NoMarketError,
    PortTakenError,
    Whereabouts,
    find_market,
    is_free,
    on_free_ports,
    write_whereabouts,
)
from api.owner import TOKEN_FILE, prepare_owner
from api.settings import Settings
from tests.fixtures.market import market_env


def whereabouts(folder: Path, pid: int) -> Whereabouts:
    return Whereabouts(
        pid=pid,
        data_dir=str(folder),
        redis_url="redis://127.0.0.1:1/0",
        celery_broker_url="redis://127.0.0.1:1/1",
        ledger_url="http://127.0.0.1:2",
        gateway_url="http://127.0.0.1:3",
    )


def test_a_running_market_is_found_by_its_file_which_only_its_owner_reads(tmp_path: Path) -> None:
    settings = Settings.read({"RAHBA_DATA": str(tmp_path)})
    write_whereabouts(tmp_path, whereabouts(tmp_path, os.getpid()))
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert find_market(settings).gateway_url == "http://127.0.0.1:3"
    assert located(settings).redis_url == "redis://127.0.0.1:1/0"


def test_the_demo_is_found_where_no_other_market_runs(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    write_whereabouts(tmp_path / "demo", whereabouts(tmp_path / "demo", os.getpid()))
    assert find_market(Settings.read({"RAHBA_DATA": str(tmp_path)})).data_dir.endswith("demo")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"\xff": 1}'])
def test_a_dead_or_garbled_market_is_no_market(tmp_path: Path, content: bytes) -> None:
    settings = Settings.read({"RAHBA_DATA": str(tmp_path)})
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(NoMarketError):
        find_market(settings)
    write_whereabouts(tmp_path, whereabouts(tmp_path, 2**22 + 1))
    with pytest.raises(NoMarketError):
        find_market(settings)


async def test_without_redis_nothing_is_linked(tmp_path: Path) -> None:
    with pytest.raises(NoBrokerError):
        async with linked(Settings.read({"RAHBA_DATA": str(tmp_path)})):
            raise AssertionError


async def test_a_taken_port_is_named_and_nothing_stays_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        env = market_env(tmp_path) | {"RAHBA_HTTP": f"127.0.0.1:{door.getsockname()[1]}"}
        settings = Settings.read(env)
        assert not is_free(settings.http)
        freed = on_free_ports(settings)
        assert freed.http != settings.http
        assert freed.gateway_url == freed.http.url
        assert freed.ledger == settings.ledger
        market = LocalMarket(settings)
        with pytest.raises(PortTakenError):
            async with market:
                raise AssertionError
        assert market.pids() == {}


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_market_survives_its_redis_and_its_owner_keeps_the_key(tmp_path: Path) -> None:
    settings = Settings.read(market_env(tmp_path))
    async with LocalMarket(settings) as market:
        assert market.where is not None
        assert set(market.pids()) == {"redis", "witness", "ledger", "gateway", "host", "worker"}
        key = await prepare_owner(settings, market.where)
        assert (tmp_path / TOKEN_FILE).stat().st_mode & 0o077 == 0
        before = market.pids()["redis"]
        os.kill(before, signal.SIGKILL)
        assert await prepare_owner(settings, market.where) == key
        assert market.pids()["redis"] != before
        assert market.restarts == {}
        lost = replace(settings, data_dir=tmp_path / "elsewhere")
        lost.data_dir.mkdir()
        (lost.data_dir / TOKEN_FILE).write_text("rhb_dev_" + "a" * 32, "ascii")
        fresh = await prepare_owner(lost, market.where)
        assert fresh not in {key, "rhb_dev_" + "a" * 32}
    assert market.pids() == {}
    assert not (tmp_path / FILE).exists()


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_killed_worker_leaves_no_process_behind(tmp_path: Path) -> None:
    async with LocalMarket(Settings.read(market_env(tmp_path))) as market:
        worker = psutil.Process(market.pids()["worker"])
        async with asyncio.timeout(30):
            while len(worker.children()) < 3:  # noqa: ASYNC110  # two to work, one for beat
                await asyncio.sleep(0.1)
        forked = worker.children()
        worker.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, forked, 5)
        assert alive == []
