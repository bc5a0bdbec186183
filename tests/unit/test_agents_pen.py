"""Signing for one key: what is said within a tick goes out under one signature."""

from __future__ import annotations

import asyncio

import msgspec
import orjson
import pytest

from agents.pen import Pen
from rahba.errors import BadEncodingError, BadSignatureError
from rahba.messages import Message, NotUnderstood, open_message
from tests.fixtures.market_messages import IDS, signer

NOW = 1_700_000_000_000
ANN, BOB = signer(1), signer(2)


def message(**changes: object) -> Message:
    fresh = Message(
        id=IDS.new(), thread=IDS.new(), seq=1, prev=None, sender=ANN.did, to=BOB.did, ts=NOW,
        reply_by=NOW + 1_000, body=NotUnderstood(code="what"),
    )  # fmt: skip
    return msgspec.structs.replace(fresh, **changes)


async def test_what_is_said_at_once_shares_a_signature_and_what_is_said_alone_has_its_own() -> None:
    pen, said = Pen(ANN), [message() for _ in range(5)]
    together = await asyncio.gather(*(pen.seal(each) for each in said))
    alone = await pen.seal(said[0])
    assert len({orjson.loads(raw)["signatures"][0]["sig"] for raw in together}) == 1
    assert "of" not in orjson.loads(alone)["signatures"][0]
    for each, raw in zip(said, together, strict=True):
        assert open_message(raw, me=BOB.did, now_ms=NOW) == each


async def test_who_gave_up_keeps_nobody_else_from_a_signature() -> None:
    pen = Pen(ANN)
    gone, left = (asyncio.create_task(pen.seal(message())) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert open_message(await left, me=BOB.did, now_ms=NOW).sender == ANN.did
    assert gone.cancelled() or gone.cancelling()


async def test_a_message_of_somebody_else_is_signed_for_nobody() -> None:
    pen = Pen(ANN)
    others = await asyncio.gather(
        pen.seal(message()), pen.seal(message(sender=BOB.did)), return_exceptions=True
    )
    assert isinstance(others[0], bytes), "it is nobody else's trouble"
    assert isinstance(others[1], BadSignatureError)
    with pytest.raises(BadSignatureError):
        await pen.seal(message(sender=BOB.did))
    assert await pen.seal(message())


async def test_words_that_cannot_be_encoded_are_the_trouble_of_whoever_says_them() -> None:
    pen = Pen(ANN)
    odd = message(body=NotUnderstood(code="x", text="\ud800"))
    good, bad = await asyncio.gather(pen.seal(message()), pen.seal(odd), return_exceptions=True)
    assert isinstance(good, bytes)
    assert isinstance(bad, BadEncodingError)
