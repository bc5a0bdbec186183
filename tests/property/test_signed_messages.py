"""A signed message is covered whole: whatever is changed about it, it is refused."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rahba.encoding import b64, canonical, unb64
from rahba.errors import EnvelopeExpiredError, RahbaError, WrongAudienceError
from rahba.messages import CLOCK_SKEW_MS, MESSAGE_TYPE, Message, open_message
from tests.fixtures.market_messages import Talk, signer

TALK: Final = Talk(buyer=signer(1), seller=signer(2), thread="a" * 32, group="b" * 32)
ASKED: Final = TALK.offer()
MESSAGES: Final = [
    TALK.say(TALK.buyer, TALK.opening()),
    TALK.say(TALK.seller, TALK.quote(ASKED)),
    TALK.say(TALK.buyer, TALK.accept(ASKED)),
    TALK.say(TALK.seller, TALK.result(ASKED)),
]


def opened(raw: bytes) -> Message:
    return open_message(raw, me=None, now_ms=0)


@settings(max_examples=600, deadline=None)
@given(raw=st.sampled_from(MESSAGES), data=st.data())
def test_a_message_with_any_byte_changed_is_refused(raw: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != raw[place]))
    changed = raw[:place] + bytes([byte]) + raw[place + 1 :]
    with pytest.raises(RahbaError):
        opened(changed)


@settings(max_examples=100, deadline=None)
@given(raw=st.sampled_from(MESSAGES), data=st.data())
def test_a_message_cut_off_or_prolonged_anywhere_is_refused(
    raw: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(raw) - 1))
    more = data.draw(st.binary(min_size=1, max_size=8))
    for changed in (raw[:place], raw[:place] + more + raw[place:], raw + more):
        if changed != raw:
            with pytest.raises(RahbaError):
                opened(changed)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every leaf of a document."""
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in places(part, (*path, name))]
    return [path]


def other(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return "x" if value is None else f"{value}0"


CHANGES: Final = [
    (number, path)
    for number, raw in enumerate(MESSAGES)
    for path in places(msgspec.json.decode(unb64(msgspec.json.decode(raw)["payload"])))
]


@pytest.mark.parametrize(("number", "path"), CHANGES, ids=str)
def test_a_message_with_any_field_changed_is_refused(number: int, path: tuple[Any, ...]) -> None:
    """The signature stays, and the payload is canonical again: only the field differs."""
    envelope = msgspec.json.decode(MESSAGES[number])
    document = msgspec.json.decode(unb64(envelope["payload"]))
    at = document
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = other(at[path[-1]])
    envelope["payload"] = b64(canonical(document))
    with pytest.raises(RahbaError):
        opened(canonical(envelope))


@pytest.mark.parametrize("raw", MESSAGES)
def test_a_message_signed_by_another_key_or_as_another_document_is_refused(raw: bytes) -> None:
    payload = unb64(msgspec.json.decode(raw)["payload"])
    thief = signer(3)
    for key, kind, name in (
        (thief, MESSAGE_TYPE, thief.did),
        (thief, MESSAGE_TYPE, opened(raw).sender),
        (TALK.buyer, "application/vnd.rahba.tx+json", TALK.buyer.did),
    ):
        forged = {
            "payload": b64(payload),
            "payloadType": kind,
            "signatures": [{"keyid": name, "sig": key.sign(kind, payload)}],
        }
        with pytest.raises(RahbaError):
            opened(canonical(forged))


@pytest.mark.parametrize("raw", MESSAGES)
def test_a_message_is_for_its_audience_and_its_time_alone(raw: bytes) -> None:
    message = opened(raw)
    assert open_message(raw, me=message.to, now_ms=message.reply_by) == message
    assert open_message(raw, me=message.to, now_ms=message.ts - CLOCK_SKEW_MS) == message
    for me in (message.sender, signer(3).did):
        with pytest.raises(WrongAudienceError):
            open_message(raw, me=me, now_ms=message.ts)
    for now_ms in (message.reply_by + 1, message.ts - CLOCK_SKEW_MS - 1):
        with pytest.raises(EnvelopeExpiredError):
            open_message(raw, me=message.to, now_ms=now_ms)


@settings(max_examples=1_000, deadline=None)
@given(
    raw=st.binary(max_size=40),
    at=st.integers(0, 60),
    other=st.sampled_from(["", "=", "A", "B", "+", "-", " ", "\n", "\u00e9", "\ud800"]),
    instead=st.booleans(),
)
def test_of_all_spellings_of_base64_only_the_one_is_read_that_is_written(
    raw: bytes, at: int, other: str, instead: bool
) -> None:
    text = b64(raw)
    changed = text[:at] + other + text[at + instead :]
    try:
        read = unb64(changed)
    except RahbaError:
        assert changed != text
    else:
        assert b64(read) == changed
