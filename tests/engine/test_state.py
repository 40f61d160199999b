"""The engine's state as bytes: it goes on where it was, and bytes that are no state are refused."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.catalogue import pack_id
from engine.dump import account_names
from engine.engine import Engine
from engine.invariants import check
from engine.kernel import JIT, Records, bit, bits_above, lowest_bit, pointer
from engine.state import POOLS, Limits
from engine.types import COMMAND, TRANSFER, Kind
from tests.both import LIMITS, make_engine
from tests.pair import Pair
from tests.steps import random_steps
from tests.tables import command


@cache
def played() -> tuple[bytes, NDArray[np.void], NDArray[np.void]]:
    """A state in which there is something of everything, the commands that made it, and those that follow."""
    pair = Pair().open((0, 2, 4), (10**15,) * 4).play(random_steps(900, 300, wrecked=0))
    rows = pair.log()
    engine = make_engine()
    engine.apply(rows[:200])
    return engine.to_bytes(), rows[:200], rows[200:]


def test_a_state_goes_on_where_it_was() -> None:
    data, before, after = played()
    through, resumed = make_engine(), Engine.from_bytes(data, LIMITS)
    through.apply(before)
    assert resumed.state_hash() == through.state_hash()
    assert resumed.now_ns == through.now_ns == before["ts_ns"].max()
    assert resumed.apply(after).tobytes() == through.apply(after).tobytes()
    assert resumed.to_bytes() == through.to_bytes()
    check(resumed.memory)


def test_pools_grow_to_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, _ = played()
    for name, pool in POOLS.items():
        monkeypatch.setitem(POOLS, name, pool._replace(first_size=1))
    assert Engine.from_bytes(data, LIMITS).to_bytes() == data


def test_it_goes_on_under_other_limits() -> None:
    data, before, after = played()
    through, resumed = make_engine(), Engine.from_bytes(data, LIMITS)
    through.apply(before)
    with pytest.raises(ValueError, match=r"the state has \d+ accounts, the limit max_accounts is 3"):
        resumed.set_limits(Limits(max_accounts=2))
    resumed.set_limits(Limits(max_accounts=200, max_instruments=64, max_open_orders_per_account=1_000))
    assert resumed.apply(after).tobytes() == through.apply(after).tobytes()


@given(st.integers(0))
def test_bytes_cut_anywhere_are_refused(place: int) -> None:
    data, _, _ = played()
    with pytest.raises(ValueError, match="state bytes"):
        Engine.from_bytes(data[: place % len(data)], LIMITS)


def test_bytes_that_are_no_state_are_refused() -> None:
    data, _, _ = played()
    for wrong, words in (
        (data + b"\0", "1 bytes too many behind the state"),
        (b"\xff" + data[1:], "do not begin with the format"),
        (data[:8] + b"\xff" * 8 + data[16:], "end inside header"),
    ):
        with pytest.raises(ValueError, match=words):
            Engine.from_bytes(wrong, LIMITS)
    with pytest.raises(ValueError, match="the limit max_orders"):
        Engine.from_bytes(data, Limits(max_orders=1))


def test_limits_have_limits() -> None:
    with pytest.raises(ValueError, match="max_leaves must be at least 1"):
        Limits(max_leaves=0)
    with pytest.raises(ValueError, match="24 bits for the slot"):
        Limits(max_orders=(1 << 24) + 1)
    assert Limits(max_orders=1 << 24).max_orders == 1 << 24


def test_an_account_keeps_the_name_it_was_opened_with() -> None:
    engine = make_engine()
    rows = np.concatenate([command(Kind.OPEN_ACCOUNT, TRANSFER, account=number) for number in (1, 2)])
    rows["external_id"][0], rows["seq"] = pack_id("ann"), (1, 2)
    engine.apply(rows.view(COMMAND))
    assert account_names(engine.memory) == {1: "ann", 2: ""}


@pytest.mark.skipif(JIT, reason="what kernels see without the JIT")
def test_arrays_of_interpreted_kernels() -> None:
    """They refuse what compiled code would read beside the array, and hold Python's integers, which do not wrap."""
    records = Records(np.zeros(2, [("a", "<i4")]))
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"index {index} of an array"):
            records[index].a = 1
    with pytest.raises(OverflowError):
        records[1].a = 1 << 31
    records[1].a = 7
    records[0] = records[1]
    assert (records[0].a, type(records[0].a), len(records)) == (7, int, 2)
    records.clear(0)
    assert records[0].a == 0
    with pytest.raises(NotImplementedError, match="compiled"):
        pointer(0)


@pytest.mark.skipif(JIT, reason="kernels have no other Python form")
@given(st.integers(1, 2**64 - 1), st.integers(0, 63))
def test_bits_of_interpreted_words(word: int, n: int) -> None:
    ones = [place for place in range(64) if word >> place & 1]
    assert lowest_bit(word) == ones[0]
    assert bits_above(word, n) == sum(bit(place) for place in ones if place > n)
