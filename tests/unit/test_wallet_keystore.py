"""Keystores: nothing opens them but their passphrase, and nothing in them shows."""

from __future__ import annotations

import logging
import stat
import unicodedata
from pathlib import Path

import orjson
import pytest
from nacl import pwhash, secret

from rahba.encoding import b64, canonical
from rahba.envelope import Signer
from rahba.errors import BadInputError
from rahba.ids import RandomIds
from wallet.errors import KeystoreError
from wallet.keys import agent_signer, new_seed
from wallet.keystore import (
    Origin,
    WrongPassphraseError,
    bare_origin,
    label_of,
    open_keystore,
    save_keystore,
)
from wallet.phrase import BadPhraseError
from wallet.slip10 import BadPathError, agent_path, derive

QUICK = {"memory": pwhash.argon2id.MEMLIMIT_MIN, "passes": 1}
SEED = bytes(range(32))
PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    path = tmp_path / "owner.json"
    save_keystore(path, Origin.from_seed(SEED), "correct horse", **QUICK)
    return path


def test_a_locked_key_opens_with_its_passphrase_only(locked: Path) -> None:
    assert open_keystore(locked, "correct horse").did == Signer(SEED).did
    assert stat.S_IMODE(locked.stat().st_mode) == 0o600
    assert SEED not in locked.read_bytes()
    assert b64(SEED).encode() not in locked.read_bytes()
    for wrong in ("", "correct horse ", "Correct horse"):
        with pytest.raises(WrongPassphraseError):
            open_keystore(locked, wrong)


def test_a_phrase_comes_back_with_all_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "owner.json"
    origin = Origin.from_phrase(f"  {PHRASE.upper()} ", "extra words", agent_path(agent=3))
    save_keystore(path, origin, "one", **QUICK)
    assert not any(word.encode() in path.read_bytes() for word in (PHRASE, "sausage", "extra"))
    found = open_keystore(path, "one")
    assert (found.did, found.path) == (origin.did, agent_path(agent=3))
    assert found.reveal() == PHRASE
    assert found.has_phrase
    following = agent_path(agent=3, key=1)
    assert found.signer(following).did == origin.signer(following).did != found.did
    assert label_of(path) == (origin.did, origin.path, origin.did)


def test_another_passphrase_of_the_phrase_gives_other_keys() -> None:
    names = {Origin.from_phrase(PHRASE, extra).did for extra in ("", "TREZOR", "trezor")}
    assert len(names) == 3


def test_a_keystore_remembers_the_account_of_a_rotated_key(tmp_path: Path) -> None:
    path, first = tmp_path / "owner.json", Origin.from_phrase(PHRASE)
    rotated = first.at(agent_path(key=1), first.did)
    save_keystore(path, rotated, "one", **QUICK)
    assert label_of(path) == (rotated.did, agent_path(key=1), first.did)
    found = open_keystore(path, "one")
    assert (found.did, found.path, found.account) == label_of(path)
    assert found.did != first.did


def test_a_bare_key_file_is_an_origin_too(tmp_path: Path) -> None:
    path = tmp_path / "key"
    did = agent_signer(path).did
    assert bare_origin(path).did == did
    path.write_bytes(b"short")
    with pytest.raises(BadInputError):
        bare_origin(path)


def test_composed_and_decomposed_letters_are_one_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "owner.json"
    spoken = "étoile du marché ﬁn ⅷ 市"
    save_keystore(path, Origin.from_seed(SEED), unicodedata.normalize("NFC", spoken), **QUICK)
    assert open_keystore(path, unicodedata.normalize("NFD", spoken)).did == Signer(SEED).did


def test_a_bare_key_has_no_phrase_and_no_others_below_it() -> None:
    bare = Origin.from_seed(SEED)
    assert not bare.has_phrase
    for ask in (bare.reveal, lambda: bare.signer(agent_path())):
        with pytest.raises(KeystoreError):
            ask()


def test_what_no_key_comes_from_is_refused() -> None:
    for seed in (b"", bytes(31), bytes(33)):
        with pytest.raises(BadInputError):
            Origin.from_seed(seed)
    with pytest.raises(BadPhraseError):
        Origin.from_phrase("correct horse battery staple")
    with pytest.raises(BadPathError):
        Origin.from_phrase(PHRASE, path="m/44/0")


def test_a_key_is_never_overwritten(locked: Path) -> None:
    before = locked.read_bytes()
    with pytest.raises(KeystoreError, match="never overwritten"):
        save_keystore(locked, Origin.from_seed(new_seed(RandomIds())), "two", **QUICK)
    assert locked.read_bytes() == before
    assert [each.name for each in locked.parent.iterdir()] == ["owner.json"]


@pytest.mark.parametrize("passphrase", ["", "x" * 1_025])
def test_an_empty_or_endless_passphrase_is_refused(tmp_path: Path, passphrase: str) -> None:
    with pytest.raises(KeystoreError, match="1 to"):
        save_keystore(tmp_path / "owner.json", Origin.from_seed(SEED), passphrase, **QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"memory": 2**40},
        {"passes": 1_000},
        {"kdf": "none"},
        {"salt": "AA=="},
        {"box": "AA=="},
        {"box": "not base64"},
        {"did": Signer(bytes(32)).did},
        {"path": agent_path()},
        {"account": Signer(bytes(32)).did},
        {"v": 3},
        {"v": 1},
        {"extra": 1},
    ],
)
def test_a_tampered_keystore_is_refused(locked: Path, change: dict[str, object]) -> None:
    changed = orjson.loads(locked.read_bytes()) | change
    locked.write_bytes(orjson.dumps(changed, option=orjson.OPT_SORT_KEYS))
    with pytest.raises(KeystoreError):
        open_keystore(locked, "correct horse")


def test_a_keystore_cut_off_anywhere_is_refused(locked: Path) -> None:
    whole = locked.read_bytes()
    for length in range(0, len(whole), 7):
        locked.write_bytes(whole[:length])
        with pytest.raises(KeystoreError):
            open_keystore(locked, "correct horse")


def test_a_missing_huge_or_open_keystore_is_refused(tmp_path: Path, locked: Path) -> None:
    with pytest.raises(KeystoreError):
        open_keystore(tmp_path / "nowhere.json", "one")
    with pytest.raises(KeystoreError):
        label_of(tmp_path / "nowhere.json")
    locked.chmod(0o644)
    with pytest.raises(KeystoreError, match="0600"):
        open_keystore(locked, "correct horse")
    locked.chmod(0o600)
    locked.write_bytes(b"x" * 20_000)
    with pytest.raises(KeystoreError):
        open_keystore(locked, "correct horse")


def test_a_keystore_of_the_first_version_still_opens(tmp_path: Path) -> None:
    path, salt = tmp_path / "old.json", bytes(16)
    key = pwhash.argon2id.kdf(32, b"one", salt, opslimit=1, memlimit=QUICK["memory"])
    old = {
        "did": Signer(SEED).did,
        "kdf": "argon2id",
        **QUICK,
        "salt": b64(salt),
        "box": b64(bytes(secret.SecretBox(key).encrypt(SEED, bytes(24)))),
        "v": 1,
    }
    path.write_bytes(canonical(old))
    path.chmod(0o600)
    assert open_keystore(path, "one").did == Signer(SEED).did


def test_secrets_show_in_no_repr_error_or_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    origin, path = Origin.from_phrase(PHRASE, "extra words"), tmp_path / "owner.json"
    save_keystore(path, origin, "my passphrase", **QUICK)
    with pytest.raises(KeystoreError) as caught:
        open_keystore(path, "another passphrase")
    seed = derive(SEED, agent_path())
    said = [repr(origin), str(origin), repr(seed), repr(origin.signer()), caplog.text]
    said += [repr(caught.value), str(caught.value.facts), repr(caught.value.__cause__)]
    for word in ("sausage", "extra", "passphrase'", "another pass", "my pass", seed.seed.hex()):
        assert not any(word in text for text in said), word
