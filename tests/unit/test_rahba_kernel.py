"""The kernel: money, canonical bytes, ids, signed envelopes, messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from rahba import clock, encoding, envelope, errors, ids, messages, money
from rahba.envelope import Signer, open_envelope, seal

ALICE, BOB = Signer(b"\x01" * 32), Signer(b"\x02" * 32)
NOW = 1_700_000_000_000

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner, max_size=4)
    ),
    max_leaves=12,
)


def quote(price: str = "2000000") -> messages.Quote:
    offer = messages.Offer(
        skill="text.summarise",
        issues=messages.Issues(price=price),
        valid_until=NOW + 60_000,
        salt="a" * 32,
    )
    return messages.Quote(offer=offer)


def message(**changes: object) -> messages.Message:
    base = messages.Message(
        id="0" * 32,
        thread="1" * 32,
        seq=1,
        prev=None,
        sender=ALICE.did,
        to=BOB.did,
        ts=NOW,
        reply_by=NOW + 5_000,
        body=quote(),
    )
    return msgspec.structs.replace(base, **changes)


class TestMoney:
    @given(st.integers(0, money.MAX_FALS))
    def test_what_is_written_is_read_back_exactly(self, value: int) -> None:
        assert money.parse_fals(money.wire_fals(value)) == value
        assert money.parse_rhb(money.format_rhb(value)) == value

    @pytest.mark.parametrize(
        "text",
        ["", "-1", "+1", "01", "1.0", " 1", "1e3", "٣", "9" * 20, str(2**63), None, 5],
    )
    def test_anything_but_plain_digits_within_the_limit_is_refused(self, text: object) -> None:
        with pytest.raises(money.BadAmountError):
            money.parse_fals(text)

    @pytest.mark.parametrize("text", ["", ".5", "1.", "1.0000000001", "1,5", "-1", "9999999999.9"])
    def test_a_malformed_rhb_amount_is_refused(self, text: str) -> None:
        with pytest.raises(money.BadAmountError):
            money.parse_rhb(text)

    def test_an_amount_out_of_range_is_never_written(self) -> None:
        for value in (-1, money.MAX_FALS + 1):
            with pytest.raises(money.BadAmountError):
                money.wire_fals(value)

    def test_a_debt_is_shown_with_its_sign(self) -> None:
        assert money.format_rhb(-1_500_000_000) == "-1.5"


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    word: str
    number: Annotated[int, msgspec.Meta(ge=-5, le=encoding.MAX_INT)] = 7


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    parts: list[_Part]
    kind: Literal["a", "b"] | None
    sure: bool = True


_fields = st.fixed_dictionaries(
    {
        "parts": st.lists(
            st.fixed_dictionaries(
                {"word": st.text()},
                optional={"number": st.sampled_from([1, -5, -6, 1.5, 2**53 - 1, 2**53, "1"])},
            ),
            max_size=3,
        ),
        "kind": st.sampled_from(["a", "b", None, "c"]),
    },
    optional={"sure": st.booleans(), "more": st.just(1)},
)


def _outcome(read: Callable[[], object]) -> object:
    try:
        return read()
    except errors.RahbaError as error:
        return type(error), error.message


class TestCanonicalBytes:
    @given(_json)
    def test_bytes_equal_those_of_rfc_8785(self, value: encoding.Json) -> None:
        raw = encoding.canonical(value)
        assert raw == rfc8785.dumps(value)
        assert encoding.decode(raw) == value

    @pytest.mark.parametrize(
        "raw",
        [
            b'{"a":1,"a":1}',
            b'{"b":1,"a":1}',
            b'{ "a":1}',
            b'{"a":1.0}',
            b'{"a":9007199254740992}',
            '{"ä":1}'.encode(),
            b'{"a":"\\u0061"}',
            b"{",
            b"",
            b'"\xff"',
            b"NaN",
        ],
    )
    def test_bytes_that_are_not_their_own_re_encoding_are_refused(self, raw: bytes) -> None:
        with pytest.raises(errors.BadEncodingError):
            encoding.decode(raw)

    @given(_fields, st.data())
    def test_a_form_reads_what_reading_step_by_step_reads(
        self, value: dict[str, encoding.Json], data: st.DataObject
    ) -> None:
        """What a form has room for is read in one go; that changes no answer."""
        raw = bytearray(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        if data.draw(st.booleans()):
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        assert _outcome(lambda: encoding.decode_as(bytes(raw), _Form)) == _outcome(
            lambda: encoding.shape(encoding.decode(bytes(raw)), _Form)
        )

    def test_size_and_depth_are_limited(self) -> None:
        with pytest.raises(errors.TooLargeError):
            encoding.decode(b'"' + b"a" * encoding.MAX_BYTES + b'"')
        with pytest.raises(errors.TooLargeError):
            encoding.decode(b"[" * 40 + b"]" * 40)

    def test_a_value_without_canonical_form_is_refused(self) -> None:
        for value in ({1: 2}, {"a": b"x"}, "\ud800"):
            with pytest.raises(errors.BadEncodingError):
                encoding.canonical(value)

    @pytest.mark.parametrize("text", ["a", "YQ", "YR==", "Y Q==", "YQ==\n", "é"])
    def test_base64_has_one_spelling(self, text: str) -> None:
        with pytest.raises(errors.BadEncodingError):
            encoding.unb64(text)


class TestIds:
    def test_the_published_example_of_did_key_decodes(self) -> None:
        did = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
        assert ids.did_of(ids.key_of(did)) == did

    @given(st.binary(min_size=32, max_size=32))
    def test_a_did_names_its_key(self, seed: bytes) -> None:
        signer = Signer(seed)
        assert ids.key_of(signer.did) == signer.public_key

    @pytest.mark.parametrize(
        "key",
        [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\x02" + bytes(31)],
    )
    def test_a_small_order_or_invalid_point_is_no_key(self, key: bytes) -> None:
        assert not bindings.crypto_core_ed25519_is_valid_point(key)
        with pytest.raises(ids.BadIdError):
            ids.key_of(ids.did_of(key))

    @pytest.mark.parametrize(
        "did", ["", "did:key:z", ALICE.did[:-1], ALICE.did + "1", ALICE.did[:-1] + "0", "did:web:x"]
    )
    def test_another_spelling_is_refused(self, did: str) -> None:
        with pytest.raises(ids.BadIdError):
            ids.key_of(did)

    def test_names_are_checked(self) -> None:
        assert ids.check_skill("text.summarise") == "text.summarise"
        assert ids.check_id(ids.RandomIds().new())
        assert 0 < ids.RandomIds().salt() < 2**53
        assert ids.check_digest("0" * 64)
        for check, bad in (
            (ids.check_skill, "Text"),
            (ids.check_skill, "a" * 65),
            (ids.check_id, "0" * 31),
            (ids.check_digest, "g" * 64),
        ):
            with pytest.raises(ids.BadIdError):
                check(bad)
        with pytest.raises(ids.BadIdError):
            ids.did_of(b"short")
        assert ids.short(ALICE.did) == ALICE.did[-8:]


class TestEnvelope:
    def test_a_signature_for_one_type_is_worth_nothing_for_another(self) -> None:
        with pytest.raises(errors.BadSignatureError):
            open_envelope(seal("text/a", {"a": 1}, ALICE), "text/b")

    @given(st.integers(0), st.integers(1, 255))
    def test_a_flipped_byte_anywhere_is_noticed(self, place: int, flip: int) -> None:
        raw = bytearray(seal("text/a", {"a": 1}, ALICE))
        raw[place % len(raw)] ^= flip
        with pytest.raises(errors.RahbaError):
            open_envelope(bytes(raw), "text/a")

    def test_two_parties_sign_the_same_bytes(self) -> None:
        opened = open_envelope(seal("text/a", {"a": 1}, ALICE, BOB), "text/a")
        assert opened.signers == (ALICE.did, BOB.did)

    def test_the_same_key_twice_none_or_too_many_are_refused(self) -> None:
        many = [Signer(bytes([i]) * 32) for i in range(envelope.MAX_SIGNATURES + 1)]
        with pytest.raises(errors.TooLargeError):
            open_envelope(seal("text/a", {}, *many), "text/a")
        with pytest.raises(errors.BadSignatureError):
            open_envelope(seal("text/a", {}), "text/a")

    def test_a_signature_by_somebody_else_is_refused(self) -> None:
        raw = envelope.assemble("text/a", b"{}", {BOB.did: ALICE.sign("text/a", b"{}")})
        with pytest.raises(errors.BadSignatureError):
            open_envelope(raw, "text/a")
        with pytest.raises(errors.BadSignatureError):
            envelope.verify(ALICE.did, "text/a", b"{}", "AAAA")

    def test_only_the_recipient_reads_what_was_concealed(self) -> None:
        box = envelope.conceal(BOB.did, b"secret", sender="me")
        assert BOB.reveal(box) == b"secret"
        with pytest.raises(errors.BadSignatureError):
            ALICE.reveal(box)
        for spoilt in (
            b"too short",
            b"",
            box[:-1],
            bytes(32) + box[32:],
            box[:40] + b"x" + box[41:],
        ):
            with pytest.raises(errors.BadSignatureError):
                BOB.reveal(spoilt)

    def test_what_is_concealed_again_looks_different_and_its_key_changes_now_and_then(self) -> None:
        count = envelope.MAX_USES + 10
        boxes = [envelope.conceal(BOB.did, b"secret", sender="me") for _ in range(count)]
        assert len(set(boxes)) == len({box[32:56] for box in boxes}) == count
        assert 2 <= len({box[:32] for box in boxes}) <= 3
        assert {BOB.reveal(box) for box in boxes} == {b"secret"}
        keys = {envelope.conceal(BOB.did, b"x", sender=name)[:32] for name in ("ann", "eve")}
        assert len(keys) == 2, "what two senders seal has nothing in common"
        others = [Signer(number.to_bytes(32, "big")) for number in range(1, 4)]
        for other in others:
            assert other.reveal(envelope.conceal(other.did, b"x", sender="me")) == b"x"
        assert len({envelope.conceal(other.did, b"x", sender="me")[:32] for other in others}) == 3

    def test_what_is_kept_for_concealing_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(envelope, "MAX_LINES", 3)
        monkeypatch.setattr(envelope, "_LINES", {})
        reader = Signer(b"\x09" * 32)
        for number in range(1, 9):
            other = Signer(number.to_bytes(32, "big"))
            assert other.reveal(envelope.conceal(other.did, b"x", sender="me")) == b"x"
            monkeypatch.setattr(envelope, "MAX_USES", number % 2)
            assert reader.reveal(envelope.conceal(reader.did, b"y", sender="me")) == b"y"
            assert len(envelope._LINES) <= 3
            assert len(reader._shared) <= 3

    def test_a_signer_never_shows_its_secret(self) -> None:
        seed = b"\x07" * 32
        assert seed.hex() not in repr(Signer(seed))
        assert repr(Signer(seed)) == f"Signer({Signer(seed).did})"


class TestMessages:
    def test_a_signed_message_arrives_as_it_was_sent(self) -> None:
        sent = message()
        got = messages.open_message(messages.seal_message(sent, ALICE), me=BOB.did, now_ms=NOW)
        assert got == sent
        assert got.type == "quote"

    def test_a_message_for_somebody_else_is_refused(self) -> None:
        raw = messages.seal_message(message(), ALICE)
        with pytest.raises(errors.WrongAudienceError):
            messages.open_message(raw, me=ALICE.did, now_ms=NOW)

    @pytest.mark.parametrize("now_ms", [NOW + 5_001, NOW - 30_001])
    def test_an_expired_or_future_message_is_refused(self, now_ms: int) -> None:
        raw = messages.seal_message(message(), ALICE)
        with pytest.raises(errors.EnvelopeExpiredError):
            messages.open_message(raw, me=BOB.did, now_ms=now_ms)

    def test_a_message_signed_by_another_than_its_sender_is_refused(self) -> None:
        raw = seal(messages.MESSAGE_TYPE, message(), BOB)
        with pytest.raises(errors.BadSignatureError):
            messages.open_message(raw, me=BOB.did, now_ms=NOW)
        with pytest.raises(errors.BadSignatureError):
            messages.seal_message(message(), BOB)

    def test_an_unknown_field_is_refused(self) -> None:
        body = msgspec.to_builtins(message()) | {"extra": 1}
        with pytest.raises(errors.UnknownFieldError):
            messages.open_message(seal(messages.MESSAGE_TYPE, body, ALICE), me=BOB.did, now_ms=NOW)

    def test_what_was_read_before_is_judged_anew_for_everybody(self) -> None:
        """Signatures are verified once; audience, time and every changed byte are looked at."""
        raw = messages.seal_message(message(), ALICE)
        first = messages.open_message(raw, me=BOB.did, now_ms=NOW)
        assert messages.open_message(raw, me=BOB.did, now_ms=NOW) == first
        with pytest.raises(errors.WrongAudienceError):
            messages.open_message(raw, me=ALICE.did, now_ms=NOW)
        with pytest.raises(errors.EnvelopeExpiredError):
            messages.open_message(raw, me=BOB.did, now_ms=first.reply_by + 1)
        for place in range(0, len(raw), 5):
            forged = bytearray(raw)
            forged[place] ^= 1
            with pytest.raises(errors.RahbaError):
                messages.open_message(bytes(forged), me=BOB.did, now_ms=NOW)

    def test_an_auditor_reads_old_messages_of_others(self) -> None:
        raw = messages.seal_message(message(), ALICE)
        assert messages.open_message(raw, me=None, now_ms=0) == message()

    def test_a_card_speaks_for_the_agent_that_signed_it(self) -> None:
        card = messages.Card(
            agent=ALICE.did,
            name="a",
            description="",
            version="1",
            template="t",
            skills=[
                messages.SkillOffer(
                    skill="text.echo",
                    description="",
                    tags=[],
                    posted=quote().offer,
                    negotiable=False,
                    input_schema="{}",
                    output_schema="{}",
                )
            ],
            data_policy="sealed",
            issued=NOW,
            ttl_ms=10_000,
        )
        raw = seal(messages.CARD_TYPE, card, ALICE)
        assert messages.open_card(raw, now_ms=NOW).skill("text.echo") is not None
        assert messages.open_card(raw, now_ms=NOW).skill("text.other") is None
        with pytest.raises(errors.BadSignatureError):
            messages.open_card(seal(messages.CARD_TYPE, card, BOB), now_ms=NOW)
        with pytest.raises(errors.EnvelopeExpiredError):
            messages.open_card(raw, now_ms=NOW + 10_001)

    def test_a_receipt_speaks_for_its_seller(self) -> None:
        receipt = messages.Receipt(
            agreement="0" * 64,
            skill="text.echo",
            buyer=BOB.did,
            seller=ALICE.did,
            input_digest="0" * 64,
            output_digest="0" * 64,
            price="1",
            usage=messages.Usage(),
            energy=messages.Energy(),
            finished=NOW,
        )
        raw = seal(messages.RECEIPT_TYPE, receipt, ALICE)
        assert messages.open_receipt(raw, seller=ALICE.did) == receipt
        with pytest.raises(errors.BadSignatureError):
            messages.open_receipt(raw, seller=BOB.did)

    def test_an_event_of_the_feed_is_read_back(self) -> None:
        raw = msgspec.json.encode(messages.Event(kind="offer", ts=NOW, data={"price": "1"}))
        assert messages.read_event(raw).data == {"price": "1"}

    def test_agreement_and_offer_digests_cover_every_term(self) -> None:
        offer = quote().offer
        other = quote("2000001").offer
        assert offer.digest() != other.digest()
        first = messages.Agreement(
            thread="1" * 32,
            group="2" * 32,
            buyer=BOB.did,
            seller=ALICE.did,
            offer=offer,
            input_digest="0" * 64,
        )
        assert first.digest() != msgspec.structs.replace(first, offer=other).digest()


def test_a_manual_clock_moves_only_forward() -> None:
    watch = clock.ManualClock(5)
    watch.advance(3)
    assert watch.now_ms() == 8
    with pytest.raises(ValueError, match="backwards"):
        watch.advance(-1)
    assert clock.SystemClock().now_ms() > NOW


def test_an_error_keeps_its_code_and_facts() -> None:
    error = errors.TooLargeError("big", size_bytes=3)
    assert (error.code, error.facts, str(error)) == ("too_large", {"size_bytes": 3}, "big")
    assert str(errors.RahbaError()) == "error"


@pytest.mark.parametrize("value", [2**53, -1, 1.5, "7", None, True])
def test_a_struct_made_with_fields_of_other_kinds_is_not_signed_over(value: object) -> None:
    """Nothing checks a Struct that is made in Python: what its form has no room for is refused."""
    issues = messages.Issues("1", latency_ms=value)  # type: ignore[arg-type]
    try:
        raw = encoding.canonical(issues)
    except errors.BadEncodingError:
        return
    with pytest.raises((errors.BadEncodingError, errors.UnknownFieldError)):
        encoding.decode_as(raw, messages.Issues)


@pytest.mark.parametrize("text", ["\x00\x1f\x7f", "ü€😀\u2028", '"\\/\b\f\n\r\t'])
def test_a_closed_form_has_the_bytes_of_any_other(text: str) -> None:
    refuse = messages.Refuse("busy", text)
    assert encoding.canonical(refuse) == encoding.canonical(
        {"code": "busy", "text": text, "type": "refuse"}
    )


def test_what_a_process_remembers_of_messages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_REMEMBERED", 3)
    known: OrderedDict[bytes, tuple[messages.Message, str]] = OrderedDict()
    monkeypatch.setattr(messages, "_KNOWN", known)
    signer = Signer(bytes(32))
    for number in range(1, 6):
        message = messages.Message(
            id=f"{number:032x}",
            thread="1" * 32,
            seq=number,
            prev=None,
            sender=signer.did,
            to=signer.did,
            ts=1,
            reply_by=2,
            body=messages.Reject("no_deal"),
        )
        raw = messages.seal_message(message, signer)
        assert messages.open_message(raw, me=None, now_ms=0) == message
        assert len(known) <= 3
    assert known[raw] == (message, encoding.sha256_hex(raw))


def test_a_message_that_is_none_is_not_remembered_as_one() -> None:
    """What a process signs itself is read like anybody else's before it counts as known."""
    signer = Signer(bytes(32))
    message = messages.Message(
        id="not an id",
        thread="1" * 32,
        seq=1,
        prev=None,
        sender=signer.did,
        to=signer.did,
        ts=1,
        reply_by=2,
        body=messages.Reject("no_deal"),
    )
    raw = messages.seal_message(message, signer)
    with pytest.raises(errors.RahbaError):
        messages.open_message(raw, me=None, now_ms=0)
