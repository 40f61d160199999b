"""The words everyone shares: record layouts, codes and limits.

Two kinds of record travel through the exchange, both of fixed size and without padding, so that a batch is one array
and an array is its own file format:

- a COMMAND (192 bytes) asks for a change. Whatever changes the state is a command in the log, time included.
- an EVENT (128 bytes) says what happened. The engine numbers events without gaps.

Each has a common head, then a body. Three bodies share the bytes of a command and two those of an event; the `kind`
in the head says which one to read. `commands.view(LISTING)` is the same memory with other names.

Units are the last word of a name: `_micros` is 10^-6 of the settlement stablecoin, `_ns` nanoseconds since the epoch,
`_s` seconds, `_ppm` parts per million, `_lots` contracts. A price without a unit is in ticks and a quantity in lots.
"""

from enum import IntEnum

import numpy as np

ID_WORDS = 5
"""A client order id, a symbol or a transaction reference: 40 bytes, NUL padded, as five little-endian words."""

_COMMAND_HEAD = [
    ("seq", "<i8"),  # place in the log, from 1, without gaps; the log assigns it
    ("ts_ns", "<i8"),  # when the node took the command in; never falls
    ("session", "<i4"),
    ("group", "<i4"),
    ("kind", "u1"),
    ("side", "u1"),
    ("ord_type", "u1"),
    ("time_in_force", "u1"),
    ("flags", "<u4"),
    ("account", "<i4"),
    ("instrument", "<i4"),
]
# A body's first 24 bytes end the first cache line: all that a plain limit order or a cancel needs. Then, in every body:
_REF = ("ref", "<i8")
"""The sender's own number for the request, 0 for none; the engine does not read it."""

COMMAND = np.dtype(
    [
        *_COMMAND_HEAD,
        ("order_id", "<i8"),
        ("price", "<i8"),
        ("qty", "<i8"),
        _REF,
        ("stop_price", "<i8"),
        ("show_qty", "<i8"),
        ("min_qty", "<i8"),
        ("expire_ns", "<i8"),
        ("deadline_ns", "<i8"),
        ("tag", "<i8"),
        ("cl_ord_id", "<u8", (ID_WORDS,)),
        ("stp_group", "<i4"),
        ("pad", "<i4"),
        ("reserved", "<u8", (3,)),
    ]
)
"""Orders, cancels and amends; also the head of every other command.

Of a NEW_ORDER and an AMEND the fields behind `qty` are read only with Flag.EXTENDED; without it they count as zero.
"""

TRANSFER = np.dtype(
    [
        *_COMMAND_HEAD,
        ("contra_account", "<i4"),
        ("asset", "<i4"),
        ("lots", "<i8"),
        ("amount_micros", "<i8"),
        _REF,
        ("refund_micros", "<i8"),
        ("damages_micros", "<i8"),
        ("external_id", "<u8", (ID_WORDS,)),
        ("reserved", "<u8", (8,)),
    ]
)
"""Accounts, deposits, withdrawals, nominations and deliveries."""

LISTING = np.dtype(
    [
        *_COMMAND_HEAD,
        ("class_id", "<i4"),
        ("region_id", "<i4"),
        ("gpus_per_lot", "<i4"),
        ("hours", "<i4"),
        ("start_s", "<i8"),  # first second of delivery, UTC
        _REF,
        ("tick_micros", "<i8"),  # a tick, per GPU-hour
        ("lot_tick_micros", "<i8"),  # a tick, per lot: tick_micros * gpus_per_lot * hours
        ("max_price", "<i8"),
        ("reference_price", "<i8"),
        ("open_ns", "<i8"),
        ("gate_ns", "<i8"),  # last trade strictly before
        ("taker_fee_ppm", "<i4"),
        ("maker_rebate_ppm", "<i4"),
        ("bond_ppm", "<i4"),
        ("band_ppm", "<i4"),  # how far from reference_price an order's price may be; 0: anywhere up to max_price
        ("symbol", "<u8", (ID_WORDS,)),
        ("collar_ppm", "<i4"),  # how far from the best price a market order may trade; 0: anywhere in the band
        ("dynamic_ppm", "<i4"),  # how far from the last trade it may trade without an auction; 0: anywhere
        ("reserved", "<u8", (1,)),
    ]
)
"""A contract as it was listed; the terms hold for the life of the book, but for those that SET_BAND changes."""

HEAD = np.dtype(
    [
        ("seq", "<i8"),
        ("ts_ns", "<i8"),
        ("session", "<i4"),
        ("group", "<i4"),
        ("terms", "<u8"),  # kind, side, ord_type, time_in_force and flags, from the lowest byte up
        ("rest", "<u8", (20,)),
    ]
)
"""The head of any command with its codes as one word: a single test tells a plain limit order from all others."""

_EVENT_HEAD = [
    ("seq", "<i8"),  # the engine's, from 1, without gaps
    ("command_seq", "<i8"),  # the command that caused it
    ("ts_ns", "<i8"),  # transact_time: the ts_ns of that command
    ("kind", "u1"),
    ("side", "u1"),
    ("reason", "<u2"),
    ("instrument", "<i4"),
    ("account", "<i4"),
    ("contra_account", "<i4"),
]

EVENT = np.dtype(
    [
        *_EVENT_HEAD,
        ("order_id", "<i8"),
        ("contra_order_id", "<i8"),
        ("price", "<i4"),
        ("qty", "<i4"),
        ("leaves_qty", "<i4"),
        ("cum_qty", "<i4"),
        ("contra_leaves_qty", "<i4"),
        ("contra_cum_qty", "<i4"),
        ("held_micros", "<i8"),
        ("fee_micros", "<i8"),
        ("fee_due_micros", "<i8"),
        ("escrow_micros", "<i8"),
        ("released_micros", "<i8"),
        ("due_paid_micros", "<i8"),
    ]
)
"""What happened to an order, or a trade. In a trade the taker owns the plain fields, the maker those named `contra_`.

The money of a trade with notional N = price * lot_tick_micros * qty, all amounts from zero up:

- `held_micros`: what the buyer's order no longer reserves; it paid N, and the fee when it was the taker, the rest is free again.
- `fee_micros`: the taker's whole fee. `fee_due_micros`: the part of it that is deferred until payout (the taker sold short).
- `escrow_micros`: the part of N put in the seller's escrow; the rest went to its cash.
- `released_micros`: escrow given back to a buyer that narrowed a short; `due_paid_micros` of it went to the house.

For the other kinds `held_micros` is the signed change of what the account's orders reserve, and some `contra_` fields
have a meaning of their own (docs/engine.md, "Events"): in NEW and REPLACED `contra_leaves_qty` is what an iceberg shows.
"""

MONEY = np.dtype(
    [
        *_EVENT_HEAD,
        ("lots", "<i8"),
        ("amount_micros", "<i8"),  # change of the account's cash
        ("contra_amount_micros", "<i8"),  # change of the contra account's cash
        ("escrow_micros", "<i8"),  # change of the account's escrow
        ("bond_micros", "<i8"),  # change of the account's bond
        ("fees_micros", "<i8"),  # change of the house's fees
        ("fees_due_micros", "<i8"),  # change of the fees the account owes on its short sales
        ("refund_micros", "<i8"),  # of contra_amount: escrow returned
        ("damages_micros", "<i8"),  # of contra_amount: paid by the provider
        ("shortfall_micros", "<i8"),  # owed by the provider and found neither in pay nor in bond
        ("frozen_micros", "<i8"),  # change of what liens keep of the account
    ]
)
"""Movements of cash, capacity, escrow and bonds outside a trade. Changes are signed and sum to the external flow."""

assert COMMAND.fields["ref"][1] == TRANSFER.fields["ref"][1] == LISTING.fields["ref"][1] == 64  # type: ignore[index]
assert COMMAND.itemsize == TRANSFER.itemsize == LISTING.itemsize == HEAD.itemsize == 192
assert HEAD.fields["terms"][1] == COMMAND.fields["kind"][1]  # type: ignore[index]
assert EVENT.itemsize == MONEY.itemsize == 128


class Kind(IntEnum):
    """What a command asks for. The body it reads is in brackets."""

    NEW_ORDER = 1  # [COMMAND]
    CANCEL = 2  # [COMMAND] order_id
    AMEND = 3  # [COMMAND] order_id, price, qty: the new total, fills included; UNCHANGED leaves either as it is
    MASS_CANCEL = 4  # [COMMAND] account; instrument, session, tag, group (0: any) and side (ANY_SIDE: both) narrow it
    EXPIRE = 5  # [COMMAND] account, order_id: its expire_ns has come
    QUOTE = 6  # [COMMAND] a level of a ladder: account, instrument, side, group, tag (its number), price, qty (0: none)
    CANCEL_AFTER = 7  # [COMMAND] account, tag (0: all): cancel its orders at expire_ns (0: never)
    DEAD_MAN = 8  # [COMMAND] account, tag: that time has come
    SET_MMP = (
        9  # [COMMAND] account, group, expire_ns: window, qty: lots, show_qty: fills, deadline_ns: freeze; 0, 0: none
    )
    RESET_MMP = 10  # [COMMAND] account, group: quotes are taken again
    OPEN_ACCOUNT = 16  # [TRANSFER] account: the next free number; external_id: its name
    DEPOSIT = 17  # [TRANSFER] amount_micros, external_id
    WITHDRAW = 18  # [TRANSFER] amount_micros, external_id
    NOMINATE = 19  # [TRANSFER] lots: certified capacity added, bond taken
    LOCK = 20  # [COMMAND] account: all its orders are cancelled, new ones refused
    UNLOCK = 21  # [COMMAND] account
    SET_LIMITS = 22  # [COMMAND] account; most qty: of an order, price: lots net, tag: open orders; 0: as for all
    PAYOUT = 24  # [TRANSFER] what a withdrawal to a chain set aside has left for good
    LIST = 32  # [LISTING] instrument: a free number
    CLOSE = 33  # [COMMAND] gate closure of one instrument
    DELIVER = 34  # [TRANSFER] account: provider, contra_account: receiver, lots, refund and damages
    DELIST = 35  # [COMMAND] a closed instrument in which nobody has a position
    CLOSE_CYCLE = 36  # [COMMAND] the settlement cycle ends with this command
    TICK = 37  # [COMMAND] the clock moved on
    SET_STATUS = 38  # [COMMAND] instrument, qty: the Status
    SET_BAND = 39  # [LISTING] instrument, reference_price, band_ppm, collar_ppm, dynamic_ppm
    INDICATE = 40  # [COMMAND] instrument: say at what price an auction would trade now
    HALT_ALL = 41  # [COMMAND] nothing but cancels until RESUME_ALL
    RESUME_ALL = 42  # [COMMAND]
    TRANSFER = 48  # [TRANSFER] amount_micros of cash from account to contra_account
    LIEN = 49  # [TRANSFER] account, amount_micros: cash that nobody can use until the lien is lifted
    LIFT_LIEN = 50  # [TRANSFER] account, amount_micros: back to its cash, or paid to contra_account where that is not 0
    FREEZE = 51  # [TRANSFER] account, flags: 1 no money may leave it, 0 it may again
    ISSUE_SHARES = 52  # [TRANSFER] account: the pool, contra_account: the holder, lots: made, or, below 0, retired
    MOVE_SHARES = 53  # [TRANSFER] account: from, contra_account: to, asset: the pool's account, lots: shares


class EventKind(IntEnum):
    """What happened. The body is in brackets."""

    REJECTED = 1  # [EVENT] reason; nothing changed
    NEW = 2  # [EVENT] accepted, before any fill: leaves_qty = qty, held_micros reserved
    TRADE = 3  # [EVENT] side: the taker's
    CANCELED = 4  # [EVENT] reason: why; leaves_qty: what was cancelled, qty: the order's total; held_micros <= 0
    REPLACED = 5  # [EVENT] price, qty: the new total, leaves_qty before any fill; reason: KEPT or LOST priority
    TRIGGERED = 6  # [EVENT] a stop became an order, before any fill
    PREVENTED = 7  # [EVENT] a self-trade that did not happen: qty; reason: what is done instead
    REFRESHED = 8  # [EVENT] an iceberg shows qty anew, at the end of its level
    QUOTE_KEPT = 9  # [EVENT] a QUOTE that changed nothing
    DUPLICATE = 10  # [EVENT] a NEW_ORDER that was sent before; order_id: what came of it
    MMP_TRIGGERED = (
        11  # [EVENT] account, contra_account: the group; qty: lots, cum_qty: fills; contra_order_id: until_ns or 0
    )
    MMP_SET = (
        12  # [EVENT] account, contra_account: group; contra_order_id: window_ns, order_id: freeze_ns, qty, cum_qty
    )
    MMP_RESET = 13  # [EVENT] account, contra_account: the group
    DEAD_MAN_SET = 14  # [EVENT] account, order_id: the tag, contra_order_id: expire_ns, 0: none (any more)
    ACCOUNT_OPENED = 16  # [MONEY]
    DEPOSITED = 17  # [MONEY]
    WITHDRAWN = 18  # [MONEY]
    NOMINATED = 19  # [MONEY] lots: capacity added
    ACCOUNT_LOCKED = 20  # [EVENT] before its orders are cancelled
    ACCOUNT_UNLOCKED = 21  # [EVENT]
    LIMITS_SET = 22  # [EVENT] most qty: of an order, price: lots net, leaves_qty: open orders; 0: as for all
    PAID_OUT = 24  # [MONEY] amounts: 0, the cash left with WITHDRAWN
    LISTED = 32  # [EVENT]
    CLOSED = 33  # [EVENT]
    DELIVERY_DUE = 34  # [MONEY] lots: signed net position at the gate; escrow and fees_due: what stands, not a change
    BOND_RELEASED = 35  # [MONEY] at the gate, to a provider with nothing to deliver
    DELIVERED = 36  # [MONEY] account: provider, contra_account: receiver
    DELISTED = 37  # [EVENT]
    REBATE_PAID = 38  # [MONEY]
    CYCLE_CLOSED = 39  # [MONEY] lots: the number of the cycle, from 1; amount_micros: 0
    STATUS_CHANGED = 40  # [EVENT] qty: the new Status, cum_qty: the old; reason: BY_REQUEST or COLLAR
    BAND_SET = 41  # [EVENT] price: reference, qty: lowest, leaves_qty: highest, cum_qty and contra_leaves_qty: collars
    AUCTION_PRICE = 42  # [EVENT] price, qty: volume, leaves_qty: bids less offers; reason: AUCTION or INDICATIVE
    EXCHANGE_HALTED = 43  # [EVENT]
    EXCHANGE_RESUMED = 44  # [EVENT]
    TRANSFERRED = 48  # [MONEY]
    LIEN_TAKEN = 49  # [MONEY]
    LIEN_LIFTED = 50  # [MONEY] contra_account: who was paid, 0 for the account itself
    FROZEN = 51  # [MONEY] lots: 1 frozen, 0 no more
    SHARES_CHANGED = 52  # [MONEY] account: the holder, contra_account: the pool, lots: the change
    SPLIT_PAID = 53  # [MONEY] account: the pool, contra_account: the holder, lots: its shares


class Side(IntEnum):
    BUY = 0
    SELL = 1


ANY_SIDE = 255
UNCHANGED = -1


class OrdType(IntEnum):
    LIMIT = 0
    MARKET = 1
    STOP = 2  # waits for the last trade to reach stop_price, then trades what it can at once
    STOP_LIMIT = 3  # waits for the last trade to reach stop_price, then is a limit order


class TimeInForce(IntEnum):
    GTG = 0  # good till gate, the default
    GTC = 1  # the gate closes these too: an hour that has passed cannot be traded
    IOC = 2
    FOK = 3
    GTD = 4  # good till expire_ns


class Flag(IntEnum):
    """Bits of COMMAND.flags."""

    POST_ONLY = 1  # NEW_ORDER: refuse it rather than trade at once
    REQUEUE = 2  # AMEND: go to the end of the queue in any case
    SLIDE = 4  # NEW_ORDER: move the price one tick behind the other side rather than trade at once
    REDUCE_ONLY = 8  # NEW_ORDER: bring the net position nearer to zero, never beyond
    # What to do rather than trade with oneself (one of four, or none): bits 4 to 6, STP_MASK
    STP_EXPIRE_TAKER = 0x10
    STP_EXPIRE_MAKER = 0x20
    STP_EXPIRE_BOTH = 0x30
    STP_DECREMENT = 0x40
    EXTENDED = 0x100  # NEW_ORDER, AMEND: the fields behind qty are read too


STP_MASK = 0x70


class Status(IntEnum):
    """State of an instrument."""

    NONE = 0  # the number is free
    CONTINUOUS = 1
    CLOSED = 2  # past its gate, being delivered
    PRE_OPEN = 3  # orders are gathered, before open_ns too; then an auction
    AUCTION = 4  # orders are gathered; then an auction
    HALTED = 5  # an interruption: cancels only, an auction when it ends
    CANCEL_ONLY = 6  # the same by another name


class Reason(IntEnum):
    """Why. Those from 1001 up are the wire's error codes (docs/protocol.md)."""

    NONE = 0
    # Of CANCELED
    BY_REQUEST = 1
    UNFILLED = 2  # the rest of an IOC or market order
    GATE_CLOSED = 3
    MASS_CANCELED = 4
    EXPIRED = 5
    LOCKED_OUT = 6
    MMP = 7
    DEAD_MAN = 8
    NOTHING_TO_REDUCE = 9
    # Of REPLACED
    KEPT = 16
    LOST = 17
    # Of NEW: a stop that waits, in no book
    WAITING = 18
    # Of TRADE and AUCTION_PRICE
    AUCTION = 19
    INDICATIVE = 20
    # Of STATUS_CHANGED
    COLLAR = 21
    # Of PREVENTED
    EXPIRE_TAKER = 24
    EXPIRE_MAKER = 25
    EXPIRE_BOTH = 26
    DECREMENT = 27

    UNKNOWN_KIND = 1002
    BAD_FIELD = 1003
    UNKNOWN_SYMBOL = 2101
    MARKET_NOT_OPEN = 2102
    POST_ONLY_WOULD_TAKE = 2103
    BAD_PRICE = 2104
    BAD_QTY = 2105
    CID_REUSED_DIFFERENT = 2106
    LOCKED = 2107
    POSITION_LIMIT = 2108
    BAD_TIF = 2109
    TOO_MANY_OPEN_ORDERS = 2110
    ORDER_NOT_FOUND = 2111
    AMEND_NOT_ALLOWED = 2112
    FOK_NOT_FILLABLE = 2113
    RISK_LIMIT = 2114
    INSUFFICIENT_FUNDS = 2115
    MMP_FROZEN = 2116
    SELF_TRADE_PREVENTED = 2118
    DEADLINE_PASSED = 2119
    INSUFFICIENT_CAPACITY = 2120
    UNKNOWN_ACCOUNT = 2201
    ACCOUNT_EXISTS = 2202
    INSTRUMENT_EXISTS = 2203
    NOT_CLOSED = 2204
    NOT_FLAT = 2205
    BAD_AMOUNT = 2206
    BAD_DELIVERY = 2207
    BAD_LISTING = 2208
    ACCOUNT_FROZEN = 2209
    INSUFFICIENT_SHARES = 2210
    TOO_MANY_HOLDERS = 2211
    OVERLOADED = 3002


MAX_QTY = 1_000_000
"""Lots in one order, one nomination or one delivery."""
MAX_POSITION_LOTS = 1_000_000_000
"""Lots long, short, certified, or open on one side, for one account and instrument. The square fits in int64."""
MAX_LOT_VALUE_MICROS = 800_000_000
"""A lot at the highest price: 100 USD x 8 GPUs x 1 h. With MAX_POSITION_LOTS the largest escrow is 8e17."""
MAX_FEE_PPM = 10_000
"""MAX_QTY * MAX_LOT_VALUE_MICROS * MAX_FEE_PPM = 8e18 fits in int64."""
MAX_MONEY_MICROS = 1_000_000_000_000_000_000
"""Everything ever deposited, at the most: no sum of balances can wrap."""
LAST_ROUTE = 2
"""How a withdrawal to a chain leaves: its `flags`, from 0. What they mean is the affair of who pays it."""
MAX_BAND_PPM = 10_000_000
"""Of `band_ppm`, `collar_ppm` and `dynamic_ppm`: ten times the price."""
MAX_MMP_FILLS = 64
MAX_MMP_WINDOW_NS = 3_600_000_000_000
MAX_QUOTE_LEVEL = 65_535
CLIENT_ID_LIFE_NS = 86_400_000_000_000
"""How long a client order id is remembered at least, within the table's bound."""
MAX_SHARES = 1_000_000_000
"""Of a pool. The square fits in int64, so that a payout can be split exactly."""
MAX_HOLDERS = 1_000
"""Of a pool: a payout is split among them in one command."""
MAX_PRICE_TICKS = 64**3 - 1
"""What the price trie of three 64-way levels can hold."""
SLOT_BITS = 24
"""Low bits of an order id that say where the order lies; the bits above count the orders that have lain there."""
MAX_GENERATION = 2 ** (53 - SLOT_BITS) - 1
"""Keeps order ids below 2^53, so that JavaScript can read them. A slot that reaches it is retired."""
