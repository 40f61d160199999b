"""Tables that grow where they are."""

import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.config import GatewayConfig
from gateway.memory import Tables
from gateway.reserved import AHEAD_BYTES, Reserved

PAIR = np.dtype([("first", "<i8"), ("second", "<i8")])


def test_growing_moves_nothing_until_the_room_is_used_up() -> None:
    """Rows written through a view from before are those of the grown array, and what is new is zero."""
    table = Reserved(4, 8, PAIR)
    old = table.array
    old["first"] = [1, 2, 3, 4]
    assert len(table.grow(5)) == 8
    assert len(table.grow(32)) == 32
    old["second"][3] = 5
    assert table.array[:5].tolist() == [(1, 0), (2, 0), (3, 0), (4, 5), (0, 0)]
    moved = table.grow(33)
    assert len(moved) == 64
    assert not np.shares_memory(moved, old)
    assert moved[:5].tolist() == [(1, 0), (2, 0), (3, 0), (4, 5), (0, 0)]
    assert not moved["first"][4:].any()


def test_rows_may_have_more_dimensions() -> None:
    table = Reserved(2, 4, np.dtype("<i8"), (3,))
    table.array[1] = 7
    assert table.grow(3).tolist() == [[0] * 3, [7] * 3, [0] * 3, [0] * 3]


def test_a_system_that_promises_nothing_gives_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = mmap.mmap

    def stingy(fd: int, nbytes: int, **flags: Any) -> mmap.mmap:
        if nbytes > 1_000:
            raise OSError("Cannot allocate memory")
        return real(fd, nbytes, **flags)

    monkeypatch.setattr(mmap, "mmap", stingy)
    table = Reserved(4, 1_000, PAIR)
    table.array["first"] = 9
    assert table.grow(40)["first"].tolist() == [9] * 4 + [0] * 36


def test_tables_of_a_gateway_grow_in_place() -> None:
    """A table of hundreds of megabytes that is moved keeps every client waiting."""
    tables = Tables(GatewayConfig(), {}, [], first_ref=1)
    place = tables.orders.ctypes.data
    for _ in range(10):
        tables.need_account(2 * len(tables.accounts))
        tables._make_room(len(tables.orders), 0)
    assert len(tables.orders) == 4_096 << 10
    assert tables.orders.ctypes.data == place
    tables.orders[-1] = 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there memory can be made present")
def test_the_memory_of_the_next_rows_is_there_before_they_are() -> None:
    table, used = Reserved(1 << 18, 1 << 10, PAIR), 1 << 18
    table.array["first"] = 7
    table.grow(4 * used)
    touch = table.ahead(used)
    assert touch is not None
    before = resident_bytes()
    touch()
    assert resident_bytes() - before > AHEAD_BYTES // 2
    assert table.ahead(used) is None
    assert table.ahead(used + AHEAD_BYTES // PAIR.itemsize) is not None
    assert set(table.array["first"][:used]) == {7} and not table.array["first"][used:].any()


def test_a_small_table_takes_no_memory_ahead() -> None:
    assert Reserved(1_000, 1 << 10, PAIR).ahead(1_000) is None


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
