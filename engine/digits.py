"""Decimal digits, eight at a time."""

from typing import Any

from engine.kernel import inlined, quotient


@inlined
def eight_digits(value: Any) -> Any:
    """A value below 100,000,000 as eight decimal digits, the first in the lowest byte: halved three times, all parts at once."""
    high = quotient(value, 10_000)
    parts = high | (value - 10_000 * high) << 32
    high = (parts * 10_486 >> 20) & 0x7F_0000_007F
    parts = high | (parts - 100 * high) << 16
    high = (parts * 103 >> 10) & 0x000F_000F_000F_000F
    return high | (parts - 10 * high) << 8
