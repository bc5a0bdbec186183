"""Where a ledger lies, as people write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.places import BadPlaceError, archive_at, database_of, file_at, is_address, target_at
from api.settings import Settings

URL = "postgresql://rahba@127.0.0.1/rahba"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.read({"RAHBA_DATA": str(tmp_path / "data")})


def test_a_data_folder_stands_for_the_file_in_it(tmp_path: Path, settings: Settings) -> None:
    assert file_at(str(tmp_path), settings) == tmp_path / "ledger.sqlite"
    assert file_at(str(tmp_path / "a.db"), settings) == tmp_path / "a.db"
    assert file_at(None, settings) == tmp_path / "data" / "ledger.sqlite"


def test_without_a_place_the_ledger_of_the_demo_is_found_too(
    tmp_path: Path, settings: Settings
) -> None:
    demo = tmp_path / "data" / "demo"
    demo.mkdir(parents=True)
    (demo / "ledger.sqlite").touch()
    assert file_at(None, settings) == demo / "ledger.sqlite"
    assert target_at(None, settings) == tmp_path / "data" / "ledger.sqlite", "never written to"


def test_a_database_is_known_by_its_address_or_by_the_settings(tmp_path: Path) -> None:
    plain = Settings.read({"RAHBA_DATA": str(tmp_path)})
    stored = Settings.read({"RAHBA_DATA": str(tmp_path), "RAHBA_LEDGER_STORE": URL})
    assert database_of(None, plain) is None
    assert database_of(str(tmp_path), stored) is None, "what is written goes before"
    for found in (database_of(URL, plain), database_of(None, stored), target_at(None, stored)):
        assert type(found).__name__ == "PostgresStore"
        assert not isinstance(found, Path | None)
        found.close()


def test_a_folder_with_tiles_is_an_archive_unless_a_ledger_is_in_it(
    tmp_path: Path, settings: Settings
) -> None:
    assert archive_at(str(tmp_path)) is None
    (tmp_path / "tile").mkdir()
    assert archive_at(str(tmp_path)) is not None
    with pytest.raises(BadPlaceError):
        target_at(str(tmp_path), settings)
    (tmp_path / "ledger.sqlite").touch()
    assert archive_at(str(tmp_path)) is None


def test_a_new_place_without_a_suffix_is_a_folder(tmp_path: Path, settings: Settings) -> None:
    assert target_at(str(tmp_path / "new"), settings) == tmp_path / "new" / "ledger.sqlite"
    assert target_at(str(tmp_path / "new.db"), settings) == tmp_path / "new.db"


def test_nothing_is_written_to_an_address(settings: Settings) -> None:
    assert is_address("https://ledger.example")
    assert not is_address(None)
    with pytest.raises(BadPlaceError):
        target_at("https://ledger.example", settings)
