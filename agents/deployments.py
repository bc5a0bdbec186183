"""Deployments: which templates run as which agents, on which host.

A record is written by whoever deploys and moved on by the host that takes it::

    pending -> running -> stopping -> stopped
       |          |
       +-> failed +-> failed -> stopped

* Whoever deploys checks the configuration first and then tells the hosts by the control mailbox.
* Every move replaces exactly the record it was decided on; a lost race is looked at anew.
* A host that starts takes its own deployments again, and those nobody has taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson

from agents.ports import DeploymentStore
from agents.template import MAX_CONFIG_BYTES, BadConfigError, template_named
from broker.ports import Mailbox
from rahba.clock import Clock
from rahba.errors import BadInputError, LocalError, TooLargeError
from rahba.ids import Ids, check_id

HOSTS: Final = "hosts"
MAX_DEPLOYMENTS: Final = 1_000
_ATTEMPTS: Final = 8

State = Literal["pending", "running", "stopping", "stopped", "failed"]

MOVES: Final[Mapping[State, frozenset[State]]] = {
    "pending": frozenset({"pending", "running", "failed", "stopped"}),
    "running": frozenset({"running", "stopping", "failed"}),
    "stopping": frozenset({"stopped"}),
    "stopped": frozenset(),
    "failed": frozenset({"stopped"}),
}


ENDED: Final[frozenset[State]] = frozenset({"stopped", "failed"})


class UnknownDeploymentError(BadInputError):
    """There is no deployment of this id."""

    code = "unknown_deployment"


class DeploymentMovedError(LocalError):
    """The deployment is in a state that does not allow this; ``facts["state"]`` says which."""

    code = "deployment_moved"


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One deployed agent. ``agent`` is its did once it runs, ``error`` why it failed."""

    id: str
    template: Annotated[str, msgspec.Meta(max_length=64)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    config: dict[str, Any]
    state: State
    created: int
    agent: str | None = None
    host: str | None = None
    error: str | None = None


def write_deployment(record: Deployment) -> bytes:
    """Encode a record as JSON with sorted keys: the config may hold floats."""
    return orjson.dumps(msgspec.to_builtins(record), option=orjson.OPT_SORT_KEYS)


def read_deployment(raw: bytes) -> Deployment:
    """Decode a record."""
    try:
        return msgspec.json.decode(raw, type=Deployment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"not a deployment: {error}") from error


class Deployments:
    """The records as their writers see them: deploy, stop, look; take, and report as a host."""

    def __init__(self, store: DeploymentStore, mailbox: Mailbox, clock: Clock, ids: Ids) -> None:
        """Keep records in ``store`` and tell the hosts through ``mailbox``."""
        self._store = store
        self._mailbox = mailbox
        self._clock = clock
        self._ids = ids

    async def deploy(
        self, template: str, name: str, config: dict[str, Any], *, under: str | None = None
    ) -> Deployment:
        """Check a configuration, record it as pending and tell the hosts.

        ``under`` is the id to use, so that a repeated wish makes the same deployment.

        Raises:
            UnknownTemplateError: no such template.
            BadConfigError: the configuration does not fit; nothing was recorded.
            TooLargeError: too many deployments.
        """
        _check_size(config)
        _ = template_named(template).make(config, name)
        await self._make_room()
        record = Deployment(
            id=under or self._ids.new(),
            template=template,
            name=name,
            config=config,
            state="pending",
            created=self._clock.now_ms(),
        )
        await self._store.put(record.id, write_deployment(record))
        await self._mailbox.send(HOSTS, record.id.encode())
        return record

    async def _make_room(self) -> None:
        """Forget the oldest ended deployments when there are many; refuse beyond the limit."""
        if await self._store.count() < MAX_DEPLOYMENTS:
            return
        records = await self.all()
        ended = [record for record in records if record.state in ENDED]
        if len(records) - len(ended) >= MAX_DEPLOYMENTS:
            raise TooLargeError("too many deployments", limit=MAX_DEPLOYMENTS)
        for record in ended[: len(records) - MAX_DEPLOYMENTS + 1]:
            await self._store.remove(record.id)

    async def get(self, deployment_id: str) -> Deployment:
        """Return one record, or raise :class:`UnknownDeploymentError`."""
        return read_deployment(await self._raw(deployment_id))

    async def all(self) -> list[Deployment]:
        """Return every record, oldest first."""
        records = [read_deployment(raw) for raw in await self._store.all()]
        return sorted(records, key=lambda record: (record.created, record.id))

    async def stop(self, deployment_id: str) -> Deployment:
        """Ask for a deployment to be stopped (idempotent); the host that runs it notices."""
        for _ in range(_ATTEMPTS):
            raw = await self._raw(deployment_id)
            record = read_deployment(raw)
            if record.state in {"stopping", "stopped"}:
                return record
            wanted: State = "stopping" if record.state == "running" else "stopped"
            moved = msgspec.structs.replace(record, state=wanted)
            if await self._store.replace(record.id, raw, write_deployment(moved)):
                return moved
        raise DeploymentMovedError("the deployment is being changed by others; try again")

    async def move(
        self,
        deployment_id: str,
        state: State,
        *,
        agent: str | None = None,
        host: str | None = None,
        error: str | None = None,
    ) -> Deployment:
        """Move a record on, as the host that runs it.

        Raises:
            DeploymentMovedError: another host has it, or its state does not lead there.
        """
        for _ in range(_ATTEMPTS):
            raw = await self._raw(deployment_id)
            record = read_deployment(raw)
            if state not in MOVES[record.state]:
                raise DeploymentMovedError(
                    f"a {record.state} deployment cannot become {state}", state=record.state
                )
            if host is not None and record.host not in {None, host}:
                raise DeploymentMovedError("another host has it", host=record.host)
            moved = msgspec.structs.replace(
                record,
                state=state,
                agent=agent or record.agent,
                host=host or record.host,
                error=error and error[:500],
            )
            if await self._store.replace(record.id, raw, write_deployment(moved)):
                return moved
        raise DeploymentMovedError("the deployment is being changed by others; try again")

    async def _raw(self, deployment_id: str) -> bytes:
        raw = await self._store.get(check_id(deployment_id))
        if raw is None:
            raise UnknownDeploymentError("there is no such deployment")
        return raw


def _check_size(config: dict[str, Any]) -> None:
    try:
        size = len(orjson.dumps(config))
    except (TypeError, ValueError) as error:
        raise BadConfigError(f"the configuration has no JSON form: {error}") from error
    if size > MAX_CONFIG_BYTES:
        raise BadConfigError("the configuration is too large", limit_bytes=MAX_CONFIG_BYTES)
