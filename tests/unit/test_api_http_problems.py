"""Every error of every room has its HTTP form, and the docs list each."""

from __future__ import annotations

from pathlib import Path

import orjson

from api.http import error_docs
from api.http.errors import NotYoursError, RateLimitedError
from api.http.problems import KINDS, plain_problem, problem_of
from broker.errors import MailboxFullError, SenderQuotaError, TooManyThreadsError
from rahba.errors import LocalError, RemoteError, TooLargeError

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_error_class_is_in_the_table() -> None:
    found = error_docs.error_classes().items()
    codes = {code for code, classes in found if any(map(error_docs.met_over_http, classes))}
    missing = sorted(codes - set(KINDS))
    assert not missing, f"give these codes a line in api/http/problems.py: {missing}"


def test_the_docs_list_every_code_as_it_is() -> None:
    assert DOCS.read_text("utf-8") == error_docs.write_docs(), (
        "write them again: python -m api.http.error_docs > docs/errors.md"
    )


def test_a_problem_carries_the_facts_of_its_error() -> None:
    problem = problem_of(TooLargeError("body too large", limit_bytes=10))
    assert problem.document(call="c") == {
        "type": "/problems/too_large",
        "title": "Something exceeds its limit",
        "status": 413,
        "detail": "body too large",
        "code": "too_large",
        "retryable": False,
        "facts": {"limit_bytes": 10},
        "call": "c",
    }


def test_an_unlisted_code_takes_the_form_of_its_nearest_ancestor() -> None:
    class NewLocalError(LocalError):
        code = "brand_new"

    class NewRemoteError(RemoteError):
        code = "brand_new"

    local, remote = problem_of(NewLocalError()), problem_of(NewRemoteError())
    assert (local.code, local.status) == ("brand_new", 400)
    assert (remote.code, remote.status) == ("brand_new", 502)
    # these two live in this test alone
    NewLocalError.code = NewRemoteError.code = "error"


def test_a_problem_says_when_to_come_again() -> None:
    response = problem_of(RateLimitedError("slow down", headers={"retry-after": "7"})).response()
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert response.headers["content-type"] == "application/problem+json"
    assert plain_problem("unavailable").response().headers["retry-after"] == "1"


def test_a_hint_goes_along() -> None:
    document = orjson.loads(bytes(problem_of(NotYoursError("no")).response().body))
    assert document["hint"] == NotYoursError.hint


def test_a_sender_beyond_its_share_is_told_over_http_when_to_try_again() -> None:
    waits = {
        SenderQuotaError("too much waits", retry_after_ms=1_000): (429, "1"),
        TooManyThreadsError("too many", retry_after_ms=4_200): (429, "5"),
        MailboxFullError("full", retry_after_ms=1): (503, "1"),
        MailboxFullError("full"): (503, "1"),
    }
    for error, (status, seconds) in waits.items():
        response = problem_of(error).response()
        assert (response.status_code, response.headers["retry-after"]) == (status, seconds)
        assert problem_of(error).retryable
