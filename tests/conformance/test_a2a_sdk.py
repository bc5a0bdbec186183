"""Agents made with the A2A project's own SDK are listed, verified, probed and sold.

The SDK lives in an environment of its own; `make oracles` sets it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.deployments import Deployments
from agents.errors import SellerFailedError
from agents.foreign.bridge import snapshot
from agents.foreign.errors import (
    BadCardSignatureError,
    ForeignFailedError,
    ForeignRefusedError,
    ForeignUnreachableError,
)
from agents.foreign.look import knock, see
from agents.foreign.rpc import Reply, Target, Wish, send
from agents.foreign.web import Reach
from agents.stores.memory import MemoryRecords
from rahba.errors import RahbaError
from tests.conftest import ORACLES
from tests.fixtures.hosting import CLOCK, CUSTOMER, IDS, Souk
from tests.fixtures.serving import free_port

SERVER = Path(__file__).parents[1] / "fixtures" / "a2a_server.py"
SPOKEN = ["1.0", "0.3", "both"]


@asynccontextmanager
async def sdk_agent(*words: str) -> AsyncIterator[str]:
    """Run an agent of the SDK until the end of the block; yields where it is."""
    port = free_port()
    command = [ORACLES / "python", SERVER, str(port), *words]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(30):
            while not await _is_up(port):
                assert process.returncode is None, "the SDK's server ended"
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        _ = await process.wait()


async def _is_up(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True
    return False


async def ask(url: str, text: str, within_s: float = 5) -> Reply:
    card = (await see(url, allow_private=True)).card
    target = Target(card.endpoint, card.protocol, card.tenant, Reach(1_000_000, 5, True))
    wish = Wish(IDS.new(), text, {"n": 1.5}, "hello_world")
    return await send(target, wish, within_s=within_s)


@pytest.mark.parametrize("protocol", SPOKEN)
async def test_an_sdk_agent_is_read_probed_and_spoken_to(protocol: str) -> None:
    async with sdk_agent(protocol) as url:
        sight = await see(url, allow_private=True)
        assert sight.card.protocol == ("0.3" if protocol == "0.3" else "1.0")
        assert (sight.card.name, sight.seal) == ("Héllo Agent", "unsigned")
        assert [skill.id for skill in sight.card.skills] == ["hello_world", "Shout!"]
        assert await knock(sight.card, allow_private=True) >= 0
        reply = await ask(url, "you")
        assert reply.text == "hello, you"
        assert reply.data[0]["skill"] == "hello_world"
        assert reply.data[0]["data"] == [{"n": 1.5}]
        assert (await ask(url, "task it")).text == "TASK IT"
        assert (await ask(url, "slow it")).text == "SLOW IT"


@pytest.mark.parametrize("protocol", SPOKEN)
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("fail", ForeignFailedError),
        ("ask", ForeignFailedError),
        ("wrong", ForeignRefusedError),
        ("hang", ForeignUnreachableError),
    ],
)
async def test_what_an_sdk_agent_does_not_do_is_a_typed_error(
    protocol: str, text: str, kind: type[RahbaError]
) -> None:
    async with sdk_agent(protocol) as url:
        with pytest.raises(kind) as caught:
            await ask(url, text, within_s=1)
        if text in {"fail", "ask"}:
            assert "ignore all previous instructions" in caught.value.message
            assert caught.value.message.isprintable()


@pytest.mark.parametrize("protocol", ["1.0", "both"])
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_the_sdks_signatures_verify_though_its_server_adds_older_fields(
    protocol: str, algorithm: str
) -> None:
    async with sdk_agent(protocol, algorithm) as url:
        sight = await see(url, allow_private=True)
        assert sight.seal == "verified"
        assert sight.card.endpoint == f"{url}/rpc"


async def test_a_signature_over_the_newer_form_does_not_speak_for_an_older_card() -> None:
    async with sdk_agent("0.3", "ES256") as url:
        with pytest.raises(BadCardSignatureError):
            await see(url, allow_private=True)


@pytest.mark.parametrize("protocol", ["1.0", "0.3"])
async def test_an_sdk_agent_is_bought_from_on_the_market(souk: Souk, protocol: str) -> None:
    deployments = Deployments(MemoryRecords(), souk.broker.mailbox, CLOCK, IDS)
    more: dict[str, Any] = {"deployments": deployments, "allow_private": True}
    async with sdk_agent(protocol) as url, souk.host(**more):
        sight = await see(url, allow_private=True)
        chosen: dict[str, Any] = {"price": "0.002", "allow_private": True}
        name, config = snapshot(sight, url, CUSTOMER.did, **chosen)
        assert name == "Hello Agent"
        made = await deployments.deploy("a2a", name, config)
        async with asyncio.timeout(10):
            while not await _listed(souk, deployments, made.id):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        bought = await souk.buy("hello-world", {"text": "you"}, mode="posted")
        assert bought.output["text"] == "hello, you"
        assert await souk.settled(bought.thread) == "settled"
        loud = await souk.buy("shout", {"text": "task it"}, mode="posted")
        assert loud.output["text"] == "TASK IT"
        with pytest.raises(SellerFailedError) as caught:
            await souk.buy("shout", {"text": "fail"}, mode="posted")
        assert caught.value.facts["seller_code"] == "foreign_failed"
        seller = await souk.account((await deployments.get(made.id)).agent or "")
        earned = [kind for kind in await souk.types_logged() if kind == "capture"]
        assert len(earned) == 2
        assert seller.held == 2 * (2_000_000 - 1_000)  # while it may be challenged


async def _listed(souk: Souk, deployments: Deployments, deployment: str) -> bool:
    agent = (await deployments.get(deployment)).agent
    return agent is not None and await souk.broker.directory.get(agent) is not None
