"""Arrays of records that begin at a cache line.

The engine reads the first line of most commands and no more. Numpy's arrays begin 16 bytes behind one, so each such read
would take in two; that alone cost a sixth of the engine's speed.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE_BYTES = 64


def zeros(rows: int, dtype: np.dtype[Any], tail: tuple[int, ...] = ()) -> NDArray[Any]:
    """A zeroed array of `rows` items, or of rows of the dimensions `tail`."""
    nbytes = rows * math.prod(tail) * dtype.itemsize
    block = np.zeros(nbytes + LINE_BYTES, np.uint8)
    start = -block.ctypes.data % LINE_BYTES
    array: NDArray[Any] = block[start : start + nbytes].view(dtype).reshape(rows, *tail)
    return array


def joined(parts: Sequence[NDArray[np.void] | memoryview], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """The records of several arrays, or of their bytes, in a new one.

    Not np.concatenate: it compares the arrays' field lists anew for each part, which takes 50 us a part.
    """
    array = zeros(sum(part.nbytes for part in parts) // dtype.itemsize, dtype)
    target, at = array.view(np.uint8), 0
    for part in parts:
        if part.nbytes:
            target[at : at + part.nbytes] = _bytes_of(part)
            at += part.nbytes
    return array


def _bytes_of(part: NDArray[np.void] | memoryview) -> NDArray[np.uint8]:
    if isinstance(part, memoryview):
        return np.frombuffer(part, np.uint8)
    return np.ascontiguousarray(part).view(np.uint8)
