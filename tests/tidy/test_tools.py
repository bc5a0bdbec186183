"""The linters are tests: ruff, its formatter, mypy and the import contracts pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path = ROOT) -> tuple[int, str]:
    """Run a tool of this environment; return its exit code and all it said."""
    program, *arguments = command
    done = subprocess.run(
        [TOOLS / program, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--output-format=concise", "."),
        ("ruff", "format", "--check", "."),
        ("lint-imports", "--no-logo"),
    ],
    ids=" ".join,
)
def test_the_linter_finds_nothing(command: tuple[str, ...]) -> None:
    code, output = run(*command)
    assert code == 0, output


@pytest.mark.timeout(300)
def test_the_types_are_right() -> None:
    code, output = run("mypy")
    assert code == 0, output


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("import time\n\nNOW = time.time()\n", "TID251"),
        ("import json\n\nX = json.dumps({})\n", "TID251"),
        ("from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)\n", "TID251"),
        ("import uuid\n\nX = uuid.uuid4()\n", "TID251"),
        ("import random\n", "TID251"),
        ("def f(x):\n    try:\n        x()\n    except Exception:\n        pass\n", "BLE001"),
    ],
)
def test_ruff_refuses_what_the_house_bans(source: str, rule: str, tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(source)
    settings = ROOT / "pyproject.toml"
    code, output = run("ruff", "check", "--no-cache", "--config", settings, sample)
    assert code == 1
    assert rule in output


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("wallet/x.py", "import broker.x\n", "Imports point one way"),
        ("rahba/x.py", "import wallet.x\n", "Imports point one way"),
        ("agents/x.py", "import api.x\n", "Imports point one way"),
        ("rahba/money.py", "import time\n", "Pure modules"),
        ("wallet/x.py", "import wallet.y\n", "No module reaches itself"),
    ],
)
def test_the_contracts_refuse_a_wrong_import(
    module: str, source: str, broken: str, tmp_path: Path
) -> None:
    """The contracts run on a small copy of the rooms that has one wrong import."""
    for room in ("rahba", "wallet", "broker", "agents", "api"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
        (tmp_path / room / "x.py").touch()
    (tmp_path / "wallet" / "y.py").write_text("import wallet.x\n")
    (tmp_path / "wallet" / "x.py").write_text("import rahba.x\n")
    (tmp_path / "rahba" / "money.py").touch()
    text = (ROOT / "pyproject.toml").read_text()
    contracts = text[text.index("[tool.importlinter]") :]
    for key, sample in (("source_modules", '["rahba.money"]'), ("ignore_imports", "[]")):
        listed = re.compile(rf"^{key} = \[.*?\]", re.MULTILINE | re.DOTALL)
        contracts = listed.sub(f"{key} = {sample}", contracts)
    (tmp_path / "pyproject.toml").write_text(contracts)
    code, output = run("lint-imports", "--no-logo", "--no-cache", cwd=tmp_path)
    assert code == 0, output

    (tmp_path / module).write_text(source)
    code, output = run("lint-imports", "--no-logo", "--no-cache", cwd=tmp_path)
    assert code == 1, output
    assert broken in output
    assert "1 broken" in output
