"""The dashboard's files: what is served, under which policy, and what is not."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

import pytest

from api.http.dashboard import allowed_packages, policy
from api.http.settings import GatewaySettings
from tests.fixtures.gateway import Site

ROOT = GatewaySettings().dashboard_dir


async def test_the_page_comes_with_a_policy_that_names_its_one_inline_script(site: Site) -> None:
    for path in ("/", f"/negotiations/{'0' * 32}"):
        page = await site.ask("GET", path)
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        rules = page.headers["content-security-policy"]
        assert rules.startswith("default-src 'none'")
        assert "unsafe" not in rules
        script = re.search(rb"<script type=\"importmap\">(.*?)</script>", page.body, re.DOTALL)
        assert script is not None
        digest = b64encode(hashlib.sha256(script.group(1)).digest()).decode()
        assert f"'sha256-{digest}'" in rules


async def test_everything_the_page_imports_is_served(site: Site) -> None:
    page = (await site.ask("GET", "/")).body.decode()
    for path in set(re.findall(r'"(/(?:static|vendor)/[^"]+[^/"])"', page)):
        answer = await site.ask("GET", path)
        assert answer.status == 200, path
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_unchanged_file_is_not_sent_again(site: Site) -> None:
    first = await site.ask("GET", "/static/app.js")
    again = await site.ask(
        "GET", "/static/app.js", headers={"if-none-match": first.headers["etag"]}
    )
    assert (first.status, again.status, again.body) == (200, 304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../package.json",
        "/static/app.js%00",
        "/static/..%2Fpackage.json",
        "/static/%2e%2e/%2e%2e/app.py",
        "/static/nothing.js",
        "/static/",
        "/vendor/typescript/lib/tsc.js",
        "/vendor/lit/../typescript/lib/tsc.js",
        "/vendor/lit/..%2F..%2F..%2Fhttp%2Fapp.py",
        "/vendor/lit/README.md",
        "/vendor/@lit",
    ],
)
async def test_nothing_else_is_served(site: Site, path: str) -> None:
    from yarl import URL

    async with site.web.get(URL(site.url + path, encoded=True)) as answer:
        assert answer.status == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_only_libraries_for_the_browser_may_be_had() -> None:
    allowed = allowed_packages(ROOT)
    assert {"lit", "lit-html", "@lit/reactive-element", "@preact/signals-core"} <= allowed
    assert not {"typescript", "@types/trusted-types"} & allowed


def test_a_page_without_inline_scripts_allows_none() -> None:
    assert "sha256" not in policy(b'<script type="module" src="/static/app.js"></script>')
