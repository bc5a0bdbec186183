"""Cosignatures bind a witness, a time and the whole text of a note."""

from __future__ import annotations

import pytest

from rahba.cosignature import MAX_TIME_S, cosign, cosigned_at, cosigner_key
from rahba.errors import BadInputError, BadSignatureError, RahbaError
from rahba.note import open_checkpoint
from tests.fixtures.wallet import did, signer_of
from tests.fixtures.witnesses import PlainLog, words

LOG = PlainLog(*words(5))
KEY = cosigner_key("w.test/1", did("witness"))


def cosigned(time_s: int = 1_700_000_000, name: str = "w.test/1", by: str = "witness") -> str:
    note = LOG.note()
    return note + cosign(note, name, signer_of(by), time_s)


@pytest.mark.parametrize("time_s", [0, 1, 1_700_000_000, MAX_TIME_S])
def test_a_cosignature_tells_its_time_and_leaves_the_checkpoint_as_it_is(time_s: int) -> None:
    note = cosigned(time_s)
    assert cosigned_at(note, KEY) == time_s
    assert open_checkpoint(note, LOG.vkey) == open_checkpoint(LOG.note(), LOG.vkey)


def test_who_did_not_sign_did_not_sign() -> None:
    assert cosigned_at(LOG.note(), KEY) is None
    assert cosigned_at(cosigned(name="w.test/2"), KEY) is None
    assert cosigned_at(cosigned(by="other"), KEY) is None


def test_the_newest_of_several_counts() -> None:
    note = cosigned(5)
    assert cosigned_at(note + cosign(note, "w.test/1", signer_of("witness"), 9), KEY) == 9


def test_another_text_or_time_does_not_verify() -> None:
    head, _, tail = cosigned().rpartition("\n\n")
    other = PlainLog(*words(6)).note().rpartition("\n\n")[0]
    with pytest.raises(BadSignatureError):
        cosigned_at(f"{other}\n\n{tail}", KEY)
    assert head


def test_a_log_signature_is_no_cosignature_and_the_reverse() -> None:
    with pytest.raises(RahbaError):
        cosigned_at(cosigned(), LOG.vkey)
    with pytest.raises(RahbaError):
        open_checkpoint(cosigned(), KEY)


@pytest.mark.parametrize("time_s", [-1, MAX_TIME_S + 1])
def test_a_time_out_of_range_is_refused(time_s: int) -> None:
    with pytest.raises(BadInputError):
        cosign(LOG.note(), "w.test/1", signer_of("witness"), time_s)
