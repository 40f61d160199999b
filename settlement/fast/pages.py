"""Transfers as text, and back: `[seq,leg,debit,credit,asset,amount,code,listing]`, with commas between.

So a ledger's file can be read with any tool, and a row costs a twentieth of a microsecond.
"""

import numpy as np

from engine.digits import eight_digits
from engine.kernel import door, inlined, lowest_bit
from settlement.fast.text import EIGHT, MINUS, ONE, TEN, THREE, ZERO, U, put_number

NUMBERS = 8
ROW_BYTES = NUMBERS * 21 + 2
"""No row is longer: twenty characters each, what is between them, and a comma behind."""
OPEN, CLOSE, COMMA = (np.uint8(ord(character)) for character in "[],")
DIGITS = np.uint8(10)
TEN_8, TEN_16 = U(10**8), U(10**16)
ZEROS, LAST_DIGIT = U(0x3030303030303030), U(1 << 56)


@inlined
def put_digits(out, at, word, skipped):
    """Eight digits but the first `skipped`; as many bytes of `out` as those may be changed behind them."""
    word = (word | ZEROS) >> (skipped << THREE)
    for place in range(8):
        out[at + U(place)] = np.uint8(word >> U(8 * place))
    return at + EIGHT - skipped


@inlined
def put_short(out, at, number):
    """A number below 10^8, without a branch: how long each is cannot be foreseen."""
    word = U(eight_digits(np.int64(number)))
    return put_digits(out, at, word, U(lowest_bit(word | LAST_DIGIT)) >> THREE)


@inlined
def put_any(out, at, value):
    """A whole number."""
    number = U(value)
    if number < TEN_8:
        return put_short(out, at, number)
    if number < TEN_16:
        at = put_short(out, at, number // TEN_8)
        return put_digits(out, at, U(eight_digits(np.int64(number % TEN_8))), U(0))
    return put_number(out, at, value)


@door
def write_rows(rows, out, ends):
    """Write rows of numbers, a comma behind each; where each ends goes into `ends`. `out` has room for ROW_BYTES each."""
    at = U(0)
    for number in range(len(rows)):
        out[at] = OPEN
        at += ONE
        for place in range(NUMBERS):
            at = put_any(out, at, rows[number, place])
            out[at] = COMMA
            at += ONE
        out[at - ONE] = CLOSE
        out[at] = COMMA
        at += ONE
        ends[number] = at


@door
def read_rows(text, numbers):
    """The numbers in a text, whatever stands between them; how many there are. No more than fit are read."""
    found, value, is_number, is_negative = 0, U(0), False, False
    for place in range(len(text)):
        digit = np.uint8(text[place] - ZERO)
        if digit < DIGITS:
            value = value * TEN + U(digit)
            is_number = True
        else:
            if is_number and found < len(numbers):
                numbers[found] = np.int64(U(0) - value) if is_negative else np.int64(value)
                found += 1
            value, is_number, is_negative = U(0), False, text[place] == MINUS
    return found


@door
def first_unfit(rows):
    """The first row that cannot be a transfer behind the one before, -1 for none.

    It moves something to another account, and legs rise within a command, and commands.
    """
    for number in range(len(rows)):
        if rows[number, 5] <= 0 or rows[number, 2] == rows[number, 3]:
            return number
        if number:
            step = rows[number, 0] - rows[number - 1, 0]
            if step < 0 or (step == 0 and rows[number, 1] <= rows[number - 1, 1]):
                return number
    return -1
