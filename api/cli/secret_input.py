"""Phrases and passphrases, read so that nothing but this process sees them.

* From a file that only its owner reads, from standard input (``-``: one line each, in the order in
  which a command asks), or typed at the terminal without being shown. Never from an argument or
  from the environment itself, which other processes can read.
* Nothing read here is ever printed.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from api.settings import Settings
from rahba.errors import BadInputError, LocalError

MAX_BYTES: Final = 4_096
STDIN: Final = "-"
Command = TypeVar("Command", bound=Callable[..., Any])


class SecretNeededError(LocalError):
    """A command needs a secret, and there is no terminal to ask at."""

    code = "secret_needed"
    hint = "name a file with --passphrase-file or --phrase-file; `-` reads a line from stdin"


class OpenSecretError(LocalError):
    """A file of secrets can be read by others."""

    code = "open_secret"
    hint = "chmod 600 it, and consider what was in it as known"


def secret_file_option(name: str, text: str) -> Callable[[Command], Command]:
    """Return an option that names a file with a secret in it."""
    kind = click.Path(dir_okay=False, allow_dash=True, path_type=str)
    return click.option(f"--{name}", metavar="FILE", type=kind, help=text)


passphrase_option = secret_file_option(
    "passphrase-file",
    "Read the wallet's passphrase here (`-`: a line of stdin; else RAHBA_PASSPHRASE_FILE).",
)


def read_passphrase(path: str | None, *, fresh: bool = False, what: str = "Passphrase") -> str:
    """Return the passphrase of a wallet; a ``fresh`` one is typed twice."""
    named = Settings.read(os.environ).passphrase_file
    return _read(path or (str(named) if named is not None else None), what, twice=fresh)


def read_secret(path: str | None, what: str) -> str:
    """Return another secret, from ``path`` or the terminal."""
    return _read(path, what, twice=False)


def _read(path: str | None, what: str, *, twice: bool) -> str:
    if path == STDIN:
        return _line(sys.stdin.readline(MAX_BYTES + 1), what)
    if path is not None:
        return _line(_content(Path(path)), what)
    if not sys.stdin.isatty():
        raise SecretNeededError(f"{what}: there is no terminal to ask at")
    typed: str = click.prompt(what, hide_input=True, confirmation_prompt=twice, err=True)
    return typed


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
                raise OpenSecretError("others can read the file", path=str(path))
            return file.read(MAX_BYTES + 1).decode()
    except UnicodeDecodeError:
        raise BadInputError("the file is not UTF-8", path=str(path)) from None
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error


def _line(text: str, what: str) -> str:
    if len(text) > MAX_BYTES:
        raise BadInputError(f"{what}: too long")
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise BadInputError(f"{what}: there is nothing to read")
    return secret
