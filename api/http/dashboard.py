"""The dashboard's files: pages and modules as they lie in the repository, and its few libraries.

* ``/`` and the page addresses give ``index.html``; ``/static/…`` the project's own files;
  ``/vendor/…`` files of the libraries that ``package.json`` names as dependencies, and of theirs.
* Every file has an ETag; the pages carry a content security policy of ``default-src 'none'`` with
  what they need and nothing else. The one inline script (the import map) is named by its hash.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import NotModifiedResponse

from api.http.errors import NotFoundError

PAGES: Final = ("/", "/negotiations/{id}", "/deals/{id}", "/deploy", "/ledger")
KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_INLINE: Final = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)


class Dashboard:
    """Serves one folder of static files and the libraries beside it."""

    def __init__(self, root: Path) -> None:
        """Serve ``root``/static, and of ``root``/node_modules what may be had."""
        self._static = root / "static"
        self._modules = root / "node_modules"
        self._allowed = allowed_packages(root)

    def routes(self) -> Iterable[BaseRoute]:
        """Return the routes; they come after all others."""
        yield from (Route(page, self._page, methods=["GET"]) for page in PAGES)
        yield Route("/static/{path:path}", self._own, methods=["GET"])
        yield Route("/vendor/{path:path}", self._vendor, methods=["GET"])

    async def _page(self, request: Request) -> Response:
        index = _inside(self._static, "index.html")
        headers = {"content-security-policy": policy(index.read_bytes())}
        return _file(request, index, headers | {"cache-control": "no-cache"})

    async def _own(self, request: Request) -> Response:
        path = _inside(self._static, request.path_params["path"])
        return _file(request, path, {"cache-control": "no-cache"})

    async def _vendor(self, request: Request) -> Response:
        name: str = request.path_params["path"]
        package = "/".join(name.split("/")[: 2 if name.startswith("@") else 1])
        if package not in self._allowed:
            raise NotFoundError("there is no such file")
        path = _inside(self._modules / package, name.removeprefix(package).lstrip("/"))
        return _file(request, path, {"cache-control": "public, max-age=3600"})


def allowed_packages(root: Path) -> frozenset[str]:
    """Return the libraries that browsers need: the dependencies, and theirs, without the types."""
    manifest = root / "package.json"
    wanted = (
        list(orjson.loads(manifest.read_bytes()).get("dependencies", {}))
        if manifest.exists()
        else []
    )
    allowed: set[str] = set()
    while wanted:
        package = wanted.pop()
        inner = root / "node_modules" / package / "package.json"
        if package in allowed or package.startswith("@types/") or not inner.exists():
            continue
        allowed.add(package)
        wanted.extend(orjson.loads(inner.read_bytes()).get("dependencies", {}))
    return frozenset(allowed)


def policy(page: bytes) -> str:
    """Return the content security policy for a page: its inline scripts are named by hash."""
    hashes = "".join(
        f" 'sha256-{b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in _INLINE.findall(page)
    )
    return (
        f"default-src 'none'; script-src 'self'{hashes}; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    )


def _inside(root: Path, name: str) -> Path:
    """Return a servable file below ``root``; anything that leads out of it is not there."""
    if not name.isprintable():
        raise NotFoundError("there is no such file")
    path = (root / name).resolve()
    if path.suffix not in KINDS or not path.is_relative_to(root.resolve()) or not path.is_file():
        raise NotFoundError("there is no such file")
    return path


def _file(request: Request, path: Path, headers: dict[str, str]) -> Response:
    status = path.stat()
    response = FileResponse(
        path, headers=headers, media_type=KINDS[path.suffix], stat_result=status
    )
    if request.headers.get("if-none-match") == response.headers["etag"]:
        return NotModifiedResponse(response.headers)
    return response
