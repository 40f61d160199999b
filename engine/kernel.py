"""The one way to compile a function of the engine, and the few machine words that numba has no name for.

`@kernel` marks a function that other kernels call; `@door` marks one that Python calls, and only doors are cached on
disk, with everything they call inside. numba's own cache notices a change only in the file in which the cached function
stands: an imported kernel or constant that changed would run on, silently, as old machine code. So the cache has a
directory for each hash of all sources of the engine, and of what else changes the code.

With NUMBA_DISABLE_JIT=1 the same functions run as plain Python, for coverage and for the debugger. Records then go
through `Records`, whose integers are Python's: they do not wrap, and a store that would overflow raises.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from engine.linking import link_late

JIT = not numba.config.DISABLE_JIT

FLAGS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
"""For every kernel. error_model: no branch for a division by zero; the code divides by what it has checked."""


UNSEEN: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""For what Python never calls: numba need not make the code that would take Python's objects apart."""


# Odd constants that spread neighbouring numbers over an index (Knuth's multiplicative hashing, 64 bit).
MIX_FIRST = 0x9E3779B97F4A7C15 >> 1
MIX_SECOND = 0xC2B2AE3D27D4EB4F >> 1


def source_hash(*others: Path) -> str:
    """A hash of what the machine code depends on: the engine's sources, those in other directories, numba, its switches."""
    digest = hashlib.sha256()
    for path in [
        *sorted(Path(__file__).parent.glob("*.py")),
        *(p for other in others for p in sorted(other.glob("*.py"))),
    ]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    switches = sorted((name, value) for name, value in os.environ.items() if name.startswith("NUMBA_"))
    digest.update(repr((sys.version_info[:2], numba.__version__, switches)).encode())
    return digest.hexdigest()[:16]


def cache_directory(*others: Path) -> Path:
    """Where the machine code is kept: WELLHEAD_CACHE, or the user's cache directory, by `source_hash`."""
    root = os.environ.get("WELLHEAD_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "wellhead" / "kernels" / source_hash(*others)


@contextmanager
def _cached_in(directory: Path) -> Iterator[None]:
    # numba reads the setting when a function is decorated, and only then.
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(directory)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call."""
    link_late(function.__qualname__)
    return numba.njit(**FLAGS, **UNSEEN)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function that LLVM must place into its callers: a leaf on the path of every command."""
    link_late(function.__qualname__)
    return numba.njit(**FLAGS, **UNSEEN, forceinline=True)(function)


def door(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, with its machine code kept on disk."""
    with cached_beside(function.__code__.co_filename):
        return numba.njit(**FLAGS, cache=True)(function)


@contextmanager
def cached_beside(source: str) -> Iterator[None]:
    """What is decorated here has its machine code kept under the hash of the sources beside the given one, too."""
    # The engine's own code depends on the engine only.
    home = Path(source).parent
    with _cached_in(cache_directory(*() if home == Path(__file__).parent else (home,))):
        yield


if JIT:

    @intrinsic
    def lowest_bit(typingctx: Any, word: Any) -> Any:
        """The number of the lowest set bit of a uint64, as int64. Undefined for zero."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], cgutils.true_bit)

        return types.int64(types.uint64), generate

    @intrinsic
    def unlikely(typingctx: Any, value: Any) -> Any:
        """The value, and a mark: what leads here is rare, so the code for it lies apart and spills no register elsewhere."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            nothing = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "", side_effect=True)
            # llvmlite does not list this attribute among those of calls; LLVM takes a path with such a call for a rare one.
            set.add(builder.call(nothing, []).attributes, "cold")
            return args[0]

        return value(value), generate

    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        """An address as a pointer, for `carray`."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], cgutils.voidptr_t)

        return types.voidptr(types.intp), generate

    def bit(n: Any) -> Any:
        """The word in which only bit n is set."""
        return np.uint64(1) << np.uint64(n)

    def bits_above(word: Any, n: Any) -> Any:
        """The bits of a word above bit n."""
        # In two steps: a shift by 64 is undefined.
        return (np.uint64(word) >> np.uint64(n) >> np.uint64(1)) << np.uint64(1) << np.uint64(n)

    def quotient(a: Any, b: Any) -> Any:
        """a // b for a >= 0 and b > 0: unsigned, which spares what Python's rounding of negative numbers costs."""
        return np.int64(np.uint64(a) // np.uint64(b))

    def within(n: Any, count: Any) -> Any:
        """0 <= n < count, for a count from zero up: one unsigned comparison."""
        return np.uint64(n) < np.uint64(count)

    def low_bits(word: Any) -> Any:
        """The low 63 bits of a word as a number from zero up: mixed with a signed number, a word would make a float."""
        return np.int64(np.uint64(word) & np.uint64(0x7FFFFFFFFFFFFFFF))

    def mix(first: Any, second: Any) -> Any:
        """Two numbers as one of 32 bits that depends on all of theirs."""
        # Unsigned: of signed numbers LLVM may take it that their product does not overflow, and does.
        mixed = np.uint64(first) * np.uint64(MIX_FIRST) + np.uint64(second) * np.uint64(MIX_SECOND)
        return np.int64(mixed >> np.uint64(31) & np.uint64(0xFFFFFFFF))

    bit, bits_above, quotient, within = inlined(bit), inlined(bits_above), inlined(quotient), inlined(within)
    low_bits, mix = inlined(low_bits), inlined(mix)
else:

    def lowest_bit(word: int) -> int:
        return (word & -word).bit_length() - 1

    def unlikely(value: Any) -> Any:
        return value

    def pointer(address: int) -> int:
        raise NotImplementedError("addresses are for compiled code")

    def bit(n: Any) -> Any:
        return 1 << n

    def bits_above(word: Any, n: Any) -> Any:
        return word >> (n + 1) << (n + 1)

    def quotient(a: Any, b: Any) -> Any:
        return a // b

    def within(n: Any, count: Any) -> Any:
        return 0 <= n < count

    def low_bits(word: Any) -> Any:
        return int(word) & 0x7FFFFFFFFFFFFFFF

    def mix(first: Any, second: Any) -> Any:
        return first * MIX_FIRST + second * MIX_SECOND >> 31 & 0xFFFFFFFF


class Record:
    """One record of an array, with Python integers for fields: what interpreted kernels see."""

    __slots__ = ("_row",)

    def __init__(self, row: np.void) -> None:
        object.__setattr__(self, "_row", row)

    def __getattr__(self, name: str) -> Any:
        value = self._row[name]
        return value if isinstance(value, np.ndarray) else int(value)

    def __setattr__(self, name: str, value: int) -> None:
        self._row[name] = value


class Records:
    """An array for interpreted kernels: the same memory, with Python integers in and out, and bounds checked."""

    __slots__ = ("_array",)

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def _checked(self, index: Any) -> Any:
        if not all(0 <= i < n for i, n in zip(np.atleast_1d(index), self._array.shape, strict=False)):
            raise IndexError(f"index {index} of an array of shape {self._array.shape}")
        return index

    def __getitem__(self, index: Any) -> Any:
        value = self._array[self._checked(index)]
        return Record(value) if isinstance(value, np.void) else int(value)

    def __setitem__(self, index: Any, value: int) -> None:
        self._array[self._checked(index)] = value._row if isinstance(value, Record) else value

    def __len__(self) -> int:
        return len(self._array)

    def clear(self, index: int) -> None:
        """Set all of a row to zero."""
        self._array[self._checked(index)] = np.zeros((), self._array.dtype)
