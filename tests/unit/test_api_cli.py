"""The command line as a whole: light to ask for help, and data from every command that has any."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import orjson
import pytest
from click.testing import CliRunner

from api.cli.main import COMMANDS, main

PROCESSES = {("witness",), ("gateway",), ("host",), ("worker",), ("ledger",)}
HEAVY = ("fastapi", "starlette", "uvicorn", "celery", "langchain", "duckdb", "pydantic", "aiohttp")
HEAVY += ("apsw", "redis", "psutil", "nacl", "trafilatura", "pypdf", "rich")


def commands(
    group: click.Group = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Return every command with its words, those of groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_asking_for_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, api.cli\n"
        f"try: api.cli.main({words!r})\n"
        "except SystemExit as end: assert not end.code\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command() -> None:
    said = CliRunner().invoke(main, ["--help"]).output
    assert [name for name in COMMANDS if f"  {name} " not in said] == []


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*words, "--help"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "Usage:" in done.output
    assert ALL[words].help


@pytest.mark.parametrize("words", ALL.keys() - PROCESSES, ids=" ".join)
def test_every_command_that_says_something_says_it_as_data_too(words: tuple[str, ...]) -> None:
    assert any("--json" in option.opts for option in ALL[words].params)


@pytest.mark.parametrize("words", [["nonsense"], ["ls", "nonsense"], ["logs"]])
def test_wrong_usage_ends_with_2(words: list[str]) -> None:
    assert CliRunner().invoke(main, words).exit_code == 2


def test_an_error_is_data_with_its_code_and_next_step(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAHBA_DATA", str(tmp_path))
    monkeypatch.delenv("REDIS_URL", raising=False)
    done = CliRunner().invoke(main, ["wallet", "balance", "--json"])
    assert done.exit_code == 1
    error = orjson.loads(done.output)["error"]
    assert error["code"] == "no_market"
    assert "rahba up" in error["hint"]
