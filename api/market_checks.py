"""What is checked of a running market: its processes, its ledger's head, its queues, its time.

* Asks each part directly and within seconds; changes nothing and never raises.
* The whole ledger is not verified here: `rahba ledger verify` does that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import dropwhile, islice
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import hiredis
import orjson
import psutil

from api.machine_checks import Finding
from api.market import NoMarketError, Whereabouts, find_market
from api.queue import WITHOUT_WORKERS, QueueOnClusterError, find_queue
from api.settings import Settings
from api.worker import QUEUE
from broker.errors import BrokerUnreachableError
from broker.transports.redis import connect
from broker.transports.redis.dial import dial
from broker.transports.redis.wire import Wire
from rahba.clock import Clock
from rahba.errors import RahbaError
from rahba.note import open_checkpoint
from wallet.transports.http import HttpLedger

SERVICES: Final = ("witness", "ledger", "gateway", "host", "worker")
COMMAND: Final = "api.cli"
PATIENCE_S: Final = 3.0
MAX_SKEW_MS: Final = 2_000
MAX_QUEUE: Final = 100


async def check_market(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    """Check the market that runs in the data folder, if one does."""
    try:
        where = find_market(settings)
    except NoMarketError as error:
        yield Finding("market", "ok", error.message, error.hint)
        return
    yield Finding("market", "ok", f"one runs in {where.data_dir}, supervised by {where.pid}")
    yield check_processes(where)
    yield await check_gateway(where.gateway_url)
    yield await check_ledger(where.ledger_url)
    yield await check_witnesses(where.ledger_url)
    async for finding in check_broker(where, clock):
        yield finding


def check_processes(where: Whereabouts) -> Finding:
    """Check that the supervisor has a child for each service."""
    try:
        children = psutil.Process(where.pid).children()
        running = {_name(child.cmdline()) for child in children if child.is_running()}
    except psutil.Error:
        return _processes_wrong("the supervisor's processes cannot be seen")
    wanted = [name for name in SERVICES if name != "worker" or where.celery_broker_url]
    missing = [name for name in wanted if name not in running]
    if missing:
        return _processes_wrong(f"not running: {', '.join(missing)}")
    return Finding("processes", "ok", f"{', '.join(wanted)} are running")


def _name(command: list[str]) -> str:
    """Return which of our commands a process runs."""
    words = dropwhile(lambda word: word != COMMAND, command)
    return next(islice(words, 1, None), "")


def _processes_wrong(text: str) -> Finding:
    return Finding("processes", "broken", text, "rahba logs NAME says why; they are started again")


async def check_gateway(url: str) -> Finding:
    """Check that the gateway is ready to trade."""
    step = "rahba logs gateway"
    try:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as web,
            web.get(f"{url}/readyz") as reply,
        ):
            said = orjson.loads(await reply.read())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return Finding("gateway", "broken", f"{url} does not answer: {error!r}"[:200], step)
    if reply.status != 200:
        return Finding("gateway", "broken", f"{url} is not ready: {said}"[:200], step)
    return Finding("gateway", "ok", f"{url} is ready")


async def check_ledger(url: str) -> Finding:
    """Check the head of the log under its operator's signature, and the supply equation."""
    step = "rahba logs ledger; then rahba ledger verify"
    ledger = HttpLedger(url, patience_s=PATIENCE_S, attempt_s=PATIENCE_S)
    try:
        head = open_checkpoint(await ledger.checkpoint(), await ledger.verifier_key())
        supply = await ledger.supply()
    except RahbaError as error:
        return Finding("ledger", "broken", f"{error.code}: {error.message}"[:200], step)
    finally:
        await ledger.close()
    if not supply.equal:
        text = f"accounts own {supply.total} fals, issued were {supply.issued}"
        return Finding("ledger", "broken", text, step)
    return Finding("ledger", "ok", f"{head.size} entries under a valid checkpoint, supply exact")


async def check_witnesses(url: str) -> Finding:
    """Check that the newest checkpoints are cosigned, or that nobody is asked to."""
    step = "rahba logs witness; the file `policy` says who is asked"
    ledger = HttpLedger(url, patience_s=PATIENCE_S, attempt_s=PATIENCE_S)
    try:
        key = await ledger.verifier_key()
        head = open_checkpoint(await ledger.checkpoint(), key)
        note = await ledger.witnessed()
    except RahbaError as error:
        return Finding("witnesses", "warning", f"{error.code}: {error.message}"[:200], step)
    finally:
        await ledger.close()
    if note is None:
        return Finding("witnesses", "warning", "no checkpoint is cosigned", step)
    seen = open_checkpoint(note, key)
    text = f"{seen.size} of {head.size} entries are under a cosigned checkpoint"
    return Finding("witnesses", "ok", text)


async def check_broker(where: Whereabouts, clock: Clock) -> AsyncIterator[Finding]:
    """Check the broker's clock, who is on the market, and the queue of heavy jobs."""
    try:
        yield await _check_broker(where.redis_url, clock)
        yield await _check_agents(where, clock)
        yield await _check_workers(where)
    except (BrokerUnreachableError, OSError, hiredis.ReplyError) as error:
        yield Finding("broker", "broken", f"{error}"[:200], "rahba logs redis, or check REDIS_URL")


async def _check_broker(url: str, clock: Clock) -> Finding:
    wire = await dial(url, patience_s=PATIENCE_S)
    try:
        return await _check_time(wire, clock)
    finally:
        await wire.close()


async def _check_time(wire: Wire, clock: Clock) -> Finding:
    asked_ms = clock.now_ms()
    told = await wire.everywhere("TIME")
    now_ms = (asked_ms + clock.now_ms()) // 2
    skews = [int(seconds) * 1_000 + int(micros) // 1_000 - now_ms for seconds, micros in told]
    skew_ms = max(skews, key=abs)
    if abs(skew_ms) > MAX_SKEW_MS:
        text = f"its clock differs from this machine's by {skew_ms} ms"
        return Finding("broker", "broken", text, "set both clocks by a time service (NTP)")
    who = "answers" if len(told) == 1 else f"{len(told)} masters of a cluster answer"
    return Finding("broker", "ok", f"{who}; its clock differs by {skew_ms} ms")


async def _check_agents(where: Whereabouts, clock: Clock) -> Finding:
    broker = await connect(where.redis_url, clock)
    try:
        count = await broker.directory.count()
    finally:
        await broker.close()
    if not count:
        return Finding("agents", "warning", "none is on the market", "rahba deploy summarise")
    return Finding("agents", "ok", f"{count} on the market")


async def _check_workers(where: Whereabouts) -> Finding:
    try:
        url = await find_queue(where.redis_url, where.celery_broker_url)
    except QueueOnClusterError as error:
        return Finding("workers", "broken", error.message, error.hint)
    if url is None:
        step = "to have workers, set CELERY_BROKER_URL to a server that is no cluster"
        return Finding("workers", "ok", WITHOUT_WORKERS, step)
    wire = Wire(url, patience_s=PATIENCE_S)
    try:
        return await _check_queue(wire, url)
    finally:
        await wire.close()


async def _check_queue(wire: Wire, url: str) -> Finding:
    depth = int(await wire.call("LLEN", QUEUE))
    database = urlsplit(url).path.strip("/") or "0"
    clients = str(await wire.call("CLIENT", "LIST"), "utf-8", "replace").splitlines()
    waiting = sum("cmd=brpop" in line and f" db={database} " in line for line in clients)
    if depth and not waiting and depth > MAX_QUEUE:
        text = f"{depth} heavy jobs wait, and no worker takes them"
        return Finding("workers", "broken", text, "rahba logs worker, or start a `rahba worker`")
    if depth > MAX_QUEUE:
        return Finding("workers", "warning", f"{depth} heavy jobs wait", "start a `rahba worker`")
    return Finding("workers", "ok", f"{depth} heavy jobs wait, {waiting} workers are free")
