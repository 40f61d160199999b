"""Eight digits at once are those that Python writes."""

from typing import Any

import numba
from hypothesis import given
from hypothesis import strategies as st

from engine.digits import eight_digits
from engine.kernel import JIT

BOUNDS = [10**n + more for n in range(9) for more in (-1, 0, 1) if 10**n + more < 10**8]


def _digits(value: Any) -> Any:
    return eight_digits(value)


# A kernel has machine code only inside of what calls it.
digits_of = numba.njit(error_model="numpy")(_digits) if JIT else _digits


@given(st.one_of(st.integers(0, 10**8 - 1), st.sampled_from(BOUNDS)))
def test_eight_digits(value: int) -> None:
    assert "".join(map(str, digits_of(value).to_bytes(8, "little"))) == f"{value:08}"
