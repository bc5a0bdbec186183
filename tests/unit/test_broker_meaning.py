"""Search by meaning: with LangChain's interface, without trusting what stands behind it."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from typing_extensions import override

from api import embeddings
from api.embeddings import load_embeddings
from api.settings import BadSettingError, Settings
from broker import Broker, meaning
from broker.directory import CardDirectory, Search
from broker.meaning import Meaning
from broker.ports import Query
from broker.stores import word_vectors
from broker.stores.word_vectors import NoWordVectorsError, WordVectors
from broker.transports import memory
from rahba.clock import ManualClock
from tests.fixtures.listings import SELLERS, names, skill_offer, unsigned
from tests.fixtures.market_messages import signed_card

TOPICS = ("rain", "money", "song")
SAME = {"umbrella": "rain", "weather": "rain", "bank": "money", "tax": "money", "tune": "song"}


class Topics(Embeddings):
    """Knows three topics by a few words each; counts how often it is asked."""

    def __init__(self) -> None:
        self.documents = 0

    def vector(self, text: str) -> list[float]:
        words = text.casefold().split()
        known = [SAME.get(word, word) for word in words]
        return [float(known.count(topic)) + 0.01 for topic in TOPICS]

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.documents += len(texts)
        return [self.vector(text) for text in texts]

    @override
    def embed_query(self, text: str) -> list[float]:
        return self.vector(text)


class Broken(Topics):
    """Fails in a way of one's choice."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    @override
    async def aembed_query(self, text: str) -> list[float]:
        if self.way == "slow":
            await asyncio.sleep(60)
        if self.way == "raises":
            raise ConnectionError("no service for key sk-secret")
        return {"short": [1.0], "empty": [], "nan": [float("nan")] * 3, "zero": [0.0] * 3}[self.way]


class Market:
    """A market in memory whose searches use an embedder."""

    def __init__(self, embedder: Embeddings) -> None:
        self.clock = ManualClock()
        self.broker: Broker = memory.connect(self.clock, search=Search(embedder=embedder))
        directory = self.broker.directory
        assert isinstance(directory, CardDirectory)
        self.directory = directory

    async def list(self, seller: int, about: str) -> None:
        self.clock.advance(1)
        entry = skill_offer(100, skill="a.b", about=about)
        raw = signed_card(SELLERS[seller], self.clock.now_ms(), skills=[entry], description="")
        await self.directory.publish(raw)

    async def found(self, text: str, **fields: object) -> list[int]:
        page = await self.directory.find(Query(text=text, **fields))  # type: ignore[arg-type]
        return names([one.card.agent for one in page.listings])


@pytest.fixture
async def market() -> AsyncIterator[Market]:
    made = Market(Topics())
    await made.list(0, "weather forecasts and rain")
    await made.list(1, "bank and tax")
    await made.list(2, "a tune to sing")
    await made.directory.learned()
    yield made
    await made.broker.close()


@pytest.fixture(params=["numpy", "arrays"])
def cosines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compute cosines by numpy, and without."""
    if request.param == "arrays":
        monkeypatch.setattr(meaning, "_numpy", lambda: None)
    else:
        assert meaning._numpy() is not None
    return str(request.param)


async def test_what_is_meant_is_found_without_a_word_in_common(
    cosines: str, market: Market
) -> None:
    assert (await market.found("umbrella"))[0] == 0
    assert await market.found("umbrella", meaning=False) == []
    page = await market.directory.find(Query(text="umbrella"))
    assert page.reasons[0][0] == "relevance: no word shared, place 1 by meaning"
    assert page.notes == ()


async def test_words_and_meaning_together_come_before_either(market: Market) -> None:
    assert (await market.found("tune"))[0] == 2
    assert (await market.found("money tax"))[0] == 1


async def test_limits_hold_for_what_is_found_by_meaning(market: Market) -> None:
    assert await market.found("umbrella", skill="a.c") == []
    assert await market.found("umbrella", max_latency_ms=1) == []


async def test_a_card_is_read_again_only_when_what_it_says_changes() -> None:
    topics = Topics()
    market = Market(topics)
    await market.list(0, "bank")
    await market.directory.learned()
    assert topics.documents == 1
    await market.list(0, "bank")
    await market.directory.learned()
    assert topics.documents == 1, "the same words in a newer card"
    await market.list(0, "rain")
    await market.directory.learned()
    assert topics.documents == 2
    assert await market.found("umbrella") == [0]
    await market.directory.remove(SELLERS[0].did)
    assert await market.found("umbrella") == []
    await market.broker.close()


@pytest.mark.parametrize("way", ["raises", "slow", "short", "empty", "nan", "zero"])
async def test_an_embedder_that_fails_costs_the_meaning_and_never_the_answer(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = Market(Broken(way))
    found = market.directory._meaning
    assert found is not None
    found._patience_s = 0.05
    await market.list(0, "weather")
    await market.directory.learned()
    page = await market.directory.find(Query(text="weather"))
    assert names([one.card.agent for one in page.listings]) == [0]
    assert any("the embedder failed" in note for note in page.notes)
    await market.broker.close()


async def test_cards_that_cannot_be_read_yet_are_told(caplog: pytest.LogCaptureFixture) -> None:
    class Mute(Topics):
        @override
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionError("no service for key sk-secret")

    market = Market(Mute())
    await market.list(0, "weather")
    await market.directory.learned()
    page = await market.directory.find(Query(text="weather"))
    assert page.notes == ("meaning: 1 cards are not read yet (ConnectionError)",)
    assert len(page.listings) == 1
    assert "the embedder failed" in caplog.text
    assert "sk-secret" not in caplog.text
    await market.broker.close()


async def test_no_more_cards_are_read_than_there_is_room_for() -> None:
    topics = Topics()
    small = Meaning(topics, max_cards=2)
    for seller in range(4):
        small.note(unsigned(seller, skill_offer(1, about="rain")))
    await small.learned()
    assert topics.documents == 2
    found, notes = await small.near("umbrella")
    assert len(found or ()) == 2
    assert notes == ["meaning: only 2 cards are read"]
    await small.close()


async def test_meaning_that_is_wanted_and_not_there_is_told() -> None:
    broker = memory.connect(ManualClock())
    page = await broker.directory.find(Query(text="rain", meaning=True))
    assert page.notes == ("meaning: no embeddings are configured",)


async def test_any_langchain_embeddings_will_do() -> None:
    market = Market(DeterministicFakeEmbedding(size=64))
    await market.list(0, "weather")
    await market.directory.learned()
    assert await market.found("weather") == [0]
    await market.broker.close()


async def test_the_vectors_of_words_come_with_their_package() -> None:
    vectors = WordVectors()
    sun, rain, tax = await vectors.aembed_documents(["umbrella in the rain", "wet weather", "tax"])
    wanted = await vectors.aembed_query("umbrella in the rain")
    assert wanted == sun
    assert len(wanted) == 256

    def alike(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(array("d", one), array("d", other), strict=True))

    assert alike(sun, rain) > alike(sun, tax)
    assert vectors.embed_query("") == [0.0] * 256


def test_vectors_that_are_not_installed_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_vectors, "PACKAGE", "no_such_package")
    with pytest.raises(NoWordVectorsError):
        WordVectors()


def test_embeddings_are_named_by_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings.read({}).embeddings is None
    assert Settings.read({"RAHBA_EMBEDDINGS": "words"}).embeddings == "words"
    assert load_embeddings(None) is None
    assert isinstance(load_embeddings(embeddings.WORDS), WordVectors)
    (tmp_path / "own_embeddings.py").write_text(
        "from langchain_core.embeddings import DeterministicFakeEmbedding\n"
        "def make(): return DeterministicFakeEmbedding(size=8)\n"
        "def nothing(): return object()\n"
        "def broken(): raise ValueError('bad key sk-secret')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(load_embeddings("own_embeddings:make"), DeterministicFakeEmbedding)
    for name in ("own_embeddings", "own_embeddings:", "own_embeddings:absent", "absent:make",
                 "own_embeddings:nothing"):  # fmt: skip
        with pytest.raises(BadSettingError):
            load_embeddings(name)
    with pytest.raises(BadSettingError) as refused:
        load_embeddings("own_embeddings:broken")
    assert "ValueError" in refused.value.message
    assert "sk-secret" not in refused.value.message
