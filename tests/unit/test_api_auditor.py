"""What a market writes down about its own auditor."""

from __future__ import annotations

from pathlib import Path

from api.auditor import prepare_auditor, witness_name
from api.settings import Settings
from rahba.policy import read_policy


def at(folder: Path, **env: str) -> Settings:
    return Settings.read({"RAHBA_DATA": str(folder)} | env)


def test_the_policy_names_the_auditor_and_follows_its_address(tmp_path: Path) -> None:
    operator = prepare_auditor(at(tmp_path))
    policy = read_policy((tmp_path / "policy").read_text("utf-8"))
    assert policy.quorum == "auditor"
    assert policy.witnesses["auditor"].url == "http://127.0.0.1:8702"
    assert prepare_auditor(at(tmp_path, RAHBA_WITNESS="127.0.0.1:9999")) == operator
    again = read_policy((tmp_path / "policy").read_text("utf-8"))
    assert again.witnesses["auditor"].url == "http://127.0.0.1:9999"
    assert again.witnesses["auditor"].vkey == policy.witnesses["auditor"].vkey


def test_a_policy_that_somebody_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("# mine\nquorum none\n", "utf-8")
    prepare_auditor(at(tmp_path))
    assert (tmp_path / "policy").read_text("utf-8") == "# mine\nquorum none\n"


def test_ledger_and_auditor_have_keys_of_their_own(tmp_path: Path) -> None:
    prepare_auditor(at(tmp_path))
    keys = [tmp_path / "operator.key", tmp_path / "witness" / "auditor.key"]
    assert len({key.read_bytes() for key in keys}) == 2
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert witness_name("auditor", "did:key:z6MkabcdefghXYZ12345") == "rahba.auditor/XYZ12345"
