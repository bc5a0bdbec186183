"""Signed notes and checkpoints: what is accepted, and everything that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.errors import (
    BadEncodingError,
    BadInputError,
    BadSignatureError,
    RahbaError,
    TooLargeError,
)
from rahba.ids import BadIdError
from rahba.note import (
    BadNoteError,
    Checkpoint,
    open_checkpoint,
    open_note,
    read_verifier_key,
    sign_checkpoint,
    sign_note,
    verifier_key,
)

ORIGIN = "rahba.test/log"
SIGNER = Signer(b"\1" * 32)
OTHER = Signer(b"\2" * 32)
VKEY = verifier_key(ORIGIN, SIGNER)
ROOT = bytes(range(32))
NOTE = sign_checkpoint(ORIGIN, 20_852_163, ROOT, SIGNER)

# The example of golang.org/x/mod/sumdb/note: key, text and signature are that package's.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_another_implementation_verifies() -> None:
    text = open_note(GO_NOTE, read_verifier_key(GO_KEY))
    assert text.startswith("If you think cryptography")


def test_a_checkpoint_reads_back_as_it_was_signed() -> None:
    assert open_checkpoint(NOTE, VKEY) == Checkpoint(ORIGIN, 20_852_163, ROOT)
    assert NOTE.split("\n")[:4] == [ORIGIN, "20852163", b64(ROOT), ""]


def test_a_checkpoint_by_another_key_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        open_checkpoint(NOTE, verifier_key(ORIGIN, OTHER))


def test_a_checkpoint_under_another_name_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        open_checkpoint(NOTE, verifier_key("rahba.test/other", SIGNER))


def test_a_checkpoint_of_another_log_signed_by_our_key_is_refused() -> None:
    foreign = sign_note(f"elsewhere/log\n7\n{b64(ROOT)}\n", ORIGIN, SIGNER)
    with pytest.raises(BadNoteError):
        open_checkpoint(foreign, VKEY)


def test_signatures_of_unknown_keys_are_ignored_and_one_of_ours_must_verify() -> None:
    text, line = NOTE.rsplit("\n\n", 1)
    stranger = sign_note(text + "\n", "witness.example", OTHER).rsplit("\n\n", 1)[1]
    assert open_checkpoint(f"{text}\n\n{stranger}{line}", VKEY).size == 20_852_163
    with pytest.raises(BadSignatureError):
        open_checkpoint(f"{text}\n\n{stranger}", VKEY)
    forged = sign_checkpoint(ORIGIN, 1, ROOT, SIGNER).rsplit("\n\n", 1)[1]
    with pytest.raises(BadSignatureError):
        open_checkpoint(f"{text}\n\n{line}{forged}", VKEY)


@given(st.integers(0, len(NOTE) - 1), st.characters())
def test_an_altered_checkpoint_is_refused(at: int, char: str) -> None:
    altered = NOTE[:at] + char + NOTE[at + 1 :]
    if altered == NOTE:
        return
    with pytest.raises(RahbaError):
        open_checkpoint(altered, VKEY)


@given(st.text(max_size=300))
def test_any_other_text_is_refused_with_a_typed_error(text: str) -> None:
    for note in (text, text + "\n\n" + text, f"{text}\n\n— {text}\n"):
        with pytest.raises((BadEncodingError, BadSignatureError)):
            open_checkpoint(note, VKEY)
    with pytest.raises((BadEncodingError, BadIdError)):
        read_verifier_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "{origin}\n01\n{root}\n",
        "{origin}\n-1\n{root}\n",
        "{origin}\n9223372036854775808\n{root}\n",
        "{origin}\n1\n{short}\n",
        "{origin}\n1\n",
        "\n1\n{root}\n",
        "{origin}\n1\n{root}\n\nmore\n",
    ],
)
def test_a_signed_note_that_is_no_checkpoint_is_refused(text: str) -> None:
    body = text.format(origin=ORIGIN, root=b64(ROOT), short=b64(b"short"))
    with pytest.raises((BadNoteError, BadEncodingError)):
        open_checkpoint(sign_note(body, ORIGIN, SIGNER), VKEY)


def test_extension_lines_are_allowed_and_signed() -> None:
    body = f"{ORIGIN}\n1\n{b64(ROOT)}\nextension\n"
    note = sign_note(body, ORIGIN, SIGNER)
    assert open_checkpoint(note, VKEY).size == 1
    with pytest.raises(BadSignatureError):
        open_checkpoint(note.replace("extension", "extensiom"), VKEY)


def test_notes_have_limits() -> None:
    with pytest.raises(TooLargeError):
        open_checkpoint("x" * 65_537, VKEY)
    line = NOTE.rsplit("\n\n", 1)[1]
    with pytest.raises(TooLargeError):
        open_checkpoint(NOTE + line * 100, VKEY)


def test_a_verifier_key_whose_hash_does_not_fit_is_refused() -> None:
    name, _, key = VKEY.split("+", 2)
    with pytest.raises(BadNoteError):
        read_verifier_key(f"{name}+00000000+{key}")
    with pytest.raises(BadNoteError):
        read_verifier_key(f"{name}+00000000+{b64(bytes(33))}")
    with pytest.raises(BadIdError):  # the identity point is no key
        read_verifier_key(f"{name}+00000000+{b64(bytes([1, 1]) + bytes(31))}")


def test_what_cannot_be_a_note_is_not_signed() -> None:
    for text, name in (("no newline", ORIGIN), ("bell\a\n", ORIGIN), ("text\n", "two words")):
        with pytest.raises(BadInputError):
            sign_note(text, name, SIGNER)
    with pytest.raises(BadInputError):
        verifier_key("a+b", SIGNER)
    with pytest.raises(BadInputError):
        sign_checkpoint(ORIGIN, -1, ROOT, SIGNER)


def test_bare_signatures_cannot_be_mistaken_for_envelopes() -> None:
    with pytest.raises(BadInputError):
        SIGNER.sign_raw(b"DSSEv1 3 abc 1 x")
