"""NEW_ORDER, AMEND and CANCEL where something is special: the order, its book or its account. Rules: docs/engine.md.

Plain orders in plain books are in engine/matching.py; the two must agree wherever both apply. The command at hand is read
into `request` first, so that what it does not say counts as zero here and nowhere else.
"""

from engine.book import key_of, level_at
from engine.clearing import find_position, hold_micros, make_position, reserve
from engine.client_ids import answer_duplicate, find_id, has_id, is_remembered, is_same_order, remember
from engine.kernel import inlined, kernel
from engine.matching import (
    BAD_FIELD,
    BAD_PRICE,
    BAD_QTY,
    BAD_TIF,
    BY_REQUEST,
    EV_REPLACED,
    FOK_NOT_FILLABLE,
    INSUFFICIENT_CAPACITY,
    INSUFFICIENT_FUNDS,
    KEPT,
    LOST,
    MARKET_NOT_OPEN,
    NONE,
    ORDER_NOT_FOUND,
    OVERLOADED,
    POSITION_LIMIT,
    POST_ONLY_WOULD_TAKE,
    TOO_MANY_OPEN_ORDERS,
    UNKNOWN_ACCOUNT,
    UNKNOWN_SYMBOL,
    accept,
    find_order,
    is_listed,
    known_account,
    limit_key,
    next_event,
)
from engine.protection import is_frozen
from engine.resting import drop, link_quote, refreshes_left, rest, take_out, wait
from engine.room import events_of_order, pool_short, short_of_events, short_of_pools
from engine.state import (
    GATHERS,
    GROUPED,
    HALTED,
    HAS_TERMS,
    ICEBERG,
    LOCKED,
    NIL,
    NO_KEY,
    QUOTED,
    REDUCES,
    WAITING,
)
from engine.stops import is_immediate, stop_limit, trigger_stops
from engine.taking import offered, set_collar, stp_group_of, take, worst_price
from engine.types import (
    MAX_POSITION_LOTS,
    MAX_QTY,
    STP_MASK,
    UNCHANGED,
    Flag,
    OrdType,
    Reason,
    Status,
    TimeInForce,
)

POST_ONLY, REQUEUE, SLIDE = int(Flag.POST_ONLY), int(Flag.REQUEUE), int(Flag.SLIDE)
REDUCE_ONLY, EXTENDED = int(Flag.REDUCE_ONLY), int(Flag.EXTENDED)
MOST_STP = int(Flag.STP_DECREMENT)
OF_COMMAND = POST_ONLY | SLIDE | REDUCE_ONLY | STP_MASK
"""The flags of a command that its order keeps."""
LIMIT, MARKET, STOP, STOP_LIMIT = int(OrdType.LIMIT), int(OrdType.MARKET), int(OrdType.STOP), int(OrdType.STOP_LIMIT)
GTC, IOC, FOK, GTD = int(TimeInForce.GTC), int(TimeInForce.IOC), int(TimeInForce.FOK), int(TimeInForce.GTD)
CONTINUOUS, PRE_OPEN, AUCTION = int(Status.CONTINUOUS), int(Status.PRE_OPEN), int(Status.AUCTION)
DEADLINE_PASSED, LOCKED_REASON, MMP_FROZEN = int(Reason.DEADLINE_PASSED), int(Reason.LOCKED), int(Reason.MMP_FROZEN)
CID_REUSED_DIFFERENT, RISK_LIMIT = int(Reason.CID_REUSED_DIFFERENT), int(Reason.RISK_LIMIT)
AMEND_NOT_ALLOWED, EXPIRED, WAITS = int(Reason.AMEND_NOT_ALLOWED), int(Reason.EXPIRED), int(Reason.WAITING)


@kernel
def read_request(s, c, now_ns):
    """Take the fields of a command that count, with or without EXTENDED."""
    r, extended = s.request[0], c.flags & EXTENDED != 0
    r.now_ns = now_ns
    r.stop_price = c.stop_price if extended else 0
    r.show_qty = c.show_qty if extended else 0
    r.min_qty = c.min_qty if extended else 0
    r.expire_ns = c.expire_ns if extended else 0
    r.deadline_ns = c.deadline_ns if extended else 0
    r.tag = c.tag if extended else 0
    r.stp_group = c.stp_group if extended else 0
    r.group = c.group
    r.quote_level = NIL
    r.flags = c.flags


@kernel
def takes_orders(s, book, ts_ns):
    """Whether an instrument takes orders at that time."""
    if book.special & HALTED != 0 or ts_ns >= book.gate_ns:
        return False
    if book.status == PRE_OPEN:
        return True
    return (book.status == CONTINUOUS or book.status == AUCTION) and book.open_ns <= ts_ns


@inlined
def is_late(s, c):
    deadline_ns = s.request[0].deadline_ns
    return deadline_ns != 0 and c.ts_ns > deadline_ns


@kernel
def new_order(s, c):
    """NEW_ORDER. Returns the reason of a refusal, what is short, or NONE."""
    number, instrument, r = c.account, c.instrument, s.request[0]
    if not known_account(s, number):
        return UNKNOWN_ACCOUNT
    remembers = r.flags & EXTENDED != 0 and has_id(c)
    if remembers:
        known = find_id(s, c)
        if known != NIL and is_remembered(s, known):
            if not is_same_order(s, c, known):
                return CID_REUSED_DIFFERENT
            answer_duplicate(s, c, known)
            return NONE
    if not is_listed(s, instrument):
        return UNKNOWN_SYMBOL
    account, book = s.accounts[number], s.books[instrument]
    if is_late(s, c):
        return DEADLINE_PASSED
    if account.special & LOCKED != 0:
        return LOCKED_REASON
    if not takes_orders(s, book, c.ts_ns):
        return MARKET_NOT_OPEN
    if not _good_fields(c, r):
        return BAD_FIELD
    if is_frozen(s, number, c.group):
        return MMP_FROZEN
    if not _good_time_in_force(c, r, book.status != CONTINUOUS):
        return BAD_TIF
    return enter(s, c, remembers)


@kernel
def _good_fields(c, r):
    unknown = c.flags & ~(OF_COMMAND | EXTENDED)
    both = POST_ONLY | SLIDE
    return (
        c.side <= 1
        and c.ord_type <= STOP_LIMIT
        and unknown == 0
        and c.flags & both != both
        and c.flags & STP_MASK <= MOST_STP
        and c.group >= 0
        and r.tag >= 0
    )


@kernel
def _good_time_in_force(c, r, gathers):
    ord_type, tif = c.ord_type, c.time_in_force
    rests = tif <= GTC or tif == GTD
    if tif > GTD or (r.expire_ns <= c.ts_ns if tif == GTD else r.expire_ns != 0):
        return False
    if ord_type == MARKET and rests:
        return False
    posts = c.flags & (POST_ONLY | SLIDE) != 0
    if posts and not (ord_type == LIMIT and rests):
        return False
    if r.show_qty != 0 and not ((ord_type == LIMIT or ord_type == STOP_LIMIT) and rests):
        return False
    if r.min_qty != 0 and (ord_type > MARKET or tif == FOK or posts):
        return False
    return not gathers or (ord_type != MARKET and (ord_type != LIMIT or (rests and r.min_qty == 0)))


@kernel
def enter(s, c, remembers):
    """Check a new order or quote from its quantity on, and let it trade, rest or wait."""
    number, instrument, qty = c.account, c.instrument, c.qty
    account, book, r = s.accounts[number], s.books[instrument], s.request[0]
    ord_type, control = c.ord_type, s.controls[number]
    if not _good_qty(control, r, qty):
        return BAD_QTY
    if not _good_prices(book, r, ord_type, c.price):
        return BAD_PRICE
    place = find_position(s, number, instrument)
    if _has_too_many(s, account, control, place):
        return TOO_MANY_OPEN_ORDERS
    short = short_of_pools(s, remembers)
    if short == NONE:
        short = short_of_events(s, events_of_order(s, c, instrument, qty, c.flags))
    if short != NONE:
        return short
    if pool_short(s) != 0:
        return OVERLOADED
    set_collar(s, instrument)
    price = _price_of(s, c, book)
    if price == NIL:
        return POST_ONLY_WOULD_TAKE
    if not _can_fill(s, c, price):
        return FOK_NOT_FILLABLE
    held = hold_micros(book, price, qty) if c.side == 0 else 0
    reason = _check_risk(s, place, number, c.side, qty, c.flags & REDUCE_ONLY != 0)
    if reason == NONE and held > account.cash_micros:
        reason = INSUFFICIENT_FUNDS
    if reason != NONE:
        return reason
    if place == NIL:
        place = make_position(s, number, instrument)
    slot = _accept(s, c, place, price, held)
    if remembers:
        remember(s, c, s.orders[slot].order_id)
    if ord_type >= STOP:
        wait(s, slot)
    elif book.status != CONTINUOUS:
        rest(s, slot)
    else:
        take(s, c, slot, is_immediate(ord_type, c.time_in_force))
    trigger_stops(s, c, instrument)
    return NONE


@inlined
def _good_qty(control, r, qty):
    most = control.max_qty if control.max_qty != 0 else MAX_QTY
    return 1 <= qty <= most and 0 <= r.min_qty <= qty and 0 <= r.show_qty <= qty


@inlined
def _good_prices(book, r, ord_type, price):
    has_price, has_stop = ord_type == LIMIT or ord_type == STOP_LIMIT, ord_type >= STOP
    good_price = book.low_price <= price <= book.high_price if has_price else price == 0
    return good_price and (1 <= r.stop_price <= book.max_price if has_stop else r.stop_price == 0)


@inlined
def _has_too_many(s, account, control, place):
    most = s.header[0].max_open_orders
    if control.max_orders != 0:
        most = min(most, control.max_orders)
    if account.open_orders >= most:
        return True
    return s.request[0].quote_level != NIL and place != NIL and s.positions[place].quotes >= s.header[0].max_quotes


@kernel
def _price_of(s, c, book):
    """The limit of a new order; NIL when it must not trade and there is no price at which it would not."""
    side_index = 2 * c.instrument + c.side
    if c.ord_type == MARKET:
        return _market_price(s, c, book, side_index)
    if c.ord_type == STOP:
        return stop_limit(book, c.side, s.request[0].stop_price)
    if c.ord_type == STOP_LIMIT or book.status != CONTINUOUS:
        return c.price
    return content_price(s, book, side_index, c.price, c.flags)


@kernel
def content_price(s, book, side_index, price, flags):
    """The price at which a POST_ONLY or SLIDE order does not trade, NIL when there is none; any other order's own."""
    best = s.sides[side_index ^ 1].best_key
    if flags & (POST_ONLY | SLIDE) == 0 or best > limit_key(side_index, price):
        return price
    if flags & POST_ONLY != 0:
        return NIL
    price = key_of((side_index & 1) ^ 1, best) + (1 if side_index & 1 else -1)
    return price if book.low_price <= price <= book.high_price else NIL


@kernel
def _market_price(s, c, book, side_index):
    other = side_index ^ 1
    if s.sides[other].best_key == NO_KEY:
        return 0
    best = key_of(other & 1, s.sides[other].best_key)
    far = stop_limit(book, c.side, best)
    mode, stp_group = c.flags & STP_MASK, s.request[0].stp_group
    return worst_price(s, other, key_of(other & 1, far), c.qty, mode, c.account, stp_group)


@kernel
def _can_fill(s, c, price):
    needed = s.request[0].min_qty
    if c.time_in_force == FOK and c.ord_type <= MARKET:
        needed = c.qty
    if needed == 0:
        return True
    side_index = 2 * c.instrument + c.side
    mode, stp_group = c.flags & STP_MASK, s.request[0].stp_group
    limit = limit_key(side_index, price)
    return offered(s, side_index ^ 1, limit, needed, mode, c.account, stp_group) >= needed


@kernel
def _check_risk(s, place, account, side, added, reduces):
    """May the account have `added` more lots open on a side?"""
    net, capacity, open_buy, open_sell = 0, 0, 0, 0
    if place != NIL:
        position = s.positions[place]
        net, capacity = position.net_lots, position.capacity_lots
        open_buy, open_sell = position.open_buy_lots, position.open_sell_lots
    if added > 0:
        if reduces and added > (max(-net, 0) - open_buy if side == 0 else max(net, 0) - open_sell):
            return RISK_LIMIT
        most = s.controls[account].max_lots if s.controls[account].max_lots != 0 else MAX_POSITION_LOTS
        if (net + open_buy if side == 0 else open_sell - net) + added > most:
            return POSITION_LIMIT
    if side == 1 and net + capacity - open_sell < added:
        return INSUFFICIENT_CAPACITY
    return NONE


@kernel
def _accept(s, c, place, price, held):
    """Give the order its slot, its hold and its terms, and say so."""
    side_index, r = 2 * c.instrument + c.side, s.request[0]
    if r.show_qty == c.qty:
        r.show_qty = 0
    flags = c.flags & OF_COMMAND
    if c.flags & EXTENDED != 0 or r.group != 0:
        flags |= HAS_TERMS
    if r.show_qty != 0:
        flags |= ICEBERG
    if r.group != 0:
        flags |= GROUPED
    if r.quote_level != NIL:
        flags |= QUOTED
    if c.flags & REDUCE_ONLY != 0:
        flags |= REDUCES
    if c.ord_type >= STOP:
        flags |= WAITING
    slot = accept(s, c, s.accounts[c.account], side_index, place, price, c.qty, held, flags)
    e = s.events[s.header[0].event_seq - s.batch[0].first_event_seq - 1]
    if flags & WAITING != 0:
        e.reason = WAITS
        # The way to its price in the book is made now: when it is triggered there may be no room.
        level_at(s, s.sides[side_index], key_of(c.side, price))
    e.contra_leaves_qty = r.show_qty
    if flags & HAS_TERMS != 0:
        _set_terms(s, c, slot)
    if flags & QUOTED != 0:
        link_quote(s, slot)
    return slot


@kernel
def _set_terms(s, c, slot):
    terms, r = s.terms[slot], s.request[0]
    terms.expire_ns = r.expire_ns
    terms.tag = r.tag
    terms.stop_price = r.stop_price
    terms.show_qty = r.show_qty
    terms.shown_qty = 0
    terms.group = r.group
    terms.stp_group = r.stp_group
    terms.quote_level = r.quote_level
    terms.ord_type = c.ord_type
    terms.time_in_force = c.time_in_force


@kernel
def cancel(s, c):
    """CANCEL of an order that matching.cancel has found. Returns NONE."""
    drop(s, c, find_order(s, c), BY_REQUEST)
    return NONE


@kernel
def expire(s, c):
    """EXPIRE. Returns the reason of a refusal, or NONE."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    slot = find_order(s, c)
    if slot == NIL or s.orders[slot].flags & HAS_TERMS == 0:
        return ORDER_NOT_FOUND
    if s.terms[slot].time_in_force != GTD or s.terms[slot].expire_ns > c.ts_ns:
        return ORDER_NOT_FOUND
    drop(s, c, slot, EXPIRED)
    return NONE


@kernel
def amend(s, c):
    """AMEND of an order that matching.amend has found. Returns the reason of a refusal, what is short, or NONE."""
    slot = find_order(s, c)
    order, r = s.orders[slot], s.request[0]
    if is_late(s, c):
        return DEADLINE_PASSED
    if not takes_orders(s, s.books[order.side_index >> 1], c.ts_ns):
        return MARKET_NOT_OPEN
    if c.flags & ~(REQUEUE | EXTENDED) != 0:
        return BAD_FIELD
    price = order.price if c.price == UNCHANGED else c.price
    new_stop = r.stop_price != 0 and r.stop_price != UNCHANGED
    if order.flags & WAITING == 0:
        if new_stop:
            return AMEND_NOT_ALLOWED
    elif s.terms[slot].ord_type == STOP and price != order.price:
        return AMEND_NOT_ALLOWED
    qty = order.cum_qty + order.leaves_qty if c.qty == UNCHANGED else c.qty
    stop_price = r.stop_price if new_stop else 0
    return change(s, c, slot, price, qty, stop_price, c.flags & REQUEUE != 0)


@kernel
def change(s, c, slot, price, qty, stop_price, requeue):
    """Amend an order from the check of its new total `qty` on. A `stop_price` of 0 leaves it."""
    order = s.orders[slot]
    book, control = s.books[order.side_index >> 1], s.controls[order.account]
    total = order.cum_qty + order.leaves_qty
    most = _most_qty(control, order, qty, total)
    if not 1 <= qty <= most:
        return BAD_QTY
    in_band = book.low_price <= price <= book.high_price or price == order.price
    if not (in_band and 0 <= stop_price <= book.max_price):
        return BAD_PRICE
    if qty <= order.cum_qty:
        drop(s, c, slot, BY_REQUEST)
        return NONE
    instrument, leaves = order.side_index >> 1, qty - order.cum_qty
    s.request[0].stp_group = stp_group_of(s, slot)
    short = short_of_pools(s, False)
    if short == NONE:
        short = short_of_events(s, events_of_order(s, c, instrument, leaves, order.flags))
    if short != NONE:
        return short
    if pool_short(s) != 0:
        return OVERLOADED
    side = order.side_index & 1
    if order.flags & WAITING != 0:
        if stop_price != 0 and stop_price != s.terms[slot].stop_price and s.terms[slot].ord_type == STOP:
            price = stop_limit(book, side, stop_price)
    elif book.status == CONTINUOUS:
        price = content_price(s, book, order.side_index, price, order.flags)
        if price == NIL:
            return POST_ONLY_WOULD_TAKE
    held = hold_micros(book, price, leaves) if side == 0 else 0
    added = leaves - order.leaves_qty
    reason = _check_risk(s, order.position, order.account, side, added, order.flags & REDUCE_ONLY != 0)
    if reason == NONE and held - order.held_micros > s.accounts[order.account].cash_micros:
        reason = INSUFFICIENT_FUNDS
    if reason != NONE:
        return reason
    same_stop = stop_price == 0 or stop_price == s.terms[slot].stop_price
    kept = price == order.price and same_stop and qty <= total and not requeue
    set_collar(s, instrument)
    _replace(s, c, slot, price, leaves, stop_price, held, kept)
    trigger_stops(s, c, instrument)
    return NONE


@kernel
def _most_qty(control, order, qty, total):
    """The largest new total. An account's limit is about what grows; of a quote, which is filled up again, what is open."""
    if control.max_qty == 0 or qty <= total:
        return MAX_QTY
    filled = order.cum_qty if order.flags & QUOTED != 0 else 0
    return min(MAX_QTY, control.max_qty + filled)


@kernel
def _replace(s, c, slot, price, leaves, stop_price, held, kept):
    order = s.orders[slot]
    side, waits = order.side_index & 1, order.flags & WAITING != 0
    grown = leaves - order.leaves_qty
    if kept:
        _resize(s, slot, grown)
    else:
        take_out(s, slot)
        order.leaves_qty = leaves
        order.price = price
        if stop_price != 0:
            s.terms[slot].stop_price = stop_price
    position = s.positions[order.position]
    if side == 0:
        position.open_buy_lots += grown
    else:
        position.open_sell_lots += grown
    e = s.events[next_event(s, c, EV_REPLACED)]
    e.side = side
    e.reason = KEPT if kept else LOST
    e.instrument = order.side_index >> 1
    e.account = order.account
    e.order_id = order.order_id
    e.price = order.price
    e.qty = order.cum_qty + leaves
    e.leaves_qty = leaves
    e.cum_qty = order.cum_qty
    e.held_micros = reserve(s, order, s.accounts[order.account], held)
    if order.flags & ICEBERG != 0:
        e.contra_leaves_qty = s.terms[slot].show_qty
    if kept:
        return
    if waits:
        level_at(s, s.sides[order.side_index], key_of(side, order.price))
        wait(s, slot)
    elif s.books[order.side_index >> 1].special & GATHERS != 0:
        rest(s, slot)
    else:
        take(s, c, slot, False)


@kernel
def _resize(s, slot, grown):
    # Smaller, or as it was: it keeps its place.
    order = s.orders[slot]
    trigger = s.triggers[order.side_index]
    s.levels[order.level].qty += grown
    if order.flags & WAITING != 0:
        trigger.lots += grown
    if order.flags & ICEBERG != 0:
        trigger.refreshes -= refreshes_left(s, slot)
    order.leaves_qty += grown
    if order.flags & ICEBERG != 0:
        s.terms[slot].shown_qty = min(s.terms[slot].shown_qty, order.leaves_qty)
        trigger.refreshes += refreshes_left(s, slot)
