"""A policy says whose cosignatures are enough, and nothing that is not written down is."""

from __future__ import annotations

import pytest

from rahba.cosignature import cosign, cosigner_key
from rahba.errors import TooLargeError
from rahba.policy import BadPolicyError, read_policy, write_policy
from tests.fixtures.wallet import did, signer_of
from tests.fixtures.witnesses import PlainLog, words

LOG = PlainLog(*words(3))
NAMES = ("x1", "x2", "x3", "y1")
KEYS = {name: cosigner_key(f"w.test/{name}", did(name)) for name in NAMES}
TEXT = "\n".join(
    [
        "# two of three, and the other house",
        f"log {LOG.vkey}",
        *(f"witness {name} {key} https://{name}.test/" for name, key in KEYS.items()),
        "group x 2 x1 x2 x3",
        "\tgroup  all-of all x y1 ",
        "",
        "quorum all-of",
    ]
)


def note_by(*names: str) -> str:
    note = LOG.note()
    return note + "".join(cosign(note, f"w.test/{name}", signer_of(name), 7) for name in names)


@pytest.mark.parametrize(
    ("names", "enough"),
    [
        ((), False),
        (("x1", "x2"), False),
        (("y1",), False),
        (("x1", "y1"), False),
        (("x1", "x3", "y1"), True),
        (NAMES, True),
    ],
)
def test_a_checkpoint_is_believed_when_a_quorum_signed_it(
    names: tuple[str, ...], enough: bool
) -> None:
    policy = read_policy(TEXT)
    assert (policy.believes(note_by(*names)) is not None) is enough
    assert policy.cosigners(note_by(*names)) == dict.fromkeys(names, 7)


def test_only_a_log_of_the_policy_is_believed() -> None:
    stranger = PlainLog(*words(3), name="stranger")
    text = "\n".join(line for line in TEXT.split("\n") if not line.startswith("log"))
    assert read_policy(text).believes(note_by(*NAMES)) is None
    policy = read_policy(f"log {stranger.vkey}\nquorum none\n")
    assert policy.believes(LOG.note()) is None
    assert policy.believes(stranger.note()) is not None


def test_a_line_that_only_claims_to_be_a_witness_counts_for_nothing() -> None:
    note = LOG.note()
    forged = note + cosign(PlainLog("x").note(), "w.test/y1", signer_of("y1"), 7)
    assert read_policy(TEXT).cosigners(forged) == {}


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (f"log {LOG.vkey}", 12),
        (f"witness x1 {KEYS['x1']}", 12),
        (f"witness again {KEYS['x1']}", 12),
        (f"witness none {cosigner_key('w', did('n'))}", 12),
        (f"witness new {LOG.vkey}", 12),
        ("group new 2 x", 12),
        ("group new any x1", 12),
        ("group new any nobody", 12),
        ("group new 0 all-of", 12),
        ("group new all", 12),
        ("quorum x", 12),
        ("quorum", 12),
        ("nonsense", 12),
        ("log a b c d", 12),
        ("# bell \x07", 12),
    ],
)
def test_a_wrong_line_is_named(line: str, number: int) -> None:
    with pytest.raises(BadPolicyError) as caught:
        read_policy(f"{TEXT}\n{line}\n")
    assert caught.value.facts["line"] in {number, number - 1, number - 2}


def test_a_policy_has_one_quorum_and_names_come_before_their_use() -> None:
    with pytest.raises(BadPolicyError):
        read_policy(f"log {LOG.vkey}\n")
    with pytest.raises(BadPolicyError):
        read_policy(f"quorum x1\nwitness x1 {KEYS['x1']}\n")


def test_a_policy_beyond_the_limits_is_refused() -> None:
    with pytest.raises(TooLargeError):
        read_policy("#" * 300_000)
    many = [f"witness n{n} {cosigner_key(f'w{n}', did(f'n{n}'))}" for n in range(65)]
    with pytest.raises(TooLargeError):
        read_policy("\n".join([*many, "quorum none"]))


def test_a_written_policy_says_the_same_without_addresses() -> None:
    policy = read_policy(TEXT)
    text = write_policy(policy)
    assert "https://" not in text
    again = read_policy(text)
    assert (again.groups, again.quorum, list(again.witnesses)) == (
        policy.groups,
        policy.quorum,
        list(policy.witnesses),
    )
    assert again.believes(note_by("x1", "x2", "y1")) is not None
    assert again.believes(note_by("x1", "x2")) is None
    assert write_policy(again) == text
    assert read_policy(write_policy(read_policy("quorum none"))).met({})
