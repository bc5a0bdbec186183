"""A call is repeated while that may help, and no longer."""

from __future__ import annotations

import pytest

from agents import patience
from agents.patience import patiently
from broker.errors import BrokerUnreachableError
from rahba.errors import BadInputError, RahbaError


class Calls:
    def __init__(self, *ends: RahbaError | str) -> None:
        self.ends = list(ends)

    async def __call__(self) -> str:
        end = self.ends.pop(0)
        if isinstance(end, RahbaError):
            raise end
        return end


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BACKOFF_S", (0.0, 0.0))


async def test_a_call_that_may_help_is_made_again() -> None:
    away = BrokerUnreachableError("away")
    assert await patiently(Calls(away, away, "there")) == "there"


async def test_patience_ends() -> None:
    calls = Calls(*[BrokerUnreachableError("away")] * 5)
    with pytest.raises(BrokerUnreachableError):
        await patiently(calls)
    assert len(calls.ends) == 2


async def test_what_cannot_help_is_not_made_again() -> None:
    calls = Calls(BadInputError("no"), "yes")
    with pytest.raises(BadInputError):
        await patiently(calls)
    assert calls.ends == ["yes"]
