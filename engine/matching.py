"""Plain orders in plain books: new, cancel, amend; price-time priority. Rules: docs/engine.md.

A command is checked to the end before it changes anything. Then an order takes its slot and its hold, is matched as taker
if its price reaches the other side, and rests with what is left. Whatever asks for more is SPECIAL: engine/orders.py.
"""

import numpy as np

from engine.book import free_slot, has_leaf, has_nodes, join, key_of, leave, level_of, next_key, take_slot
from engine.clearing import find_position, hold_micros, make_position, reserve, trade
from engine.kernel import inlined, kernel, unlikely, within
from engine.pointers import clear, clear_second_line
from engine.state import FIRST_SPECIAL, NIL, NO_KEY
from engine.types import (
    MAX_POSITION_LOTS,
    MAX_QTY,
    SLOT_BITS,
    UNCHANGED,
    EventKind,
    Flag,
    Kind,
    OrdType,
    Reason,
    Side,
    Status,
    TimeInForce,
)

BUY = int(Side.BUY)
NEW_ORDER = np.uint64(Kind.NEW_ORDER)
PLAIN_MASK = np.uint64(0xFFFFFFFF_FE_FF_FE_FF)
"""Of a HEAD's terms all but the side and the difference between GTG and GTC: a plain order's are NEW_ORDER alone."""
POST_ONLY, REQUEUE = int(Flag.POST_ONLY), int(Flag.REQUEUE)
LIMIT, MARKET = int(OrdType.LIMIT), int(OrdType.MARKET)
GTC, IOC, FOK = int(TimeInForce.GTC), int(TimeInForce.IOC), int(TimeInForce.FOK)
CONTINUOUS = int(Status.CONTINUOUS)
NONE = int(Reason.NONE)
SPECIAL = -1_000
"""Returned instead of a reason: nothing has changed, and the command is for engine/orders.py."""
BY_REQUEST, UNFILLED, MASS_CANCELED = int(Reason.BY_REQUEST), int(Reason.UNFILLED), int(Reason.MASS_CANCELED)
KEPT, LOST = int(Reason.KEPT), int(Reason.LOST)
UNKNOWN_ACCOUNT, UNKNOWN_SYMBOL = int(Reason.UNKNOWN_ACCOUNT), int(Reason.UNKNOWN_SYMBOL)
MARKET_NOT_OPEN, BAD_FIELD, BAD_TIF = int(Reason.MARKET_NOT_OPEN), int(Reason.BAD_FIELD), int(Reason.BAD_TIF)
BAD_QTY, BAD_PRICE = int(Reason.BAD_QTY), int(Reason.BAD_PRICE)
TOO_MANY_OPEN_ORDERS, OVERLOADED = int(Reason.TOO_MANY_OPEN_ORDERS), int(Reason.OVERLOADED)
POST_ONLY_WOULD_TAKE, FOK_NOT_FILLABLE = int(Reason.POST_ONLY_WOULD_TAKE), int(Reason.FOK_NOT_FILLABLE)
POSITION_LIMIT, INSUFFICIENT_CAPACITY = int(Reason.POSITION_LIMIT), int(Reason.INSUFFICIENT_CAPACITY)
INSUFFICIENT_FUNDS, ORDER_NOT_FOUND = int(Reason.INSUFFICIENT_FUNDS), int(Reason.ORDER_NOT_FOUND)
EV_REJECTED, EV_NEW, EV_TRADE = int(EventKind.REJECTED), int(EventKind.NEW), int(EventKind.TRADE)
EV_CANCELED, EV_REPLACED = int(EventKind.CANCELED), int(EventKind.REPLACED)


@inlined
def next_event(s, command, kind):
    """The number, in the batch, of a new event: its head filled in, its body zero."""
    h = s.header[0]
    before = h.event_seq
    number = before - s.batch[0].first_event_seq
    h.event_seq = before + 1
    clear(s.events, number)
    e = s.events[number]
    e.seq = before + 1
    e.command_seq = command.seq
    e.ts_ns = command.ts_ns
    e.kind = kind
    return number


@inlined
def order_event(s, command, kind, reason, side_index, account, order_id, price, qty):
    """`next_event` for what happens to an order, each byte of the first cache line written once."""
    h = s.header[0]
    before = h.event_seq
    h.event_seq = before + 1
    number = before - s.batch[0].first_event_seq
    clear_second_line(s.events, number)
    e = s.events[number]
    e.seq = before + 1
    e.command_seq = command.seq
    e.ts_ns = command.ts_ns
    e.kind = kind
    e.side = side_index & 1
    e.reason = reason
    e.instrument = side_index >> 1
    e.account = account
    e.contra_account = 0
    e.order_id = order_id
    e.contra_order_id = 0
    e.price = price
    e.qty = qty
    return number


@kernel
def reject(s, command, side, order_id, reason):
    """Say why nothing happened."""
    e = s.events[next_event(s, command, EV_REJECTED)]
    e.side = side
    e.reason = reason
    e.instrument = command.instrument
    e.account = command.account
    e.order_id = order_id


@inlined
def known_account(s, account):
    return account != 0 and within(account, s.header[0].accounts_used)


@inlined
def is_listed(s, instrument):
    return 0 < instrument < s.header[0].instruments_used and s.books[instrument].status != 0


@inlined
def is_open(book, ts_ns):
    """Whether an instrument takes orders at that time."""
    return book.status == CONTINUOUS and book.open_ns <= ts_ns < book.gate_ns


@inlined
def limit_key(side_index, price):
    """The last key of the other side that an order of this side and price may trade with."""
    return key_of((side_index & 1) ^ 1, price)


@inlined
def new_order(s, c, terms):
    """NEW_ORDER; `terms` is the command's HEAD word. Returns the reason of a refusal, SPECIAL, or NONE.

    Nearly all orders are plain: limit, good till the gate, no flags. What else an order may ask for stands apart, in
    `_new_conditional`, so that these pay nothing for it.
    """
    # What is needed again is read once: after each store LLVM must take every field of a record for changed.
    number, instrument, side, qty, price = c.account, c.instrument, c.side, c.qty, c.price
    if terms & PLAIN_MASK != NEW_ORDER:
        return _new_conditional(s, c)
    reason = _check_access(s, number, instrument, c.ts_ns)
    if reason != NONE:
        return unlikely(reason)
    account, book = s.accounts[number], s.books[instrument]
    if account.special | book.special | c.group != 0:
        return unlikely(SPECIAL)
    reason = _check_terms(s, account, book, qty, price)
    if reason != NONE:
        return unlikely(reason)
    side_index = 2 * instrument + side
    takes = s.sides[side_index ^ 1].best_key <= limit_key(side_index, price)
    place = find_position(s, number, instrument)
    # No branch on the side here and below: nothing foretells it, and a wrong guess costs twenty cycles.
    held = hold_micros(book, price, qty) * (1 - side)
    if place != NIL:
        reason = _check_risk(s.positions[place], account, side, qty, held)
    else:
        reason = unlikely(_check_first(account, side, held))
    if reason != NONE:
        return unlikely(reason)
    if place == NIL:
        place = unlikely(make_position(s, number, instrument))
    slot = accept(s, c, account, side_index, place, price, qty, held, 0)
    if takes:
        _match(s, c, slot)
        _settle_rest(s, c, slot, False)
    else:
        join(s, slot)
    return NONE


@kernel
def _new_conditional(s, c):
    # Any other order: the same with all that it may ask for.
    number, instrument, side, qty, price = c.account, c.instrument, c.side, c.qty, c.price
    time_in_force, flags = c.time_in_force, c.flags
    if flags & ~POST_ONLY != 0 or c.ord_type > MARKET or time_in_force > FOK or side > 1:
        return SPECIAL
    reason = _check_access(s, number, instrument, c.ts_ns)
    if reason == NONE:
        reason = _check_kind(c.ord_type, time_in_force, flags)
    if reason != NONE:
        return reason
    account, book = s.accounts[number], s.books[instrument]
    if account.special | book.special | c.group != 0:
        return SPECIAL
    is_market = c.ord_type == MARKET
    if is_market and (book.collar_ppm != 0 or book.low_price != 0 or book.high_price != book.max_price):
        return SPECIAL
    # A market order has no price: any other than zero is out of every range.
    reason = _check_terms(s, account, book, qty, -1 if is_market and price != 0 else price)
    if reason != NONE:
        return reason
    side_index = 2 * instrument + side
    if is_market:
        price = _worst_price(s, side_index ^ 1, qty)
    limit = limit_key(side_index, price)
    takes = s.sides[side_index ^ 1].best_key <= limit
    if flags & POST_ONLY != 0 and takes:
        return POST_ONLY_WOULD_TAKE
    if time_in_force == FOK and not _fillable(s, side_index ^ 1, limit, qty):
        return FOK_NOT_FILLABLE
    place = find_position(s, number, instrument)
    held = hold_micros(book, price, qty) * (1 - side)
    if place != NIL:
        reason = _check_risk(s.positions[place], account, side, qty, held)
    else:
        reason = _check_first(account, side, held)
    if reason != NONE:
        return reason
    if place == NIL:
        place = make_position(s, number, instrument)
    slot = accept(s, c, account, side_index, place, price, qty, held, flags)
    if takes:
        _match(s, c, slot)
    _settle_rest(s, c, slot, time_in_force >= IOC)
    return NONE


@inlined
def _check_access(s, number, instrument, ts_ns):
    if not known_account(s, number):
        return UNKNOWN_ACCOUNT
    # Number 0 is never open. A book that gathers orders is not either; and of a locked account something else is said.
    if not within(instrument, s.header[0].instruments_used) or not is_open(s.books[instrument], ts_ns):
        return SPECIAL
    return NONE


@inlined
def _check_terms(s, account, book, qty, price):
    if not within(qty - 1, MAX_QTY):
        return BAD_QTY
    if not book.low_price <= price <= book.high_price:
        return BAD_PRICE
    if account.open_orders >= s.header[0].max_open_orders:
        return TOO_MANY_OPEN_ORDERS
    if not has_room(s):
        return OVERLOADED
    return NONE


@inlined
def _check_kind(ord_type, time_in_force, flags):
    immediate = time_in_force >= IOC
    if ord_type == MARKET and not immediate:
        return BAD_TIF
    if flags != 0 and (ord_type == MARKET or immediate):
        return BAD_TIF
    return NONE


@inlined
def has_room(s):
    """Whether one more order fits: a slot, a position, and a new path in the price trie."""
    h = s.header[0]
    # The door stops in front of a pool that is full; only one that may not grow is for the order to find.
    return s.batch[0].grown == 0 or (
        (h.orders_used < len(s.orders) or h.orders_free != NIL)
        and (h.positions_used < len(s.positions) or h.positions_free != NIL)
        and has_leaf(s)
        and has_nodes(s)
    )


@inlined
def _check_risk(position, account, side, qty, held):
    to_buy = MAX_POSITION_LOTS - position.net_lots - position.open_buy_lots
    to_sell = position.net_lots + position.capacity_lots - position.open_sell_lots
    if qty > to_buy + (to_sell - to_buy) * side:
        return POSITION_LIMIT if side == BUY else INSUFFICIENT_CAPACITY
    if held > account.cash_micros:
        return INSUFFICIENT_FUNDS
    return NONE


@inlined
def _check_first(account, side, held):
    # The account's first order in the instrument: no lots, no capacity, nothing open.
    if side != BUY:
        return INSUFFICIENT_CAPACITY
    if held > account.cash_micros:
        return INSUFFICIENT_FUNDS
    return NONE


@kernel
def _worst_price(s, side_index, qty):
    # The price of the level at which the quantity offered reaches qty, or of the last one; 0 for an empty side.
    side = s.sides[side_index]
    key = side.best_key
    if key == NO_KEY:
        return 0
    offered = s.levels[side.best_level].qty
    while offered < qty:
        following = next_key(s, side, key)
        if following == NO_KEY:
            break
        key = following
        offered += s.levels[level_of(s, side, key)].qty
    return key_of(side_index & 1, key)


@kernel
def _fillable(s, side_index, limit, qty):
    side = s.sides[side_index]
    key = side.best_key
    offered = 0
    while key <= limit and offered < qty:
        offered += s.levels[level_of(s, side, key)].qty
        key = next_key(s, side, key)
    return offered >= qty


@inlined
def add_open(position, side, lots):
    """Count lots as open on a side of a position."""
    sold = lots * side
    position.open_buy_lots += lots - sold
    position.open_sell_lots += sold


@inlined
def accept(s, c, account, side_index, place, price, qty, held, flags):
    """Take an order in, all checks behind it. Returns its slot."""
    slot = take_slot(s)
    order = s.orders[slot]
    order.held_micros = held
    order.account = c.account
    order.position = place
    order.side_index = side_index
    order.price = price
    order.leaves_qty = qty
    order.cum_qty = 0
    order.session = c.session
    order.flags = flags
    account.held_micros += held
    account.cash_micros -= held
    account.open_orders += 1
    add_open(s.positions[place], side_index & 1, qty)
    s.header[0].open_orders += 1
    order_id = order.order_id
    e = s.events[order_event(s, c, EV_NEW, NONE, side_index, c.account, order_id, price, qty)]
    e.leaves_qty = qty
    e.held_micros = held
    return slot


@kernel
def _match(s, c, slot):
    """Trade with the best orders of the other side, oldest first, until the price or the quantity ends it."""
    order = s.orders[slot]
    side_index, leaves, cum = order.side_index, order.leaves_qty, order.cum_qty
    account, order_id = order.account, order.order_id
    book = s.books[side_index >> 1]
    other = s.sides[side_index ^ 1]
    limit = limit_key(side_index, order.price)
    best = other.best_key
    while leaves > 0 and best <= limit:
        level = s.levels[other.best_level]
        price = key_of((side_index & 1) ^ 1, best)
        maker_slot = level.head
        maker = s.orders[maker_slot]
        maker_leaves = maker.leaves_qty
        qty = min(leaves, maker_leaves)
        # Leave the queue while leaves_qty is what the level still counts.
        if qty == maker_leaves:
            leave(s, maker_slot)
        else:
            level.qty -= qty
        leaves -= qty
        cum += qty
        maker_leaves -= qty
        maker_cum = maker.cum_qty + qty
        order.leaves_qty = leaves
        order.cum_qty = cum
        maker.leaves_qty = maker_leaves
        maker.cum_qty = maker_cum
        maker_account, maker_id = maker.account, maker.order_id
        e = s.events[order_event(s, c, EV_TRADE, NONE, side_index, account, order_id, price, qty)]
        e.contra_account = maker_account
        e.contra_order_id = maker_id
        e.leaves_qty = leaves
        e.cum_qty = cum
        e.contra_leaves_qty = maker_leaves
        e.contra_cum_qty = maker_cum
        trade(s, e, book, order, maker, price, qty, side_index & 1 == BUY)
        book.last_price = price
        if maker_leaves == 0:
            finish(s, maker_slot, s.accounts[maker_account])
        best = other.best_key


@inlined
def finish(s, slot, account):
    """Forget an order that has left its queue and reserves nothing."""
    account.open_orders -= 1
    s.header[0].open_orders -= 1
    free_slot(s, slot)


@inlined
def _settle_rest(s, c, slot, immediate):
    order = s.orders[slot]
    if order.leaves_qty == 0:
        finish(s, slot, s.accounts[order.account])
    elif immediate:
        cancel_rest(s, c, slot, UNFILLED)
    else:
        join(s, slot)


@inlined
def cancel_rest(s, c, slot, reason):
    """Cancel what is left of an order that is in no queue."""
    order = s.orders[slot]
    side_index, leaves, cum, held = order.side_index, order.leaves_qty, order.cum_qty, order.held_micros
    number, price, order_id = order.account, order.price, order.order_id
    position, account = s.positions[order.position], s.accounts[number]
    add_open(position, side_index & 1, -leaves)
    order.held_micros = 0
    account.held_micros -= held
    account.cash_micros += held
    finish(s, slot, account)
    e = s.events[order_event(s, c, EV_CANCELED, reason, side_index, number, order_id, price, cum + leaves)]
    e.leaves_qty = leaves
    e.cum_qty = cum
    e.held_micros = -held


@inlined
def cancel_resting(s, c, slot, reason):
    """Take a working order out of the book."""
    leave(s, slot)
    cancel_rest(s, c, slot, reason)


@inlined
def find_order(s, c):
    """The slot of the account's working order, or NIL. The id carries the slot; any other bits must agree too."""
    slot = c.order_id & ((1 << SLOT_BITS) - 1)
    if slot >= s.header[0].orders_used:
        return unlikely(NIL)
    order = s.orders[slot]
    if order.order_id != c.order_id or order.leaves_qty == 0 or order.account != c.account:
        return unlikely(NIL)
    return slot


@inlined
def cancel(s, c):
    """CANCEL. Returns the reason of a refusal, or NONE."""
    if not known_account(s, c.account):
        return unlikely(UNKNOWN_ACCOUNT)
    slot = find_order(s, c)
    if slot == NIL:
        return unlikely(ORDER_NOT_FOUND)
    if s.orders[slot].flags >= FIRST_SPECIAL:
        return unlikely(SPECIAL)
    cancel_resting(s, c, slot, BY_REQUEST)
    return NONE


@kernel
def amend(s, c):
    """AMEND. Returns the reason of a refusal, or NONE."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    slot = find_order(s, c)
    if slot == NIL:
        return ORDER_NOT_FOUND
    order = s.orders[slot]
    book = s.books[order.side_index >> 1]
    if (order.flags | c.flags) & ~(POST_ONLY | REQUEUE) != 0 or s.accounts[c.account].special | book.special != 0:
        return SPECIAL
    if not is_open(book, c.ts_ns):
        return MARKET_NOT_OPEN
    if c.flags & ~REQUEUE != 0:
        return BAD_FIELD
    total = order.cum_qty + order.leaves_qty
    qty = total if c.qty == UNCHANGED else c.qty
    price = order.price if c.price == UNCHANGED else c.price
    if not 1 <= qty <= MAX_QTY:
        return BAD_QTY
    if not book.low_price <= price <= book.high_price and price != order.price:
        return BAD_PRICE
    if qty <= order.cum_qty:
        cancel_resting(s, c, slot, BY_REQUEST)
        return NONE
    leaves = qty - order.cum_qty
    held = hold_micros(book, price, leaves) if order.side_index & 1 == BUY else 0
    reason = _check_amend(s, order, price, leaves, held)
    if reason == NONE:
        kept = price == order.price and qty <= total and c.flags & REQUEUE == 0
        _replace(s, c, slot, price, leaves, held, kept)
    return reason


@inlined
def _check_amend(s, order, price, leaves, held):
    if not has_room(s):
        return OVERLOADED
    position = s.positions[order.position]
    if order.flags & POST_ONLY != 0:
        if s.sides[order.side_index ^ 1].best_key <= limit_key(order.side_index, price):
            return POST_ONLY_WOULD_TAKE
    if order.side_index & 1 == BUY:
        if position.net_lots + position.open_buy_lots - order.leaves_qty + leaves > MAX_POSITION_LOTS:
            return POSITION_LIMIT
        if held - order.held_micros > s.accounts[order.account].cash_micros:
            return INSUFFICIENT_FUNDS
    elif position.net_lots + position.capacity_lots - position.open_sell_lots + order.leaves_qty < leaves:
        return INSUFFICIENT_CAPACITY
    return NONE


@inlined
def _replace(s, c, slot, price, leaves, held, kept):
    order = s.orders[slot]
    position = s.positions[order.position]
    grown = leaves - order.leaves_qty
    if kept:
        s.levels[order.level].qty += grown
    else:
        leave(s, slot)
    add_open(position, order.side_index & 1, grown)
    order.leaves_qty = leaves
    order.price = price
    reason, total = KEPT if kept else LOST, order.cum_qty + leaves
    number, order_id = order.account, order.order_id
    e = s.events[order_event(s, c, EV_REPLACED, reason, order.side_index, number, order_id, price, total)]
    e.leaves_qty = leaves
    e.cum_qty = order.cum_qty
    e.held_micros = reserve(s, order, s.accounts[order.account], held)
    if not kept:
        if s.sides[order.side_index ^ 1].best_key <= limit_key(order.side_index, price):
            _match(s, c, slot)
        _settle_rest(s, c, slot, False)
