"""Arrays of records that begin at a cache line.

The engine reads the first line of most commands and no more. Numpy's arrays begin 16 bytes behind one, so each such read
would take in two; that alone cost a sixth of the engine's speed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE_BYTES = 64


def zeros(rows: int, dtype: np.dtype[Any], tail: tuple[int, ...] = ()) -> NDArray[Any]:
    """A zeroed array of `rows` items, or of rows of the dimensions `tail`. Of a large one only what is touched takes memory."""
    return np.ndarray((rows, *tail), dtype, _line(np.zeros, rows * math.prod(tail) * dtype.itemsize))


def joined(parts: Sequence[NDArray[np.void] | memoryview], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """The records of several arrays, or of their bytes, in a new one.

    Not np.concatenate: it compares the arrays' field lists anew for each part, which takes 50 us a part.
    """
    data = b"".join([part.tobytes() for part in parts])
    line = _line(np.empty, len(data))
    line[:] = np.frombuffer(data, np.uint8)
    return np.ndarray(len(data) // dtype.itemsize, dtype, line)


def copied(records: NDArray[np.void]) -> NDArray[np.void]:
    """A copy of records. Their own `copy` goes through them field by field, which takes 20 us even for one."""
    return np.frombuffer(bytearray(records.tobytes()), records.dtype)


def _line(make: Callable[[int, type[np.uint8]], NDArray[np.uint8]], nbytes: int) -> NDArray[np.uint8]:
    """Bytes that begin at a cache line."""
    block = make(nbytes + LINE_BYTES, np.uint8)
    start = -block.ctypes.data % LINE_BYTES
    return block[start : start + nbytes]
