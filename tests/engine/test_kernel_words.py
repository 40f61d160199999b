"""Machine words of engine/kernel.py against Python's integers, which do not wrap."""

import numba
from hypothesis import given
from hypothesis import strategies as st

from engine.kernel import JIT, MIX_FIRST, MIX_SECOND, low_bits, mix, within

WORDS = st.integers(0, 2**63 - 1)


def _mixed_again(first, words):
    mixed = first
    for word in words:
        mixed = mix(mixed, low_bits(word)) + (mixed << 1)
    return mixed


def _compiled(function):
    # A kernel has machine code only inside of what calls it.
    return numba.njit(error_model="numpy")(function) if JIT else function


compiled = _compiled(_mixed_again)


def _mix_of(first, second):
    return mix(first, second)


def _is_within(n, count):
    return within(n, count)


mix_of, is_within = _compiled(_mix_of), _compiled(_is_within)


@given(WORDS, WORDS)
def test_mixing_is_the_arithmetic_of_unsigned_words(first: int, second: int) -> None:
    expected = first * MIX_FIRST + second * MIX_SECOND >> 31 & 0xFFFFFFFF
    assert mix_of(first, second) == expected


@given(st.integers(0, 2**31 - 1), st.tuples(WORDS, WORDS, WORDS))
def test_and_stays_so_where_llvm_sees_all_of_it(first: int, words: tuple[int, int, int]) -> None:
    """Of signed numbers it may take it that nothing overflows; then the state would depend on how it was compiled."""
    expected = first
    for word in words:
        expected = (expected * MIX_FIRST + word * MIX_SECOND >> 31 & 0xFFFFFFFF) + (expected << 1)
    assert compiled(first, words) == expected


@given(st.integers(-(2**62), 2**62), st.integers(0, 2**31))
def test_one_comparison_for_two(n: int, count: int) -> None:
    assert is_within(n, count) == (0 <= n < count)
