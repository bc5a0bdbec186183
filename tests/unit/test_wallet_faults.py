"""What two signatures prove together, and under which one name."""

from __future__ import annotations

import pytest

from tests.fixtures.faults import ORIGIN, note, receipt, two_results, two_roots
from tests.fixtures.wallet import did
from wallet.errors import BadEvidenceError
from wallet.faults import fault_of
from wallet.transactions import NoteFault, ReceiptFault


def test_a_fault_has_one_name_however_it_is_told() -> None:
    mine = two_roots("amina")
    name = fault_of(did("amina"), mine)
    assert name == fault_of(did("amina"), NoteFault(first=mine.second, second=mine.first))
    third = NoteFault(first=mine.first, second=note("amina", 7, 3))
    assert name == fault_of(did("amina"), third)
    assert name != fault_of(did("amina"), two_roots("amina", size=8))
    assert fault_of(did("amina"), two_results("amina")) != name


def test_signatures_by_others_on_the_notes_change_nothing() -> None:
    fault = two_roots("amina")
    other = note("brahim", 7, 1).rpartition("\n\n")[2]
    more = NoteFault(first=fault.first + other, second=fault.second)
    assert fault_of(did("amina"), more) == fault_of(did("amina"), fault)


def test_nobody_is_accused_by_what_others_signed() -> None:
    for offender in ("brahim", "operator"):
        with pytest.raises(BadEvidenceError):
            fault_of(did(offender), two_roots("amina"))
        with pytest.raises(BadEvidenceError):
            fault_of(did(offender), two_results("amina"))


def test_the_same_result_with_another_time_is_no_fault() -> None:
    same = ReceiptFault(first=receipt("amina", "a"), second=receipt("amina", "a", finished=9))
    with pytest.raises(BadEvidenceError, match="contradict"):
        fault_of(did("amina"), same)
    assert ORIGIN
