"""Formats and checks Python source with Ruff, which reads it and never runs it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import orjson
from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from agents import sandbox
from agents.agent import Agent
from agents.templates.crafts.refusals import UnreadableError
from agents.templates.pricing import PricedTemplate, Pricing
from agents.templates.trial import prove
from rahba.errors import LocalError

MAX_SOURCE_CHARS: Final = 200_000
MAX_FINDINGS: Final = 200
_RULES: Final = "E,F,W,B,I,UP,SIM"
_LIMITS: Final = sandbox.Limits(wall_s=15, cpu_s=8)
_FAILED: Final = 2


class RuffMissingError(LocalError):
    """This machine has no Ruff; the extra ``code`` brings it."""

    code = "ruff_missing"
    hint = "pip install 'rahba[code]'"


class Finding(TypedDict):
    """What Ruff would change or question: its rule, its words and where."""

    rule: str
    message: str
    row: int
    column: int


class CodeOutput(TypedDict):
    """The source as it should look, and what is questionable in it."""

    formatted: str
    changed: bool
    findings: list[Finding]


class CodeConfig(Pricing):
    """How wide lines may be, and what a format costs."""

    price: str = "0.0008"
    floor: str = "0.0004"
    line_length: Annotated[int, Field(ge=40, le=320)] = 88


class CodeFormat(PricedTemplate):
    """Sells ``code.format``."""

    name: ClassVar[str] = "code-format"
    title: ClassVar[str] = "Python formatter"
    description: ClassVar[str] = "Formats and checks Python source (Ruff)."
    Config: ClassVar[type[BaseModel]] = CodeConfig

    @override
    def build(self, config: CodeConfig, name: str) -> Agent:
        agent = self.agent(config, name)
        width = f"line-length={config.line_length}"

        @agent.offer(
            "code.format",
            **config.terms(),
            description="Python source formatted, and what is questionable in it",
            tags=["code", "python", "format", "lint"],
            quality=800,
            latency_ms=500,
        )
        async def code_format(
            source: Annotated[str, Field(max_length=MAX_SOURCE_CHARS)],
        ) -> CodeOutput:
            """Format and check ``source``."""
            formatted = (await _ruff(["format", "--config", width], source)).decode()
            found = await _ruff(
                ["check", "--exit-zero", "--select", _RULES, "--output-format", "json"], source
            )
            return {
                "formatted": formatted,
                "changed": formatted != source,
                "findings": [_finding(entry) for entry in orjson.loads(found)[:MAX_FINDINGS]],
            }

        return agent

    @override
    async def self_test(self, agent: Agent) -> None:
        await prove(
            agent,
            "code.format",
            {"source": "import os\nx = {  'a':1 }"},
            lambda output: (
                output["formatted"] == 'import os\n\nx = {"a": 1}\n'
                and "F401" in {finding["rule"] for finding in output["findings"]}
            ),
        )


def _program() -> str:
    beside = Path(sys.executable).with_name("ruff")
    found = str(beside) if beside.is_file() else shutil.which("ruff")
    if found is None:
        raise RuffMissingError("there is no ruff on this machine")
    return found


async def _ruff(arguments: list[str], source: str) -> bytes:
    command = [_program(), *arguments, "--isolated", "--no-cache", "--stdin-filename", "code.py"]
    outcome = await sandbox.run([*command, "-"], source.encode(), _LIMITS)
    if outcome.exit_code == _FAILED:
        reason = outcome.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UnreadableError(f"not Python: {' '.join(reason)}"[:300])
    return outcome.stdout


def _finding(entry: dict[str, Any]) -> Finding:
    place = entry["location"]
    return {
        "rule": str(entry["code"]),
        "message": str(entry["message"])[:300],
        "row": int(place["row"]),
        "column": int(place["column"]),
    }
