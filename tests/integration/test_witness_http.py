"""A real witness over HTTP, a real ledger before it, and an independent witness beside it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from api.witness_http import serve_witness
from rahba.clock import ManualClock
from rahba.cosignature import cosigned_at
from rahba.note import open_checkpoint
from rahba.policy import read_policy
from tests.fixtures.serving import serving
from tests.fixtures.wallet import START_MS, LedgerRig, did, signer_of
from tests.fixtures.witnesses import ORIGIN, PlainLog, same_rulings, words
from wallet.cosigning import Cosigning
from wallet.evidence import read_evidence, verify_evidence
from wallet.stores.witness import WitnessStore
from wallet.transports.witness import HttpWitness, WitnessUnreachableError
from wallet.watch import Watch
from wallet.witness import SIZE_TYPE, Trust, origin_hash, rule

LOG = PlainLog(*words(20))


@dataclass
class Site:
    url: str
    watch: Watch
    store: WitnessStore


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    store = WitnessStore(tmp_path / "witness.sqlite")
    trust = Trust({ORIGIN: LOG.vkey}, [did("operator")])
    clock = ManualClock(START_MS)
    watch = Watch(store, "w.test/one", signer_of("witness"), trust, clock=clock)
    async with serving(partial(serve_witness, watch, "127.0.0.1", 0)) as url:
        yield Site(url, watch, store)
    store.close()


async def post(site: Site, body: bytes) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as web,
        web.post(f"{site.url}/add-checkpoint", data=body) as reply,
    ):
        return reply.status, reply.content_type, await reply.text()


async def test_the_protocol_over_http_status_by_status(site: Site) -> None:
    status, _, line = await post(site, LOG.request(0, 7))
    assert status == 200
    assert cosigned_at(LOG.note(7) + line, site.watch.vkey) == START_MS // 1000
    assert (await post(site, LOG.request(3, 9)))[::2] == (409, "7\n")
    assert (await post(site, LOG.request(3, 9)))[1] == SIZE_TYPE
    other = PlainLog(*words(7, "x"), *words(13))
    assert (await post(site, other.request(7, 9)))[0] == 422
    assert (await post(site, other.request(7, 7)))[0] == 422
    assert (await post(site, b"nonsense"))[0] == 400
    assert (await post(site, PlainLog("a", name="thief").request(0)))[0] == 403
    assert (await post(site, b"x" * 300_000))[0] == 413
    async with aiohttp.ClientSession() as web:
        for path, expected in (("/healthz", 200), ("/nothing", 404), ("/add-checkpoint", 405)):
            async with web.get(site.url + path) as reply:
                assert reply.status == expected
        async with web.get(f"{site.url}/vkey") as reply:
            assert (await reply.text()).strip() == site.watch.vkey
        async with web.get(f"{site.url}/evidence") as reply:
            grown, same = [read_evidence(json.dumps(item)) for item in await reply.json()]
        assert verify_evidence(same).detail == "two roots for size 7"
        assert "size 9 extends another log" in verify_evidence(grown).detail
        async with web.get(f"{site.url}/{origin_hash(ORIGIN)}/checkpoint") as reply:
            note = await reply.text()
            assert open_checkpoint(note, LOG.vkey).size == 7
            assert cosigned_at(note, site.watch.vkey) == START_MS // 1000
        for unknown in (origin_hash("other"), "A" * 64):
            async with web.get(f"{site.url}/{unknown}/checkpoint") as reply:
                assert reply.status == 404


async def test_an_unknown_log_is_not_found_when_no_operator_is_trusted(tmp_path: Path) -> None:
    assert rule(LOG.request(0), Trust({}), lambda _: None).status == 404


async def test_two_requests_at_once_never_roll_each_other_back(site: Site) -> None:
    assert (await post(site, LOG.request(0, 2)))[0] == 200
    told = await asyncio.gather(*(post(site, LOG.request(2, size)) for size in range(3, 20)))
    assert sorted(status for status, _, _ in told) == [200] + [409] * 16
    seen = site.store.newest(ORIGIN)
    assert seen is not None
    assert seen.root == LOG.log.root_at(seen.size)


async def test_a_ledger_is_witnessed_over_http_and_says_so(
    site: Site, sqlite_rig: LedgerRig
) -> None:
    policy = read_policy(f"witness one {site.watch.vkey} {site.url}\nquorum one\n")
    away = HttpWitness(site.url)
    cosigning = Cosigning(policy, {"one": away})
    running = asyncio.create_task(cosigning.run(sqlite_rig.ledger))
    amina = await sqlite_rig.funded("amina")
    answer = await amina.transfer(did("brahim"), 5)
    async with asyncio.timeout(10):
        while (await sqlite_rig.ledger.status(answer.id)).finality != "witnessed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    note = await sqlite_rig.ledger.witnessed()
    assert note is not None
    assert policy.cosigners(note) == {"one": START_MS // 1000}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await away.close()


async def test_a_witness_that_is_not_there_is_unreachable() -> None:
    witness = HttpWitness("http://127.0.0.1:1", timeout_s=2)
    with pytest.raises(WitnessUnreachableError):
        await witness.add_checkpoint(b"")
    with pytest.raises(WitnessUnreachableError):
        await witness.checkpoint(ORIGIN)
    await witness.close()


async def test_a_log_asks_a_witness_what_it_cosigned_last(site: Site) -> None:
    witness = HttpWitness(site.url)
    assert await witness.checkpoint(ORIGIN) is None
    assert (await witness.add_checkpoint(LOG.request(0, 7)))[0] == 200
    note = await witness.checkpoint(ORIGIN)
    assert note is not None
    assert open_checkpoint(note, LOG.vkey).size == 7
    await witness.close()


@pytest.mark.skipif(
    sys.platform != "linux", reason="the independent witness has a wheel for Linux only"
)
async def test_an_independent_witness_rules_on_our_log_as_ours_does(tmp_path: Path) -> None:
    """`witness_log` is somebody else's C2SP witness: it gets the same bodies, status by status."""
    import witness_log

    service = witness_log.WitnessService.new("w.test/theirs", bytes([7]) * 32)
    assert service.add_log(ORIGIN, LOG.vkey)

    async def theirs(body: bytes) -> tuple[int, str]:
        status, text = service.handle_add_checkpoint(body.decode(), START_MS // 1000)
        return status, text

    await same_rulings(LOG, theirs, service.vkey(), tmp_path)


@pytest.mark.skipif(
    sys.platform != "linux", reason="the independent log has a wheel for Linux only"
)
async def test_our_witness_cosigns_an_independent_log(tmp_path: Path) -> None:
    import witness_log

    log = witness_log.WitnessLog.generate()
    origin = log.canonical_origin()
    store = WitnessStore(tmp_path / "ours.sqlite")
    trust = Trust({origin: log.c2sp_vkey(origin)})
    ours = Watch(store, "w.test/ours", signer_of("w"), trust, clock=ManualClock(START_MS))
    old = 0
    for count in (1, 4, 3):
        for number in range(count):
            log.append_memory(b"%d" % number)
        body = log.add_checkpoint_body(old)
        ruling = await ours.add_checkpoint(body.encode() if isinstance(body, str) else body)
        assert ruling.status == 200, ruling
        old = log.tree_size()
    store.close()
