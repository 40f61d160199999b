"""Messages written from templates, and websocket frames around them, straight into the send buffer."""

from engine.digits import eight_digits
from engine.kernel import inlined, kernel, lowest_bit, quotient
from engine.types import ID_WORDS
from gateway.fast.moves import BLOCK, bytes_of, move_block
from gateway.fast.templates import Hole

MICROS = 1_000_000
EIGHT_DIGITS, ZEROS = 100_000_000, 0x3030_3030_3030_3030
JSON = 0
QUOTE, MINUS, POINT = 0x22, 0x2D, 0x2E
INT, MONEY, TEXT, CID = int(Hole.INT), int(Hole.MONEY), int(Hole.TEXT), int(Hole.CID)
PHRASE, BOOL, SCRATCH = int(Hole.PHRASE), int(Hole.BOOL), int(Hole.SCRATCH)
HEADER = 4
"""Bytes left in front of a payload for its frame's header; a large one is moved."""
SHORT = 126
"""Payloads below it have a header of two bytes."""


@inlined
def put_literal(s, at, literal, size):
    # Whole blocks; what follows is written over the end of the last one.
    for k in range(0, size, BLOCK):
        move_block(s.out, at + k, s.literals, literal + k)
    return at + size


@inlined
def put_word(s, at, word):
    """Eight bytes, the lowest first; LLVM makes one store of them."""
    for k in range(8):
        s.out[at + k] = (word >> (8 * k)) & 0xFF


@inlined
def put_short(s, at, value):
    """A value below 100,000,000, in decimal."""
    digits = eight_digits(value)
    leading = lowest_bit(digits | 1 << 56) >> 3  # zeros in front; the last digit is written in any case
    put_word(s, at, (digits + ZEROS) >> (8 * leading))
    return at + 8 - leading


@kernel
def put_digits(s, at, value):
    """A value from zero up, in decimal."""
    if value < EIGHT_DIGITS:
        return put_short(s, at, value)
    high = quotient(value, EIGHT_DIGITS)
    if high < EIGHT_DIGITS:
        at = put_short(s, at, high)
    else:
        highest = quotient(high, EIGHT_DIGITS)
        at = put_short(s, at, highest)
        put_word(s, at, eight_digits(high - EIGHT_DIGITS * highest) + ZEROS)
        at += 8
    put_word(s, at, eight_digits(value - EIGHT_DIGITS * high) + ZEROS)
    return at + 8


@kernel
def put_amount(s, at, micros):
    """Money as text, without quotes: the shortest decimal."""
    if micros < 0:
        s.out[at] = MINUS
        at += 1
        micros = -micros
    whole = quotient(micros, MICROS)
    at = put_digits(s, at, whole)
    rest = micros - MICROS * whole
    if rest:
        digits = eight_digits(100 * rest)
        s.out[at] = POINT
        put_word(s, at + 1, digits + ZEROS)
        at += 1 + bytes_of(digits)
    return at


@inlined
def put_big(s, at, value, size):
    for k in range(size):
        s.out[at + k] = (value >> (8 * (size - 1 - k))) & 0xFF
    return at + size


@kernel
def put_packed(s, at, value):
    """An integer in MessagePack: the shortest form, as msgspec writes it."""
    if value >= 0:
        if value < 0x80:
            s.out[at] = value
            return at + 1
        if value < 0x100:
            s.out[at] = 0xCC
            return put_big(s, at + 1, value, 1)
        if value < 0x1_0000:
            s.out[at] = 0xCD
            return put_big(s, at + 1, value, 2)
        if value < 0x1_0000_0000:
            s.out[at] = 0xCE
            return put_big(s, at + 1, value, 4)
        s.out[at] = 0xCF
        return put_big(s, at + 1, value, 8)
    if value >= -0x20:
        s.out[at] = value & 0xFF
        return at + 1
    if value >= -0x80:
        s.out[at] = 0xD0
        return put_big(s, at + 1, value, 1)
    if value >= -0x8000:
        s.out[at] = 0xD1
        return put_big(s, at + 1, value, 2)
    if value >= -0x8000_0000:
        s.out[at] = 0xD2
        return put_big(s, at + 1, value, 4)
    s.out[at] = 0xD3
    return put_big(s, at + 1, value, 8)


@inlined
def put_int(s, at, value, wire):
    if wire != JSON:
        return put_packed(s, at, value)
    if value < 0:
        s.out[at] = MINUS
        return put_digits(s, at + 1, -value)
    return put_digits(s, at, value)


@inlined
def put_money(s, at, value, wire):
    if wire != JSON:
        return put_packed(s, at, value)
    s.out[at] = QUOTE
    at = put_amount(s, at + 1, value)
    s.out[at] = QUOTE
    return at + 1


@inlined
def put_string_head(s, at, size, wire):
    if wire == JSON:
        s.out[at] = QUOTE
        return at + 1
    if size < 32:
        s.out[at] = 0xA0 | size
        return at + 1
    s.out[at] = 0xD9
    s.out[at + 1] = size
    return at + 2


@inlined
def put_string_end(s, at, wire):
    if wire != JSON:
        return at
    s.out[at] = QUOTE
    return at + 1


@kernel
def put_text(s, at, row, wire):
    """The text in a row of `texts`; it has only characters that need no escape."""
    words = 0
    while words < ID_WORDS and s.texts[row, words] >> 56:
        words += 1
    size = 8 * words + (bytes_of(s.texts[row, words]) if words < ID_WORDS else 0)
    at = put_string_head(s, at, size, wire)
    # Whole words here too.
    for k in range((size + 7) >> 3):
        put_word(s, at + 8 * k, s.texts[row, k])
    return put_string_end(s, at + size, wire)


@inlined
def put_cid(s, at, row, wire):
    if s.texts[row, 0]:
        return put_text(s, at, row, wire)
    if wire != JSON:
        s.out[at] = 0xC0
        return at + 1
    s.out[at] = 0x6E  # null
    s.out[at + 1] = 0x75
    s.out[at + 2] = 0x6C
    s.out[at + 3] = 0x6C
    return at + 4


@inlined
def put_bool(s, at, value, wire):
    if wire != JSON:
        s.out[at] = 0xC3 if value else 0xC2
        return at + 1
    if value:
        s.out[at] = 0x74  # true
        s.out[at + 1] = 0x72
        s.out[at + 2] = 0x75
    else:
        s.out[at] = 0x66  # false
        s.out[at + 1] = 0x61
        s.out[at + 2] = 0x6C
        s.out[at + 3] = 0x73
        at += 1
    s.out[at + 3] = 0x65
    return at + 4


@inlined
def put_phrase(s, at, number, wire):
    return put_literal(s, at, s.phrases[number, 2 * wire], s.phrases[number, 2 * wire + 1])


@kernel
def put_scratch(s, at, size, wire):
    at = put_string_head(s, at, size, wire)
    for k in range(size):
        s.out[at + k] = s.scratch[k]
    return put_string_end(s, at + size, wire)


@kernel
def put(s, at, template, wire, until):
    """A message from its template and s.holes, up to the hole of kind `until`, which is not filled (0: to the end)."""
    number = s.templates[template, wire]
    while True:
        op = s.ops[number]
        at = put_literal(s, at, op.literal, op.size)
        kind = op.kind
        if kind == until or kind == 0:
            return at
        value = s.holes[op.value]
        if kind == INT:
            at = put_int(s, at, value, wire)
        elif kind == MONEY:
            at = put_money(s, at, value, wire)
        elif kind == PHRASE:
            at = put_phrase(s, at, value, wire)
        elif kind == TEXT:
            at = put_text(s, at, op.value, wire)
        elif kind == CID:
            at = put_cid(s, at, op.value, wire)
        elif kind == BOOL:
            at = put_bool(s, at, value, wire)
        else:
            at = put_scratch(s, at, value, wire)
        number += 1


@kernel
def put_end(s, at, template, wire):
    """What stands behind the last hole of a template."""
    number = s.templates[template, wire]
    while s.ops[number].kind:
        number += 1
    return put_literal(s, at, s.ops[number].literal, s.ops[number].size)


@kernel
def framed(s, start, end, wire):
    """Put a header in front of the payload that stands HEADER bytes behind `start`; where the frame ends.

    It begins at `frame_start`.
    """
    size = end - start - HEADER
    first = 0x81 if wire == JSON else 0x82
    if size < SHORT:
        s.out[start + 2] = first
        s.out[start + 3] = size
        return end
    s.out[start] = first
    if size < 65_536:
        s.out[start + 1] = 126
        put_big(s, start + 2, size, 2)
        return end
    for k in range(size - 1, -1, -1):
        s.out[start + 10 + k] = s.out[start + HEADER + k]
    s.out[start + 1] = 127
    put_big(s, start + 2, size, 8)
    return start + 10 + size


@inlined
def frame_start(start, end):
    """Where a frame begins that `framed` has made: in front of a small one two bytes are left over."""
    return start + 2 if end - start < HEADER + SHORT else start
