"""The scripts that lie beside this file, read once."""

from __future__ import annotations

from importlib import resources

from broker.transports.redis.wire import Script


def load(name: str) -> Script:
    """Return the script ``name``.lua."""
    return Script(resources.files(__package__).joinpath(f"{name}.lua").read_text("utf-8"))
