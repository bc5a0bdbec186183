"""Speaks A2A over JSON-RPC, in the words of 1.0 or 0.3: one message sent, one reply read.

The two versions differ in names only: ``SendMessage`` and ``message/send``, ``ROLE_USER`` and
``user``, parts told apart by their field or by their ``kind``. Replies are read without regard to
the version, for many servers mix them.

* A task that is not done yet is asked for again until it is, or time is up; then it is cancelled.
* What the agent says is data. Its text is in the reply or, shortened and cleaned, in an error.

Source: https://a2a-protocol.org/latest/specification/ (sections 3, 5.4 and 9) and the JSON schema
of version 0.3.0.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from agents.foreign.card import Protocol
from agents.foreign.errors import (
    ForeignAnswerError,
    ForeignFailedError,
    ForeignRefusedError,
    ForeignUnreachableError,
)
from agents.foreign.names import clean
from agents.foreign.web import Reach, post_json
from rahba.errors import RahbaError

Verb = Literal["send", "get", "cancel"]

MAX_PARTS: Final = 256
SAID_CHARS: Final = 200
PROBE_TASK: Final = "rahba-probe"
_METHODS: Final[dict[Protocol, dict[Verb, str]]] = {
    "1.0": {"send": "SendMessage", "get": "GetTask", "cancel": "CancelTask"},
    "0.3": {"send": "message/send", "get": "tasks/get", "cancel": "tasks/cancel"},
}
_MODES: Final = ["text/plain", "application/json"]
_ASKED_AGAIN_S: Final = (0.2, 0.5, 1.0, 2.0)
_CANCEL_S: Final = 1.0
# What the caller can mend: invalid parameters, and content of a type the agent does not take.
_CALLERS_DOING: Final = frozenset({-32602, -32005})
_UNKNOWN_METHOD: Final = -32601
_WRONG_VERSION: Final = -32009
_UNDER_WAY: Final = frozenset({"submitted", "working"})


@dataclass(frozen=True, slots=True)
class Target:
    """Where an agent is and how it is spoken to."""

    endpoint: str
    protocol: Protocol
    tenant: str
    reach: Reach


@dataclass(frozen=True, slots=True)
class Wish:
    """What is sent: text, data beside it, the skill it is for, and the name of the message."""

    id: str
    text: str
    data: dict[str, Any] | None
    skill: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: all text, all data, all files (base64 or an address, never fetched)."""

    text: str
    data: list[Any]
    files: list[dict[str, str]]


class RpcError(RahbaError):
    """A JSON-RPC error: a number, and words that are the other side's."""

    code = "foreign_rpc_error"

    def __init__(self, number: int, said: str) -> None:
        """Keep both."""
        super().__init__(f"JSON-RPC error {number}", number=number)
        self.number = number
        self.said = said


async def probe(target: Target) -> None:
    """Ask after a task that does not exist: any well-formed answer is a sign of life.

    Raises:
        ForeignUnreachableError: no answer in time.
        ForeignAnswerError: the answer is not JSON-RPC, or the server does not know A2A.
    """
    try:
        await _ask(target, "get", _named(target, PROBE_TASK), PROBE_TASK)
    except RpcError as error:
        if error.number in {_UNKNOWN_METHOD, _WRONG_VERSION}:
            raise ForeignAnswerError(
                "the server does not speak A2A as its card says", number=error.number
            ) from error


async def send(target: Target, wish: Wish, *, within_s: float) -> Reply:
    """Send one message and return the reply, when the task that it began is done.

    Raises:
        ForeignRefusedError: the agent says that the input is at fault.
        ForeignFailedError: it fails, rejects, or wants to talk on.
        ForeignUnreachableError, ForeignAnswerError: as for any question.
    """
    until = asyncio.get_running_loop().time() + within_s
    try:
        found = await _ask(_until(target, until), "send", _message(target, wish), wish.id)
        found = await _settled(target, _opened(found), wish.id, until)
    except RpcError as error:
        told = f"{error.message}{_quoted(error.said)}"
        if error.number in _CALLERS_DOING:
            raise ForeignRefusedError(told, number=error.number) from error
        raise ForeignFailedError(told, cause=error.code, number=error.number) from error
    state = _state(found)
    if state not in {None, "completed"}:
        said = _read(_parts_of(found.get("status"), "message")).text
        told = clean(state or "", 32)
        raise ForeignFailedError(f"the task is {told}{_quoted(said)}", cause=told)
    return _reply(found)


async def _ask(target: Target, verb: Verb, params: dict[str, Any], request_id: str) -> Any:
    """Return the result of one JSON-RPC request, or raise its error."""
    question = {
        "jsonrpc": "2.0",
        "id": request_id,
        "method": _METHODS[target.protocol][verb],
        "params": params,
    }
    headers = {"A2A-Version": target.protocol}
    answer = await post_json(target.endpoint, question, target.reach, headers)
    if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0":
        raise ForeignAnswerError("the answer is not JSON-RPC 2.0")
    error = answer.get("error")
    if isinstance(error, dict):
        number, said = error.get("code"), error.get("message")
        if not isinstance(number, int) or not isinstance(said, str):
            raise ForeignAnswerError("the error is not of JSON-RPC 2.0")
        raise RpcError(number, said)
    if answer.get("id") != request_id or "result" not in answer or error is not None:
        raise ForeignAnswerError("the answer is to another question, or to none")
    return answer["result"]


def _message(target: Target, wish: Wish) -> dict[str, Any]:
    newer = target.protocol == "1.0"
    parts: list[dict[str, Any]] = []
    if wish.text:
        parts.append({"text": wish.text} | ({} if newer else {"kind": "text"}))
    if wish.data is not None:
        parts.append({"data": wish.data} | ({} if newer else {"kind": "data"}))
    message: dict[str, Any] = {
        "messageId": wish.id,
        "role": "ROLE_USER" if newer else "user",
        "parts": parts,
        "metadata": {"skillId": wish.skill},
    } | ({} if newer else {"kind": "message"})
    waiting = {"returnImmediately": False} if newer else {"blocking": True}
    params = {"message": message, "configuration": {"acceptedOutputModes": _MODES} | waiting}
    return params | _tenant(target)


def _named(target: Target, task: str) -> dict[str, Any]:
    return {"id": task} | _tenant(target)


def _tenant(target: Target) -> dict[str, str]:
    return {"tenant": target.tenant} if target.tenant else {}


def _opened(result: object) -> dict[str, Any]:
    """Return the task or message of an answer; 1.0 names which, 0.3 says its kind."""
    if isinstance(result, dict):
        for name in ("task", "message"):
            if isinstance(result.get(name), dict) and "status" not in result:
                inner: dict[str, Any] = result[name]
                return inner
        return result
    raise ForeignAnswerError("the result is neither a task nor a message")


def _state(found: dict[str, Any]) -> str | None:
    """Return a task's state in one spelling; a message has none."""
    status = found.get("status")
    if status is None and isinstance(found.get("parts"), list):
        return None
    state = status.get("state") if isinstance(status, dict) else None
    if not isinstance(state, str):
        raise ForeignAnswerError("the result is neither a task nor a message")
    return state.lower().removeprefix("task_state_").replace("_", "-")


def _task_id(found: dict[str, Any]) -> str:
    task = found.get("id")
    if not isinstance(task, str) or not 0 < len(task) <= 256:
        raise ForeignAnswerError("the task has no id")
    return task


async def _settled(
    target: Target, found: dict[str, Any], request_id: str, until: float
) -> dict[str, Any]:
    """Ask after a task until it is no longer under way; when time is up, give it up."""
    loop, asked = asyncio.get_running_loop(), 0
    while _state(found) in _UNDER_WAY:
        task = _task_id(found)
        pause_s = _ASKED_AGAIN_S[min(asked, len(_ASKED_AGAIN_S) - 1)]
        if until - loop.time() <= pause_s:
            await _cancel(target, task)
            raise ForeignUnreachableError("the task is not done in time")
        await asyncio.sleep(pause_s)
        found = _opened(await _ask(_until(target, until), "get", _named(target, task), request_id))
        asked += 1
    return found


def _until(target: Target, until: float) -> Target:
    """Return ``target`` with a reach that ends when the time is up."""
    left_s = max(0.1, until - asyncio.get_running_loop().time())
    return replace(target, reach=replace(target.reach, timeout_s=left_s))


async def _cancel(target: Target, task: str) -> None:
    """Tell the agent that nobody waits any more; whether it listens is its own affair."""
    brief = replace(target, reach=replace(target.reach, timeout_s=_CANCEL_S))
    with contextlib.suppress(RahbaError):
        await _ask(brief, "cancel", _named(brief, task), task)


def _reply(found: dict[str, Any]) -> Reply:
    if isinstance(found.get("parts"), list):
        return _read(found["parts"])
    artifacts = found.get("artifacts")
    parts = [
        part
        for artifact in (artifacts if isinstance(artifacts, list) else [])[:MAX_PARTS]
        for part in _parts_of({"artifact": artifact}, "artifact")
    ]
    return _read(parts or _parts_of(found.get("status"), "message"))


def _parts_of(holder: object, name: str) -> list[Any]:
    inner = holder.get(name) if isinstance(holder, dict) else None
    parts = inner.get("parts") if isinstance(inner, dict) else None
    return parts if isinstance(parts, list) else []


def _read(parts: list[Any]) -> Reply:
    if len(parts) > MAX_PARTS:
        raise ForeignAnswerError("the reply has too many parts", limit=MAX_PARTS)
    fields = [part for part in parts if isinstance(part, dict)]
    texts = [part["text"] for part in fields if isinstance(part.get("text"), str)]
    data = [part["data"] for part in fields if "data" in part]
    return Reply("\n".join(texts), data, [file for part in fields if (file := _file(part))])


def _file(part: dict[str, Any]) -> dict[str, str]:
    older = part.get("file")
    given = older if isinstance(older, dict) else part
    shown = {
        "name": given.get("filename") or given.get("name"),
        "media_type": given.get("mediaType") or given.get("mimeType"),
        "base64": given.get("raw") or given.get("bytes"),
        "url": given.get("url") or given.get("uri"),
    }
    file = {name: text for name, text in shown.items() if isinstance(text, str)}
    return file if "base64" in file or "url" in file else {}


def _quoted(said: str) -> str:
    words = clean(said, SAID_CHARS)
    return f'; it says: "{words}"' if words else ""
