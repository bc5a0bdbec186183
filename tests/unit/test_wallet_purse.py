"""A purse knows which key signs for its account, and never loses one that might."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
from nacl import pwhash

from rahba.envelope import Signer
from rahba.errors import BadInputError
from rahba.ids import RandomIds
from wallet import keystore
from wallet.errors import KeystoreError
from wallet.keys import new_seed
from wallet.keystore import Origin, WrongPassphraseError, save_keystore
from wallet.purse import (
    MAX_RETIRED,
    Key,
    Purse,
    Record,
    UnknownWalletError,
    WalletBusyError,
    WalletExistsError,
)
from wallet.slip10 import agent_path

PHRASE = "legal winner thank year wave sausage worth useful legal winner thank yellow"
IDS = RandomIds()
ORIGIN = Origin.from_phrase(PHRASE)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretch passphrases as little as libsodium allows; how much is no matter of a purse."""

    def save(path: Path, origin: Origin, passphrase: str, **options: Any) -> None:
        least = {"memory": pwhash.argon2id.MEMLIMIT_MIN, "passes": 1}
        save_keystore(path, origin, passphrase, **(least | options))

    monkeypatch.setattr("wallet.purse.save_keystore", save)


@pytest.fixture
def purse(tmp_path: Path) -> Purse:
    return Purse.create(tmp_path, "savings", ORIGIN, "one")


@pytest.fixture
def owner(tmp_path: Path) -> Purse:
    return Purse.owner(tmp_path)


def test_a_new_wallet_acts_for_the_account_of_its_first_key(purse: Purse, tmp_path: Path) -> None:
    assert purse.account == ORIGIN.did
    assert purse.signer("one").did == ORIGIN.did
    again = Purse.named(tmp_path, "savings")
    assert again.record() == purse.record()
    assert again.record().active == Key(ORIGIN.did, "keystore.json", agent_path())
    assert [each.name for each in Purse.all_named(tmp_path)] == ["savings"]
    assert stat.S_IMODE(purse.first.stat().st_mode) == 0o600


def test_a_wallet_is_never_overwritten_and_an_unknown_one_not_made(
    purse: Purse, tmp_path: Path
) -> None:
    with pytest.raises(WalletExistsError):
        Purse.create(tmp_path, "savings", Origin.from_seed(new_seed(IDS)), "two")
    assert purse.signer("one").did == ORIGIN.did
    with pytest.raises(UnknownWalletError):
        Purse.named(tmp_path, "nothing")
    assert not (tmp_path / "wallets" / "nothing").exists()


@pytest.mark.parametrize("name", ["", "owner", "A", "a/b", "..", "-a", "a" * 33, "é", "a\n"])
def test_a_name_that_is_no_name_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError):
        Purse.create(tmp_path, name, ORIGIN, "one")
    assert not (tmp_path / "wallets").exists()


def test_only_its_passphrase_opens_a_wallet(purse: Purse) -> None:
    for wrong in (None, "", "two"):
        with pytest.raises(WrongPassphraseError):
            purse.signer(wrong)


def test_the_owners_wallet_is_the_bare_key_it_always_was(tmp_path: Path) -> None:
    seed = new_seed(IDS)
    (tmp_path / "owner.key").write_bytes(seed)
    (tmp_path / "owner.key").chmod(0o600)
    owner = Purse.owner(tmp_path)
    assert owner.account == owner.signer(None).did == Signer(seed).did
    assert [each.name for each in tmp_path.iterdir()] == ["owner.key"]
    assert owner.origin(None).did == owner.account


def test_a_key_comes_in_step_by_step_and_the_account_keeps_its_name(purse: Purse) -> None:
    first = purse.record().active
    coming = purse.prepare("one", IDS)
    assert coming == Key(ORIGIN.signer(agent_path(key=1)).did, first.file, agent_path(key=1))
    assert purse.prepare("one", IDS) == coming, "again is the same key"
    assert purse.record().active == first
    purse.announce("f" * 64)
    assert purse.signer("one").did == first.did
    purse.activate()
    assert purse.signer("one").did == coming.did
    assert purse.account == first.did
    assert purse.record().retired == (first,)
    assert purse.signer("one", first).did == first.did, "the old key is kept"


def test_a_key_that_was_refused_is_kept_and_its_place_is_not_used_again(purse: Purse) -> None:
    refused = purse.prepare("one", IDS)
    purse.abandon()
    assert purse.record().active.did == ORIGIN.did
    assert purse.record().retired == (refused,)
    assert purse.prepare("one", IDS).path == agent_path(key=2)


@pytest.mark.parametrize("given", [None, Origin.from_phrase(PHRASE, "another tree")])
def test_a_wallet_of_a_bare_key_rotates_to_a_fresh_or_a_given_one(
    tmp_path: Path, given: Origin | None
) -> None:
    purse = Purse.create(tmp_path, "bare", Origin.from_seed(new_seed(IDS)), "one")
    coming = purse.prepare("one", IDS, given)
    if given is not None:
        assert coming.did == given.did
    purse.activate()
    assert purse.signer("one").did == coming.did
    following = purse.prepare("one", IDS)
    assert following.path == (None if given is None else agent_path(key=1))


def test_a_phrase_that_leaked_is_left_for_a_given_one(purse: Purse) -> None:
    other = Origin.from_phrase(PHRASE, "another tree", agent_path(agent=7))
    assert purse.prepare("one", IDS, other).did == other.did
    with pytest.raises(BadInputError, match="has begun"):
        purse.prepare("one", IDS, Origin.from_seed(new_seed(IDS)))
    purse.activate()
    assert purse.prepare("one", IDS).path == agent_path(agent=7, key=1)
    assert (purse.origin("one").did, purse.origin("one").account) == (other.did, ORIGIN.did)


def test_the_owners_wallet_rotates_to_a_fresh_bare_key(owner: Purse) -> None:
    with pytest.raises(BadInputError, match="fresh"):
        owner.prepare(None, IDS, ORIGIN)
    coming = owner.prepare(None, IDS)
    owner.activate()
    assert owner.signer(None).did == coming.did != owner.account
    assert {stat.S_IMODE(each.stat().st_mode) for each in owner.first.parent.iterdir()} == {0o600}


def test_a_wallet_that_comes_back_takes_the_key_that_is_in_force(purse: Purse) -> None:
    path = agent_path(key=4)
    purse.adopt(agent_path(), ORIGIN.did)
    purse.adopt(path, ORIGIN.signer(path).did)
    assert purse.signer("one").did == ORIGIN.signer(path).did
    assert purse.account == ORIGIN.did
    with pytest.raises(BadInputError):
        purse.adopt(path, ORIGIN.signer(path).did)
    assert purse.prepare("one", IDS).path == agent_path(key=5)


def test_a_rotated_wallet_moves_house_with_its_account(purse: Purse, tmp_path: Path) -> None:
    coming = purse.prepare("one", IDS)
    purse.activate()
    moved = Purse.create(tmp_path, "moved", purse.origin("one"), "two")
    assert moved.account == ORIGIN.did
    assert moved.signer("two").did == coming.did
    assert moved.prepare("two", IDS).path == agent_path(key=2)


def test_what_was_seen_of_each_chain_lies_beside_the_wallet(purse: Purse, owner: Purse) -> None:
    assert purse.seen("0" * 16).name == f"wallet.{'0' * 16}.seen"
    assert owner.seen("0" * 16).name == f"owner.{'0' * 16}.seen"
    for chain in ("", "../../etc", "0" * 15, "G" * 16):
        with pytest.raises(BadInputError):
            purse.seen(chain)


def test_two_processes_do_not_rotate_one_wallet_at_a_time(purse: Purse, tmp_path: Path) -> None:
    again = Purse.named(tmp_path, "savings")
    with purse.exclusive(), pytest.raises(WalletBusyError), again.exclusive():
        raise AssertionError("both are in")
    with purse.exclusive():
        pass


def test_a_record_cut_off_open_or_of_another_wallet_is_refused(purse: Purse, owner: Purse) -> None:
    purse.prepare("one", IDS)
    path = purse.first.with_name("wallet.json")
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(KeystoreError):
            purse.record()
    other = orjson.loads(whole) | {"account": owner.account}
    path.write_bytes(orjson.dumps(other, option=orjson.OPT_SORT_KEYS))
    with pytest.raises(KeystoreError, match="another wallet"):
        purse.record()
    path.write_bytes(whole)
    path.chmod(0o644)
    with pytest.raises(KeystoreError, match="0600"):
        purse.record()


def test_a_record_that_names_another_file_opens_no_other_key(purse: Purse, owner: Purse) -> None:
    stranger = Key(owner.account, "keystore.json", agent_path())
    with pytest.raises(KeystoreError, match="another key"):
        purse.signer("one", stranger)


def test_a_wallet_is_rotated_so_often_and_no_more(
    purse: Purse, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = purse.record()
    full = Record(record.account, record.active, None, (record.active,) * MAX_RETIRED)
    monkeypatch.setattr(purse, "record", lambda: full)
    with pytest.raises(BadInputError, match="too often"):
        purse.prepare("one", IDS)


def test_the_keystore_of_a_real_wallet_takes_its_time(tmp_path: Path) -> None:
    assert keystore.PASSES >= 3
    assert keystore.MEMORY_BYTES >= 64 * 1024 * 1024
