"""What is installed elsewhere: the kernel as `rahba-sdk`, and the platform as one wheel."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))
PLATFORM = ("wallet", "broker", "agents", "api")
IMPORT_ALL = """
import importlib.util, sys
sys.path += sys.argv[1:3]
for name in sys.argv[3:]:
    assert importlib.import_module(name).__file__.startswith(sys.argv[1]), name
for room in ("wallet", "broker", "agents", "api"):
    assert importlib.util.find_spec(room) is None, room
"""


def build(folder: Path, into: Path) -> Path:
    """Build the wheel of a folder with the pinned backend; no network."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (wheel,) = into.glob("*.whl")
    return wheel


def names_in(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def declared(wheel: Path) -> set[str]:
    """Return what a wheel requires, and what that requires, by distribution name."""
    (metadata,) = (name for name in names_in(wheel) if name.endswith(".dist-info/METADATA"))
    with ZipFile(wheel) as archive:
        lines = archive.read(metadata).decode().splitlines()
    queue = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]
    found: set[str] = set()
    while queue:
        wanted = Requirement(queue.pop())
        needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if needed and wanted.name not in found:
            found.add(wanted.name)
            queue += distribution(wanted.name).requires or []
    return found


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT / "packaging" / "sdk", tmp_path_factory.mktemp("sdk"))


def test_the_sdk_holds_the_kernel_and_nothing_else(sdk: Path) -> None:
    kernel = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rahba").rglob("*.py")}
    code = {name for name in names_in(sdk) if name.endswith(".py")}
    assert code == kernel
    assert {"rahba/LICENSE", "rahba/py.typed"} <= names_in(sdk)


def test_the_sdk_imports_beside_what_it_declares_and_nothing_else(
    sdk: Path, tmp_path: Path
) -> None:
    """No site-packages, no checkout: the wheel and links to its declared requirements only."""
    for name in declared(sdk):
        for file in distribution(name).files or []:
            link = tmp_path / file.parts[0]
            if ".." not in file.parts and not link.exists():
                link.symlink_to(SITE / link.name)
    modules = sorted(
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name in names_in(sdk)
        if name.endswith(".py")
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, sdk, tmp_path, *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_platform_wheel_carries_the_rooms_and_the_browser_libraries(tmp_path: Path) -> None:
    names = names_in(build(ROOT, tmp_path))
    for room in ("rahba", *PLATFORM):
        assert f"{room}/__init__.py" in names
    package = json.loads((ROOT / "api/dashboard/package.json").read_text())
    libraries = "api/dashboard/node_modules"
    for library in package["dependencies"]:
        assert f"{libraries}/{library}/package.json" in names, library
    for tool in package["devDependencies"]:
        assert f"{libraries}/{tool}/package.json" not in names, tool
