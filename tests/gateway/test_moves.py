"""Words of bytes in gateway/fast/moves.py, and what is written with them, against plain Python."""

from typing import Any

import numba
from hypothesis import given
from hypothesis import strategies as st

from engine.kernel import JIT
from gateway.config import GatewayConfig
from gateway.fast import doors
from gateway.fast.moves import bytes_of, plain_letters
from gateway.fast.templates import NUMBER
from gateway.memory import Tables

LETTERS = st.sampled_from([0, 0, 0x1F, 0x20, 0x21, 0x22, 0x23, 0x5B, 0x5C, 0x5D, 0x7E, 0x7F, 0x80, 0xFF, *b"aZ09-_.:"])
WORDS = st.one_of(st.binary(min_size=8, max_size=8), st.lists(LETTERS, min_size=8, max_size=8).map(bytes))
BOUNDS = [10**n + more for n in range(19) for more in (-1, 0, 1)]
NUMBERS = st.one_of(st.integers(0, 2**63 - 1), st.sampled_from(BOUNDS), st.integers(0, 18).map(lambda n: 7 * 10**n))


def _compiled(function: Any) -> Any:
    # A kernel has machine code only inside of what calls it.
    return numba.njit(error_model="numpy")(function) if JIT else function


def _size(word: Any) -> Any:
    return bytes_of(word)


def _plain(word: Any) -> Any:
    return plain_letters(word)


size_of, plain_of = _compiled(_size), _compiled(_plain)


@given(WORDS)
def test_letters_that_need_no_escape(word: bytes) -> None:
    odd = [not 0x20 <= one <= 0x7E or one in b'"\\' for one in word]
    assert plain_of(int.from_bytes(word, "little", signed=True)) == [*odd, True].index(True)


@given(WORDS.filter(lambda word: word[7] < 0x80))
def test_bytes_in_use(word: bytes) -> None:
    assert size_of(int.from_bytes(word, "little")) == len(word.rstrip(b"\0"))


TABLES = Tables(GatewayConfig(), {}, [], first_ref=1)
POSITION = NUMBER["position"]


@given(NUMBERS, NUMBERS, st.booleans())
def test_numbers_and_amounts_in_json(number: int, micros: int, negative: bool) -> None:
    """Of any size, on either side of zero."""
    TABLES.records[0]["template"] = POSITION
    micros = -micros if negative else micros
    TABLES.values[0] = 0
    TABLES.values[0][3], TABLES.values[0][7] = -number if negative else number, micros
    size = TABLES.do(doors.PUT_RECORD, 0, 0, 0)
    text = TABLES.out[:size].tobytes().decode()
    whole, rest = divmod(abs(micros), 10**6)
    amount = ("-" if micros < 0 else "") + f"{whole}.{rest:06}".rstrip("0").removesuffix(".")
    assert f'"net":{"-" if negative and number else ""}{number},' in text
    assert f'"escrow":"{amount}"' in text
