"""What an account did, from events: a row for each side of a trade, and one for each order that is over.

Rows go straight into the rings of gateway/history.py. Each knows the row before it of the same account.
"""

import numpy as np

from engine.kernel import door, inlined, kernel
from engine.types import COMMAND, LISTING, SLOT_BITS, EventKind, Flag, Kind, OrdType

TEXT_WORDS = 10
TEXT_BYTES = 4 * TEXT_WORDS
"""Symbols and client's ids are copied as words."""
PPM = 1_000_000
SLOT_MASK = (1 << SLOT_BITS) - 1
NEW, TRADE, CANCELED, REPLACED, LISTED = (
    int(kind) for kind in (EventKind.NEW, EventKind.TRADE, EventKind.CANCELED, EventKind.REPLACED, EventKind.LISTED)
)
STOP, NEW_ORDER, AMEND, EXTENDED = int(OrdType.STOP), int(Kind.NEW_ORDER), int(Kind.AMEND), int(Flag.EXTENDED)
POST, SHOWN_FLAGS = 1, int(Flag.SLIDE | Flag.REDUCE_ONLY)
NO_ROW = -1

_ROW = [
    ("seq", "<i8"),
    ("prev", "<i8"),  # the number of the account's row before, NO_ROW for none
    ("ts_ns", "<i8"),
    ("order_id", "<i8"),
    ("account", "<i4"),
    ("price", "<i4"),
    ("qty", "<i4"),
    ("left", "<i4"),
    ("cum", "<i4"),
    ("side", "u1"),
    ("flag", "u1"),  # of a fill: 1 for the maker; of an order: its type
    ("tif", "u1"),
    ("post", "u1"),
    ("tick_micros", "<i8"),
    ("symbol", f"S{TEXT_BYTES}"),
    ("cid", f"S{TEXT_BYTES}"),
]
FILL = np.dtype([*_ROW, ("fee_micros", "<i8"), ("fee_due_micros", "<i8")])
_ORDER = [*_ROW, ("done_ns", "<i8"), ("reason", "<u2"), ("flags", "<u2"), ("stop_price", "<i4")]
ORDER = np.dtype([*_ORDER, ("expire_ns", "<i8"), ("show", "<i4"), ("pad", "<u4")])
OLD_ORDER = np.dtype(_ORDER)
"""As it was without the last; its flags were zero."""
_OPEN = [
    ("order_id", "<i8"), ("ts_ns", "<i8"), ("type", "u1"), ("tif", "u1"), ("post", "u1"), ("side", "u1"),
    ("account", "<i4"), ("instrument", "<i4"), ("price", "<i4"), ("qty", "<i4"), ("cid", f"S{TEXT_BYTES}"),
]  # fmt: skip
_WITH_STOPS = [*_OPEN, ("stop_price", "<i4")]
OPEN = np.dtype([*_WITH_STOPS, ("expire_ns", "<i8"), ("show", "<i4"), ("flags", "<u2")])
"""What is known of an order while it works."""
OLDER_OPEN = np.dtype(_OPEN), np.dtype(_WITH_STOPS)
"""The same in older snapshots."""
TERMS = np.dtype(
    [("symbol", f"S{TEXT_BYTES}"), ("tick_micros", "<i8"), ("lot_tick_micros", "<i8"), ("rebate_ppm", "<i8")]
)
"""Of an instrument, as it was listed; all zero where it was not."""


def in_words(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """The same record with its texts as arrays of words, for compiled code."""
    fields = [(name, dtype[name]) for name in dtype.names or ()]
    return np.dtype([(name, ("<i4", (TEXT_WORDS,)) if of.itemsize == TEXT_BYTES else of) for name, of in fields])


COMMAND_WORDS, LISTING_WORDS, FILL_WORDS, ORDER_WORDS, OPEN_WORDS, TERMS_WORDS = (
    in_words(dtype) for dtype in (COMMAND, LISTING, FILL, ORDER, OPEN, TERMS)
)


@door
def needs(events, slots, accounts, instruments):
    """How many rows of orders, accounts and instruments these events need, at least as many as there are."""
    for row in range(len(events)):
        e = events[row]
        if e.kind == LISTED:
            instruments = max(instruments, e.instrument + 1)
        elif e.kind == NEW or e.kind == TRADE or e.kind == CANCELED:
            accounts = max(accounts, e.account + 1)
            instruments = max(instruments, e.instrument + 1)
            if e.kind == NEW:
                slots = max(slots, (e.order_id & SLOT_MASK) + 1)
            elif e.kind == TRADE:
                accounts = max(accounts, e.contra_account + 1)
    return slots, accounts, instruments


@inlined
def copy_text(into, text):
    for word in range(TEXT_WORDS):
        into[word] = text[word]


@inlined
def find(open_orders, order_id):
    """The row of an order that works, or -1: it is from before our history begins."""
    slot = order_id & SLOT_MASK
    return slot if slot < len(open_orders) and open_orders[slot].order_id == order_id else -1


@kernel
def enter(open_orders, e, c):
    """An order was accepted; it is of the command `c`."""
    o = open_orders[e.order_id & SLOT_MASK]
    o.order_id, o.ts_ns, o.account, o.instrument = e.order_id, e.ts_ns, e.account, e.instrument
    o.side, o.price, o.qty = e.side, e.price, e.qty
    o.type, o.tif, o.post = c.ord_type, c.time_in_force, c.flags & POST
    o.flags = c.flags & SHOWN_FLAGS
    is_order = c.kind == NEW_ORDER
    o.stop_price = c.stop_price if c.ord_type >= STOP and is_order else 0
    has_more = c.flags & EXTENDED != 0 and is_order
    o.show, o.expire_ns = (c.show_qty, c.expire_ns) if has_more else (0, 0)
    copy_text(o.cid, c.cl_ord_id)


@kernel
def replace(open_orders, e, c):
    """An order was changed, by the command `c` or by something that came with it."""
    at = find(open_orders, e.order_id)
    if at < 0:
        return
    o = open_orders[at]
    o.price, o.qty = e.price, e.qty
    if c.kind == AMEND and c.flags & EXTENDED != 0 and c.stop_price > 0:
        o.stop_price = c.stop_price


@inlined
def link(r, last, account, number):
    r.account, r.prev = account, last[account]
    last[account] = number


@inlined
def name(r, t):
    r.tick_micros = t.tick_micros
    copy_text(r.symbol, t.symbol)


@inlined
def describe(r, o, t):
    """What an order and its instrument are, into a row."""
    r.side, r.tif, r.post = o.side, o.tif, o.post
    copy_text(r.cid, o.cid)
    name(r, t)


@kernel
def blank(r, t):
    """The same of an order of which nothing is known."""
    r.side, r.tif, r.post = 0, 0, 0
    for word in range(TEXT_WORDS):
        r.cid[word] = 0
    name(r, t)


@kernel
def put_fill(open_orders, terms, fills, last, number, e, is_maker):
    """One side of a trade; the row of its order, or -1."""
    order_id = e.contra_order_id if is_maker else e.order_id
    at = find(open_orders, order_id)
    r, t = fills[number % len(fills)], terms[e.instrument]
    link(r, last, e.contra_account if is_maker else e.account, number)
    if at >= 0:
        describe(r, open_orders[at], t)
    else:
        blank(r, t)
    r.seq, r.ts_ns, r.order_id, r.price, r.qty = e.seq, e.ts_ns, order_id, e.price, e.qty
    r.flag, r.side = is_maker, e.side ^ is_maker  # the event's is the taker's
    r.left = e.contra_leaves_qty if is_maker else e.leaves_qty
    r.cum = e.contra_cum_qty if is_maker else e.cum_qty
    notional = np.int64(e.price) * t.lot_tick_micros * np.int64(e.qty)
    r.fee_micros = -(notional * t.rebate_ppm // PPM) if is_maker else e.fee_micros
    r.fee_due_micros = 0 if is_maker else e.fee_due_micros
    return at


@kernel
def put_order(open_orders, terms, orders, last, number, at, e, cum, qty, reason):
    """An order is over."""
    o = open_orders[at]
    r = orders[number % len(orders)]
    link(r, last, o.account, number)
    describe(r, o, terms[o.instrument])
    r.seq, r.done_ns, r.order_id, r.ts_ns = e.seq, e.ts_ns, o.order_id, o.ts_ns
    r.flag, r.price, r.stop_price = o.type, o.price, o.stop_price
    r.flags, r.show, r.expire_ns = o.flags, o.show, o.expire_ns
    r.left, r.cum, r.qty, r.reason = 0, cum, qty, reason
    o.order_id = 0


@kernel
def put_terms(t, listing):
    t.tick_micros, t.lot_tick_micros, t.rebate_ppm = (
        listing.tick_micros, listing.lot_tick_micros, np.int64(listing.maker_rebate_ppm),
    )  # fmt: skip
    copy_text(t.symbol, listing.symbol)


@door
def follow_past(commands, listings, events, open_orders, terms, fills, last_fill, orders, last_order, counts):
    """Put what events (EVENT) of commands (COMMAND, and the same as LISTING) made behind the rows that are there.

    `counts` is how many fills and orders there ever were; row n stands at n modulo the ring's length.
    """
    at = 0
    for row in range(len(events)):
        e = events[row]
        kind = e.kind
        if kind == TRADE:
            for is_maker in range(2):
                found = put_fill(open_orders, terms, fills, last_fill, counts[0], e, is_maker)
                counts[0] += 1
                left, cum = (e.contra_leaves_qty, e.contra_cum_qty) if is_maker else (e.leaves_qty, e.cum_qty)
                if left == 0 and found >= 0:
                    put_order(open_orders, terms, orders, last_order, counts[1], found, e, cum, cum, 0)
                    counts[1] += 1
        elif kind == CANCELED:
            found = find(open_orders, e.order_id)
            if found >= 0:
                put_order(open_orders, terms, orders, last_order, counts[1], found, e, e.cum_qty, e.qty, e.reason)
                counts[1] += 1
        elif kind == NEW or kind == REPLACED or kind == LISTED:
            while commands[at].seq < e.command_seq:
                at += 1
            if kind == NEW:
                enter(open_orders, e, commands[at])
            elif kind == REPLACED:
                replace(open_orders, e, commands[at])
            else:
                put_terms(terms[e.instrument], listings[at])
