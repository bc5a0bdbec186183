"""The market from outside: a client of the gateway's HTTP surface.

* Every write carries an idempotency key and is repeated with growing pauses when the connection
  breaks or the gateway is busy: a repeated call is never paid twice.
* A problem document becomes a :class:`MarketProblemError` with the market's own code and hint.
* Amounts are integers of fals here and strings on the wire; documents are returned as they come.

    async with Market("http://127.0.0.1:8700", api_key) as market:
        call = await market.call({"text": "…"}, skill="text.summarise", budget_fals=5_000_000)
        print(call["output"], call["paid_fals"])
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Final, Literal, Self

import aiohttp
import orjson

from rahba.encoding import decode_as, sha256_hex, unb64
from rahba.envelope import verify
from rahba.errors import (
    BadInputError,
    BadSignatureError,
    RahbaError,
    RemoteError,
    TooLargeError,
)
from rahba.ids import Ids, RandomIds
from rahba.messages import AGREEMENT_TYPE, Agreement, Mode, Receipt, open_receipt
from rahba.money import wire_fals

Document = dict[str, Any]

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
MAX_EVENT_BYTES: Final = 256 * 1024
_PAUSES_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
_BUSY: Final = frozenset({429, 502, 503, 504})
_OVER: Final = frozenset({"settled", "failed"})
_DONE: Final = _OVER | {"delivered"}
_SETTLING_POLLS: Final = 20
_POLL_S: Final = 0.25
_DEFAULT_DEADLINE_MS: Final = 30_000
_VISIT_MS: Final = 40_000
_READ_WITHIN_S: Final = 10.0


class MarketUnreachableError(RemoteError):
    """The gateway did not answer in time."""

    code = "market_unreachable"
    retryable = True
    hint = "is `rahba up` running? RAHBA_URL names another gateway"


class MarketProblemError(RemoteError):
    """The market refused or failed; ``code``, ``hint`` and ``facts`` are the market's."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        """Take over a problem document (RFC 9457)."""
        super().__init__(str(problem.get("detail") or problem.get("title") or status))
        self.status = status
        self.code = str(problem.get("code") or "problem")  # type: ignore[misc]  # the market's own
        self.hint = str(problem.get("hint") or "")  # type: ignore[misc]
        self.retryable = bool(problem.get("retryable", status in _BUSY))  # type: ignore[misc]
        self.problem = dict(problem)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    body: bytes | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Market:
    """One gateway, seen with one API key; use as an async context manager."""

    def __init__(self, url: str, api_key: str | None = None, *, ids: Ids | None = None) -> None:
        """Name the gateway; reading needs no key, buying and deploying do."""
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._ids = ids or RandomIds()
        self._web: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._web = aiohttp.ClientSession(self._url, headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._web is not None:
            await self._web.close()

    async def call(
        self,
        args: Mapping[str, Any],
        *,
        budget_fals: int,
        skill: str | None = None,
        agent: str | None = None,
        mode: Mode | None = None,
        route: Literal["thompson", "cheapest"] | None = None,
        deadline_ms: int = _DEFAULT_DEADLINE_MS,
        key: str | None = None,
        needs: Mapping[str, Any] | None = None,
        weights: Mapping[str, int] | None = None,
        min_penalty: int = 0,
        wish: str | None = None,
    ) -> Document:
        """Buy a skill and wait for the result; a call that failed raises its problem.

        ``state`` is settled, or delivered if the seller has not taken its money yet.

        ``key`` is the idempotency key: the same key gives the same answer, bought once. ``needs``
        (``min_quality``, ``max_latency_ms``, ``privacy``, ``max_energy_uwh``) is what a service
        must be like; ``weights`` (``price``, ``quality``, ``latency``, ``energy``) what matters how
        much, in thousandths; ``min_penalty`` (thousandths of the price) what a seller must put up;
        ``wish`` says all that in words. ``route`` tries sellers at their posted prices, by what
        they delivered or by price alone.
        """
        body: Document = {
            "input": dict(args),
            "budget": wire_fals(budget_fals),
            "deadline_ms": deadline_ms,
        }
        body |= {"skill": skill} if skill else {}
        body |= {"agent": agent} if agent else {}
        body |= {"mode": mode} if mode else {}
        body |= {"needs": dict(needs)} if needs else {}
        body |= {"weights": dict(weights)} if weights else {}
        body |= {"min_penalty": min_penalty} if min_penalty else {}
        body |= {"wish": wish} if wish else {}
        body |= {"route": route} if route else {}
        call = await self._send("POST", "/v1/calls", body, key=key, within_ms=deadline_ms + 30_000)
        polls = 0
        while call["state"] not in (_DONE if polls > _SETTLING_POLLS else _OVER):
            await asyncio.sleep(_POLL_S)
            call = await self._read(f"/v1/calls/{call['id']}")
            polls = polls + 1 if call["state"] in _DONE else 0
        if call.get("problem"):
            raise MarketProblemError(int(call["problem"]["status"]), call["problem"])
        return call

    async def call_events(self, call: str) -> AsyncIterator[Document]:
        """Yield the steps of a call, from its first to its end."""
        last = 0
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                headers = {"last-event-id": str(last)}
                async for event in self._events(f"/v1/calls/{call}/events", {}, headers):
                    last = int(event["id"])
                    yield event
                    if event["kind"] in _DONE and "state" in event["data"]:
                        return
            await asyncio.sleep(_POLL_S)

    async def templates(self) -> list[Document]:
        """Return what can be deployed."""
        found: list[Document] = (await self._read("/v1/templates"))["templates"]
        return found

    async def deploy(self, template: str, name: str, config: Mapping[str, Any]) -> Document:
        """Deploy an agent; returns its record, ``pending`` at first."""
        body = {"template": template, "name": name, "config": dict(config)}
        return await self._send("POST", "/v1/deployments", body)

    async def running(self, deployment: str) -> Document:
        """Wait until a deployment runs.

        Raises:
            MarketProblemError: it failed, or was stopped.
        """
        while True:
            record = await self._read(f"/v1/deployments/{deployment}")
            if record["state"] == "running":
                return record
            if record["state"] != "pending":
                detail = record.get("error") or f"the deployment is {record['state']}"
                raise MarketProblemError(409, {"code": "deployment_failed", "detail": detail})
            await asyncio.sleep(0.1)

    async def deployments(self) -> list[Document]:
        """Return every deployment, oldest first."""
        found: list[Document] = (await self._read("/v1/deployments"))["deployments"]
        return found

    async def stop(
        self, record: str, *, of: Literal["deployments", "listings"] = "deployments"
    ) -> Document:
        """Stop a deployment, or end a listing."""
        return await self._send("DELETE", f"/v1/{of}/{record}", None)

    async def adopt(self, url: str, **wishes: Any) -> Document:
        """List an A2A agent by its URL; ``name``, ``price`` (fals) and limits may be wished for."""
        body = {"url": url} | wishes
        return await self._send("POST", "/v1/listings", body, within_ms=_VISIT_MS)

    async def listings(self) -> list[Document]:
        """Return every agent that was listed by its URL, oldest first."""
        found: list[Document] = (await self._read("/v1/listings"))["listings"]
        return found

    async def listed(self, listing: str) -> Document:
        """Wait until a listing is on the market.

        Raises:
            MarketProblemError: it failed, or was stopped.
        """
        while True:
            record = await self._read(f"/v1/listings/{listing}")
            if record["state"] == "listed":
                return record
            if record["state"] not in {"pending", "silent"} or record["code"] is not None:
                code, detail = record["code"] or "deployment_failed", record["error"]
                raise MarketProblemError(409, {"code": code, "detail": detail or record["state"]})
            await asyncio.sleep(0.1)

    def agents(self, **filters: str) -> AsyncIterator[Document]:
        """Yield the agents on the market, best first.

        ``filters`` are the fields of ``GET /v1/agents``, such as ``skill``, ``q``, ``tag``,
        ``max_price``, ``max_latency_ms``, ``sort``.
        """
        return self._pages("/v1/agents", "agents", filters)

    async def publish(self, cards: Sequence[bytes]) -> Document:
        """List up to 1,000 signed cards; returns what became of each. Again renews the leases."""
        headers = {"content-type": "application/x-ndjson"}
        request = _Request("POST", "/v1/agents", b"\n".join(cards), headers=headers)
        document: Document = orjson.loads(await self._answer(request, _READ_WITHIN_S))
        return document

    def negotiations(self) -> AsyncIterator[Document]:
        """Yield the negotiations, newest first."""
        return self._pages("/v1/negotiations", "negotiations", {})

    async def agent(self, did: str) -> Document:
        """Return one agent on the market with its signed card."""
        return await self._read(f"/v1/agents/{did}")

    async def negotiation(self, group: str, *, raw: bool = False) -> Document:
        """Return every thread of a negotiation; ``raw`` adds the signed messages (base64)."""
        return await self._read(f"/v1/negotiations/{group}", {"raw": "1"} if raw else None)

    async def deal(self, digest: str) -> Document:
        """Return a deal: agreement, signatures, receipt, payment and its proof."""
        return await self._read(f"/v1/deals/{digest}")

    async def prices(self, skill: str) -> Document:
        """Return what a skill cost and is expected to, with the naive forecast beside it."""
        return await self._read(f"/v1/prices/{skill}")

    async def supply(self) -> Document:
        """Return the supply equation."""
        return await self._read("/v1/supply")

    async def log_key(self) -> str:
        """Return the verifier key of the ledger's log; pin it."""
        answer = await self._answer(_Request("GET", "/v1/log/key"), _READ_WITHIN_S)
        return answer.decode("ascii").strip()

    async def feed(
        self, *, tail: int = 0, kinds: str | None = None, after: str | None = None
    ) -> AsyncIterator[Document]:
        """Yield events for ever; after a broken connection, from the one after the last."""
        last, beginning = after, {"tail": str(tail)}
        while True:
            query = ({"last_event_id": last} if last else beginning) | (
                {"kinds": kinds} if kinds else {}
            )
            try:
                async for event in self._events("/v1/feed", query, {}):
                    last = event["id"]
                    yield event
            except (aiohttp.ClientError, TimeoutError):
                pass  # the gateway comes back, and the last id knows where we were
            await asyncio.sleep(0.5)

    async def _events(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncIterator[Document]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=40)
        web = self._session()
        async with web.get(
            path, params=query, headers=headers, timeout=timeout, read_bufsize=MAX_EVENT_BYTES
        ) as reply:
            if reply.status != 200:
                raise _problem(reply.status, await reply.content.read(MAX_EVENT_BYTES))
            async for line in reply.content:
                if line.startswith(b"data: "):
                    yield orjson.loads(line[6:])

    async def _pages(
        self, path: str, member: str, filters: Mapping[str, str]
    ) -> AsyncIterator[Document]:
        query = dict(filters) | {"limit": "100"}
        while True:
            page = await self._read(path, query)
            for item in page[member]:
                yield item
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    async def _read(self, path: str, query: Mapping[str, str] | None = None) -> Document:
        answer = await self._answer(_Request("GET", path, query=query or {}), _READ_WITHIN_S)
        document: Document = orjson.loads(answer)
        return document

    async def _send(
        self,
        method: str,
        path: str,
        body: object,
        *,
        key: str | None = None,
        within_ms: int = 20_000,
    ) -> Document:
        headers = {"idempotency-key": key or self._ids.new(), "content-type": "application/json"}
        raw = None if body is None else orjson.dumps(body)
        request = _Request(method, path, raw, headers=headers)
        document: Document = orjson.loads(await self._answer(request, within_ms / 1000))
        return document

    async def _answer(self, request: _Request, within_s: float) -> bytes:
        """Ask until there is an answer that stands, for at most ``within_s``."""
        trouble: RahbaError | None = None
        try:
            async with asyncio.timeout(within_s):
                for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
                    try:
                        return await self._once(request)
                    except (aiohttp.ClientError, MarketProblemError) as error:
                        trouble = _worth_another_try(error)
                    await asyncio.sleep(pause_s)
        except TimeoutError:
            pass
        raise trouble or MarketUnreachableError(f"{self._url} did not answer in time")

    async def _once(self, request: _Request) -> bytes:
        async with self._session().request(
            request.method,
            request.path,
            data=request.body,
            params=request.query,
            headers=request.headers,
        ) as reply:
            answer = bytearray()
            async for chunk in reply.content.iter_any():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise TooLargeError("the answer is too large", limit=MAX_ANSWER_BYTES)
            if reply.status >= 400:
                raise _problem(reply.status, bytes(answer))
            return bytes(answer)

    def _session(self) -> aiohttp.ClientSession:
        assert self._web is not None, "use `async with Market(...)`"
        return self._web


def verify_deal(deal: Document) -> Receipt:
    """Check a deal as ``Market.deal`` returned it, without asking anybody; returns its receipt.

    1. The agreement's bytes are those that the deal is named by.
    2. Both sides signed exactly these bytes.
    3. The receipt is the seller's own, for this agreement, input and price.

    That the payment is in the ledger's log is for ``rahba.proof`` (or ``rahba ledger verify``).

    Raises:
        BadSignatureError: a signature or digest does not fit.
        BadInputError: something that proves the deal is missing or malformed.
    """
    try:
        raw, receipt_raw = unb64(deal["agreement_bytes"]), unb64(deal["receipt"]["envelope"])
        signed = {side: deal["signatures"][side]["signature"] for side in ("buyer", "seller")}
        digest = str(deal["digest"])
    except (KeyError, TypeError) as error:
        raise BadInputError("the deal lacks its agreement, a signature or the receipt") from error
    agreement = decode_as(raw, Agreement)
    if sha256_hex(raw) != digest:  # 1
        raise BadSignatureError("the agreement is not the one that the deal is named by")
    verify(agreement.buyer, AGREEMENT_TYPE, raw, signed["buyer"])  # 2
    verify(agreement.seller, AGREEMENT_TYPE, raw, signed["seller"])
    receipt = open_receipt(receipt_raw, seller=agreement.seller)  # 3
    told = (receipt.agreement, receipt.buyer, receipt.input_digest, receipt.price)
    wanted = (digest, agreement.buyer, agreement.input_digest, agreement.offer.issues.price)
    if told != wanted:
        raise BadSignatureError("the receipt is for something else")
    return receipt


def _problem(status: int, raw: bytes) -> MarketProblemError:
    try:
        problem = orjson.loads(raw)
    except orjson.JSONDecodeError:
        problem = {}
    return MarketProblemError(status, problem if isinstance(problem, dict) else {})


def _worth_another_try(error: Exception) -> RahbaError:
    """Return what to say when time runs out; raise what trying again cannot mend."""
    if not isinstance(error, MarketProblemError):
        return MarketUnreachableError(f"the gateway did not answer: {error}")
    # A call that ended badly is the answer, whatever its status: the same key gives it again.
    if error.code == "in_progress" or (error.retryable and "call" not in error.problem):
        return error
    raise error
