"""The composition root: the only place that builds real things.

One function a process. Each takes settings, builds what the process is made of, runs until ``stop``
is set, and takes everything down again in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from api.auditor import OPERATOR_KEY, witness_name
from api.market import find_market
from api.settings import NETWORK, Settings
from rahba.clock import SystemClock
from rahba.encoding import unb64
from rahba.errors import LocalError
from rahba.ids import RandomIds

if TYPE_CHECKING:
    from agents.brains.clerk import Clerk
    from agents.host import HeavyWork
    from agents.work import WorkKey
    from broker import Broker
    from broker.transports.redis.wire import Wire
    from wallet.book import Book
    from wallet.cosigning import Cosigning
    from wallet.ports import Ledger, Store
    from wallet.recovery import BeforeSigning
    from wallet.replay import Replay

log = logging.getLogger(__name__)

LEDGER_FILE: Final = "ledger.sqlite"
REPUTATIONS: Final = "reputation.json"
EXPLORED_FOR_MS: Final = 60_000


class NoBrokerError(LocalError):
    """A process needs Redis and was not told where it is."""

    code = "no_broker"
    hint = "set REDIS_URL, or start a market here with `rahba up`"


class NoPostgresError(LocalError):
    """The ledger is to be kept in PostgreSQL, and Rahba was installed without its driver."""

    code = "no_postgres"
    hint = "pip install 'rahba[postgres]', or unset RAHBA_LEDGER_STORE"


@dataclass(frozen=True, slots=True)
class WitnessOptions:
    """What a witness is told: whose logs, by verifier key or by operator; where to read them."""

    audit: bool
    logs: Sequence[str] = ()
    operators: Sequence[str] = ()
    log_url: str | None = None
    name: str | None = None
    folder: Path | None = None

    @property
    def kind(self) -> str:
        """Return what it is: an auditor has another key than a witness."""
        return "auditor" if self.audit else "witness"

    @property
    def key_file(self) -> str:
        """Return the name of its key's file."""
        return f"{self.kind}.key"


@dataclass(frozen=True, slots=True)
class Links:
    """Connections of one process to the others."""

    broker: Broker
    ledger: Ledger
    redis_url: str
    celery_broker_url: str


def located(settings: Settings) -> Settings:
    """Fill in what the environment does not say from the market that runs in the data folder."""
    if settings.redis_url is not None and settings.celery_broker_url is not None:
        return settings
    where = find_market(settings)
    return replace(
        settings,
        data_dir=Path(where.data_dir),
        redis_url=where.redis_url,
        celery_broker_url=where.celery_broker_url,
        ledger_url=where.ledger_url,
        gateway_url=where.gateway_url,
    )


@contextlib.asynccontextmanager
async def linked(settings: Settings) -> AsyncIterator[Links]:
    """Connect to broker and ledger.

    Raises:
        NoBrokerError: ``settings`` name no Redis.
    """
    from api.embeddings import load_embeddings
    from broker.directory import Search
    from broker.mailboxes import MailboxLimits
    from broker.threads import ThreadLimits
    from broker.transports.redis import connect
    from wallet.transports.http import HttpLedger

    if settings.redis_url is None or settings.celery_broker_url is None:
        raise NoBrokerError("no Redis is configured")
    clock = SystemClock()
    search = Search(
        embedder=load_embeddings(settings.embeddings),
        seed=lambda: str(clock.now_ms() // EXPLORED_FOR_MS),
    )
    broker = await connect(
        settings.redis_url,
        clock,
        limits=MailboxLimits(
            sender_messages=settings.sender_messages, sender_bytes=settings.sender_bytes
        ),
        thread_limits=ThreadLimits(settings.open_threads),
        search=search,
    )
    ledger = HttpLedger(settings.ledger_url)
    try:
        yield Links(broker, ledger, settings.redis_url, settings.celery_broker_url)
    finally:
        await ledger.close()
        await broker.close()


def tune_for_ledger() -> None:
    """Set up the interpreter of a process that verifies in threads and keeps much in memory.

    Threads that come back from libsodium wait for the interpreter's lock: 0.2 ms at most instead
    of 5. What the ledger keeps holds no cycles, so the collector need not look at it often. On two
    cores both together gave a quarter more transfers.
    """
    sys.setswitchinterval(0.0002)
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def tune_for_dealing() -> None:
    """Set up the interpreter of a process that deals in many messages.

    Nearly all of what a message leaves behind goes by counting references. By default the collector
    looks every 700 objects whether something is left, which took a twentieth of a host's time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def run_witness(settings: Settings, wanted: WitnessOptions, stop: asyncio.Event) -> None:
    """Run one witness; with ``audit`` it carries out every transaction before it cosigns."""
    from api.witness_http import serve_witness
    from rahba.note import read_verifier_key
    from wallet.auditor import Auditor
    from wallet.keys import agent_signer
    from wallet.stores.witness import WitnessStore
    from wallet.transports.http import HttpLedger
    from wallet.watch import Watch
    from wallet.witness import Trust

    if wanted.audit:
        tune_for_ledger()
    folder = wanted.folder or settings.data_dir / "witness"
    signer = agent_signer(folder / wanted.key_file)
    logs = {read_verifier_key(vkey).name: vkey for vkey in wanted.logs}
    store = WitnessStore(folder / f"{wanted.kind}.sqlite")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(store.close)
        auditor = None
        if wanted.audit:
            ledger = HttpLedger(wanted.log_url or settings.ledger_url, patience_s=1.0)
            stack.push_async_callback(ledger.close)
            auditor = Auditor(ledger)
            stack.push_async_callback(auditor.close)
        watch = Watch(
            store,
            wanted.name or witness_name(wanted.kind, signer.did),
            signer,
            Trust(logs, wanted.operators),
            clock=SystemClock(),
            auditor=auditor,
        )
        log.info("verifier key: %s", watch.vkey)
        catching_up = asyncio.create_task(watch.catch_up(), name="audit-again")
        stack.callback(catching_up.cancel)
        address = settings.witness
        await _until(stop, serve_witness(watch, address.host, address.port))


async def run_ledger(settings: Settings, stop: asyncio.Event, *, standby: bool = False) -> None:
    """Run the one sequencer; end with an error if it must stop by itself.

    A ``standby`` waits until it can be the one, and follows the log meanwhile.
    """
    from api.ledger_http import serve
    from wallet.keys import agent_signer
    from wallet.service import Sequencer
    from wallet.standby import beating
    from wallet.transactions import dev_genesis

    tune_for_ledger()
    clock = SystemClock()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    operator = agent_signer(settings.data_dir / OPERATOR_KEY)
    store, replay = ledger_store(settings), None
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(store.close)
        if standby:
            replay = await _turn(settings, store, stop)
            if stop.is_set():
                return
        await asyncio.to_thread(store.acquire)
        beats = asyncio.create_task(beating(store), name="ledger-beats")
        stack.callback(beats.cancel)
        cosigning = await stack.enter_async_context(witnessed_by(settings))
        sequencer = await Sequencer.open(
            store,
            genesis=dev_genesis(operator.did, clock.now_ms()),
            operator=operator,
            clock=clock,
            ids=RandomIds(),
            before_signing=_asking(cosigning, settings) if cosigning else None,
            replay=replay,
        )
        await stack.enter_async_context(sequencer)
        address = settings.ledger
        policy = cosigning.policy_of(await sequencer.verifier_key()) if cosigning else None
        jobs = [serve(sequencer, address.host, address.port, log=sequencer.log, policy=policy)]
        jobs += [sequencer.publish(settings.data_dir / "log")]
        jobs += [cosigning.run(sequencer)] if cosigning else []
        await _until(stop, *jobs, sequencer.stopped(), beats)


def _asking(cosigning: Cosigning, settings: Settings) -> BeforeSigning:
    """Return the question to the witnesses; what one of them shows against us is kept."""
    from wallet.cosigning import RolledBackError

    async def ask(book: Book, note: str) -> None:
        try:
            await cosigning.before_signing(book, note)
        except RolledBackError as error:
            shown = error.facts.get("note")
            if isinstance(shown, str):
                folder = settings.data_dir / "evidence"
                folder.mkdir(mode=0o700, exist_ok=True)
                name = sha256(shown.encode()).hexdigest()[:16]
                (folder / f"{name}.note").write_text(shown, "utf-8")
            raise

    return ask


def ledger_store(settings: Settings) -> Store:
    """Return where the ledger is kept: the database of the settings, else a SQLite file.

    Raises:
        NoPostgresError: it is a database, and there is no driver for it.
    """
    from wallet.stores.sqlite import SqliteStore

    if settings.ledger_store is None:
        return SqliteStore(settings.data_dir / LEDGER_FILE)
    try:
        from wallet.stores.postgres import PostgresStore
    except ImportError as error:
        raise NoPostgresError("the driver for PostgreSQL is not installed") from error
    return PostgresStore(settings.ledger_store)


async def _turn(settings: Settings, store: Store, stop: asyncio.Event) -> Replay | None:
    """Stand by until the store is acquired, or ``stop`` is set; returns what was replayed."""
    from api.standby_http import serve_standby
    from wallet.standby import take_over

    replay: Replay | None = None

    async def wait() -> None:
        nonlocal replay
        replay = await take_over(store)

    address = settings.ledger
    await _until(stop, serve_standby(address.host, address.port), wait())
    return replay


@contextlib.asynccontextmanager
async def witnessed_by(settings: Settings) -> AsyncIterator[Cosigning | None]:
    """Connect to the witnesses of the policy; ``None`` if there is no policy."""
    from rahba.policy import read_policy
    from wallet.cosigning import Cosigning
    from wallet.transports.witness import HttpWitness

    if not settings.policy.is_file():
        yield None
        return
    policy = read_policy(settings.policy.read_text("utf-8"))
    asked = {name: HttpWitness(party.url) for name, party in policy.witnesses.items() if party.url}
    try:
        yield Cosigning(policy, asked, required=settings.witness_required)
    finally:
        for witness in asked.values():
            await witness.close()


async def run_gateway(settings: Settings, stop: asyncio.Event) -> None:
    """Run one HTTP gateway."""
    from agents.courier import Courier
    from api.http.app import create_app
    from api.http.parts import GatewayParts
    from api.http.server import serve
    from api.http.settings import GatewaySettings
    from broker.transports.redis.dial import dial

    tune_for_dealing()
    ids = RandomIds()
    async with linked(settings) as links:
        wire = await dial(links.redis_url)
        courier = Courier(links.broker.mailbox, SystemClock(), consumer=f"gateway-{ids.new()}")
        parts = GatewayParts(
            ledger=links.ledger,
            broker=links.broker,
            courier=courier,
            wire=wire,
            clock=SystemClock(),
            ids=ids,
            ledger_url=settings.ledger_url,
            clerk=_clerk(settings),
            reputation_file=settings.data_dir / "gateway" / REPUTATIONS,
            settings=GatewaySettings(allow_private=settings.allow_private),
        )
        following = asyncio.create_task(links.broker.directory.follow())
        try:
            address = settings.http
            await serve(create_app(parts), host=address.host, port=address.port, stop=stop)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await wire.close()


async def run_host(settings: Settings, files: Sequence[Path], stop: asyncio.Event) -> None:
    """Run the agents of ``files``, or without any the deployments."""
    from agents.deployments import Deployments
    from agents.host import World, host_folder, name_for
    from agents.host import run_host as run
    from agents.proofs import LedgerProofs
    from agents.stores.redis import REPORTS_KEY, RedisRecords
    from broker.observer import Observer
    from broker.transports.redis.dial import dial
    from broker.transports.redis.knowledge import RedisKnowledgeStore
    from wallet.reputation import Reputations

    tune_for_dealing()
    settings = located(settings)
    clock, ids = SystemClock(), RandomIds()
    async with linked(settings) as links, contextlib.AsyncExitStack() as stack:
        wire = await dial(links.redis_url)
        stack.push_async_callback(wire.close)
        world = World(
            broker=links.broker,
            ledger=links.ledger,
            clock=clock,
            ids=ids,
            data_dir=settings.data_dir,
            faucet=NETWORK.endswith(":dev"),
            deployments=Deployments(RedisRecords(wire), links.broker.mailbox, clock, ids),
            heavy=await _heavy_work(settings, links, wire, stack),
            reports=RedisRecords(wire, REPORTS_KEY),
            allow_private=settings.allow_private,
            observer=Observer(
                links.broker.feed,
                clock,
                LedgerProofs(links.ledger),
                store=RedisKnowledgeStore(wire),
            ),
            standings=Reputations(
                links.ledger,
                file=host_folder(settings.data_dir, name_for(files)) / REPUTATIONS,
                neighbours=[settings.data_dir / "gateway" / REPUTATIONS],
            ),
        )
        await run(world, stop, files)


async def _heavy_work(
    settings: Settings, links: Links, wire: Wire, stack: contextlib.AsyncExitStack
) -> HeavyWork | None:
    """Return how heavy jobs reach the workers; ``None`` where there is no queue for them."""
    from agents.host import HeavyWork
    from agents.stores.redis import RedisMarks
    from api.queue import WITHOUT_WORKERS, find_queue
    from api.worker import CeleryQueue

    url = await find_queue(links.redis_url, links.celery_broker_url)
    if url is None:
        log.warning(WITHOUT_WORKERS)
        return None
    queue = CeleryQueue(url)
    stack.callback(queue.close)
    return HeavyWork(work_key(settings), queue, RedisMarks(wire))


def run_worker(settings: Settings, processes: int) -> None:
    """Run one Celery worker with beat until SIGTERM.

    Raises:
        QueueOnClusterError: its queue would be on a Redis Cluster.
    """
    from api.queue import QueueOnClusterError, find_queue
    from api.worker import run_worker as run

    settings = located(settings)
    assert settings.redis_url is not None
    assert settings.celery_broker_url is not None
    queue = asyncio.run(find_queue(settings.redis_url, settings.celery_broker_url))
    if queue is None:
        raise QueueOnClusterError("a worker needs a queue, and none was named beside the cluster")
    run(
        queue,
        settings.redis_url,
        work_key(settings),
        processes=processes,
        data_dir=settings.data_dir,
        beat=True,
    )


def work_key(settings: Settings) -> WorkKey:
    """Return the key that seals heavy jobs: the configured one, else that of the data folder."""
    from agents.work import WorkKey

    if settings.work_key is not None:
        return WorkKey(unb64(settings.work_key))
    return WorkKey.at(settings.data_dir)


async def _until(stop: asyncio.Event, *jobs: Awaitable[None]) -> None:
    """Run ``jobs`` until ``stop`` is set or one of them ends; its error is raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    waiting = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.gather(*tasks, waiting, return_exceptions=True)


def _clerk(settings: Settings) -> Clerk:
    """Return who writes down wishes: a model where one is set, the rules where it fails."""
    from agents.brains.clerk import CarefulClerk, RuleClerk

    if settings.clerk_model is None:
        return RuleClerk()
    from agents.brains.langchain import ModelClerk

    return CarefulClerk(ModelClerk(settings.clerk_model, base_url=settings.clerk_url))
