"""``docs/errors.md``: every code, what it means and what to do, written from table and classes.

python -m api.http.error_docs > docs/errors.md
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from typing import Final

import agents
import api
import broker
import rahba
import wallet
from api.http.problems import KINDS
from rahba.errors import RahbaError

_HEAD: Final = """# Errors

Every error of the market has a stable `code`. Over HTTP it is an `application/problem+json`
document (RFC 9457): `type` is `/problems/<code>`, `facts` holds typed facts, `retryable` says
whether the same request may help later. The command line prints the same codes.

| code | HTTP | what it means | again? | what to do |
|---|---|---|---|---|
"""


def error_classes() -> dict[str, list[type[RahbaError]]]:
    """Return every error class of the project by its code, loading all modules."""
    for room in (rahba, wallet, broker, agents, api):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if not module.name.endswith("__main__") and ".dashboard" not in module.name:
                importlib.import_module(module.name)
    found: dict[str, list[type[RahbaError]]] = {}
    for error in _descendants(RahbaError):
        if error.__module__.partition(".")[0] in {"rahba", "wallet", "broker", "agents", "api"}:
            found.setdefault(error.code, []).append(error)
    return found


def met_over_http(error: type[RahbaError]) -> bool:
    """Say whether a gateway can raise it; the rest is met on the command line alone."""
    module = error.__module__
    return not module.startswith("api.") or module.startswith(("api.http", "api.keys"))


def write_docs() -> str:
    """Return the document."""
    classes = error_classes()
    lines = []
    for code in sorted(set(KINDS) | set(classes)):
        kind, known = KINDS.get(code), classes.get(code, [])
        again = "yes" if any(error.retryable for error in known) else ""
        hint = next((error.hint for error in known if error.hint), "")
        meaning = kind.title if kind else inspect.cleandoc(known[0].__doc__ or "").split("\n")[0]
        status = kind.status if kind else "-"
        lines.append(f"| `{code}` | {status} | {meaning} | {again} | {hint} |\n")
    return _HEAD + "".join(lines)


def _descendants(root: type[RahbaError]) -> Iterator[type[RahbaError]]:
    yield root
    for child in root.__subclasses__():
        yield from _descendants(child)


if __name__ == "__main__":
    sys.stdout.write(write_docs())
