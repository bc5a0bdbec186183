"""Whatever the feed tells: the fold stands, is the same for all, and takes each event once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.knowledge.fold import KINDS, Knowledge, Notice
from broker.knowledge.rings import LONGEST, MIN_ROUNDS, Flows
from rahba.messages import Event

names = st.sampled_from(["a", "b", "c", "d", "e"])
amounts = st.sampled_from(["0", "1", "1000", "1000000", "99999999999", "-3", "x", ""])
digests = st.sampled_from(["a" * 64, "b" * 64, "c" * 64, "x", ""])
fields = st.fixed_dictionaries(
    {"thread": st.sampled_from(["1", "2", "3", "4"])},
    optional={
        "skill": names,
        "buyer": names | st.none(),
        "seller": names | st.integers(),
        "agreement": digests,
        "hold": digests,
        "paid": amounts,
        "from": names,
    },
)
events = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), fields, st.integers(0, 10**7)))


def told(drawn: list[tuple[str, dict[str, object], int]]) -> list[tuple[str, Event]]:
    found, at_ms = [], 1_700_000_000_000
    for kind, data, step in drawn:
        at_ms += step
        found.append((f"{at_ms}-{len(found)}", Event(kind=kind, ts=at_ms, data=data)))
    return found


def answer(knowledge: Knowledge, most: int = 10**6) -> list[Notice]:
    """Answer for some of those that wait, as a ledger that knows all holds but those of "b"."""
    return knowledge.count([each.hold[0] != "b" for each in knowledge.waiting[:most]])


@given(events, st.data())
@settings(max_examples=80, deadline=None)
def test_any_feed_folds_to_the_same_however_it_is_cut_repeated_and_answered(
    drawn: list[tuple[str, dict[str, object], int]], data: st.DataObject
) -> None:
    feed = told(drawn)
    whole, cut = Knowledge(), data.draw(st.integers(0, len(feed)))
    begins = data.draw(st.integers(0, cut))
    for event in feed:
        whole.note(*event)
    notices = answer(whole)
    first, found = Knowledge(), []
    for event in feed[:cut]:
        first.note(*event)
        found += answer(first, data.draw(st.integers(0, 2)))
    second = Knowledge.restore(first.dump())
    for event in feed[begins:]:
        second.note(*event)
    found += answer(second)
    assert second.dump() == whole.dump()
    assert found == notices
    assert whole.waiting == []


payments = st.lists(st.tuples(names, names, st.integers(0, 1_000)), max_size=120)


@given(payments)
@settings(max_examples=120, deadline=None)
def test_a_ring_is_a_cycle_of_payments_that_were_made(
    made: list[tuple[str, str, int]],
) -> None:
    flows = Flows()
    for place, (buyer, seller, amount) in enumerate(made):
        ring = flows.note(buyer, seller, amount)
        if ring is None:
            continue
        assert {buyer, seller} <= set(ring.members)
        assert 2 <= len(ring.members) == len(set(ring.members)) <= LONGEST
        for payer, payee in zip(ring.members, ring.members[1:] + ring.members[:1], strict=True):
            paid = [each for each in made[: place + 1] if each[:2] == (payer, payee) and each[2]]
            assert len(paid) >= MIN_ROUNDS
            assert sum(amount for _, _, amount in paid) >= ring.circulated
