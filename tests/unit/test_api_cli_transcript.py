"""`rahba transcript verify` needs no market: what does not hold ends with a code and exit 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from api.cli.transcript import transcript
from tests.fixtures.trading import Bazaar


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe"])
def test_what_is_no_transcript_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "said.jsonl"
    file.write_bytes(content)
    done = CliRunner().invoke(transcript, ["verify", str(file), "--json"])
    assert (done.exit_code, json.loads(done.output)["error"]["code"]) == (1, "bad_transcript")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(transcript, ["verify", str(tmp_path / "none"), "--json"])
    assert (done.exit_code, json.loads(done.output)["error"]["code"]) == (1, "bad_input")


async def test_a_deal_is_shown_by_its_agreement_and_price(bazaar: Bazaar, tmp_path: Path) -> None:
    import asyncio

    await bazaar.open_stall("a")
    bought = await bazaar.buy(mode="posted")
    (view,) = await bazaar.broker.threads.group(bought.group)
    file = tmp_path / "said.jsonl"
    file.write_bytes(b"".join(raw + b"\n" for raw in view.transcript))
    words = ["verify", str(file), "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, transcript, words)
    (shown,) = json.loads(done.output)
    assert (shown["agreement"], shown["price_fals"]) == (bought.agreement, "2000000")
