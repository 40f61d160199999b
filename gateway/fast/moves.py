"""Many bytes at once: moved from table to table, and looked at in one word.

numba has names for none of it, and LLVM makes none of it of a loop over bytes that may overlap for all it knows.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.kernel import JIT, inlined, lowest_bit

BLOCK = 16
"""Bytes that `move_block` moves in one load and one store."""
QUOTE, BACKSLASH = 0x22, 0x5C

if JIT:

    def _place(context: Any, builder: Any, rows: Any, pair: Any, at: Any) -> Any:
        """A pointer to a byte of a table of bytes."""
        address = cgutils.create_struct_proxy(rows)(context, builder, value=pair).address
        return builder.inttoptr(builder.add(address, at), cgutils.voidptr_t)

    @intrinsic
    def move_block(typingctx: Any, into: Any, at: Any, source: Any, start: Any) -> Any:
        """into[at : at + BLOCK] = source[start : start + BLOCK]."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            block = ir.VectorType(ir.IntType(8), BLOCK).as_pointer()
            places = [_place(context, builder, sig.args[n], args[n], args[n + 1]) for n in (0, 2)]
            target, origin = (builder.bitcast(place, block) for place in places)
            builder.store(builder.load(origin, align=1), target, align=1)
            return context.get_dummy_value()

        return types.void(into, types.intp, source, types.intp), generate

    @intrinsic
    def move(typingctx: Any, into: Any, at: Any, source: Any, start: Any, size: Any) -> Any:
        """into[at : at + size] = source[start : start + size], of two tables that do not overlap."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            target, origin = (_place(context, builder, sig.args[n], args[n], args[n + 1]) for n in (0, 2))
            cgutils.raw_memcpy(builder, target, origin, args[4], 1)
            return context.get_dummy_value()

        return types.void(into, types.intp, source, types.intp, types.intp), generate

    @intrinsic
    def bytes_of(typingctx: Any, word: Any) -> Any:
        """How many bytes a word has up to its last one that is not zero; the first is the lowest."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            size = args[0].type
            unused = builder.ctlz(args[0], cgutils.false_bit)
            return builder.lshr(builder.sub(size(71), unused), size(3))

        return types.int64(types.int64), generate

    @intrinsic
    def word_at(typingctx: Any, rows: Any, at: Any) -> Any:
        """The eight bytes rows[at : at + 8] as a number, the first the lowest."""

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = _place(context, builder, sig.args[0], *args)
            return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

        return types.int64(rows, types.intp), generate

    def plain_letters(word: Any) -> Any:
        """How many bytes of a word, from the lowest on, are letters that JSON writes as they are."""
        ones, tops = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
        word = np.uint64(word)
        low = word & ~tops
        # The top bit of each byte says what is asked of it; nothing is carried from one to the next.
        printed = low + np.uint64(0x60) * ones
        deleted = low + ones
        no_quote = (low ^ np.uint64(QUOTE) * ones) + np.uint64(0x7F) * ones
        no_backslash = (low ^ np.uint64(BACKSLASH) * ones) + np.uint64(0x7F) * ones
        odd = (word | deleted | ~(printed & no_quote & no_backslash)) & tops
        return lowest_bit(odd) >> 3 if odd else 8

    plain_letters = inlined(plain_letters)
else:

    def move_block(into: Any, at: int, source: Any, start: int) -> None:
        move(into, at, source, start, BLOCK)

    def move(into: Any, at: int, source: Any, start: int, size: int) -> None:
        into._array[at : at + size] = source._array[start : start + size]

    def bytes_of(word: int) -> int:
        return (word.bit_length() + 7) >> 3

    def word_at(rows: Any, at: int) -> int:
        return int.from_bytes(rows._array[at : at + 8].tobytes(), "little", signed=True)

    def plain_letters(word: Any) -> Any:
        letters = (word & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
        odd = [not 0x20 <= one <= 0x7E or one in {QUOTE, BACKSLASH} for one in letters]
        return [*odd, True].index(True)
