"""The scripts that lie beside this file, read once."""

from __future__ import annotations

from importlib import resources

from broker.transports.redis.wire import Script


def load(*names: str) -> Script:
    """Return one script of the files ``name``.lua, in this order."""
    folder = resources.files(__package__)
    return Script("\n".join(folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names))
