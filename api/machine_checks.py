"""What is checked of a machine before a market runs on it: each finding with its next step.

* A check looks and says; it changes nothing and never raises.
* ``ok`` needs nothing, ``warning`` may hurt later, ``broken`` keeps a market from working.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from api.embedded_redis import find_program
from api.http.dashboard import allowed_packages
from api.market import NoMarketError, find_market, is_free
from api.settings import Settings
from rahba.clock import Clock
from rahba.errors import RahbaError

ROOT: Final = Path(__file__).resolve().parent.parent
NAMES: Final = ("rahba", "wallet", "broker", "agents", "api")
OLDEST: Final = (3, 11)
SECRETS: Final = (
    "*.key",
    "api-key",
    "market.json",
    "redis/server.json",
    "agents/*/key",
    "hosts/*/key",
)
NOT_BEFORE_MS: Final = 1_767_225_600_000  # 2026: older than that is a clock that was never set
_PIN: Final = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;]+)( ;)?", re.MULTILINE)

State = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw, and what to do about it."""

    check: str
    state: State
    detail: str
    next: str | None = None


def check_machine(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Check everything that a market here would stand on."""
    yield check_python(sys.version_info[:2])
    yield check_libraries(ROOT / "requirements.lock", _installed)
    yield from check_names(metadata.packages_distributions())
    yield check_redis(settings)
    yield check_dashboard(ROOT / "api" / "dashboard")
    yield from check_ports(settings)
    yield check_folder(settings.data_dir)
    yield check_clock(settings.data_dir, clock)


def check_python(version: tuple[int, ...]) -> Finding:
    """Check the interpreter's version."""
    said = ".".join(map(str, version))
    if version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return Finding("python", "broken", f"Python {said}", f"install Python {wanted} or newer")
    return Finding("python", "ok", f"Python {said}")


def check_libraries(lock: Path, installed: Callable[[str], str | None]) -> Finding:
    """Compare what is installed with the lock of this checkout, if this is one."""
    if not lock.exists():
        return Finding("libraries", "ok", "installed as a package, without a lock")
    pins = _PIN.findall(lock.read_text(encoding="utf-8"))
    wrong, missing = [], []
    for name, version, marker in pins:
        found = installed(name)
        if found is None and not marker:
            missing.append(name)
        elif found not in {None, version}:
            wrong.append(f"{name} {found} instead of {version}")
    if missing:
        return Finding("libraries", "broken", f"missing: {_few(missing)}", "make setup")
    if wrong:
        return Finding("libraries", "warning", f"not as locked: {_few(wrong)}", "make setup")
    return Finding("libraries", "ok", f"{len(pins)} as locked")


def check_names(owners: Mapping[str, Iterable[str]]) -> Iterator[Finding]:
    """Check that nobody else's package lies over one of ours."""
    conflicts = name_conflicts(owners)
    for conflict in conflicts:
        yield Finding("names", "broken", conflict, "use an environment that has only Rahba in it")
    if not conflicts:
        yield Finding("names", "ok", f"{', '.join(NAMES)} are ours")


def name_conflicts(owners: Mapping[str, Iterable[str]], ours: str = "rahba") -> list[str]:
    """Find other distributions that install one of our import names.

    Args:
        owners: From import name to distributions, as `importlib.metadata.packages_distributions`.
        ours: The name of our distribution.
    """
    return [
        f"the distribution '{owner}' installs a package '{name}' over ours"
        for name in NAMES
        for owner in sorted(set(owners.get(name, ())) - {ours})
    ]


def check_redis(settings: Settings) -> Finding:
    """Check that there is a Redis to use, or a program to run one."""
    if settings.redis_url is not None:
        return Finding("redis", "ok", "REDIS_URL names a running one")
    try:
        return Finding("redis", "ok", f"the embedded server is {find_program()}")
    except RahbaError as error:
        return Finding("redis", "broken", error.message, error.hint)


def check_dashboard(folder: Path) -> Finding:
    """Check that the browser libraries of the dashboard are there."""
    if allowed_packages(folder):
        return Finding("dashboard", "ok", "its libraries are installed")
    step = "make dashboard"
    return Finding("dashboard", "broken", "its browser libraries are not installed", step)


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Check that the market can listen where it is told to, or does so already."""
    try:
        where = find_market(settings)
    except NoMarketError:
        ours: tuple[str, ...] = ()
    else:
        ours = (where.gateway_url, where.ledger_url, where.witness_url)
    addresses = {
        "RAHBA_HTTP": settings.http,
        "RAHBA_LEDGER": settings.ledger,
        "RAHBA_WITNESS": settings.witness,
    }
    for name, address in addresses.items():
        place = f"{address.host}:{address.port}"
        if address.url in ours:
            yield Finding("ports", "ok", f"the market listens on {place}")
        elif is_free(address):
            yield Finding("ports", "ok", f"{place} is free")
        else:
            step = f"stop the program that listens there, or set {name}"
            yield Finding("ports", "broken", f"{place} is taken, or not of this machine", step)


def check_folder(data_dir: Path) -> Finding:
    """Check that keys are for their owner's eyes only, and that the folder can be written."""
    place = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        step = "choose another folder with RAHBA_DATA"
        return Finding("data", "broken", f"{place} cannot be written", step)
    if place != data_dir:
        return Finding("data", "ok", f"{data_dir} will be made")
    exposed = [
        str(path)
        for pattern in SECRETS
        for path in sorted(data_dir.glob(pattern))
        if path.stat().st_mode & 0o077
    ]
    if exposed:
        step = f"chmod go-rwx {' '.join(exposed[:8])}"
        text = f"others may read {len(exposed)} secret files"
        return Finding("data", "broken", text, step)
    return Finding("data", "ok", f"{data_dir} keeps its secrets and can be written")


def check_clock(data_dir: Path, clock: Clock) -> Finding:
    """Check that the clock does not go before what it has stamped already."""
    stamps = [path.stat().st_mtime_ns // 1_000_000 for path in data_dir.glob("*.sqlite")]
    behind_ms = max([NOT_BEFORE_MS, *stamps]) - clock.now_ms()
    if behind_ms > 1_000:
        text = f"the clock is {behind_ms / 1_000:.0f} s behind its own past"
        return Finding("clock", "broken", text, "set it, best by a time service (NTP)")
    return Finding("clock", "ok", "the clock goes forwards")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _few(items: list[str], limit: int = 5) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
