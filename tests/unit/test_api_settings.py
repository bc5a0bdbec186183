"""Settings come from the environment and nowhere else."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from api.bootstrap import NoPostgresError, ledger_store
from api.settings import BadSettingError, Settings, next_database
from broker.mailboxes import MailboxLimits
from broker.threads import ThreadLimits
from wallet.stores.postgres import PostgresStore
from wallet.stores.sqlite import SqliteStore


def test_nothing_needs_to_be_set() -> None:
    settings = Settings.read({})
    assert settings.data_dir == Path(".rahba").resolve()
    assert settings.http.url == "http://127.0.0.1:8700"
    assert settings.ledger_url == "http://127.0.0.1:8701"
    assert settings.redis_url is None
    assert settings.celery_broker_url is None
    assert settings.work_key is None
    assert settings.api_key is None


def test_the_celery_broker_is_separate_from_redis() -> None:
    settings = Settings.read({"REDIS_URL": "redis://127.0.0.1:6379/3"})
    assert settings.celery_broker_url == "redis://127.0.0.1:6379/4"
    other = Settings.read(
        {"REDIS_URL": "redis://127.0.0.1:6379", "CELERY_BROKER_URL": "amqp://127.0.0.1"}
    )
    assert other.celery_broker_url == "amqp://127.0.0.1"


def test_an_open_address_is_reached_through_loopback() -> None:
    assert Settings.read({"RAHBA_HTTP": "0.0.0.0:80"}).http.url == "http://127.0.0.1:80"


@pytest.mark.parametrize(
    "env",
    [
        {"RAHBA_HTTP": "8700"},
        {"RAHBA_HTTP": ":8700"},
        {"RAHBA_HTTP": "a:99999"},
        {"RAHBA_LEDGER": "a:b"},
        {"REDIS_URL": "http://a"},
        {"RAHBA_LEDGER_URL": "redis://a"},
        {"REDIS_URL": "redis://a/x"},
        {"RAHBA_LEDGER_URL": "http://a:1,redis://b"},
        {"RAHBA_LEDGER_STORE": "mysql://a/b"},
    ],
)
def test_a_malformed_setting_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(BadSettingError):
        Settings.read(env)


def test_a_ledger_and_its_standby_have_two_addresses() -> None:
    settings = Settings.read({"RAHBA_LEDGER_URL": "http://a:1/, http://b:2"})
    assert settings.ledger_url == "http://a:1,http://b:2"


def test_the_password_of_the_ledgers_database_is_not_shown() -> None:
    url = "postgresql://rahba:hush-hush@db/rahba"
    settings = Settings.read({"RAHBA_LEDGER_STORE": url})
    assert settings.ledger_store == url
    assert "hush-hush" not in repr(settings)


def test_a_ledger_is_kept_in_a_file_unless_a_database_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.read({"RAHBA_DATA": str(tmp_path)})
    assert isinstance(ledger_store(settings), SqliteStore)
    named = replace(settings, ledger_store="postgresql://127.0.0.1:1/rahba")
    assert isinstance(ledger_store(named), PostgresStore)
    monkeypatch.delitem(sys.modules, "wallet.stores.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(NoPostgresError, match="not installed") as caught:
        ledger_store(named)
    assert "rahba[postgres]" in caught.value.hint


def test_a_socket_needs_a_broker_of_its_own_for_celery() -> None:
    with pytest.raises(BadSettingError):
        next_database("unix:///tmp/redis.sock")


def test_quotas_are_read_as_numbers() -> None:
    settings = Settings.read({})
    limits = (settings.sender_messages, settings.sender_bytes, settings.open_threads)
    assert limits == (
        MailboxLimits().sender_messages, MailboxLimits().sender_bytes, ThreadLimits().open_threads,
    )  # fmt: skip
    names = ("RAHBA_SENDER_MESSAGES", "RAHBA_SENDER_BYTES", "RAHBA_OPEN_THREADS")
    settings = Settings.read(dict(zip(names, ("5", "600", "7"), strict=True)))
    assert (settings.sender_messages, settings.sender_bytes, settings.open_threads) == (5, 600, 7)


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "9" * 40, "\u0665"])
def test_a_quota_that_is_no_number_above_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadSettingError):
        Settings.read({"RAHBA_OPEN_THREADS": text})
