"""A transcript holds whole or not at all: every way to tamper with one is noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents.negotiation.transcript import (
    MAX_MESSAGES,
    MAX_TRANSCRIPT_BYTES,
    BadTranscriptError,
    check_transcript,
    write_transcript,
)
from rahba.encoding import sha256_hex
from rahba.errors import TooLargeError
from rahba.messages import Message, open_message, seal_message
from tests.fixtures.trading import BUYER, Bazaar, seller_key


async def said(bazaar: Bazaar, group: str) -> list[tuple[bytes, ...]]:
    """Return what the broker kept of a negotiation."""
    return [view.transcript for view in await bazaar.broker.threads.group(group)]


async def a_bargain(bazaar: Bazaar) -> list[bytes]:
    await bazaar.open_stall("a", price=2_000_000, floor=1_000_000)
    bought = await bazaar.buy(mode="bargain")
    ((*lines,),) = await said(bazaar, bought.group)
    assert len(lines) > 4
    return lines


@pytest.mark.parametrize("mode", ["posted", "tender", "bargain"])
async def test_what_was_said_in_each_mode_proves_the_agreement(bazaar: Bazaar, mode: str) -> None:
    for name in ("a", "b"):
        await bazaar.open_stall(name, price=2_000_000, floor=1_000_000)
    bought = await bazaar.buy(mode=mode)
    threads = await said(bazaar, bought.group)
    checked = check_transcript(write_transcript(threads))
    assert [each.messages for each in checked] == [len(thread) for thread in threads]
    assert [each.head for each in checked] == [sha256_hex(thread[-1]) for thread in threads]
    (deal,) = [each for each in checked if each.agreement is not None]
    assert deal.agreement is not None
    assert (deal.agreement.digest, deal.seller) == (bought.agreement, bought.seller)
    assert deal.agreement.agreement.offer.issues.price_fals == bought.agreed_fals
    assert (deal.buyer, deal.group, deal.phase) == (BUYER.did, bought.group, "delivered")


async def test_no_message_can_be_left_out_or_stand_elsewhere(bazaar: Bazaar) -> None:
    lines = await a_bargain(bazaar)
    for place in range(len(lines) - 1):
        with pytest.raises(BadTranscriptError):
            check_transcript(write_transcript([(*lines[:place], *lines[place + 1 :])]))
        swapped = [*lines]
        swapped[place : place + 2] = reversed(swapped[place : place + 2])
        with pytest.raises(BadTranscriptError):
            check_transcript(write_transcript([tuple(swapped)]))
    with pytest.raises(BadTranscriptError) as caught:
        check_transcript(write_transcript([(*lines, lines[2])]))
    assert caught.value.facts["line"] == len(lines) + 1


async def test_what_is_cut_off_at_the_end_changes_the_head(bazaar: Bazaar) -> None:
    lines = await a_bargain(bazaar)
    (whole,) = check_transcript(write_transcript([tuple(lines)]))
    (part,) = check_transcript(write_transcript([tuple(lines[:-1])]))
    assert part.head != whole.head
    assert part.agreement is None


async def test_no_byte_of_a_transcript_can_be_changed(bazaar: Bazaar) -> None:
    content = write_transcript([tuple(await a_bargain(bazaar))])
    for place in range(0, len(content) - 1, 31):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(BadTranscriptError):
            check_transcript(bytes(changed))


@pytest.mark.parametrize(
    "change",
    [
        lambda message: {"seq": message.seq + 1},
        lambda message: {"prev": "0" * 64},
        lambda message: {"prev": None},
        lambda message: {"to": seller_key("c").did},
    ],
)
async def test_not_even_a_party_can_put_another_message_in_its_place(
    bazaar: Bazaar, change: Callable[[Message], dict[str, object]]
) -> None:
    """The buyer signs another word for one of its own in the middle."""
    import msgspec

    lines = await a_bargain(bazaar)
    messages = [open_message(raw, me=None, now_ms=0) for raw in lines]
    place = max(n for n, each in enumerate(messages[:-2]) if each.sender == BUYER.did)
    other = msgspec.structs.replace(messages[place], **change(messages[place]))
    lines[place] = seal_message(other, BUYER)
    with pytest.raises(BadTranscriptError):
        check_transcript(write_transcript([tuple(lines)]))


@pytest.mark.parametrize("content", [b"", b"\n", b"{}", b"\xff", b"[" * 10_000])
def test_nonsense_is_no_transcript(content: bytes) -> None:
    with pytest.raises(BadTranscriptError) as caught:
        check_transcript(content)
    assert caught.value.facts["line"] == 1


def test_a_transcript_has_limits() -> None:
    with pytest.raises(TooLargeError):
        check_transcript(b"x" * (MAX_TRANSCRIPT_BYTES + 1))
    with pytest.raises(TooLargeError):
        check_transcript(b"\n" * (MAX_MESSAGES + 2))
