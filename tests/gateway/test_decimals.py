"""Money as text: exact both ways."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.decimals import InexactError, from_text, to_text


@pytest.mark.parametrize(
    ("micros", "text"),
    [(2_435_000, "2.435"), (0, "0"), (-83_200, "-0.0832"), (1, "0.000001"), (10_000_000, "10"), (-1_500_000, "-1.5")],
)
def test_shortest_text(micros: int, text: str) -> None:
    assert to_text(micros) == text
    assert from_text(text) == micros


@given(st.integers(-(10**20), 10**20))
def test_text_is_the_same_number(micros: int) -> None:
    assert Decimal(to_text(micros)) * 1_000_000 == micros
    assert from_text(to_text(micros)) == micros


@given(st.decimals(min_value=0, max_value=10**6, places=6))
def test_any_way_to_write_it(number: Decimal) -> None:
    assert from_text(format(number, "f") + "00") == int(number.scaleb(6))


@pytest.mark.parametrize("text", ["", ".", "1.", ".5", "1e3", "+1", " 1", "1 ", "1,5", "NaN", "٣", "--1", "1" * 16])
def test_not_a_number(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal"):
        from_text(text)


def test_below_a_micro() -> None:
    with pytest.raises(InexactError):
        from_text("0.0000001")
