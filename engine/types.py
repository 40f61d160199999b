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
        ("reserved", "<u8", (4,)),
    ]
)
"""Orders, cancels and amends; also the head of every other command."""

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
        ("pad", "<i4"),
        ("symbol", "<u8", (ID_WORDS,)),
        ("reserved", "<u8", (2,)),
    ]
)
"""A contract as it was listed; the terms hold for the life of the book."""

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

For the other kinds `held_micros` is the signed change of what the account's orders reserve.
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
        ("reserved", "<i8"),
    ]
)
"""Movements of cash, capacity, escrow and bonds outside a trade. Changes are signed and sum to the external flow."""

assert COMMAND.fields["ref"][1] == TRANSFER.fields["ref"][1] == LISTING.fields["ref"][1] == 64  # type: ignore[index]
assert COMMAND.itemsize == TRANSFER.itemsize == LISTING.itemsize == 192
assert EVENT.itemsize == MONEY.itemsize == 128


class Kind(IntEnum):
    """What a command asks for. The body it reads is in brackets."""

    NEW_ORDER = 1  # [COMMAND]
    CANCEL = 2  # [COMMAND] order_id
    AMEND = 3  # [COMMAND] order_id, price, qty: the new total, fills included; UNCHANGED leaves either as it is
    MASS_CANCEL = 4  # [COMMAND] account; instrument (0: any), side (ANY_SIDE: both) and session (0: any) narrow it
    OPEN_ACCOUNT = 16  # [TRANSFER] account: the next free number; external_id: its name
    DEPOSIT = 17  # [TRANSFER] amount_micros, external_id
    WITHDRAW = 18  # [TRANSFER] amount_micros, external_id
    NOMINATE = 19  # [TRANSFER] lots: certified capacity added, bond taken
    LIST = 32  # [LISTING] instrument: a free number
    CLOSE = 33  # [COMMAND] gate closure of one instrument
    DELIVER = 34  # [TRANSFER] account: provider, contra_account: receiver, lots, refund and damages
    DELIST = 35  # [COMMAND] a closed instrument in which nobody has a position
    CLOSE_CYCLE = 36  # [COMMAND] the settlement cycle ends with this command
    TICK = 37  # [COMMAND] the clock moved on


class EventKind(IntEnum):
    """What happened. The body is in brackets."""

    REJECTED = 1  # [EVENT] reason; nothing changed
    NEW = 2  # [EVENT] accepted, before any fill: leaves_qty = qty, held_micros reserved
    TRADE = 3  # [EVENT] side: the taker's
    CANCELED = 4  # [EVENT] reason: why; leaves_qty: what was cancelled, qty: the order's total; held_micros <= 0
    REPLACED = 5  # [EVENT] price, qty: the new total, leaves_qty before any fill; reason: KEPT or LOST priority
    ACCOUNT_OPENED = 16  # [MONEY]
    DEPOSITED = 17  # [MONEY]
    WITHDRAWN = 18  # [MONEY]
    NOMINATED = 19  # [MONEY] lots: capacity added
    LISTED = 32  # [EVENT]
    CLOSED = 33  # [EVENT]
    DELIVERY_DUE = 34  # [MONEY] lots: signed net position at the gate; escrow and fees_due: what stands, not a change
    BOND_RELEASED = 35  # [MONEY] at the gate, to a provider with nothing to deliver
    DELIVERED = 36  # [MONEY] account: provider, contra_account: receiver
    DELISTED = 37  # [EVENT]
    REBATE_PAID = 38  # [MONEY]
    CYCLE_CLOSED = 39  # [MONEY] lots: the number of the cycle, from 1; amount_micros: 0


class Side(IntEnum):
    BUY = 0
    SELL = 1


ANY_SIDE = 255
UNCHANGED = -1


class OrdType(IntEnum):
    LIMIT = 0
    MARKET = 1


class TimeInForce(IntEnum):
    GTG = 0  # good till gate, the default
    GTC = 1  # the gate closes these too: an hour that has passed cannot be traded
    IOC = 2
    FOK = 3


class Flag(IntEnum):
    """Bits of COMMAND.flags."""

    POST_ONLY = 1  # NEW_ORDER: refuse it rather than trade at once
    REQUEUE = 2  # AMEND: go to the end of the queue in any case


class Status(IntEnum):
    """State of an instrument."""

    NONE = 0  # the number is free
    CONTINUOUS = 1
    CLOSED = 2  # past its gate, being delivered


class Reason(IntEnum):
    """Why. Those from 1001 up are the wire's error codes (docs/protocol.md)."""

    NONE = 0
    # Of CANCELED
    BY_REQUEST = 1
    UNFILLED = 2  # the rest of an IOC or market order
    GATE_CLOSED = 3
    MASS_CANCELED = 4
    # Of REPLACED
    KEPT = 16
    LOST = 17

    UNKNOWN_KIND = 1002
    BAD_FIELD = 1003
    UNKNOWN_SYMBOL = 2101
    MARKET_NOT_OPEN = 2102
    POST_ONLY_WOULD_TAKE = 2103
    BAD_PRICE = 2104
    BAD_QTY = 2105
    POSITION_LIMIT = 2108
    BAD_TIF = 2109
    TOO_MANY_OPEN_ORDERS = 2110
    ORDER_NOT_FOUND = 2111
    AMEND_NOT_ALLOWED = 2112
    FOK_NOT_FILLABLE = 2113
    RISK_LIMIT = 2114
    INSUFFICIENT_FUNDS = 2115
    INSUFFICIENT_CAPACITY = 2120
    UNKNOWN_ACCOUNT = 2201
    ACCOUNT_EXISTS = 2202
    INSTRUMENT_EXISTS = 2203
    NOT_CLOSED = 2204
    NOT_FLAT = 2205
    BAD_AMOUNT = 2206
    BAD_DELIVERY = 2207
    BAD_LISTING = 2208
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
MAX_PRICE_TICKS = 64**3 - 1
"""What the price trie of three 64-way levels can hold."""
SLOT_BITS = 24
"""Low bits of an order id that say where the order lies; the bits above count the orders that have lain there."""
MAX_GENERATION = 2 ** (53 - SLOT_BITS) - 1
"""Keeps order ids below 2^53, so that JavaScript can read them. A slot that reaches it is retired."""
