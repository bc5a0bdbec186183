"""The worker: a Celery application that does heavy jobs, and the host's way to reach it.

* Tasks are JSON: the id of the deal and one sealed text (:mod:`agents.work`); nothing is pickled.
* A task is acknowledged when it is over (``acks_late``) and taken one at a time. A killed child
  process gives its task back at once; a killed worker's is queued again by the host in seconds.
* There is no result backend: results go to the host's mailbox, and no money waits on Celery.
* Beat does one chore: it sweeps the directory of agents whose lease is over.

Run one by ``rahba worker``; it needs the broker, Redis, and the work key of the hosts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Final

from celery import Celery
from celery.signals import beat_embedded_init, worker_process_init
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from typing_extensions import override

from agents.agent import MAX_TIMEOUT_S
from agents.ports import TaskQueue
from agents.source import make_agent
from agents.stores.redis import RedisMarks
from agents.work import WorkKey, Workshop
from api.supervisor import PARENT_VARIABLE, end_with_parent
from broker.errors import BrokerUnreachableError
from broker.transports.redis import connect
from broker.transports.redis.dial import dial
from rahba.clock import SystemClock
from rahba.errors import RahbaError
from rahba.ids import RandomIds, check_digest

TASK: Final = "rahba.work"
SWEEP: Final = "rahba.sweep"
QUEUE: Final = "rahba"
SWEEP_S: Final = 5.0
VISIBILITY_S: Final = 4 * MAX_TIMEOUT_S
SEND_S: Final = 5.0

_log: Final = logging.getLogger(__name__)


def make_app(broker_url: str) -> Celery:
    """Return the application as senders see it: its settings, and no task of its own."""
    app = Celery("rahba", broker=broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=500,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_pool_limit=4,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_S,
            "socket_connect_timeout": 3.0,
            "socket_timeout": SEND_S,
            "health_check_interval": 5,
        },
        beat_schedule={"sweep": {"task": SWEEP, "schedule": SWEEP_S, "options": {"expires": 5}}},
    )
    return app


class CeleryQueue(TaskQueue):
    """Sends sealed tasks to the workers. Repeats nothing by itself: the desk does."""

    def __init__(self, broker_url: str) -> None:
        """Send through the broker at ``broker_url``."""
        self._app = make_app(broker_url)

    @override
    async def send(self, agreement: str, sealed: str, *, limit_s: float) -> None:
        try:
            async with asyncio.timeout(2 * SEND_S):
                await asyncio.to_thread(self._send, agreement, sealed, limit_s)
        except (OperationalError, RedisError, OSError) as error:
            raise BrokerUnreachableError(f"the task was not queued: {error}") from error

    def _send(self, agreement: str, sealed: str, limit_s: float) -> None:
        self._app.send_task(
            TASK,
            args=[agreement, sealed],
            expires=limit_s,
            time_limit=ceil(limit_s),
            retry=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._app.close()


def make_worker(broker_url: str, redis_url: str, key: WorkKey) -> Celery:
    """Return the application with its tasks: the work and the chore.

    The processes that work leave when the worker that started them was killed.
    """
    app = make_app(broker_url)
    # Named before they are forked: who asks for its parent later may find it dead already.
    worker = {PARENT_VARIABLE: str(os.getpid())}

    def leave_with_it(**_: object) -> None:
        end_with_parent(worker, by=signal.SIGKILL)

    worker_process_init.connect(leave_with_it, weak=False)
    beat_embedded_init.connect(leave_with_it, weak=False)

    def work(agreement: str, sealed: str) -> str:
        return asyncio.run(_work(redis_url, key, check_digest(agreement), sealed))

    def sweep() -> int:
        return asyncio.run(_sweep(redis_url))

    app.task(name=TASK, throws=(RahbaError,))(work)
    app.task(name=SWEEP, throws=(RahbaError,))(sweep)
    return app


async def _work(redis_url: str, key: WorkKey, agreement: str, sealed: str) -> str:
    clock = SystemClock()
    broker, wire = await connect(redis_url, clock), await dial(redis_url)
    try:
        shop = Workshop(key, RedisMarks(wire), broker.mailbox, clock, RandomIds(), load=make_agent)
        done = await shop.run(agreement, sealed)
    finally:
        await wire.close()
        await broker.close()
    _log.info("order %s: %s", agreement[:8], done)
    return done


async def _sweep(redis_url: str) -> int:
    broker = await connect(redis_url, SystemClock())
    try:
        return len(await broker.directory.sweep())
    finally:
        await broker.close()


def run_worker(
    broker_url: str, redis_url: str, key: WorkKey, *, processes: int, data_dir: Path, beat: bool
) -> None:
    """Work until SIGTERM; running tasks are finished first."""
    argv = [
        "worker",
        f"--concurrency={processes}",
        "--loglevel=WARNING",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    if beat:
        argv += ["--beat", f"--schedule={data_dir / 'beat-schedule'}"]
    make_worker(broker_url, redis_url, key).worker_main(argv)


def main(argv: Sequence[str]) -> None:
    """Run one worker process: ``python -m api.worker BROKER_URL REDIS_URL DATA_DIR``."""
    broker_url, redis_url, folder = argv
    data_dir = Path(folder)
    run_worker(
        broker_url, redis_url, WorkKey.at(data_dir), processes=1, data_dir=data_dir, beat=False
    )


if __name__ == "__main__":
    main(sys.argv[1:])
