"""This repository keeps its own house rules; see `rules.py` for what each of them means."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from api.machine_checks import name_conflicts
from tests.tidy import rules

ROOT = Path(__file__).parents[2]
PACKAGES = ("rahba", *rules.ROOMS)
DASHBOARD = ROOT / "api" / "dashboard"

# Not ours, or made by a tool.
NOT_OURS = {"node_modules", "build", "dist", "htmlcov", "test-results", "__pycache__"}
LOCKS = {"package-lock.json", "LICENSE"}
TEXTS = {"", ".cfg", ".css", ".html", ".js", ".json", ".lock", ".lua", ".md", ".py", ".sh", ".sql"}
TEXTS |= {".toml", ".txt", ".yml", ".yaml", ".csv"}

# Modules of the kernel whose users are other people's programs.
FOR_STRANGERS = {
    "rahba.client",
    "rahba.client.light",
    "rahba.client.market",
    "rahba.cosignature",
    "rahba.policy",
    "rahba.promise",
}


@cache
def files() -> tuple[str, ...]:
    """Return every file of the repository, as paths from its root."""
    return tuple(sorted(path.relative_to(ROOT).as_posix() for path in _walk(ROOT)))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        hidden = path.name.startswith(".") and path.name not in {".ci", ".npmrc", ".gitignore"}
        if hidden or path.name in NOT_OURS or path.suffix == ".egg-info":
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


@cache
def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree(path: str) -> ast.Module:
    return ast.parse(text(path), path)


def python_files(*tops: str) -> list[str]:
    return [path for path in files() if path.endswith(".py") and path.partition("/")[0] in tops]


def modules() -> dict[str, str]:
    """Return the dotted name and the path of every module of the rooms."""
    return {rules.module_name(path): path for path in python_files(*PACKAGES)}


def findings(paths: list[str], rule: Callable[[str], list[str]]) -> list[str]:
    return [f"{path}: {finding}" for path in paths for finding in rule(path)]


def code() -> list[str]:
    return python_files(*PACKAGES, "tests", "benchmarks", "examples", "tools")


@cache
def settings() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))


def test_no_file_is_longer_than_500_lines() -> None:
    paths = code() + [path for path in files() if path.endswith((".js", ".css", ".lua", ".sh"))]
    assert findings(paths, lambda path: rules.long_file(text(path))) == []


def test_no_function_is_longer_than_60_lines() -> None:
    assert findings(code(), lambda path: rules.long_functions(tree(path))) == []


def test_no_class_has_more_than_20_public_methods() -> None:
    paths = python_files(*PACKAGES)
    assert findings(paths, lambda path: rules.crowded_classes(tree(path))) == []


def test_no_file_and_no_class_is_called_utils_helpers_common_or_manager() -> None:
    paths = [path for path in files() if path.partition("/")[0] in {*PACKAGES, "tests"}]
    assert findings(paths, rules.vague_path) == []
    assert findings(code(), lambda path: rules.vague_classes(tree(path))) == []


def test_every_module_has_a_test_file() -> None:
    tests = {path: rules.imports_of(tree(path)) for path in python_files("tests")}
    names = [name for name, path in modules().items() if not path.endswith("__init__.py")]
    assert rules.untested(names, tests) == []


def test_an_init_file_only_reexports() -> None:
    paths = [path for path in modules().values() if path.endswith("__init__.py")]
    assert paths, "the rooms are packages"
    assert findings(paths, lambda path: rules.more_than_reexports(tree(path))) == []


def test_a_file_enters_the_kernel_only_if_two_rooms_need_it() -> None:
    imports = {name: rules.imports_of(tree(path)) for name, path in modules().items()}
    assert rules.lonely_kernel_files(imports, FOR_STRANGERS) == []


def test_every_machine_file_is_declared_pure_or_impure() -> None:
    contracts = {entry["id"]: entry for entry in settings()["tool"]["importlinter"]["contracts"]}
    known = modules()
    flat = [name for name, path in known.items() if is_flat(path)]
    pure = set(contracts["pure"]["source_modules"])
    impure = set(settings()["tool"]["rahba"]["impure"])
    assert rules.unsorted_modules(flat, pure, impure) == []
    assert sorted(impure - set(known)) == [], "tool.rahba.impure names modules that are gone"


def is_flat(path: str) -> bool:
    """Say whether a file lies where the pure machines lie; folders hold adapters."""
    folder, _, name = path.rpartition("/")
    machines = {"rahba", "wallet", "broker", "agents/negotiation", "agents/strategies"}
    return folder in machines and name != "__init__.py"


def test_the_locks_are_pins_with_hashes_and_hold_no_address() -> None:
    locks = [path for path in files() if path.endswith(".lock")]
    assert len(locks) >= 3
    assert findings(locks, lambda path: rules.lock_faults(text(path))) == []


def test_the_lock_of_the_dashboard_holds_hashes_and_no_address() -> None:
    lock = json.loads((DASHBOARD / "package-lock.json").read_text())
    assert rules.npm_lock_faults(lock["packages"]) == []


def test_the_import_map_of_the_dashboard_matches_its_lock() -> None:
    packages = json.loads((DASHBOARD / "package-lock.json").read_text())["packages"]
    direct = set(packages[""]["dependencies"])
    locked = {
        name.removeprefix("node_modules/")
        for name, entry in packages.items()
        if name and not entry.get("dev")
    }
    pages = [path for path in files() if path.startswith("api/dashboard") and ".html" in path]
    maps = [
        json.loads(found)
        for path in pages
        for found in re.findall(r'<script type="importmap"[^>]*>([^<]*)</script>', text(path))
    ]
    assert maps or not pages, "a page of the dashboard has an import map"
    for found in maps:
        libraries = {
            specifier: address
            for specifier, address in found["imports"].items()
            if not specifier.startswith(("/", "#", "."))
        }
        assert rules.import_map_faults(libraries, direct, locked) == []


def test_no_file_holds_a_path_of_somebodys_machine() -> None:
    paths = [path for path in files() if Path(path).suffix in TEXTS]
    assert findings(paths, lambda path: rules.machine_paths(text(path), str(ROOT))) == []


def test_no_file_names_a_package_registry_by_its_host() -> None:
    paths = [path for path in files() if Path(path).suffix in TEXTS]
    assert findings(paths, lambda path: rules.registry_addresses(text(path))) == []


def test_no_other_distribution_installs_over_our_names() -> None:
    assert name_conflicts(packages_distributions()) == []
