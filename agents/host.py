"""The host: one process that runs many agents.

* Each agent has its own key, money, card and seller; all share one courier and one heartbeat.
* A host runs the agents of Python files it was given, or the deployments it takes. A deployment is
  claimed first, then made, self-tested, funded and listed; whatever goes wrong with it is written
  on its record and disturbs nobody else.
* Nothing is kept in memory that matters: a host that starts takes its deployments again, and the
  mailbox brings back every letter whose effects were not durable.
* On the way out agents are taken off the market, running jobs get ``GRACE_S``, the rest stays in
  the mailboxes.

One process a host name and data folder, by an advisory lock on its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from agents.agent import Agent
from agents.courier import BACKOFF_S, Courier
from agents.deployments import HOSTS, Deployment, DeploymentMovedError, Deployments
from agents.member import Member, Surroundings
from agents.ports import DeploymentStore, Standings, TaskQueue, WorkMarks
from agents.pulse import Pulse
from agents.shelf import CARD_TTL_MS
from agents.source import Source, agents_in, make_agent
from agents.template import SelfTestError, template_named
from agents.templates.crafts.refusals import UnsafeAddressError
from agents.work import WorkDesk, WorkKey
from broker import Broker
from broker.errors import LeaseLostError
from broker.observer import Observer
from broker.ports import Delivery
from rahba.clock import Clock
from rahba.encoding import sha256_hex
from rahba.envelope import Signer
from rahba.errors import LocalError, RahbaError
from rahba.ids import Ids, check_id, short
from wallet.keys import agent_signer
from wallet.ports import Ledger

GRACE_S: Final = 8.0
HEARTBEAT_S: Final = CARD_TTL_MS / 3_000
WATCH_S: Final = 0.5
SELF_TEST_S: Final = 30.0
FUND_EVERY: Final = 20
ORPHAN_MS: Final = 5_000
POST_WAIT_MS: Final = 500
PATIENCE: Final = 60
MAX_MEMBERS: Final = 1_000
_AT_ONCE: Final = 4

_log: Final = logging.getLogger(__name__)


class HostRunningError(LocalError):
    """Another process runs this host."""

    code = "host_running"
    hint = "stop the other one first, or use another data folder"


@dataclass(frozen=True, slots=True)
class HeavyWork:
    """How heavy jobs reach the workers; without it they run in the host's own threads."""

    key: WorkKey
    queue: TaskQueue
    marks: WorkMarks

    def desk(self, clock: Clock, reply_to: str) -> WorkDesk:
        """Return a desk whose results come to the mailbox of ``reply_to``."""
        return WorkDesk(self.key, self.queue, self.marks, clock, reply_to=reply_to)


@dataclass(frozen=True, slots=True)
class World:
    """What a host works with; everything real is made by the composition root.

    ``reports`` keeps how bridges are doing; ``allow_private`` lets them lead into our own networks.
    By ``standings`` the jobs of its agents choose whom to ask; without them all sellers are alike.
    """

    broker: Broker
    ledger: Ledger
    clock: Clock
    ids: Ids
    data_dir: Path
    faucet: bool = False
    deployments: Deployments | None = None
    heavy: HeavyWork | None = None
    reports: DeploymentStore | None = None
    allow_private: bool = False
    observer: Observer | None = None
    standings: Standings | None = None


class Host:
    """Runs agents until told to stop. Use :func:`open_host`, then :meth:`run`."""

    def __init__(self, world: World, signer: Signer) -> None:
        """Run under the name of ``signer``; nothing happens before :meth:`run`."""
        self._world = world
        self._signer = signer
        self._name = f"host-{short(signer.did)}"
        self._courier = Courier(
            world.broker.mailbox,
            world.clock,
            consumer=self._name,
            concurrency=1_024,
            backlog=4_096,
        )
        self._desk = None if world.heavy is None else world.heavy.desk(world.clock, signer.did)
        self._around = Surroundings(
            broker=world.broker,
            ledger=world.ledger,
            courier=self._courier,
            clock=world.clock,
            ids=world.ids,
            faucet=world.faucet,
            desk=self._desk,
            observations=world.observer,
        )
        if world.standings is not None:
            world.broker.directory.judge_by(world.standings)
        self._members: dict[str, Member] = {}
        self._pulses: dict[str, asyncio.Task[None]] = {}
        self._taking: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._watching: list[asyncio.Task[None]] = []
        self._beats = 0
        self._reader = world.broker.mailbox.receive([signer.did], consumer=self._name)
        self.ready = asyncio.Event()

    @property
    def did(self) -> str:
        """Return the host's own id; results of heavy jobs come to its mailbox."""
        return self._signer.did

    @property
    def members(self) -> list[Member]:
        """Return the agents that are on the market now."""
        return list(self._members.values())

    async def run(self, stop: asyncio.Event, files: Sequence[Path] = ()) -> None:
        """Run the agents of ``files``, or without any the deployments, until ``stop`` is set."""
        await self._courier.start()
        deployments = None if files else self._world.deployments
        loops = [_every(0, self._open_post), _every(HEARTBEAT_S, self._beat)]
        loops.append(_every(HEARTBEAT_S, self._guard))
        if deployments is not None:
            self._reader.add(HOSTS)
            loops.append(_every(WATCH_S, partial(self._watch, deployments)))
        running = [asyncio.create_task(loop) for loop in loops]
        try:
            for path in files:
                for agent in agents_in(path):
                    await self.add(agent, Source("file", str(path.resolve()), agent.name))
            if deployments is not None:
                await self._take_again(deployments)
            self.ready.set()
            await stop.wait()
        finally:
            await self._end([*running, *self._tasks, *self._watching])

    async def add(self, agent: Agent, source: Source, *, key: str | None = None) -> Member:
        """Put an agent on the market; ``key`` names it among the host's agents."""
        key = key or agent.name
        if len(self._members) >= MAX_MEMBERS or key in self._members:
            raise HostRunningError(f"{key} runs here already, or the host is full")
        folder = self._world.data_dir / "agents" / quote(key, safe=" ")
        member = Member(agent, agent_signer(folder / "key"), source, self._around)
        await member.join()
        self._members[key] = member
        if agent.vital is not None:
            pulse = Pulse(member, agent.vital, self._world.clock, self._world.reports, key)
            self._pulses[key] = asyncio.create_task(pulse.run(), name=f"pulse-{agent.name}")
        self._watch_market()
        _log.info("%s is on the market as %s", agent.name, member.did)
        return member

    def _watch_market(self) -> None:
        """Follow feed and log, for the agents that there are: a host without any has no use."""
        if not self._watching:
            following = (self._world.observer, self._world.standings)
            self._watching = [
                asyncio.create_task(each.run()) for each in following if each is not None
            ]

    # Deployments.

    async def _take_again(self, deployments: Deployments) -> None:
        for record in await deployments.all():
            mine = record.host == self.did
            if mine and record.state == "stopping":
                _ = await deployments.move(record.id, "stopped")
            elif (mine and record.state in {"pending", "running"}) or (
                record.state == "pending" and record.host is None
            ):
                self._start(partial(self._take, deployments, record.id))

    async def _take(self, deployments: Deployments, deployment_id: str) -> None:
        """Claim a deployment and bring it onto the market, or write down why not."""
        if deployment_id in self._taking or deployment_id in self._members:
            return
        self._taking.add(deployment_id)
        try:
            async with self._slots:
                record = await deployments.get(deployment_id)
                record = await deployments.move(record.id, record.state, host=self.did)
                await self._bring_up(deployments, record)
        except DeploymentMovedError as error:
            _log.info("deployment %s is not ours: %s", deployment_id[:8], error)
        finally:
            self._taking.discard(deployment_id)

    async def _bring_up(self, deployments: Deployments, record: Deployment) -> None:
        source = Source("template", record.template, record.name, record.config)
        try:
            agent = await asyncio.to_thread(make_agent, source)
            self._check_reach(agent)
            await _self_test(record.template, agent)
            member = await self.add(agent, source, key=record.id)
        except RahbaError as error:
            if error.retryable:
                raise
            _ = await deployments.move(record.id, "failed", error=f"{error.code}: {error}")
            return
        _ = await deployments.move(record.id, "running", agent=member.did, host=self.did)

    def _check_reach(self, agent: Agent) -> None:
        """Refuse a bridge into our own networks, whoever wrote its record."""
        vital = agent.vital
        if vital is not None and vital.reaches_private and not self._world.allow_private:
            raise UnsafeAddressError("this host makes no bridges into private networks")

    async def _watch(self, deployments: Deployments) -> None:
        """Stop what is to be stopped; take what was deployed while nobody listened."""
        overdue_ms = self._world.clock.now_ms() - ORPHAN_MS
        for record in await deployments.all():
            if record.state == "stopping" and record.host == self.did:
                self._start(partial(self._take_down, deployments, record.id))
            elif record.state == "pending" and record.host is None and record.created < overdue_ms:
                self._start(partial(self._take, deployments, record.id))

    async def _take_down(self, deployments: Deployments, deployment_id: str) -> None:
        if deployment_id in self._taking:
            return
        self._taking.add(deployment_id)
        try:
            member = self._members.pop(deployment_id, None)
            if member is not None:
                await self._quiet(deployment_id)
                await member.leave(grace_s=GRACE_S)
            _ = await deployments.move(deployment_id, "stopped")
        finally:
            self._taking.discard(deployment_id)

    async def _quiet(self, key: str) -> None:
        """End a pulse, so that it lists nobody again."""
        pulse = self._pulses.pop(key, None)
        if pulse is not None:
            pulse.cancel()
            await asyncio.gather(pulse, return_exceptions=True)

    # Loops.

    async def _open_post(self) -> None:
        """Take the host's own mail: results of heavy jobs, and word of new deployments."""
        for delivery in await self._reader.next(wait_ms=POST_WAIT_MS):
            if delivery.owner == HOSTS:
                self._deployed(delivery)
            elif self._desk is not None:
                _ = self._desk.arrived(delivery.raw)
            with contextlib.suppress(LeaseLostError):
                await self._reader.done([delivery])

    def _deployed(self, delivery: Delivery) -> None:
        deployments = self._world.deployments
        try:
            deployment_id = check_id(delivery.raw.decode("ascii"))
        except (RahbaError, UnicodeDecodeError):
            _log.warning("dropped what is no deployment's id")
            return
        if deployments is not None:
            self._start(partial(self._take, deployments, deployment_id))

    async def _beat(self) -> None:
        """Renew every lease; list again who fell off, and whose posted offers are the last's.

        The leases of bridges are renewed by their pulses alone.
        """
        members = {each.did: each for each in self._members.values() if each.agent.vital is None}
        self._beats += 1
        gone = await self._world.broker.directory.heartbeat(list(members)) if members else []
        stale = [member.did for member in members.values() if member.is_outdated]
        for did in dict.fromkeys([*gone, *stale]):
            if not members[did].seller.closing:
                await members[did].publish()
        _ = await self._world.broker.directory.sweep()
        if self._beats % FUND_EVERY == 0:
            for member in self.members:
                await member.fund()

    async def _guard(self) -> None:
        """Give back the holds that nobody ordered by, answer those that are challenged."""
        for member in self.members:
            try:
                for hold in await member.sureties.look():
                    _log.warning("%s gave hold %s back: nobody ordered by it", member.did, hold)
            except RahbaError as error:
                _log.warning("the holds of %s are looked at again: %s", member.did, error)

    def _start(self, call: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(_insist(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, running: Sequence[asyncio.Task[None]]) -> None:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*(self._quiet(key) for key in list(self._pulses)))
        await asyncio.gather(*(member.leave(grace_s=GRACE_S) for member in self.members))
        if self._world.standings is not None:
            await self._world.standings.save()
        await self._courier.stop(grace_s=1.0)
        await self._reader.close()


@contextlib.contextmanager
def open_host(world: World, name: str) -> Iterator[Host]:
    """Give the host called ``name`` of this data folder, with its key, for one process at a time.

    Raises:
        HostRunningError: another process has it.
    """
    folder = host_folder(world.data_dir, name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostRunningError(f"another process runs the host {name!r}") from error
        yield Host(world, agent_signer(folder / "key"))


def host_folder(data_dir: Path, name: str) -> Path:
    """Return where the host called ``name`` keeps what is its own."""
    return data_dir / "hosts" / quote(name, safe=" ")


def name_for(files: Sequence[Path]) -> str:
    """Return the name of the host that runs ``files``; without any, that of the deployments'."""
    if not files:
        return "deployments"
    places = "\n".join(sorted(str(path.resolve()) for path in files))
    return f"{files[0].stem} {sha256_hex(places.encode())[:8]}"


async def run_host(world: World, stop: asyncio.Event, files: Sequence[Path] = ()) -> None:
    """Run one host until ``stop`` is set."""
    with open_host(world, name_for(files)) as host:
        await host.run(stop, files)


async def _self_test(template: str, agent: Agent) -> None:
    try:
        async with asyncio.timeout(SELF_TEST_S):
            await template_named(template).self_test(agent)
    except TimeoutError as error:
        raise SelfTestError(f"no answer within {SELF_TEST_S:.0f} s") from error
    except RahbaError:
        raise
    except Exception as error:  # the supervised boundary: a template is somebody's own code
        _log.warning("the self-test of %s failed", template, exc_info=error)
        raise SelfTestError(f"{type(error).__name__}: {error}"[:300]) from error


async def _insist(call: Callable[[], Awaitable[None]]) -> None:
    """Do something until it is done or cannot be; the broker and the ledger may be away."""
    for pause_s in (*BACKOFF_S, *([BACKOFF_S[-1]] * PATIENCE)):
        try:
            await call()
        except RahbaError as error:
            if not error.retryable:
                _log.warning("given up: %s", error)
                return
            _log.info("trying again: %s", error)
        except Exception:  # noqa: BLE001  # the supervised boundary: one failure stops nobody else
            _log.exception("given up")
            return
        else:
            return
        await asyncio.sleep(pause_s)


async def _every(pause_s: float, step: Callable[[], Awaitable[None]]) -> None:
    """Repeat ``step`` for ever; one that fails is tried again at the next turn."""
    while True:
        try:
            await step()
        except RahbaError as error:
            _log.warning("will be tried again: %s", error)
        except Exception:  # noqa: BLE001  # the supervised boundary: the host must go on
            _log.exception("will be tried again")
        await asyncio.sleep(pause_s)
