"""Deployments move by compare-and-set, and only where their state leads."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from agents.deployments import (
    HOSTS,
    MAX_DEPLOYMENTS,
    Deployment,
    DeploymentMovedError,
    Deployments,
    UnknownDeploymentError,
    read_deployment,
    write_deployment,
)
from agents.schema import OfferDefinitionError
from agents.stores.memory import MemoryRecords
from agents.template import BadConfigError, UnknownTemplateError
from broker.ports import Mailbox
from rahba.clock import ManualClock
from rahba.errors import BadInputError, TooLargeError
from rahba.ids import BadIdError, RandomIds


class Post:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    async def send(self, owner: str, raw: bytes) -> None:
        self.sent.append((owner, raw))


class Racy(MemoryRecords):
    """Lets another writer win the first races."""

    losses = 0

    async def replace(self, key: str, old: bytes, new: bytes) -> bool:
        if self.losses:
            self.losses -= 1
            return False
        return await super().replace(key, old, new)


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def store() -> Racy:
    return Racy()


@pytest.fixture
def deployments(store: Racy, post: Post) -> Deployments:
    return Deployments(store, cast("Mailbox", post), ManualClock(), RandomIds())


async def test_a_deployment_is_recorded_and_the_hosts_are_told(
    deployments: Deployments, post: Post
) -> None:
    made = await deployments.deploy("keywords", "finder", {"price": "0.004", "floor": "0.001"})
    assert (made.state, made.agent, made.host) == ("pending", None, None)
    assert await deployments.get(made.id) == made
    assert post.sent == [(HOSTS, made.id.encode())]


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        (("no-such", "a", {}), UnknownTemplateError),
        (("keywords", "a", {"prize": "1"}), BadConfigError),
        (("keywords", "a", {"price": "-1"}), BadConfigError),
        (("keywords", "../a", {}), OfferDefinitionError),
        (("keywords", "a", {"price": "1", "x": "y" * 20_000}), BadConfigError),
        (("keywords", "a", {"price": 2**70}), BadConfigError),
    ],
)
async def test_what_cannot_run_is_refused_and_not_recorded(
    deployments: Deployments, post: Post, wish: tuple[str, str, dict[str, Any]], error: Any
) -> None:
    with pytest.raises(error):
        await deployments.deploy(*wish)
    assert await deployments.all() == []
    assert post.sent == []


async def test_there_are_only_so_many_deployments(
    deployments: Deployments, store: MemoryRecords
) -> None:
    made = await deployments.deploy("keywords", "a", {})
    for number in range(MAX_DEPLOYMENTS - 1):
        copy = msgspec.structs.replace(made, id=f"{number:032x}")
        await store.put(copy.id, write_deployment(copy))
    with pytest.raises(TooLargeError):
        await deployments.deploy("keywords", "b", {})
    await deployments.stop(made.id)
    fresh = await deployments.deploy("keywords", "b", {})
    assert await store.count() == MAX_DEPLOYMENTS
    assert {record.id for record in await deployments.all()} & {made.id, fresh.id} == {fresh.id}


async def test_a_host_claims_runs_and_stops_a_deployment(deployments: Deployments) -> None:
    made = await deployments.deploy("keywords", "a", {})
    await deployments.move(made.id, "pending", host="h1")
    running = await deployments.move(made.id, "running", host="h1", agent="did:x")
    assert (running.host, running.agent) == ("h1", "did:x")
    assert (await deployments.stop(made.id)).state == "stopping"
    assert (await deployments.move(made.id, "stopped")).state == "stopped"
    assert (await deployments.stop(made.id)).state == "stopped"


async def test_another_host_s_deployment_is_left_alone(deployments: Deployments) -> None:
    made = await deployments.deploy("keywords", "a", {})
    await deployments.move(made.id, "pending", host="h1")
    with pytest.raises(DeploymentMovedError):
        await deployments.move(made.id, "pending", host="h2")


async def test_one_that_is_being_stopped_does_not_come_to_life_again(
    deployments: Deployments,
) -> None:
    made = await deployments.deploy("keywords", "a", {})
    await deployments.move(made.id, "running", host="h1")
    await deployments.stop(made.id)
    with pytest.raises(DeploymentMovedError) as caught:
        await deployments.move(made.id, "running", host="h1")
    assert caught.value.facts["state"] == "stopping"


async def test_stopping_one_that_nobody_runs_ends_it(deployments: Deployments) -> None:
    made = await deployments.deploy("keywords", "a", {})
    assert (await deployments.stop(made.id)).state == "stopped"


async def test_a_failure_says_why_and_not_endlessly(deployments: Deployments) -> None:
    made = await deployments.deploy("keywords", "a", {})
    failed = await deployments.move(made.id, "failed", error="x" * 10_000)
    assert failed.error == "x" * 500


async def test_a_lost_race_is_looked_at_anew_and_given_up_after_some(
    deployments: Deployments, store: Racy
) -> None:
    made = await deployments.deploy("keywords", "a", {})
    store.losses = 3
    assert (await deployments.move(made.id, "running", host="h")).state == "running"
    store.losses = 100
    with pytest.raises(DeploymentMovedError):
        await deployments.move(made.id, "failed")
    with pytest.raises(DeploymentMovedError):
        await deployments.stop(made.id)


async def test_unknown_and_malformed_ids_are_told_apart(deployments: Deployments) -> None:
    with pytest.raises(UnknownDeploymentError):
        await deployments.get("0" * 32)
    with pytest.raises(BadIdError):
        await deployments.stop("../../x")


def test_records_survive_writing_with_fractions_in_their_settings() -> None:
    record = Deployment("0" * 32, "t", "n", {"damping": 0.85, "a": [1, None]}, "pending", 5)
    assert read_deployment(write_deployment(record)) == record
    for raw in (b"", b"{}", b"\xff", write_deployment(record)[:-1] + b',"x":1}'):
        with pytest.raises(BadInputError):
            read_deployment(raw)
