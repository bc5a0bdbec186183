"""A wish becomes terms before anybody is heard, and only ever narrows what its owner allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.brains.clerk import (
    MAX_WISH_CHARS,
    CarefulClerk,
    ClerkError,
    Draft,
    RuleClerk,
    check_draft,
    draft_by_rules,
    explain,
)
from agents.brains.langchain import ModelClerk
from agents.negotiation.mandate import Weights
from agents.purchase import Purchase, Want
from rahba.errors import BadInputError
from rahba.messages import Needs
from tests.fixtures.scripted_llm import Reply, ScriptedModel, scripted_model

NOW = 1_700_000_000_000
WANT = Want(skill="text.upper", budget_fals=5_000_000, within_ms=30_000)


@pytest.mark.parametrize(
    ("wish", "issue"),
    [
        ("as cheap as possible", "price"),
        ("The BEST you can get!", "quality"),
        ("hurry", "latency"),
        ("the greenest one", "energy"),
    ],
)
def test_what_is_named_weighs_most(wish: str, issue: str) -> None:
    weights = draft_by_rules(wish).weights
    named = getattr(weights, issue)
    assert named == 600
    assert sum((weights.price, weights.quality, weights.latency, weights.energy)) >= 990


def test_what_nothing_is_said_of_stays_as_usual() -> None:
    assert draft_by_rules("translate this, please") == Draft()


@pytest.mark.parametrize(
    ("wish", "within_ms"),
    [
        ("within 250 ms", 250),
        ("in 5 seconds", 5_000),
        ("no later than 2 minutes", 120_000),
        ("within 1 hour", 3_600_000),
    ],
)
def test_a_time_is_a_need_and_a_deadline(wish: str, within_ms: int) -> None:
    draft = draft_by_rules(wish)
    assert (draft.within_ms, draft.needs.max_latency_ms) == (within_ms, within_ms)


def test_a_cap_in_words_lowers_the_budget_and_never_lifts_it() -> None:
    low, high = draft_by_rules("at most 0.001 rhb"), draft_by_rules("up to 99 RHB")
    assert low.narrow(WANT, now_ms=NOW).budget_fals == 1_000_000
    assert high.narrow(WANT, now_ms=NOW).budget_fals == WANT.budget_fals


def test_privacy_and_reliability_are_heard() -> None:
    draft = draft_by_rules("confidential, and somebody reliable")
    assert (draft.needs.privacy, draft.min_penalty) == ("sealed", 100)


drafts = st.builds(
    Draft,
    weights=st.builds(Weights, price=st.integers(0, 1_000)),
    needs=st.builds(
        Needs,
        max_latency_ms=st.none() | st.integers(0, 10**6),
        min_quality=st.integers(0, 1_000),
        max_energy_uwh=st.none() | st.integers(0, 10**6),
        privacy=st.sampled_from(("sealed", "logged", "public")),
    ),
    limit=st.none() | st.integers(0, 10**12).map(str),
    within_ms=st.none() | st.integers(1, 10**7),
)


@given(drafts, st.none() | st.integers(NOW, NOW + 10**6))
def test_no_draft_widens_what_its_owner_allowed(draft: Draft, deadline: int | None) -> None:
    want = replace(
        WANT, deadline_ms=deadline, min_quality=300, max_latency_ms=500, privacy="logged"
    )
    narrowed = draft.narrow(want, now_ms=NOW)
    assert narrowed.budget_fals <= want.budget_fals
    assert narrowed.within_ms <= want.within_ms
    assert deadline is None or (narrowed.deadline_ms or 0) <= deadline
    assert narrowed.min_quality >= 300
    assert (narrowed.max_latency_ms or 0) <= 500
    assert narrowed.parties == want.parties
    assert narrowed.privacy == ("sealed" if draft.needs.privacy == "sealed" else "logged")


def test_a_wish_that_names_no_issue_leaves_the_weights_as_they_were() -> None:
    want = replace(WANT, weights=Weights(price=0, quality=1_000, latency=0, energy=0))
    assert draft_by_rules("translate this").narrow(want, now_ms=NOW).weights == want.weights


def test_a_wish_is_no_letter() -> None:
    with pytest.raises(BadInputError):
        draft_by_rules("x" * (MAX_WISH_CHARS + 1))


def test_a_limit_is_an_amount() -> None:
    with pytest.raises(ClerkError):
        check_draft(Draft(limit="much"))


# A model as the clerk, over a real socket.


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with scripted_model() as served:
        yield served


def clerk(model: ScriptedModel) -> ModelClerk:
    return ModelClerk("openai:scripted-1", base_url=model.base_url, api_key="not-a-key")


async def test_a_models_draft_is_read_out_of_its_words(model: ScriptedModel) -> None:
    said = {"needs": {"min_quality": 800}, "weights": {"quality": 900}, "limit": "7"}
    model.on("careful", Reply(f"Sure: {orjson.dumps(said).decode()}"))
    draft = await clerk(model).draft("be careful")
    assert (draft.needs.min_quality, draft.weights.quality, draft.limit) == (800, 900, "7")


@pytest.mark.parametrize(
    "words",
    [
        "no idea",
        '{"budget": "999999999999"}',
        '{"payee": "did:key:z6Mk"}',
        '{"min_penalty": 1001}',
        '{"limit": "much"}',
        '{"weights": {"price": "all"}}',
    ],
)
async def test_what_is_no_draft_is_left_to_the_rules(model: ScriptedModel, words: str) -> None:
    model.on("cheap", Reply(words))
    with pytest.raises(ClerkError):
        await clerk(model).draft("cheap")
    assert await CarefulClerk(clerk(model)).draft("cheap") == draft_by_rules("cheap")


async def test_a_model_that_is_not_there_is_done_without() -> None:
    nobody = ModelClerk("openai:x", base_url="http://127.0.0.1:9/v1", api_key="k", timeout_s=5)
    assert await CarefulClerk(nobody).draft("fast") == await RuleClerk().draft("fast")


# Afterwards.


def test_a_deal_is_explained_by_its_figures() -> None:
    bought = Purchase(
        output=None,
        skill="text.upper",
        buyer="b",
        seller="s",
        mode="bargain",
        group="g",
        thread="t",
        agreement="a",
        rounds=4,
        asked_fals=2_000_000,
        agreed_fals=1_500_000,
        paid_fals=1_500_000,
        hold=None,
        capture_tx=None,
        receipt=b"",
        receipt_verified=True,
        deal=b"",
    )
    assert explain(bought) == (
        "Bought after 4 rounds of bargaining for 0.0015 RHB (0.002 RHB were asked at first); "
        "no other offer stood."
    )
    compared = replace(bought, best_rejected_fals=1_600_000, advantage_fals=100_000)
    assert "0.0016 RHB, by your weights worth 0.0001 RHB less" in explain(compared)
