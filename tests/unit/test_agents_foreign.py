"""Foreign names fit ours, foreign cards are read as their protocol has them, and numbers agree."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import orjson
import pytest
import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given
from hypothesis import strategies as st

from agents.agent import Agent
from agents.foreign import p256, rpc
from agents.foreign.card import read_card
from agents.foreign.errors import (
    BadForeignCardError,
    ForeignAnswerError,
    UnsupportedProtocolError,
)
from agents.foreign.jcs import jcs
from agents.foreign.names import agent_name, clean, skill_names
from agents.foreign.seals import check_seals
from rahba.errors import BadInputError
from rahba.ids import check_skill
from tests.fixtures.foreign_agents import b64url, card_of

OLD: dict[str, Any] = {
    "protocolVersion": "0.3.0",
    "name": "Old",
    "description": "",
    "url": "https://old.example/a2a",
    "version": "2",
    "capabilities": {},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [{"id": "s", "name": "S", "description": "", "tags": []}],
}


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        ("hello_world", "hello-world"),
        ("Route Planner!", "route-planner"),
        ("text.summarise", "text.summarise"),
        ("a..b--c._.d", "a.b-c.d"),
        ("Café au lait", "cafe-au-lait"),
        ("one two three four five six seven eight nine", "one-two-three-four-five-six-seven-eight"),
        ("x" * 300, "x" * 64),
        ("翻訳", "skill-1"),
        ("../../etc", "etc"),
        ("\u202eevil", "evil"),
    ],
)
def test_a_foreign_skill_gets_a_name_that_is_one_of_ours(foreign: str, ours: str) -> None:
    assert skill_names([foreign]) == [ours]


@given(st.lists(st.text(max_size=80), max_size=40))
def test_whatever_the_ids_are_the_names_are_valid_different_and_the_same_each_time(
    ids: list[str],
) -> None:
    names = skill_names(ids)
    assert len(set(names)) == len(ids)
    assert [check_skill(name) for name in names] == skill_names(ids)


@given(st.text(max_size=100))
def test_any_foreign_name_makes_a_name_that_an_agent_may_have(name: str) -> None:
    assert Agent(agent_name(name, "otherwise")).name


def test_foreign_text_is_one_line_without_anything_invisible_in_it() -> None:
    assert clean("a\x00b\u202e\n\tc\u200b d", 50) == "a b c d"
    assert clean("word " * 50, 20) == "word word word word…"


def test_a_1_0_card_is_spoken_to_by_its_newest_json_rpc_interface() -> None:
    card = card_of("https://new.example")
    others = [
        {"url": "https://new.example/old", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
        {"url": "https://new.example/g", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
    ]
    read = read_card(card | {"supportedInterfaces": [*others, *card["supportedInterfaces"]]})
    assert (read.endpoint, read.protocol) == ("https://new.example/rpc", "1.0")
    older = read_card(card | {"supportedInterfaces": others})
    assert (older.endpoint, older.protocol) == ("https://new.example/old", "0.3")
    with pytest.raises(UnsupportedProtocolError):
        read_card(card | {"supportedInterfaces": others[1:]})


def test_a_0_3_card_is_spoken_to_where_it_takes_json_rpc() -> None:
    assert read_card(OLD).endpoint == "https://old.example/a2a"
    ways = [{"url": "https://old.example/rpc", "transport": "JSONRPC"}]
    elsewhere = OLD | {"preferredTransport": "GRPC", "additionalInterfaces": ways}
    assert read_card(elsewhere).endpoint == "https://old.example/rpc"
    with pytest.raises(UnsupportedProtocolError):
        read_card(OLD | {"preferredTransport": "GRPC"})
    with pytest.raises(UnsupportedProtocolError):
        read_card(OLD | {"protocolVersion": "2.0"})


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": 7},
        {"name": "x" * 257},
        {"skills": []},
        {"skills": "all"},
        {"skills": [{"name": "no id"}]},
        {"skills": [{"id": "s", "name": "S"}, {"id": "s", "name": "S again"}]},
        {"skills": [{"id": str(i), "name": "S"} for i in range(513)]},
        {"description": "x" * 20_001},
        {"version": None},
        {"supportedInterfaces": []},
        {"supportedInterfaces": [{"url": "https://new.example"}]},
    ],
)
def test_a_card_that_is_malformed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadForeignCardError):
        read_card(card_of("https://new.example") | change)


@pytest.mark.parametrize("value", [None, [], "card", 1, {}])
def test_what_is_no_card_is_refused(value: object) -> None:
    with pytest.raises(BadForeignCardError):
        read_card(value)


def test_an_agent_that_takes_neither_text_nor_json_is_not_for_us() -> None:
    with pytest.raises(UnsupportedProtocolError):
        read_card(card_of("https://new.example", defaultInputModes=["image/png"]))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_our_canonical_json_is_that_of_another_implementation(value: Any) -> None:
    assert jcs(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("number", [2**53, -(2**60), math.inf, math.nan])
def test_a_number_that_readers_differ_about_has_no_canonical_form(number: float) -> None:
    with pytest.raises(BadInputError):
        jcs({"number": number})


def test_es256_signatures_of_another_implementation_verify_and_no_others() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    point = (numbers.x, numbers.y)
    for number in range(10):
        message = b"message %d" % number
        r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        assert p256.verifies(point, message, signature)
        assert not p256.verifies(point, message + b"!", signature)
        assert not p256.verifies(p256.G, message, signature)
        flipped = bytearray(signature)
        flipped[number * 6] ^= 1
        assert not p256.verifies(point, message, bytes(flipped))


def test_es256_refuses_what_is_no_point_and_what_is_no_signature() -> None:
    """Among them zeros, which careless verifiers take for a signature of anything."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    point = (key.x, key.y)
    n = p256.N.to_bytes(32, "big")
    for signature in (bytes(64), n + n, n + bytes(31) + b"\1", b"", bytes(63), b"\1" * 65):
        assert not p256.verifies(point, b"message", signature)
    one = bytes(31) + b"\1"
    for place in ((0, 0), (key.x, key.y + 1), (key.x + p256.P, key.y)):
        assert not p256.verifies(place, b"message", one + one)


VALID = card_of("https://new.example")
ODD = st.sampled_from([*VALID, "url", "signatures", "preferredTransport", "additionalInterfaces"])


@given(st.dictionaries(ODD, JSON, max_size=6))
def test_whatever_is_in_a_card_it_is_read_or_refused(changes: dict[str, Any]) -> None:
    with contextlib.suppress(BadForeignCardError, UnsupportedProtocolError):
        assert read_card(VALID | changes).endpoint


SIGNED = st.fixed_dictionaries({"protected": st.text(max_size=60), "signature": st.text()})
HEADER = st.fixed_dictionaries(
    {"alg": st.sampled_from(["ES256", "EdDSA", "none", "RS256"])},
    optional={"jku": st.sampled_from(["https://new.example/k", "https://a:x", "//", "x"])}
    | {"kid": st.text(max_size=4) | st.integers(0, 9), "crit": JSON},
)
KEY = st.fixed_dictionaries(
    {"kty": st.sampled_from(["EC", "OKP"]), "crv": st.sampled_from(["P-256", "Ed25519"])},
    optional={name: st.text(max_size=50) for name in ("x", "y", "kid")},
)


@given(HEADER, st.text(max_size=90), JSON | st.fixed_dictionaries({"keys": st.lists(KEY | JSON)}))
async def test_whatever_signatures_and_keys_hold_nothing_is_verified_that_nobody_signed(
    header: dict[str, Any], signature: str, keys: Any
) -> None:
    async def fetch(_: str) -> Any:
        return keys

    one = {"protected": b64url(orjson.dumps(header)), "signature": signature}
    try:
        sealed = await check_seals(VALID | {"signatures": [one]}, "https://new.example/", fetch)
        assert sealed.seal == "unverifiable"
    except BadForeignCardError:
        pass


@given(JSON | st.dictionaries(st.sampled_from(["task", "message", "status", "parts", "id"]), JSON))
def test_whatever_an_agent_answers_it_is_a_reply_or_a_typed_error(result: Any) -> None:
    try:
        found = rpc._opened(result)
        if rpc._state(found) in {None, "completed"}:
            assert isinstance(rpc._reply(found).text, str)
    except ForeignAnswerError:
        pass
