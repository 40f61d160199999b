"""Requests read from the bytes of a message into rows of `requests`: the shapes that clients send, and nothing else.

Whatever is not of these shapes is declined, and msgspec reads it: escapes, nulls, unknown or repeated names, numbers that
are not plain, wrong types. What is taken here, msgspec reads as the same request; a test holds the two against each other.
JSON and MessagePack differ in their tokens only.
"""

from enum import IntEnum

import numpy as np

from engine.kernel import inlined, kernel
from engine.pointers import clear
from gateway.fast.moves import plain_letters, word_at
from gateway.fast.tables import ITEMS
from gateway.fast.write import JSON


class Op(IntEnum):
    """What is asked for."""

    PLACE = 1
    AMEND = 2
    CANCEL = 3
    BATCH = 4


class Token(IntEnum):
    """What a value is. The token's place, size and number are in `token`."""

    STRING = 1
    NUMBER = 2
    BOOL = 3
    ITEMS = 4


def _word(text: bytes) -> int:
    return int.from_bytes(text, "little")


PLACE, AMEND, CANCEL, BATCH = int(Op.PLACE), int(Op.AMEND), int(Op.CANCEL), int(Op.BATCH)
STRING, NUMBER, BOOL, ITEMS_TOKEN = int(Token.STRING), int(Token.NUMBER), int(Token.BOOL), int(Token.ITEMS)
OP, ID, SYM, SIDE, QTY, TYPE = (_word(name) for name in (b"op", b"id", b"sym", b"side", b"qty", b"type"))
PX, TIF, POST, CID, COD, OID, LIST = (_word(n) for n in (b"px", b"tif", b"post", b"cid", b"cod", b"oid", b"items"))
ORDER_PL, ORDER_AM, ORDER_CA = _word(b"order.pl"), _word(b"order.am"), _word(b"order.ca")
ORDER_BA, ACE, END, NCEL, TCH = _word(b"order.ba"), _word(b"ace"), _word(b"end"), _word(b"ncel"), _word(b"tch")
BUY, SELL, LIMIT, MARKET, REJECT = (_word(name) for name in (b"buy", b"sell", b"limit", b"market", b"reject"))
TAG, GROUP, STP, DEADLINE = (_word(name) for name in (b"tag", b"group", b"stp", b"deadline"))
STP_GROUP = _word(b"stp_grou")  # its last letter is looked at where the name is read
EXPIRE_T, EXPIRE_M, EXPIRE_B, DECREMEN = (_word(n) for n in (b"expire_t", b"expire_m", b"expire_b", b"decremen"))
AKER, OTH, T = _word(b"aker"), _word(b"oth"), _word(b"t")
GTG, GTC, IOC, FOK = (_word(name) for name in (b"gtg", b"gtc", b"ioc", b"fok"))
NOT_TAKEN = -1
W0, W1, W2, W3, W4 = (np.int64(k) for k in range(5))  # of numpy's: see follow.py
MAX_DIGITS, PRICE_DIGITS = 16, 15
MAX_NUMBER = 2**53
MAX_GROUP, MAX_STP_GROUP = 2**31 - 1, 127
IS_CID_LETTER = np.array([byte < 0x80 and (chr(byte).isalnum() or chr(byte) in "._:-") for byte in range(256)])
SPACE, TAB, NEWLINE, RETURN = 0x20, 0x09, 0x0A, 0x0D
QUOTE, COMMA, COLON, ZERO, NINE = 0x22, 0x2C, 0x3A, 0x30, 0x39
OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST = 0x7B, 0x7D, 0x5B, 0x5D


# --- Tokens -----------------------------------------------------------------------------------------------------------


@inlined
def skip_space(s, p, end):
    while p < end:
        letter = s.payload[p]
        if letter != SPACE and letter != NEWLINE and letter != RETURN and letter != TAB:
            break
        p += 1
    return p


@inlined
def expect(s, p, end, letter):
    """Behind the letter, with spaces around it; NOT_TAKEN when something else stands there."""
    p = skip_space(s, p, end)
    if p >= end or s.payload[p] != letter:
        return NOT_TAKEN
    return skip_space(s, p + 1, end)


@inlined
def packed(s, p, size):
    """Up to eight bytes as a number, the first the lowest; eight only of letters."""
    word = word_at(s.payload, p)
    return word if size == 8 else word & ((1 << (8 * size)) - 1)


@kernel
def json_string(s, p, end):
    """A string without escapes, in ASCII; `p` is behind its opening quote."""
    start = p
    plain = 8
    while plain == 8 and p < end:
        plain = plain_letters(word_at(s.payload, p))
        p += plain
    if p >= end or s.payload[p] != QUOTE:
        return NOT_TAKEN
    s.token[0] = STRING
    s.token[1] = start
    s.token[2] = p - start
    return p + 1


@kernel
def json_number(s, p, end):
    start = p
    value = 0
    while p < end and ZERO <= s.payload[p] <= NINE:
        value = value * 10 + (s.payload[p] - ZERO)
        p += 1
        if p - start > MAX_DIGITS:
            return NOT_TAKEN
    size = p - start
    if size == 0 or (size > 1 and s.payload[start] == ZERO) or p >= end:
        return NOT_TAKEN
    letter = s.payload[p]
    if letter == 0x2E or letter == 0x65 or letter == 0x45:  # . e E
        return NOT_TAKEN
    if value > MAX_NUMBER:
        return NOT_TAKEN
    s.token[0] = NUMBER
    s.token[3] = value
    return p


@kernel
def json_value(s, p, end):
    if p >= end:
        return NOT_TAKEN
    letter = s.payload[p]
    if letter == QUOTE:
        return json_string(s, p + 1, end)
    if letter == OPEN_LIST:
        s.token[0] = ITEMS_TOKEN
        return p
    if p + 4 <= end and packed(s, p, 4) == 0x65757274:  # true
        s.token[0] = BOOL
        s.token[3] = 1
        return p + 4
    if p + 5 <= end and packed(s, p, 5) == 0x65736C6166:  # false
        s.token[0] = BOOL
        s.token[3] = 0
        return p + 5
    return json_number(s, p, end)


@inlined
def big(s, p, size):
    value = 0
    for k in range(size):
        value = value << 8 | s.payload[p + k]
    return value


@kernel
def packed_string(s, p, end, size):
    if p + size > end:
        return NOT_TAKEN
    for k in range(0, size, 8):
        if plain_letters(word_at(s.payload, p + k)) < min(8, size - k):
            return NOT_TAKEN
    s.token[0] = STRING
    s.token[1] = p
    s.token[2] = size
    return p + size


@kernel
def msgpack_value(s, p, end):
    if p >= end:
        return NOT_TAKEN
    first = s.payload[p]
    if first < 0x80:
        s.token[0] = NUMBER
        s.token[3] = first
        return p + 1
    if 0xA0 <= first < 0xC0:
        return packed_string(s, p + 1, end, first & 0x1F)
    if first == 0xC2 or first == 0xC3:
        s.token[0] = BOOL
        s.token[3] = first & 1
        return p + 1
    if 0xCC <= first <= 0xCF:
        size = 1 << (first - 0xCC)
        if p + 1 + size > end:
            return NOT_TAKEN
        value = big(s, p + 1, size)
        if value < 0 or value > MAX_NUMBER:
            return NOT_TAKEN
        s.token[0] = NUMBER
        s.token[3] = value
        return p + 1 + size
    if first == 0xD9 and p + 2 <= end:
        return packed_string(s, p + 2, end, s.payload[p + 1])
    if 0x90 <= first <= 0x9F or first == 0xDC:
        s.token[0] = ITEMS_TOKEN
        return p
    return NOT_TAKEN


# --- Fields -----------------------------------------------------------------------------------------------------------


@kernel
def read_op(s, r):
    at, size = s.token[1], s.token[2]
    if r.has_op or s.token[0] != STRING or size < 11 or size > 12:
        return False
    r.has_op = 1
    head = packed(s, at, 8)
    rest = packed(s, at + 8, size - 8)
    if head == ORDER_PL and rest == ACE:
        r.op = PLACE
    elif head == ORDER_AM and rest == END:
        r.op = AMEND
    elif head == ORDER_CA and rest == NCEL:
        r.op = CANCEL
    elif head == ORDER_BA and rest == TCH:
        r.op = BATCH
    else:
        return False
    return True


@inlined
def text_word(s, at, size, k):
    return packed(s, at + 8 * k, min(8, size - 8 * k)) if size > 8 * k else 0


@kernel
def read_symbol(s, r):
    at, size = s.token[1], s.token[2]
    if r.has_sym or s.token[0] != STRING or size > 40:
        return False
    r.has_sym = 1
    r.s0 = text_word(s, at, size, W0)
    r.s1 = text_word(s, at, size, W1)
    r.s2 = text_word(s, at, size, W2)
    r.s3 = text_word(s, at, size, W3)
    r.s4 = text_word(s, at, size, W4)
    return True


@kernel
def read_cid(s, r):
    at, size = s.token[1], s.token[2]
    if r.has_cid or s.token[0] != STRING or size < 1 or size > 36:
        return False
    for k in range(size):
        if not IS_CID_LETTER[s.payload[at + k]]:
            return False
    r.has_cid = 1
    r.c0 = text_word(s, at, size, W0)
    r.c1 = text_word(s, at, size, W1)
    r.c2 = text_word(s, at, size, W2)
    r.c3 = text_word(s, at, size, W3)
    r.c4 = text_word(s, at, size, W4)
    return True


@kernel
def read_price(s, r, wire):
    if r.has_px:
        return False
    r.has_px = 1
    if wire != JSON:
        r.px = s.token[3]
        return s.token[0] == NUMBER
    at, size = s.token[1], s.token[2]
    if s.token[0] != STRING or size < 1 or size > PRICE_DIGITS:
        return False
    value, decimals, point = 0, 0, False
    for k in range(size):
        letter = s.payload[at + k]
        if letter == 0x2E and not point and 0 < k < size - 1:
            point = True
        elif ZERO <= letter <= NINE:
            value = value * 10 + (letter - ZERO)
            if point:
                decimals += 1
        else:
            return False
    if decimals > 6 or size > 9 + decimals:
        return False
    while decimals < 6:
        value *= 10
        decimals += 1
    r.px = value
    return True


@kernel
def read_word(s, key, r):
    """side, type, tif, post."""
    size = s.token[2]
    if s.token[0] != STRING or size > 8:
        return False
    word = packed(s, s.token[1], size)
    if key == SIDE and not r.has_side:
        r.has_side = 1
        r.side = 1 if word == SELL else 0
        return word == BUY or word == SELL
    if key == TYPE and not r.has_type:
        r.has_type = 1
        r.ord_type = 1 if word == MARKET else 0
        return word == LIMIT or word == MARKET
    if key == TIF and not r.has_tif:
        r.has_tif = 1
        r.time_in_force = 3 if word == FOK else 2 if word == IOC else 1 if word == GTC else 0
        return word == GTG or word == GTC or word == IOC or word == FOK
    if key == POST and not r.has_post:
        r.has_post = 1
        return word == REJECT
    return False


@kernel
def read_stp(s, r):
    at, size = s.token[1], s.token[2]
    if r.has_stp or s.token[0] != STRING or size < 9 or size > 12:
        return False
    r.has_stp = 1
    head = packed(s, at, 8)
    rest = packed(s, at + 8, size - 8)
    if head == EXPIRE_T and rest == AKER:
        r.stp = 1
    elif head == EXPIRE_M and rest == AKER:
        r.stp = 2
    elif head == EXPIRE_B and rest == OTH:
        r.stp = 3
    elif head == DECREMEN and rest == T:
        r.stp = 4
    return r.stp != 0


@kernel
def read_label(s, key, r):
    """tag, group, stp_group, deadline."""
    value = s.token[3]
    if value < 1:
        return False
    if key == TAG and not r.has_tag:
        r.has_tag = 1
        r.tag = value
        return True
    if key == GROUP and not r.has_group:
        r.has_group = 1
        r.group = value
        return value <= MAX_GROUP
    if key == STP_GROUP and not r.has_stp_group:
        r.has_stp_group = 1
        r.stp_group = value
        return value <= MAX_STP_GROUP
    if key == DEADLINE and not r.has_deadline:
        r.has_deadline = 1
        r.deadline = value
        return True
    return False


@kernel
def read_field(s, key, r, wire):
    """Take the token as the value of a name; False when it does not fit."""
    if key == OP:
        return read_op(s, r)
    if key == SYM:
        return read_symbol(s, r)
    if key == CID:
        return read_cid(s, r)
    if key == PX:
        return read_price(s, r, wire)
    if key == COD:
        if r.has_cod or s.token[0] != BOOL:
            return False
        r.has_cod = 1
        r.cod = s.token[3]
        return True
    if key == STP:
        return read_stp(s, r)
    if s.token[0] != NUMBER:
        return read_word(s, key, r)
    if key == ID and not r.has_id:
        r.has_id = 1
        r.id = s.token[3]
        return True
    if key == QTY and not r.has_qty:
        r.has_qty = 1
        r.qty = s.token[3]
        return True
    if key == OID and not r.has_oid:
        r.has_oid = 1
        r.oid = s.token[3]
        return True
    return read_label(s, key, r)


# --- Objects ----------------------------------------------------------------------------------------------------------


@inlined
def read_value(s, p, end, wire):
    return json_value(s, p, end) if wire == JSON else msgpack_value(s, p, end)


@kernel
def read_key(s, p, end, wire):
    """The name of a field, in token[4]; where its value begins."""
    if wire == JSON:
        p = expect(s, p, end, QUOTE)
        # A name has no space in front, but `expect` would skip it.
        if p == NOT_TAKEN or s.payload[p - 1] != QUOTE:
            return NOT_TAKEN
        p = json_string(s, p, end)
    else:
        p = msgpack_value(s, p, end)
    if p == NOT_TAKEN or s.token[0] != STRING or s.token[2] > 9:
        return NOT_TAKEN
    s.token[4] = packed(s, s.token[1], min(8, s.token[2]))
    if (s.token[2] == 9) != (s.token[4] == STP_GROUP) or (s.token[2] == 9 and s.payload[s.token[1] + 8] != 0x70):
        return NOT_TAKEN
    return expect(s, p, end, COLON) if wire == JSON else p


@kernel
def open_object(s, p, end, wire):
    """Behind the beginning of an object; token[5] is how many fields it has, in MessagePack."""
    if wire == JSON:
        s.token[5] = 1
        return expect(s, p, end, OPEN_OBJECT)
    if p < end and 0x80 <= s.payload[p] <= 0x8F:
        s.token[5] = s.payload[p] & 0x0F
        return p + 1
    return NOT_TAKEN


@inlined
def next_field(s, p, end, wire):
    """Behind a field: the next one, or the end of the object, which makes token[5] zero."""
    if wire != JSON:
        s.token[5] -= 1
        return p
    p = skip_space(s, p, end)
    if p >= end:
        return NOT_TAKEN
    if s.payload[p] == CLOSE_OBJECT:
        s.token[5] = 0
    elif s.payload[p] != COMMA:
        return NOT_TAKEN
    return p + 1


@kernel
def read_flat(s, p, end, row, wire):
    """An object without a list in it."""
    r = s.requests[row]
    clear(s.requests, row)
    p = open_object(s, p, end, wire)
    while p != NOT_TAKEN and s.token[5]:
        p = read_key(s, p, end, wire)
        if p == NOT_TAKEN:
            break
        p = read_value(s, p, end, wire)
        if p == NOT_TAKEN or s.token[0] == ITEMS_TOKEN or not read_field(s, s.token[4], r, wire):
            return NOT_TAKEN
        p = next_field(s, p, end, wire)
    return p


@kernel
def read_items(s, p, end, wire):
    """A list of objects, into the rows from 1 on; token[6] is how many."""
    count = 0
    if wire != JSON:
        count = s.payload[p] & 0x0F
        p += 1
        if s.payload[p - 1] == 0xDC:
            if p + 2 > end:
                return NOT_TAKEN
            count = big(s, p, 2)
            p += 2
        if count > ITEMS:
            return NOT_TAKEN
        for k in range(count):
            p = read_flat(s, p, end, k + 1, wire)
            if p == NOT_TAKEN:
                return p
        s.token[6] = count
        return p
    p = skip_space(s, p + 1, end)
    while count < ITEMS:
        count += 1
        p = read_flat(s, p, end, count, wire)
        if p == NOT_TAKEN:
            return p
        p = skip_space(s, p, end)
        if p >= end:
            return NOT_TAKEN
        if s.payload[p] == CLOSE_LIST:
            s.token[6] = count
            return p + 1
        if s.payload[p] != COMMA:
            return NOT_TAKEN
        p = skip_space(s, p + 1, end)
    return NOT_TAKEN


@kernel
def read_message(s, end, wire):
    """The message in payload[:end]: a request in row 0, and the items of a batch in those behind. How many, -1: declined."""
    r = s.requests[0]
    clear(s.requests, 0)
    items = -1
    p = open_object(s, 0, end, wire)
    while p != NOT_TAKEN and s.token[5]:
        p = read_key(s, p, end, wire)
        if p == NOT_TAKEN:
            return -1
        key = s.token[4]
        p = read_value(s, p, end, wire)
        if p == NOT_TAKEN:
            return -1
        if key == LIST and s.token[0] == ITEMS_TOKEN and items < 0:
            fields = s.token[5]
            p = read_items(s, p, end, wire)
            s.token[5] = fields
            items = s.token[6]
        elif s.token[0] == ITEMS_TOKEN or not read_field(s, key, r, wire):
            return -1
        if p != NOT_TAKEN:
            p = next_field(s, p, end, wire)
    if p == NOT_TAKEN or (skip_space(s, p, end) if wire == JSON else p) != end:
        return -1
    if not r.has_op or not r.has_id or (r.op == BATCH) != (items >= 0):
        return -1
    return max(items, 0)
