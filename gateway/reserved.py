"""Arrays that grow where they are: address space is kept free behind them, and only what is touched takes memory.

Who touches memory first waits until the system has cleared it, milliseconds for a page of two megabytes. So `ahead` gives
a thread that has the time something to touch.
"""

import contextlib
import ctypes
import math
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_RESERVE = 0x4000 if hasattr(mmap, "MADV_HUGEPAGE") else 0
"""Linux's MAP_NORESERVE, which Python names from 3.13 on: address space that is kept free counts for nothing."""
LARGE_BYTES = 4 << 20
"""A table of so much, read anywhere, is better off with pages of two megabytes than with those of four kilobytes."""
PAGE_BYTES = 2 << 20
AHEAD_BYTES = 32 << 20
"""Of a large table this much is there before it is needed: half a second's worth of orders as fast as they may come."""
POPULATE_WRITE = 23
"""Linux's MADV_POPULATE_WRITE, since 5.14, which Python does not name."""


class Reserved:
    """A zeroed array at whose end is room for `growth` times as many rows. Beyond it, growing moves the rows."""

    def __init__(self, rows: int, growth: int, dtype: np.dtype[Any], tail: tuple[int, ...] = ()) -> None:
        self._growth, self._dtype, self._tail = growth, dtype, tail
        self._all = self._reserve(rows)
        self.array = self._all[:rows]

    def _reserve(self, rows: int) -> NDArray[Any]:
        self._present = 0  # bytes from the start that are there
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

    def ahead(self, rows: int) -> Callable[[], None] | None:
        """What makes the memory behind the first `rows` rows present, on any thread, beside whoever uses it; None where there
        is enough, or the table is small.
        """
        used = rows * (self._all.nbytes // len(self._all))
        if not NO_RESERVE or self.array.nbytes < LARGE_BYTES or used + AHEAD_BYTES // 2 < self._present:
            return None
        start = max(used, self._present) // mmap.PAGESIZE * mmap.PAGESIZE
        memory, end = self._memory, min(used + AHEAD_BYTES, len(self._memory))
        self._present = end
        return lambda: _populate(memory, start, end)


def _populate(memory: mmap.mmap, start: int, end: int) -> None:
    """Not by `memory.madvise`, which keeps all other threads from running; page by page, because it holds up who maps memory."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for at in range(start, end, PAGE_BYTES):
        size = ctypes.c_size_t(min(PAGE_BYTES, end - at))
        if ctypes.CDLL(None).madvise(ctypes.c_void_p(address + at), size, POPULATE_WRITE):
            return  # another kernel, or too little memory: who touches it will see


def _zeros(nbytes: int) -> mmap.mmap:
    return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
