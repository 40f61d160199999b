"""Arrays that grow where they are: address space is kept free behind them, and only what is touched takes memory."""

import contextlib
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_RESERVE = 0x4000 if hasattr(mmap, "MADV_HUGEPAGE") else 0
"""Linux's MAP_NORESERVE, which Python names from 3.13 on: address space that is kept free counts for nothing."""
LARGE_BYTES = 4 << 20
"""A table of so much, read anywhere, is better off with pages of two megabytes than with those of four kilobytes."""


class Reserved:
    """A zeroed array at whose end is room for `growth` times as many rows. Beyond it, growing moves the rows."""

    def __init__(self, rows: int, growth: int, dtype: np.dtype[Any], tail: tuple[int, ...] = ()) -> None:
        self._growth, self._dtype, self._tail = growth, dtype, tail
        self._all = self._reserve(rows)
        self.array = self._all[:rows]

    def _reserve(self, rows: int) -> NDArray[Any]:
        row_bytes = math.prod(self._tail) * self._dtype.itemsize
        try:
            self._memory = _zeros(self._growth * rows * row_bytes)
        except OSError:  # a system that promises no more than it has
            self._memory = _zeros(rows * row_bytes)
        return np.ndarray((len(self._memory) // row_bytes, *self._tail), self._dtype, self._memory)

    def grow(self, rows: int) -> NDArray[Any]:
        """The array with at least so many rows, and at least twice those it has."""
        rows = max(rows, 2 * len(self.array))
        if rows > len(self._all):
            self._all = self._reserve(rows)
            self._all[: len(self.array)] = self.array
        self.array = self._all[:rows]
        if self.array.nbytes >= LARGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        return self.array


def _zeros(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
