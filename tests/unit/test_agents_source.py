"""Agents come from templates or from files that their owner names."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.source import BadFileError, Source, agents_in, make_agent
from agents.template import BadConfigError, UnknownTemplateError

FILE = """
from __future__ import annotations
from pydantic import BaseModel
from agents import Agent

class Wish(BaseModel):
    words: list[str]

agent = Agent({name!r})
again = agent

@agent.offer("text.x", price="1")
def x(wish: Wish) -> str:
    return " ".join(wish.words)
"""


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_s_agents_are_found_once_each(tmp_path: Path) -> None:
    (agent,) = agents_in(written(tmp_path, FILE.format(name="one")))
    assert agent.name == "one"
    assert agent.offers["text.x"].signature.parse({"wish": {"words": ["a"]}})


def test_files_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (one,) = agents_in(written(tmp_path / "a", FILE.format(name="one")))
    (two,) = agents_in(written(tmp_path / "b", FILE.format(name="two")))
    assert (one.name, two.name) == ("one", "two")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "from agents import Agent\nagent = Agent('idle')",
        "raise RuntimeError('no')",
        "def (",
        "import no_such_module_anywhere",
        FILE.format(name="a") + "\nb = Agent('a')\nb.offer('text.y', price='1')(x)",
    ],
    ids=["empty", "no agent", "nothing sold", "raises", "syntax", "import", "same name twice"],
)
def test_a_file_that_declares_no_agent_properly_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadFileError):
        agents_in(written(tmp_path, text))


def test_only_python_files_are_loaded(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.py", written(tmp_path, "x = 1", "a.txt")):
        with pytest.raises(BadFileError):
            agents_in(path)
    with pytest.raises(BadFileError):
        agents_in(written(tmp_path, "#" * 1_100_000, "large.py"))


def test_an_agent_is_made_again_from_its_source_and_once_a_process(tmp_path: Path) -> None:
    source = Source("template", "keywords", "finder", {"price": "0.005"})
    assert make_agent(source) is make_agent(source)
    assert make_agent(source).name == "finder"
    place = str(written(tmp_path, FILE.format(name="one")))
    assert make_agent(Source("file", place, "one")).name == "one"
    with pytest.raises(BadFileError):
        make_agent(Source("file", place, "two"))


def test_sources_that_lead_nowhere_are_typed_errors() -> None:
    with pytest.raises(UnknownTemplateError):
        make_agent(Source("template", "no-such", "a"))
    with pytest.raises(BadConfigError):
        make_agent(Source("template", "keywords", "a", {"prize": 1}))
