"""Settings: every environment variable the market reads, in one place.

| variable | meaning | default |
|---|---|---|
| `RAHBA_DATA` | folder of keys, ledger and logs | `.rahba` |
| `RAHBA_HTTP` | `host:port` of the gateway | `127.0.0.1:8700` |
| `RAHBA_LEDGER` | `host:port` the ledger listens on | `127.0.0.1:8701` |
| `RAHBA_WITNESS` | `host:port` a witness listens on | `127.0.0.1:8702` |
| `RAHBA_POLICY` | file of the ledger's trust policy (C2SP tlog-policy) | `policy` in `RAHBA_DATA` |
| `RAHBA_WITNESS_REQUIRED` | 1: sign nothing before a quorum of witnesses was asked | 0 |
| `RAHBA_LEDGER_STORE` | `postgresql://…`: the database that keeps the ledger | a file |
| `RAHBA_LEDGER_URL` | addresses of the ledger and its standby | `http://` + `RAHBA_LEDGER` |
| `REDIS_URL` | a running Redis >= 6.2 | an embedded server in `RAHBA_DATA` |
| `RAHBA_SENDER_MESSAGES` | messages of one sender that may wait unread in one mailbox | 1000 |
| `RAHBA_SENDER_BYTES` | bytes of one sender that may wait unread in one mailbox | 64 MiB |
| `RAHBA_OPEN_THREADS` | threads one buyer may have open with one seller | 512 |
| `CELERY_BROKER_URL` | broker of the heavy jobs | `REDIS_URL`, next database |
| `RAHBA_WORK_KEY` | key that seals heavy jobs, base64 | a file in `RAHBA_DATA` |
| `RAHBA_URL` | gateway that the command line talks to | `http://` + `RAHBA_HTTP` |
| `RAHBA_EMBEDDINGS` | search by meaning: `words`, or `module:function` | none |
| `RAHBA_API_KEY` | API key of the command line | the file `api-key` in `RAHBA_DATA` |
| `RAHBA_ALLOW_PRIVATE` | 1: agents in private networks and here may be listed by URL | 0 |
| `RAHBA_PASSPHRASE_FILE` | file with the passphrase of named wallets | the terminal is asked |
| `RAHBA_CLERK_MODEL` | `provider:name` of a model that writes down wishes | rules do it |
| `RAHBA_CLERK_URL` | address of that model, where it is not the provider's own | the provider's |

Only ``api.bootstrap`` and the command line read the environment; they pass it here as a mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from rahba.errors import LocalError

NETWORK: Final = "rahba:dev"
MAX_COUNT: Final = 2**40


class BadSettingError(LocalError):
    """A setting does not have the form it needs."""

    code = "bad_setting"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Return the http URL that reaches it from this machine."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process of the market needs to know; see the table above."""

    data_dir: Path
    http: Address
    ledger: Address
    witness: Address
    policy: Path
    witness_required: bool
    ledger_store: str | None = field(repr=False)  # it may hold a password
    ledger_url: str
    gateway_url: str
    redis_url: str | None
    sender_messages: int
    sender_bytes: int
    open_threads: int
    celery_broker_url: str | None
    work_key: str | None
    api_key: str | None
    passphrase_file: Path | None
    clerk_model: str | None
    clerk_url: str | None
    embeddings: str | None
    allow_private: bool = False

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Settings:
        """Read settings from ``env``.

        Raises:
            BadSettingError: an address, a URL or a number is malformed.
        """
        http = _address(env, "RAHBA_HTTP", "127.0.0.1:8700")
        ledger = _address(env, "RAHBA_LEDGER", "127.0.0.1:8701")
        data_dir = Path(env.get("RAHBA_DATA") or ".rahba").resolve()
        redis_url = _url(env, "REDIS_URL", {"redis", "rediss", "unix"})
        secret = env.get("RAHBA_PASSPHRASE_FILE")
        celery = env.get("CELERY_BROKER_URL") or (next_database(redis_url) if redis_url else None)
        return cls(
            data_dir=data_dir,
            http=http,
            ledger=ledger,
            witness=_address(env, "RAHBA_WITNESS", "127.0.0.1:8702"),
            policy=Path(env.get("RAHBA_POLICY") or data_dir / "policy").resolve(),
            witness_required=env.get("RAHBA_WITNESS_REQUIRED") == "1",
            ledger_store=_url(env, "RAHBA_LEDGER_STORE", {"postgresql", "postgres"}),
            ledger_url=_urls(env, "RAHBA_LEDGER_URL", {"http", "https"}) or ledger.url,
            gateway_url=_url(env, "RAHBA_URL", {"http", "https"}) or http.url,
            redis_url=redis_url,
            sender_messages=_count(env, "RAHBA_SENDER_MESSAGES", 1_000),
            sender_bytes=_count(env, "RAHBA_SENDER_BYTES", 64 * 1024 * 1024),
            open_threads=_count(env, "RAHBA_OPEN_THREADS", 512),
            celery_broker_url=celery,
            work_key=env.get("RAHBA_WORK_KEY") or None,
            api_key=env.get("RAHBA_API_KEY") or None,
            passphrase_file=Path(secret) if secret else None,
            clerk_model=env.get("RAHBA_CLERK_MODEL") or None,
            clerk_url=_url(env, "RAHBA_CLERK_URL", {"http", "https"}),
            allow_private=env.get("RAHBA_ALLOW_PRIVATE") == "1",
            embeddings=env.get("RAHBA_EMBEDDINGS") or None,
        )


def next_database(redis_url: str) -> str:
    """Return the URL of the next database on the same server (Celery keeps out of ours)."""
    parts = urlsplit(redis_url)
    if parts.scheme == "unix":
        raise BadSettingError("REDIS_URL is a socket: set CELERY_BROKER_URL, too")
    number = parts.path.strip("/") or "0"
    if not number.isdigit():
        raise BadSettingError("REDIS_URL ends with no database number")
    return urlunsplit(parts._replace(path=f"/{int(number) + 1}"))


def _address(env: Mapping[str, str], name: str, default: str) -> Address:
    text = env.get(name) or default
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise BadSettingError(f"{name} must be host:port, not {text!r}")
    return Address(host.strip("[]"), int(port))


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MAX_COUNT:
        raise BadSettingError(f"{name} must be a number from 1 to {MAX_COUNT}, not {text[:40]!r}")
    return int(text)


def _url(env: Mapping[str, str], name: str, schemes: set[str]) -> str | None:
    text = env.get(name)
    if not text:
        return None
    if urlsplit(text).scheme not in schemes:
        raise BadSettingError(f"{name} must start with one of {sorted(schemes)}")
    return text.rstrip("/")


def _urls(env: Mapping[str, str], name: str, schemes: set[str]) -> str | None:
    """Read addresses that are separated by commas."""
    texts = [text.strip() for text in env.get(name, "").split(",") if text.strip()]
    return ",".join(filter(None, (_url({name: text}, name, schemes) for text in texts))) or None
