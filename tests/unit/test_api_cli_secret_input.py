"""Secrets come from files, standard input or a terminal that does not show them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import click
import pytest

from api.cli.secret_input import (
    OpenSecretError,
    SecretNeededError,
    read_passphrase,
    read_secret,
)
from rahba.errors import BadInputError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAHBA_PASSPHRASE_FILE", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))


def secret_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> str:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_file_holds_the_secret_with_or_without_an_end_of_line(tmp_path: Path, end: bytes) -> None:
    path = secret_file(tmp_path, " étoile du marché ".encode() + end)
    assert read_passphrase(path) == " étoile du marché "


def test_the_environment_names_a_file_and_never_is_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAHBA_PASSPHRASE_FILE", secret_file(tmp_path, b"open sesame\n"))
    assert read_passphrase(None) == "open sesame"
    monkeypatch.setenv("RAHBA_PASSPHRASE_FILE", "open sesame")
    with pytest.raises(BadInputError):
        read_passphrase(None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(OpenSecretError):
        read_passphrase(secret_file(tmp_path, b"open sesame", mode))


def test_a_pipe_will_do(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"open sesame\n")
    os.close(writing)
    assert read_passphrase(f"/dev/fd/{reading}") == "open sesame"
    os.close(reading)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 5_000])
def test_what_is_no_secret_is_refused_without_being_repeated(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(BadInputError) as caught:
        read_passphrase(secret_file(tmp_path, content))
    assert "xxx" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(BadInputError):
        read_passphrase(str(tmp_path / "nowhere"))


def test_standard_input_gives_one_line_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a phrase\na passphrase\n"))
    assert read_secret("-", "Recovery phrase") == "a phrase"
    assert read_passphrase("-") == "a passphrase"
    with pytest.raises(BadInputError):
        read_passphrase("-")


def test_without_a_terminal_the_error_says_how_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SecretNeededError) as caught:
        read_passphrase(None)
    assert "--passphrase-file" in caught.value.hint


def test_a_terminal_is_asked_and_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: list[dict[str, object]] = []

    def prompt(text: str, **options: object) -> str:
        typed.append(options)
        return "open sesame"

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(click, "prompt", prompt)
    assert read_passphrase(None, fresh=True) == read_passphrase(None) == "open sesame"
    assert [each["hide_input"] for each in typed] == [True, True]
    assert [each["confirmation_prompt"] for each in typed] == [True, False]
    assert capsys.readouterr().out == ""
