"""Arrays that grow where they are: address space is kept free behind them, and only what is touched takes memory."""

import contextlib
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_RESERVE = 0x4000 if hasattr(mmap, "MADV_HUGEPAGE") else 0
"""Linux's MAP_NORESERVE, which Python names from 3.13 on: address space that is kept free counts for nothing."""


class Reserved:
    """A zeroed array at whose end is room for `growth` times as many rows. Beyond it, growing moves the rows."""

    def __init__(self, rows: int, growth: int, dtype: np.dtype[Any], tail: tuple[int, ...] = ()) -> None:
        self._growth, self._dtype, self._tail = growth, dtype, tail
        self._all = self._reserve(rows)
        self.array = self._all[:rows]

    def _reserve(self, rows: int) -> NDArray[Any]:
        row_bytes = math.prod(self._tail) * self._dtype.itemsize
        try:
            memory = _zeros(self._growth * rows * row_bytes)
        except OSError:  # a system that promises no more than it has
            memory = _zeros(rows * row_bytes)
        return np.ndarray((len(memory) // row_bytes, *self._tail), self._dtype, memory)

    def grow(self, rows: int) -> NDArray[Any]:
        """The array with at least so many rows, and at least twice those it has."""
        rows = max(rows, 2 * len(self.array))
        if rows > len(self._all):
            self._all = self._reserve(rows)
            self._all[: len(self.array)] = self.array
        self.array = self._all[:rows]
        return self.array


def _zeros(nbytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)  # tables of hundreds of megabytes, read anywhere
    return memory
