"""One signature of several payloads: each envelope stands by itself, and for nothing else."""

from __future__ import annotations

from hashlib import sha256

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rahba import encoding, envelope, errors, messages
from rahba.envelope import open_envelope
from tests.unit.test_rahba_kernel import ALICE, BOB, NOW, message


@pytest.mark.parametrize("count", [1, 2, envelope.MAX_TOGETHER, 21])
def test_payloads_that_share_a_signature_each_stand_by_themselves(count: int) -> None:
    payloads = [encoding.canonical({"n": number}) for number in range(count)]
    sealed = envelope.seal_together("text/a", payloads, ALICE)
    for payload, raw in zip(payloads, sealed, strict=True):
        opened = open_envelope(raw, "text/a", together=True)
        assert (opened.payload, opened.signers) == (payload, (ALICE.did,))
    signed = {orjson.loads(raw)["signatures"][0]["sig"] for raw in sealed}
    assert len(signed) == -(-count // envelope.MAX_TOGETHER)
    alone = orjson.loads(sealed[-1])["signatures"][0]
    assert ("of" in alone) == (count % envelope.MAX_TOGETHER != 1 and count > 1)


def test_a_shared_signature_is_worth_nothing_where_one_of_its_own_is_asked_for() -> None:
    for raw in envelope.seal_together("text/a", [b"1", b"2"], ALICE):
        with pytest.raises(errors.BadSignatureError, match="of its own"):
            open_envelope(raw, "text/a")


def test_a_shared_signature_holds_for_the_payloads_that_it_names_alone() -> None:
    one, _ = (orjson.loads(raw) for raw in envelope.seal_together("text/a", [b"1", b"2"], ALICE))
    signature = one["signatures"][0]
    digests = encoding.unb64(signature["of"])
    third = sha256(envelope.pae("text/a", b"3")).digest()
    shifted = third[16:] + digests[:32] + third[:16]  # the digest is in it, at no place of one
    wrong = {
        "another payload": one | {"payload": encoding.b64(b"3")},
        "another type": one | {"payloadType": "text/b"},
        "another key": one | {"signatures": [signature | {"keyid": BOB.did}]},
        "no digest": one | {"signatures": [signature | {"of": ""}]},
        **{
            name: one | {"signatures": [signature | {"of": encoding.b64(of)}]}
            for name, of in {
                "one digest": digests[:32],
                "a digest more": digests + third,
                "half a digest": digests[:48],
                "another order": digests[32:] + digests[:32],
                "another digest": digests[:32] + third,
                "too many": digests * 5,
                "shifted": shifted,
            }.items()
        },
    }
    for name, document in wrong.items():
        kind = document["payloadType"]
        with pytest.raises((errors.BadSignatureError, errors.BadEncodingError)):
            open_envelope(encoding.canonical(document), kind, together=True)
        assert name


@given(st.integers(0), st.integers(1, 255))
def test_a_flipped_byte_under_a_shared_signature_is_noticed(place: int, flip: int) -> None:
    raw = bytearray(envelope.seal_together("text/a", [b"1", b"2", b"3"], ALICE)[1])
    raw[place % len(raw)] ^= flip
    with pytest.raises(errors.RahbaError):
        open_envelope(bytes(raw), "text/a", together=True)


def test_messages_of_one_sender_are_signed_together_and_read_one_by_one() -> None:
    said = [message(id=f"{number:032x}") for number in range(5)]
    sealed = messages.seal_messages(said, ALICE)
    messages._KNOWN.clear()
    opened = [messages.open_message(raw, me=BOB.did, now_ms=NOW) for raw in sealed]
    assert opened == said
    assert len({messages.message_digest(raw) for raw in sealed}) == 5
    with pytest.raises(errors.BadSignatureError):
        messages.seal_messages([message(), message(sender=BOB.did)], ALICE)


def test_nothing_but_messages_may_share_a_signature() -> None:
    """What was signed beside a message is worth nothing as a receipt, whatever it says."""
    for kind, read in (
        (messages.RECEIPT_TYPE, lambda raw: messages.open_receipt(raw, seller=ALICE.did)),
        (messages.CARD_TYPE, lambda raw: messages.open_card(raw, now_ms=None)),
    ):
        for raw in envelope.seal_together(kind, [b"{}", b"[]"], ALICE):
            with pytest.raises(errors.BadSignatureError, match="of its own"):
                read(raw)


@pytest.mark.parametrize("together", [True, False])
def test_an_envelope_has_one_spelling(together: bool) -> None:
    """Or a stranger could give a message a second digest, under which it verifies as well."""
    plain = orjson.loads(envelope.seal("text/a", {"a": 1}, ALICE))
    plain["signatures"][0]["of"] = ""
    with pytest.raises(errors.RahbaError):
        open_envelope(encoding.canonical(plain), "text/a", together=together)
