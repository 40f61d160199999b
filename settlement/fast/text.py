"""The entries of a statement as lines of text, CSV or JSON, one behind the other in a buffer of bytes.

A cycle of a million trades has six million entries in the files of thousands of accounts. A line is always the same
pieces in the same order, and only the words between them differ between the forms; both are written at once, so that
each number is worked out once. Which
words those are, and what an entry is, is said in `settlement/statements.py`; this only copies and counts.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernel import door, inlined, kernel
from settlement.fast.sides import MONEY_SLOTS

U: type[np.uint64] = np.uint64
"""Places and digits are unsigned: of an index that may be negative numba makes a test for each byte, and of a signed and
an unsigned number together a float."""
ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT, TEN, HUNDRED = (U(n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 100))
NINETEEN = U(19)
U = np.uint64
"""Places and digits are unsigned: of an index that may be negative numba makes a test for each byte, and of a signed and
an unsigned number together a float."""
ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT, TEN, HUNDRED = (U(n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 100))
NINETEEN = U(19)
NS, US_NS, MICROS = U(1_000_000_000), U(1_000), U(1_000_000)
DAY_S, HOUR_S, MINUTE_S = U(86_400), U(3_600), U(60)
ERA_DAYS, ERA_YEARS, YEAR_DAYS, LEAP_DAYS, CENTURY_DAYS = U(146_097), U(400), U(365), U(1_460), U(36_524)
MARCH_0000_DAYS = U(719_468)  # days from 0000-03-01 to 1970-01-01
FIVE_MONTHS_DAYS = U(153)  # from March on, of any five months
ZERO = ord("0")
MINUS, POINT, DASH, COLON, TIME_MARK, ZONE_MARK = (np.uint8(ord(character)) for character in "-.-:TZ")
PAIRS = np.array([ZERO + number // 10 + (ZERO + number % 10 << 8) for number in range(100)], np.uint16)
"""Two digits each, the first in the lower byte."""
BETWEEN, CODES = 11, 256
NO_LISTING, BETWEEN_LINES, FIRST_CODE = U(9), U(10), U(BETWEEN)
TIME_BYTES = U(27)
PLACES = 11
NUMBER_BYTES = 20
MONEY_BYTES = 22


class Form(NamedTuple):
    """The words of one form of a line: text n is `data[starts[n] : starts[n + 1]]`.

    In one table, because the counting of references to ten arrays would take longer than copying what they hold. First
    the words between: before seq, leg, time and the balance; behind the symbol, the listing, the code, the amount and
    the running balance; in the place of a listing that there is none of; between two lines. Then the codes' names; then,
    for each slot, balance and unit; then the symbols.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.uint64]
    first_slot: int
    first_name: int

    @classmethod
    def of(cls, between: list[str], codes: list[str], balances: list[str], names: list[str]) -> "Form":
        """There are BETWEEN of the first and CODES of the second."""
        parts = [text.encode() for text in (*between, *codes, *balances, *names)]
        starts = np.cumsum([0, *(len(part) for part in parts)], dtype=np.uint64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), starts, BETWEEN + CODES, BETWEEN + CODES + len(balances))

    @property
    def line_bytes(self) -> int:
        """No line is longer."""
        sizes, borders = np.diff(self.starts.astype(np.int64)), (BETWEEN, self.first_slot, self.first_name)
        words = int(sizes[:BETWEEN].sum()) + sum(int(part.max(initial=0)) for part in np.split(sizes, borders)[1:])
        return words + int(TIME_BYTES) + 3 * NUMBER_BYTES + 2 * MONEY_BYTES


@inlined
def put_number(out, at, value):
    """Write a whole number; returns where it ends, as all of these do."""
    rest = U(value)
    if value < 0:
        out[at] = MINUS
        at += ONE
        rest = U(0) - rest
    size, bound = ONE, TEN
    while size < NINETEEN and rest >= bound:
        size += ONE
        bound *= TEN
    return put_padded(out, at, rest, size)


@inlined
def put_padded(out, at, rest, size):
    """A number from zero up, with zeros in front, two digits at a time."""
    place = at + size
    while place > at + ONE:
        place -= TWO
        pair = PAIRS[rest % HUNDRED]
        rest //= HUNDRED
        out[place] = np.uint8(pair)
        out[place + ONE] = np.uint8(pair >> np.uint16(8))
    if place > at:
        out[at] = np.uint8(PAIRS[rest % TEN] >> np.uint16(8))
    return at + size


@inlined
def put_money(out, at, micros):
    """With its six decimals, all of them."""
    rest = U(micros)
    if micros < 0:
        out[at] = MINUS
        at += ONE
        rest = U(0) - rest
    at = put_number(out, at, np.int64(rest // MICROS))
    out[at] = POINT
    return put_padded(out, at + ONE, rest % MICROS, SIX)


@inlined
def put_amount(out, at, amount, is_money):
    return put_money(out, at, amount) if is_money else put_number(out, at, amount)


@inlined
def put_word(out, at, data, starts, number):
    start, stop = starts[number], starts[number + ONE]
    for place in range(start, stop):
        out[at + (place - start)] = data[place]
    return at + (stop - start)


@kernel
def put_date(out, at, days):
    """A day since 1970 in the Gregorian calendar. Years are counted from March, so that a leap day ends one."""
    days += MARCH_0000_DAYS
    era, day = days // ERA_DAYS, days % ERA_DAYS
    year = (day - day // LEAP_DAYS + day // CENTURY_DAYS - day // (ERA_DAYS - ONE)) // YEAR_DAYS
    day -= YEAR_DAYS * year + year // FOUR - year // HUNDRED
    month = (FIVE * day + TWO) // FIVE_MONTHS_DAYS
    day -= (FIVE_MONTHS_DAYS * month + TWO) // FIVE
    year += era * ERA_YEARS
    month += THREE
    if month > U(12):
        month -= U(12)
        year += ONE
    at = put_padded(out, at, year, FOUR)
    out[at] = DASH
    at = put_padded(out, at + ONE, month, TWO)
    out[at] = DASH
    return put_padded(out, at + ONE, day + ONE, TWO)


@kernel
def put_time(out, at, ts_ns):
    """UTC with microseconds; what is finer is cut."""
    second, rest = ts_ns // NS, ts_ns % NS
    at = put_date(out, at, second // DAY_S)
    second %= DAY_S
    out[at] = TIME_MARK
    at = put_padded(out, at + ONE, second // HOUR_S, TWO)
    out[at] = COLON
    second %= HOUR_S
    at = put_padded(out, at + ONE, second // MINUTE_S, TWO)
    out[at] = COLON
    at = put_padded(out, at + ONE, second % MINUTE_S, TWO)
    out[at] = POINT
    at = put_padded(out, at + ONE, rest // US_NS, SIX)
    out[at] = ZONE_MARK
    return at + ONE


@inlined
def put_again(out, at, said, start, stop):
    """What another text says in one of its places."""
    for place in range(start, stop):
        out[at + (place - start)] = said[place]
    return at + (stop - start)


@inlined
def put_csv(out, at, data, starts, e, words, balance, places):
    """The line of an entry (ENTRY) as CSV; `places`: where each of its numbers begins and ends."""
    slot, name, is_money = words
    places[0] = put_word(out, at, data, starts, U(0))
    places[1] = put_number(out, places[0], e.seq)
    places[2] = put_word(out, places[1], data, starts, ONE)
    places[3] = put_number(out, places[2], np.int64(e.leg))
    places[4] = put_word(out, places[3], data, starts, TWO)
    at = put_time(out, places[4], U(e.ts_ns))
    at = put_word(out, at, data, starts, THREE)
    at = put_word(out, at, data, starts, slot)
    at = put_word(out, at, data, starts, name)
    places[5] = put_word(out, at, data, starts, FOUR)
    if e.listing:
        places[6] = put_number(out, places[5], e.listing)
    else:
        places[6] = put_word(out, places[5], data, starts, NO_LISTING)
    at = put_word(out, places[6], data, starts, FIVE)
    at = put_word(out, at, data, starts, U(e.code) + FIRST_CODE)
    places[7] = put_word(out, at, data, starts, SIX)
    places[8] = put_amount(out, places[7], e.amount, is_money)
    places[9] = put_word(out, places[8], data, starts, SEVEN)
    places[10] = put_amount(out, places[9], balance, is_money)
    return put_word(out, places[10], data, starts, EIGHT)


@inlined
def put_json(out, at, data, starts, e, words, said, places):
    """The same as a JSON object; its numbers are those that the CSV line said."""
    slot, name, _ = words
    at = put_word(out, at, data, starts, U(0))
    at = put_again(out, at, said, places[0], places[1])
    at = put_word(out, at, data, starts, ONE)
    at = put_again(out, at, said, places[2], places[3])
    at = put_word(out, at, data, starts, TWO)
    at = put_again(out, at, said, places[4], places[4] + TIME_BYTES)
    at = put_word(out, at, data, starts, THREE)
    at = put_word(out, at, data, starts, slot)
    at = put_word(out, at, data, starts, name)
    at = put_word(out, at, data, starts, FOUR)
    if e.listing:
        at = put_again(out, at, said, places[5], places[6])
    else:
        at = put_word(out, at, data, starts, NO_LISTING)
    at = put_word(out, at, data, starts, FIVE)
    at = put_word(out, at, data, starts, U(e.code) + FIRST_CODE)
    at = put_word(out, at, data, starts, SIX)
    at = put_again(out, at, said, places[7], places[8])
    at = put_word(out, at, data, starts, SEVEN)
    at = put_again(out, at, said, places[9], places[10])
    return put_word(out, at, data, starts, EIGHT)


@door
def write_lines(entries, is_first, running, csv, csv_form, json, json_form, sizes):
    """Write the lines of entries (ENTRY), which move `running`, a balance for each slot, as CSV and as JSON.

    `is_first`: nothing stands before them. Both buffers must have room for as many of their form's longest lines; how much
    of it is used goes into `sizes`.
    """
    csv_data, csv_starts, first_slot, first_name = csv_form
    json_data, json_starts, _, _ = json_form
    at, json_at, places = U(0), U(0), np.zeros(PLACES, np.uint64)
    for number in range(len(entries)):
        e = entries[number]
        running[e.slot] += e.amount
        words = U(e.slot + first_slot), U(e.name + first_name), e.slot < MONEY_SLOTS
        if number or not is_first:
            at = put_word(csv, at, csv_data, csv_starts, BETWEEN_LINES)
            json_at = put_word(json, json_at, json_data, json_starts, BETWEEN_LINES)
        at = put_csv(csv, at, csv_data, csv_starts, e, words, running[e.slot], places)
        json_at = put_json(json, json_at, json_data, json_starts, e, words, csv, places)
    sizes[0], sizes[1] = at, json_at
