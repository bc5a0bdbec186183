"""A log leads to one state only, and a replay finds the first leaf that is not in its place."""

from __future__ import annotations

import pytest

from rahba.encoding import b64
from rahba.envelope import Signer
from rahba.merkle import leaf_hash
from tests.fixtures.wallet import DEAL, PureLedger, did, signer_of
from wallet.book import Book
from wallet.errors import InvariantError, LedgerCorruptError
from wallet.replay import Replay
from wallet.transactions import Capture, Faucet, Hold, StateLeaf, Transfer, read, seal_transaction

OPERATOR = signer_of("operator")


class Writer:
    """Writes a log the way the sequencer does, in memory."""

    def __init__(self, pure: PureLedger) -> None:
        self.pure = pure
        raw = seal_transaction(pure.genesis, OPERATOR)
        self.leaves = [raw]
        self.book = Book(pure.genesis, leaf_hash(raw))
        self.close()

    def add(self, raw: bytes, log_time: int | None = None) -> str:
        signed = read(raw)
        outcome = self.book.take(signed, log_time or self.book.time(self.pure.now))
        assert outcome.outcome == "logged", outcome
        self.leaves.append(raw)
        return signed.id

    def close(self) -> None:
        self.leaves.append(self.book.close_interval(OPERATOR).raw)


@pytest.fixture
def writer(pure: PureLedger) -> Writer:
    """Return a log of three intervals with payments, a hold and a capture."""
    writer = Writer(pure)
    writer.add(pure.sign(Faucet, "amina", amount="100000"))
    writer.add(pure.sign(Transfer, "amina", to=did("brahim"), amount="2000"))
    writer.close()
    pure.now += 5_000
    fields = {
        "payee": did("brahim"),
        "amount": "10",
        "agreement": DEAL,
        "arbitration": None,
        "bail": None,
    }
    hold = writer.add(pure.sign(Hold, "amina", expires=pure.now + 9, **fields))
    writer.add(pure.sign(Capture, "brahim", hold=hold, amount="5", final=True, receipt=None))
    writer.close()
    return writer


def replayed(leaves: list[bytes]) -> Replay:
    replay = Replay()
    for raw in leaves:
        replay.feed(raw)
    return replay


def fails_at(leaves: list[bytes]) -> int:
    with pytest.raises(LedgerCorruptError) as caught:
        replayed(leaves)
    seq = caught.value.facts["seq"]
    assert isinstance(seq, int)
    return seq


def test_the_same_log_always_leads_to_the_same_root(writer: Writer) -> None:
    first, second = replayed(writer.leaves).book, replayed(writer.leaves).book
    assert first.tree.root() == second.tree.root() == writer.book.tree.root()
    assert first.log.root() == writer.book.log.root()
    for name, account in writer.book.state.accounts.items():
        assert first.state.accounts[name].leaf() == account.leaf()
    assert first.state.log_time == writer.pure.now


@pytest.mark.parametrize("place", [2, 3, 5, 6])
def test_a_leaf_that_is_missing_is_noticed(writer: Writer, place: int) -> None:
    assert fails_at(writer.leaves[:place] + writer.leaves[place + 1 :]) >= place


def test_leaves_that_changed_places_are_noticed(writer: Writer) -> None:
    leaves = writer.leaves
    leaves[2], leaves[3] = leaves[3], leaves[2]
    assert fails_at(leaves) == 2


def test_a_forged_spend_is_noticed(writer: Writer, pure: PureLedger) -> None:
    raw = pure.sign(Transfer, "amina", to=did("thief"), amount="1", signed_by="thief")
    assert fails_at([*writer.leaves, raw, writer.leaves[-1]]) == len(writer.leaves)


def test_a_broken_signature_is_noticed_where_it_is(writer: Writer) -> None:
    signed = read(writer.leaves[3])
    other = read(writer.leaves[2])
    mine, theirs = (b64(item.signatures[0]).encode() for item in (signed, other))
    writer.leaves[3] = signed.raw.replace(mine, theirs)
    assert fails_at(writer.leaves) == 3
    assert Replay(verify=False).feed(writer.leaves[0])


@pytest.mark.parametrize(
    "change", [{"root": "0" * 64}, {"supply": "7"}, {"prev_size": 1}, {"log_time": 5}]
)
def test_a_state_leaf_that_says_something_else_is_noticed(
    writer: Writer, change: dict[str, object]
) -> None:
    said = read(writer.leaves[4]).record
    fields = {name: getattr(said, name) for name in said.__struct_fields__}
    writer.leaves[4] = seal_transaction(StateLeaf(**(fields | change)), OPERATOR)
    assert fails_at(writer.leaves) == 4


def test_a_state_leaf_by_somebody_else_is_noticed(writer: Writer) -> None:
    writer.leaves[4] = seal_transaction(read(writer.leaves[4]).record, Signer(bytes(32)))
    assert fails_at(writer.leaves) == 4


def test_a_log_has_one_genesis_and_it_comes_first(writer: Writer) -> None:
    assert fails_at(writer.leaves[1:]) == 0
    assert fails_at([writer.leaves[0], *writer.leaves]) == 1
    with pytest.raises(LedgerCorruptError):
        _ = Replay().book


def test_an_interval_is_not_closed_twice(writer: Writer) -> None:
    again = writer.book.summary(writer.pure.now)
    assert fails_at([*writer.leaves, seal_transaction(again, OPERATOR)]) == len(writer.leaves)
    with pytest.raises(InvariantError):
        writer.close()


def test_an_open_interval_is_carried_out_at_the_time_that_is_known(
    writer: Writer, pure: PureLedger
) -> None:
    pure.now += 1_000
    writer.add(pure.sign(Transfer, "amina", to=did("chadia"), amount="3"))
    replay = replayed(writer.leaves)
    assert did("chadia") not in replay.book.state.accounts
    replay.finish(pure.now)
    assert replay.book.state.available(did("chadia")) == 3
    assert replay.book.interval == pure.now
