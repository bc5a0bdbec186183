"""The witness's decision, status by status, and what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from rahba.cosignature import cosign
from rahba.errors import RahbaError
from rahba.merkle import EMPTY_ROOT
from rahba.note import sign_checkpoint, verifier_key_of
from tests.fixtures.wallet import did
from tests.fixtures.witnesses import ORIGIN, PlainLog, words
from wallet.errors import StoreError, StoreLockedError
from wallet.stores.witness import MAX_BUNDLES, WitnessStore
from wallet.witness import SIZE_TYPE, Ruling, Seen, Trust, rule, write_request

LOG = PlainLog(*words(20))
TRUST = Trust({ORIGIN: LOG.vkey})


def seen(log: PlainLog, size: int) -> Seen:
    return Seen(size, log.log.root_at(size), log.note(size))


def ask(body: bytes, newest: Seen | None = None, trust: Trust = TRUST) -> Ruling:
    return rule(body, trust, lambda _: newest)


def test_the_first_checkpoint_of_a_log_needs_no_proof() -> None:
    ruling = ask(LOG.request(0, 7))
    assert (ruling.status, ruling.seen) == (200, seen(LOG, 7))


@pytest.mark.parametrize(("old", "size"), [(7, 20), (7, 7), (1, 2), (8, 16), (19, 20)])
def test_what_extends_the_newest_one_is_cosigned(old: int, size: int) -> None:
    ruling = ask(LOG.request(old, size), seen(LOG, old))
    assert (ruling.status, ruling.seen) == (200, seen(LOG, size))


@pytest.mark.parametrize("old", [0, 3, 9])
def test_another_old_size_is_told_the_right_one(old: int) -> None:
    ruling = ask(LOG.request(old, 20), seen(LOG, 7))
    assert (ruling.status, ruling.kind, ruling.body) == (409, SIZE_TYPE, "7\n")
    assert ruling.seen is None


def test_a_smaller_checkpoint_is_a_rollback_and_never_cosigned() -> None:
    ruling = ask(LOG.request(5, 6), seen(LOG, 7))
    assert (ruling.status, ruling.body) == (409, "7\n")
    assert ask(LOG.request(9, 7), seen(LOG, 7)).status == 400


@pytest.mark.parametrize(("old", "status"), [(7, 422), (3, 409)])
def test_two_roots_of_one_size_are_in_doubt_whatever_old_size_they_come_with(
    old: int, status: int
) -> None:
    other = PlainLog(*words(7, "x"))
    ruling = ask(other.request(old), seen(LOG, 7))
    assert ruling.status == status
    assert ruling.doubt is not None
    assert ruling.doubt[:3] == (LOG.vkey, LOG.note(7), other.note())


def test_a_smaller_checkpoint_is_in_doubt_and_a_larger_one_that_came_too_early_is_not() -> None:
    smaller, larger = ask(LOG.request(3, 5), seen(LOG, 7)), ask(LOG.request(3, 9), seen(LOG, 7))
    assert smaller.doubt is not None
    assert smaller.doubt.other == LOG.note(5)
    assert larger.doubt is None


def test_what_was_cosigned_before_is_known_as_such() -> None:
    assert ask(LOG.request(7, 7), seen(LOG, 7)).again
    assert not ask(LOG.request(7, 8), seen(LOG, 7)).again
    assert not ask(LOG.request(0, 7)).again


def test_an_empty_log_has_one_root() -> None:
    empty = sign_checkpoint(ORIGIN, 0, EMPTY_ROOT, LOG.signer)
    assert ask(write_request(0, [], empty)).status == 200
    other = sign_checkpoint(ORIGIN, 0, bytes(32), LOG.signer)
    assert ask(write_request(0, [], other)).status == 422


def test_only_the_signature_of_the_log_is_kept_of_a_note() -> None:
    note = LOG.note(7)
    line = cosign(note, "w.test/any", LOG.signer, 5)
    ruling = ask(write_request(0, [], note + line))
    assert ruling.seen == seen(LOG, 7)


def test_a_proof_that_does_not_join_is_in_doubt() -> None:
    other = PlainLog(*words(7, "x"), *words(13))
    ruling = ask(other.request(7), seen(LOG, 7))
    assert ruling.status == 422
    assert ruling.doubt is not None
    path = LOG.request(7).replace(b"old 7\n", b"old 7\n" + b"A" * 43 + b"=\n")
    assert ask(path, seen(LOG, 7)).status == 422


def test_a_proof_from_nothing_is_empty() -> None:
    body = write_request(0, ["A" * 43 + "="], LOG.note())
    assert ask(body).status == 422


def test_an_unknown_log_and_a_wrong_key_are_told_apart() -> None:
    stranger = PlainLog("a", origin="other.test/log")
    assert ask(stranger.request(0)).status == 404
    thief = PlainLog("a", name="thief")
    assert ask(thief.request(0)).status == 403
    assert ask(stranger.request(0), trust=Trust({}, [did("operator")])).status == 200
    assert ask(thief.request(0), trust=Trust({}, [did("operator")])).status == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 1",
        b"old 01\n\n" + LOG.note().encode(),
        b"old -1\n\n" + LOG.note().encode(),
        b"new 0\n\n" + LOG.note().encode(),
        b"old 0\n" + LOG.note().encode(),
        b"old 0\nshort\n\n" + LOG.note().encode(),
        b"old 0\nAAAA\n\n" + LOG.note().encode(),
        b"old 0\n" + b"A" * 43 + b"=\n" * 64 + b"\n" + LOG.note().encode(),
        b"old 0\n\n\xff\xfe",
        b"old 0\n\nno note at all\n",
        b"x" * 200_000,
    ],
)
def test_what_is_no_request_is_a_bad_one(body: bytes) -> None:
    assert ask(body).status == 400


def test_a_witness_remembers_over_a_restart_and_never_less(tmp_path: Path) -> None:
    path = tmp_path / "w.sqlite"
    store = WitnessStore(path)
    assert store.newest(ORIGIN) is None
    store.keep(ORIGIN, None, seen(LOG, 7))
    store.keep(ORIGIN, seen(LOG, 7), seen(LOG, 7))
    store.keep(ORIGIN, seen(LOG, 7), seen(LOG, 9))
    for before in (None, seen(LOG, 7), seen(PlainLog(*words(9, "x")), 9)):
        with pytest.raises(StoreError):
            store.keep(ORIGIN, before, seen(LOG, 10))
    with pytest.raises(StoreLockedError):
        WitnessStore(path)
    assert not store.accused(ORIGIN)
    store.accuse(ORIGIN, "bundle")
    store.accuse(ORIGIN, "bundle")
    store.close()
    store = WitnessStore(path)
    assert store.newest(ORIGIN) == seen(LOG, 9)
    assert (store.origins(), store.evidence()) == ([ORIGIN], ["bundle"])
    for number in range(MAX_BUNDLES + 5):
        store.accuse(ORIGIN, str(number))
    assert len(store.evidence()) == MAX_BUNDLES
    assert store.evidence(2) == ["bundle", "0"]
    assert (store.accused(ORIGIN), store.accused("other.test/log")) == (True, False)
    store.close()


def test_evidence_against_one_log_leaves_room_for_that_against_others(tmp_path: Path) -> None:
    store = WitnessStore(tmp_path / "w.sqlite")
    for number in range(MAX_BUNDLES + 5):
        store.accuse("loud.test/log", str(number))
    store.accuse(ORIGIN, "quiet")
    assert store.evidence(2) == ["0", "quiet"]
    assert store.accused(ORIGIN)
    assert len(store.evidence()) == MAX_BUNDLES
    store.close()


def test_a_name_that_no_key_can_have_is_a_bad_request() -> None:
    body = write_request(0, [], LOG.note().replace(ORIGIN, "with space", 1))
    assert ask(body, trust=Trust({}, [did("operator")])).status == 400
    with pytest.raises(RahbaError):
        verifier_key_of("with space", did("operator"))
