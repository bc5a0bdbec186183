"""The command line: ``rahba COMMAND``."""

from api.cli.main import main

__all__ = ["main"]
