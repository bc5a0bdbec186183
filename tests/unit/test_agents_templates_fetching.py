"""A stranger's URL leads to public pages only, whatever it, a name server or a redirect says."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.abc import ResolveResult

from agents.perform import JobFailedError, try_offer
from agents.templates.crafts import fetching
from agents.templates.crafts.addresses import check_address, check_url
from agents.templates.crafts.fetching import Page, PublicResolver, fetch
from agents.templates.crafts.refusals import (
    PageUnavailableError,
    TooComplexError,
    UnsafeAddressError,
)
from agents.templates.web_to_markdown import WebToMarkdown
from rahba.errors import TooLargeError
from tests.fixtures.documents import read_document

Handler = Callable[[web.Request], Any]


@asynccontextmanager
async def serving(**handlers: Handler) -> AsyncIterator[str]:
    """Serve each handler under its name, on a port of loopback that the kernel chose."""
    app = web.Application()
    for name, handler in handlers.items():
        app.router.add_get(f"/{name}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def get(url: str, **settings: Any) -> Page:
    given: dict[str, Any] = {"max_bytes": 100_000, "timeout_s": 5, "allow_loopback": True}
    return await fetch(url, **{**given, **settings})


async def html(_: web.Request) -> web.Response:
    return web.Response(text="<p>hello</p>", content_type="text/html")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/",
        "gopher://example.org/",
        "javascript:alert(1)",
        "//example.org/",
        "example.org",
        "http://",
        "http:///path",
        "http://user@example.org/",
        "http://user:word@example.org/",
        "http://example.org@127.0.0.1/",
        "http://example.org:22/",
        "http://example.org:6379.evil/",
        "http://example.org:99999/",
        "http://example.org\\@127.0.0.1/",
        "http://exa mple.org/",
        "http://example.org/\r\nHost: other",
        "http://[::1",
        "https://example.org/" + "a" * 3_000,
    ],
)
def test_a_url_that_is_no_public_web_page_is_refused(url: str) -> None:
    with pytest.raises(UnsafeAddressError):
        check_url(url)


@pytest.mark.parametrize(
    "url", ["http://example.org", "https://example.org:8443/a?b=c#d", "https://bücher.example/"]
)
def test_an_ordinary_url_passes(url: str) -> None:
    assert check_url(url).host


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.8.8.8",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "no address",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(UnsafeAddressError):
        check_address(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111"])
def test_a_public_address_passes(address: str) -> None:
    assert check_address(address) == address


def test_loopback_passes_only_where_it_was_allowed_and_nothing_else_with_it() -> None:
    assert check_address("127.0.0.1", allow_loopback=True)
    assert check_address("::1", allow_loopback=True)
    for address in ("10.0.0.1", "169.254.169.254", "0.0.0.0"):
        with pytest.raises(UnsafeAddressError):
            check_address(address, allow_loopback=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "10.0.0.1",
        "192.168.0.1",
    ],
)
async def test_no_spelling_of_a_private_address_is_connected_to(host: str) -> None:
    """The server really listens: reaching it would be a page, not an error of the network."""
    hits: list[str] = []

    async def note(request: web.Request) -> web.Response:
        hits.append(request.path)
        return await html(request)

    async with serving(secret=note) as base:
        port = base.rpartition(":")[2]
        with pytest.raises(UnsafeAddressError):
            await get(f"http://{host}:{port}/secret", allow_loopback=False)
    assert hits == []


async def test_one_private_address_among_a_names_answers_refuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def two_faced(host: str, port: int, family: int) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in ("93.184.215.14", "10.0.0.5")
        ]

    resolver = PublicResolver()
    monkeypatch.setattr(resolver._inner, "resolve", two_faced)
    with pytest.raises(UnsafeAddressError):
        await resolver.resolve("two-faced.example", 80, socket.AF_INET)


async def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that answers differently the second time is not asked a second time."""
    asked: list[str] = []
    async with serving(page=html) as base:

        async def once(
            self: PublicResolver, host: str, port: int = 0, family: int = 0
        ) -> list[ResolveResult]:
            asked.append(host)
            return [
                ResolveResult(
                    hostname=host,
                    host="127.0.0.1",
                    port=port,
                    family=socket.AF_INET,
                    proto=0,
                    flags=0,
                )
            ]

        monkeypatch.setattr(fetching.PublicResolver, "resolve", once)
        page = await get(f"http://rebinding.example:{base.rpartition(':')[2]}/page")
    assert page.html == "<p>hello</p>"
    assert asked == ["rebinding.example"]


async def test_a_redirect_to_a_private_address_is_refused_though_its_start_was_allowed() -> None:
    targets = ["http://169.254.169.254/latest", "http://10.0.0.1/", "file:///etc/passwd"]
    for target in [*targets, "http://[::ffff:10.0.0.1]/", "http://user@example.org/"]:

        async def away(_: web.Request, target: str = target) -> web.Response:
            return web.Response(status=302, headers={"Location": target})

        async with serving(start=away) as base:
            with pytest.raises(UnsafeAddressError):
                await get(f"{base}/start")


async def test_a_redirect_to_loopback_is_refused_where_loopback_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first address counts as public here, so that only the redirect can be what is refused."""
    hits: list[str] = []

    async def note(request: web.Request) -> web.Response:
        hits.append(request.path)
        return await html(request)

    async with serving(secret=note) as inner:

        async def away(_: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{inner}/secret"})

        async with serving(start=away) as outer:
            port = outer.rpartition(":")[2]
            check = fetching.check_literal

            def first_passes(url: Any, *, allow_loopback: bool) -> None:
                if str(url.port) != port:
                    check(url, allow_loopback=allow_loopback)

            monkeypatch.setattr(fetching, "check_literal", first_passes)
            with pytest.raises(UnsafeAddressError):
                await get(f"{outer}/start", allow_loopback=False)
    assert hits == []


async def test_redirects_are_followed_but_not_for_ever() -> None:
    async def first(_: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "/page"})

    async def loop(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/loop"})

    async with serving(first=first, loop=loop, page=html) as base:
        page = await get(f"{base}/first")
        assert (page.url, page.html) == (f"{base}/page", "<p>hello</p>")
        with pytest.raises(TooComplexError):
            await get(f"{base}/loop")


async def test_a_page_is_measured_after_unpacking() -> None:
    async def bomb(_: web.Request) -> web.Response:
        packed = gzip.compress(b" " * 20_000_000)
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/html"}
        return web.Response(body=packed, headers=headers)

    async def small(_: web.Request) -> web.Response:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/html; charset=latin-1"}
        return web.Response(body=gzip.compress("<p>thé</p>".encode("latin-1")), headers=headers)

    async def broken(_: web.Request) -> web.Response:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/html"}
        return web.Response(body=b"not packed at all", headers=headers)

    async with serving(bomb=bomb, small=small, broken=broken) as base:
        with pytest.raises(TooLargeError):
            await get(f"{base}/bomb")
        assert (await get(f"{base}/small")).html == "<p>thé</p>"
        with pytest.raises(PageUnavailableError, match="damaged"):
            await get(f"{base}/broken")


async def test_a_page_without_end_is_cut_off() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        with_bytes = b"x" * 65_536
        while True:
            await response.write(with_bytes)

    async with serving(endless=endless) as base:
        with pytest.raises(TooLargeError):
            await get(f"{base}/endless")


async def test_a_page_that_drips_is_given_up_in_time() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/html"})
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.05)

    async with serving(drip=drip) as base:
        with pytest.raises(PageUnavailableError, match="too long"):
            await get(f"{base}/drip", timeout_s=0.5)


async def test_what_is_no_page_is_refused() -> None:
    async def missing(_: web.Request) -> web.Response:
        return web.Response(status=404, text="no", content_type="text/html")

    async def picture(_: web.Request) -> web.Response:
        return web.Response(body=b"\x89PNG", content_type="image/png")

    async with serving(missing=missing, picture=picture) as base:
        for path, says in (("missing", "refused"), ("picture", "not a page")):
            with pytest.raises(PageUnavailableError, match=says):
                await get(f"{base}/{path}")
    with pytest.raises(PageUnavailableError, match="no answer"):
        await get(f"{base}/gone")


async def test_nothing_of_ours_goes_along() -> None:
    seen: dict[str, str] = {}

    async def look(request: web.Request) -> web.Response:
        seen.update(request.headers)
        return await html(request)

    async with serving(look=look) as base:
        await get(f"{base}/look")
    assert set(seen) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"} - (
        {"Connection"} - set(seen)
    )


async def test_the_template_reads_a_page_by_its_url_only_where_that_is_allowed() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text=read_document("market-day.html"), content_type="text/html")

    async with serving(article=page) as base:
        allowed = WebToMarkdown().make({"allow_loopback": True}, "cleaner")
        raw = await try_offer(allowed, "web.markdown", {"url": f"{base}/article"})
        assert "The saffron test" in orjson.loads(raw)["output"]["markdown"]
        assert orjson.loads(raw)["output"]["url"] == f"{base}/article"
        refused = WebToMarkdown().make({}, "cleaner")
        with pytest.raises(UnsafeAddressError):
            await try_offer(refused, "web.markdown", {"url": f"{base}/article"})
    with pytest.raises(JobFailedError, match="page_unavailable"):
        await try_offer(allowed, "web.markdown", {"url": f"{base}/article"})
