"""Where commands belong in a cluster: keys, slots, redirections."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from broker.transports.redis import slots
from broker.transports.redis.slots import (
    SLOTS,
    Redirection,
    Stretch,
    is_script,
    read_slots,
    slot_of,
    slot_of_key,
)


def test_the_checksum_is_that_of_the_specification() -> None:
    assert slot_of_key("123456789") == 0x31C3 % SLOTS  # CRC16-XMODEM's check value
    assert slot_of_key(b"foo{bar}{zap}") == slot_of_key("bar")
    assert slot_of_key("foo{}{bar}") != slot_of_key("bar")
    assert slot_of_key("foo{{bar}}zap") == slot_of_key("{bar")
    assert slot_of_key(7) == slot_of_key("7")


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "{k}1"),
        ("hset", "{k}2", "field", b"value"),
        ("EVAL", "return 1", 2, "{k}3", "other", "argument"),
        ("EVALSHA", "0" * 40, "1", "{k}4"),
        ("XGROUP", "CREATE", "{k}5", "g", "0", "MKSTREAM"),
        ("XREAD", "COUNT", 1, "BLOCK", 5, "STREAMS", "{k}6", "0"),
        ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "{k}7", "{k}8", ">", ">"),
        ("OBJECT", "ENCODING", b"{k}9"),
    ],
)
def test_a_command_belongs_to_the_slot_of_its_first_key(command: tuple[str, ...]) -> None:
    assert slot_of(command) == slot_of_key("k")


@pytest.mark.parametrize(
    "command",
    [("PING",), ("INFO", "server"), ("SCRIPT", "LOAD", "return 1"), ("EVAL", "return 1", 0),
     ("CLIENT", "UNBLOCK", 7), ("ECHO", "x"), ("TIME",), ("UNHEARD",)],
)  # fmt: skip
def test_a_command_without_a_key_belongs_nowhere(command: tuple[str, ...]) -> None:
    assert slot_of(command) is None


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirection(False, 3999, "127.0.0.1", 6381)),
        ("ASK 0 ::1:7000", Redirection(True, 0, "::1", 7000)),
        ("MOVED 12 :7000", Redirection(False, 12, "", 7000)),
        ("MOVED 12 ?:7000", Redirection(False, 12, "", 7000)),
        ("MOVED 16384 host:7000", None),
        ("MOVED", None),
        ("MOVED x host:7000", None),
        ("ERR no such key", None),
        ("WRONGTYPE Operation against a key", None),
    ],
)
def test_redirections_are_read_and_nothing_else_is(said: str, read: Redirection | None) -> None:
    assert Redirection.of(said) == read


def test_the_map_names_the_master_of_each_stretch() -> None:
    answer = [
        [0, 99, [b"10.0.0.1", 7000, b"id", []], [b"10.0.0.2", 7001, b"replica"]],
        [100, SLOTS - 1, [None, 7002, b"id"]],
    ]
    assert read_slots(answer) == [
        Stretch(0, 99, "10.0.0.1", 7000),
        Stretch(100, SLOTS - 1, "", 7002),
    ]
    assert read_slots([]) == []


def test_scripts_are_told_from_other_commands() -> None:
    assert is_script(("evalsha", "0" * 40, 1, "key"))
    assert is_script(("EVAL", "return 1", 0))
    assert not is_script(("SCRIPT", "LOAD", "return 1"))
    assert not is_script(("GET", "key"))


def test_the_examples_hold() -> None:
    module: ModuleType = slots
    assert doctest.testmod(module).failed == 0
