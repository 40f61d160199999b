"""Arrays that begin at a cache line, and that are whole."""

import numpy as np
import pytest

from engine.records import LINE_BYTES, copied, joined, zeros
from engine.types import COMMAND


@pytest.mark.parametrize("rows", [0, 1, 3, 1_000])
def test_an_array_begins_at_a_line_and_is_zero(rows: int) -> None:
    array = zeros(rows, COMMAND)
    assert len(array) == rows
    assert rows == 0 or array.ctypes.data % LINE_BYTES == 0
    assert not array.tobytes().strip(b"\0")
    array["qty"] = 7  # it may be written to


def test_rows_may_have_items() -> None:
    assert zeros(3, np.dtype("<u8"), (5,)).shape == (3, 5)


def test_what_is_joined_is_every_part_in_order() -> None:
    parts = [np.frombuffer(np.random.default_rng(n).bytes(n * COMMAND.itemsize), COMMAND) for n in (2, 0, 5)]
    parts.append(parts[2][::2])  # not contiguous
    found = joined([*parts, memoryview(parts[0].tobytes())], COMMAND)
    assert found.tobytes() == b"".join(part.tobytes() for part in [*parts, parts[0]])
    assert found.ctypes.data % LINE_BYTES == 0
    assert joined([], COMMAND).tobytes() == b""


def test_a_copy_is_one_and_can_be_written() -> None:
    records = zeros(3, COMMAND)
    records["seq"] = 1, 2, 3
    copy = copied(records[1:])
    copy["kind"] = 7
    assert copy.dtype == COMMAND and copy["seq"].tolist() == [2, 3] and not records["kind"].any()
