"""Money and prices as text: exact, in micro-dollars (10^-6), never through a float."""

import re
from functools import lru_cache

MICROS = 1_000_000
DECIMALS = 6

_NUMBER = re.compile(r"(-?)(\d{1,15})(?:\.(\d{1,18}))?", re.ASCII)


class InexactError(ValueError):
    """The text is a number, but not a whole number of micro-dollars."""


def to_text(micros: int) -> str:
    """The shortest decimal of an amount: 2_435_000 is "2.435", -83_200 is "-0.0832"."""
    whole, rest = divmod(abs(micros), MICROS)
    text = f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)
    return "-" + text if micros < 0 else text


price_text = lru_cache(maxsize=65_536)(to_text)
"""`to_text` with a memory: a book shows the same prices again and again."""


def from_text(text: str) -> int:
    """The amount in micros. Raises InexactError below a micro, ValueError for anything but a plain decimal."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a decimal number")
    sign, whole, rest = match.groups()
    rest = (rest or "").rstrip("0")
    if len(rest) > DECIMALS:
        raise InexactError(f"{text!r} has more than {DECIMALS} decimals")
    micros = int(whole) * MICROS + int(rest.ljust(DECIMALS, "0"))
    return -micros if sign else micros
