"""Links are small, and lead nowhere that was not written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wallet.links import concerns, pack_links, previous

links = st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), max_size=20)


@given(links, st.integers(0, 2**32 - 1))
def test_what_was_packed_is_found_and_nothing_else(known: dict[int, int], other: int) -> None:
    packed = pack_links([number for link in known.items() for number in link])
    assert len(packed) == 12 * len(known)
    for position, last in known.items():
        assert previous(packed, position) == last
        assert concerns(packed, position)
    if other not in known:
        assert previous(packed, other) == 0
        assert not concerns(packed, other)


@given(st.binary(max_size=11))
def test_half_a_link_leads_nowhere(raw: bytes) -> None:
    assert previous(raw, 0) == 0
