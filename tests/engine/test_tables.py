"""The tables themselves: what they must notice."""

import pytest

from tests.tables import check


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("sell A 5 @ 2600 -> nothing", "0 events are expected, there are 1"),
        ("sell A 5 @ 2600 -> rejected", "there is NEW"),
        ("sell A 5 @ 2600 -> new 6", "leaves_qty is 5, not 6"),
        ("sell A 5 @ 2600 -> new B", "account is 2, not 1"),
        ("sell A 5 @ 2600 -> new, trade", "there is no event for 'trade'"),
        ("sell A 5001 @ 2600", "was rejected"),
        ("sell A 5001 @ 2600 -> rejected BAD_QTY", "reason is 2120, not 2105"),
        ("sell A 5001 @ 2600 -> new", "there is REJECTED INSUFFICIENT_CAPACITY"),
        ("buy B 1 @ 2700 -> new", "1 events are expected, there are 2"),
        ("buy B 1 @ 2700 -> new, trade 1 @ 2701", "price is 2700, not 2701"),
        ("buy B 1 @ 2700 -> new, trade 1 with A", "contra_account is 3, not 2"),
        ("buy B 1 @ 2700 -> new, trade 1, C leaves 5", "leaves_qty is 4"),
        ("buy B 1 @ 2700 -> new, trade 1, A leaves 5", "A is not in this trade"),
        ("cancel nobody", "no order is called nobody"),
        ("expect B cash 5", "it is 9"),
        ("expect house 5", "it is 0"),
        ("expect X last 5", "it is -1"),
        ("expect X asks 4 @ 2700", r"it is \[\(2700, \[5\]\)\]"),
        ("expect X asks none", r"it is \[\(2700, \[5\]\)\]"),
        ("expect X closed", "it is 1"),
        ("expect X halted", "it is 1"),
        ("expect C net 1", "it is 0"),
    ],
)
def test_a_wrong_expectation_is_noticed(line: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check(f"""
            buy  B 1 @ 5
            buy  A 1 @ 5
            sell C 5 @ 2700
            {line}
        """)


@pytest.mark.parametrize("line", ["jump A", "buy B", "buy B x @ 5", "buy B 1 @ 5 upside", "expect Q net 1"])
def test_a_line_that_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises((KeyError, ValueError, IndexError)):
        check(line)
