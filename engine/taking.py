"""Matching where something is special: the taker, a maker, or the book. Rules: docs/engine.md, "Matching".

engine/matching.py does the same for plain orders in plain books; here each step looks first at the dynamic collar, at what
may only reduce, at self-trades, and then, between two trades, at icebergs and at market-maker protection.
"""

from engine.book import key_of, level_of, next_key
from engine.clearing import auction_trade, hold_micros, reserve, trade
from engine.kernel import kernel
from engine.matching import EV_TRADE, UNFILLED, limit_key, next_event
from engine.protection import count_fill
from engine.resting import cancel_taker, drop, end, refresh, rest, shown, take_out
from engine.state import GATHERS, GROUPED, HAS_TERMS, ICEBERG, NIL, NO_KEY
from engine.types import STP_MASK, EventKind, Flag, Reason, Side, Status

BUY = int(Side.BUY)
REDUCE_ONLY = int(Flag.REDUCE_ONLY)
STP_EXPIRE_TAKER, STP_EXPIRE_MAKER = int(Flag.STP_EXPIRE_TAKER), int(Flag.STP_EXPIRE_MAKER)
STP_EXPIRE_BOTH, STP_DECREMENT = int(Flag.STP_EXPIRE_BOTH), int(Flag.STP_DECREMENT)
SELF_TRADE_PREVENTED, NOTHING_TO_REDUCE = int(Reason.SELF_TRADE_PREVENTED), int(Reason.NOTHING_TO_REDUCE)
EXPIRE_TAKER, AUCTION_TRADE, COLLAR = int(Reason.EXPIRE_TAKER), int(Reason.AUCTION), int(Reason.COLLAR)
CONTINUOUS, AUCTION = int(Status.CONTINUOUS), int(Status.AUCTION)
EV_PREVENTED, EV_STATUS_CHANGED = int(EventKind.PREVENTED), int(EventKind.STATUS_CHANGED)
DONE, LEFT, COLLARED = 0, 1, 2
"""How matching ended: nothing is left of the taker and it is forgotten; its price; the dynamic collar."""


@kernel
def set_collar(s, instrument):
    """Take the dynamic collar of a command from the book's last price."""
    r, last = s.request[0], s.books[instrument].last_price
    width = last * s.contracts[instrument].dynamic_ppm // 1_000_000
    if last == NIL or s.contracts[instrument].dynamic_ppm == 0:
        r.collar_low = NIL
        r.collar_high = NO_KEY
    else:
        r.collar_low = last - width
        r.collar_high = last + width


@kernel
def is_in_collar(s, price):
    return s.request[0].collar_low <= price <= s.request[0].collar_high


@kernel
def to_reduce(s, slot):
    """The lots by which an order may bring its account's net position nearer to zero."""
    order = s.orders[slot]
    net = s.positions[order.position].net_lots
    return max(-net, 0) if order.side_index & 1 == BUY else max(net, 0)


@kernel
def stp_group_of(s, slot):
    return s.terms[slot].stp_group if s.orders[slot].flags & HAS_TERMS != 0 else 0


@kernel
def is_same_person(s, slot, account, stp_group):
    return s.orders[slot].account == account or (stp_group != 0 and stp_group_of(s, slot) == stp_group)


@kernel
def offered(s, side_index, limit, enough, mode, account, stp_group):
    """What an order can trade with on this side up to the limit: all there is, or `enough` of it.

    `mode` is the order's for self-trades, `account` and `stp_group` are the person's.
    """
    side = s.sides[side_index]
    key, total = side.best_key, 0
    while key <= limit and total < enough and is_in_collar(s, key_of(side_index & 1, key)):
        level = s.levels[level_of(s, side, key)]
        if mode == 0:
            total += level.qty
        else:
            others, shown_before, met = _of_others(s, level.head, account, stp_group)
            if met and mode != STP_EXPIRE_MAKER:
                return total + shown_before
            total += others
        key = next_key(s, side, key)
    return total


@kernel
def _of_others(s, slot, account, stp_group):
    # Of a queue: the quantity of other persons, what they show before the first order of this one, and whether there is one.
    others, shown_before, met = 0, 0, False
    while slot != NIL:
        if is_same_person(s, slot, account, stp_group):
            met = True
        else:
            others += s.orders[slot].leaves_qty
            if not met:
                shown_before += shown(s, slot)
        slot = s.orders[slot].next
    return others, shown_before, met


@kernel
def worst_price(s, side_index, far, qty, mode, account, stp_group):
    """The price of the level, up to the key `far`, at which the quantity that counts reaches qty, or of the last one."""
    side = s.sides[side_index]
    key, worst, counted = side.best_key, far, 0
    while key <= far and counted < qty:
        level = s.levels[level_of(s, side, key)]
        if mode == 0:
            counted += level.qty
        else:
            others, _, _ = _of_others(s, level.head, account, stp_group)
            counted += others
        worst = key
        key = next_key(s, side, key)
    return key_of(side_index & 1, worst)


@kernel
def take(s, c, slot, immediate):
    """Match an order that is in no queue as the taker; then it rests, or what is left of it is cancelled."""
    instrument = s.orders[slot].side_index >> 1
    outcome = _match(s, c, slot)
    if outcome == DONE:
        return
    if immediate:
        cancel_taker(s, c, slot, UNFILLED, 0)
    else:
        rest(s, slot)
    if outcome == COLLARED:
        book = s.books[instrument]
        book.status = AUCTION
        book.special |= GATHERS
        status_event(s, c, instrument, CONTINUOUS, COLLAR)


@kernel
def status_event(s, c, instrument, before, reason):
    """Say what status a book has now."""
    e = s.events[next_event(s, c, EV_STATUS_CHANGED)]
    e.instrument = instrument
    e.qty = s.books[instrument].status
    e.cum_qty = before
    e.reason = reason


@kernel
def _match(s, c, slot):
    order = s.orders[slot]
    side_index = order.side_index
    other = s.sides[side_index ^ 1]
    limit = limit_key(side_index, order.price)
    mode, account, stp_group = order.flags & STP_MASK, order.account, stp_group_of(s, slot)
    while other.best_key <= limit:
        price = key_of((side_index & 1) ^ 1, other.best_key)
        if not is_in_collar(s, price):
            return COLLARED
        if order.flags & REDUCE_ONLY != 0 and to_reduce(s, slot) == 0:
            cancel_taker(s, c, slot, NOTHING_TO_REDUCE, 0)
            return DONE
        maker_slot = s.levels[other.best_level].head
        if mode != 0 and is_same_person(s, maker_slot, account, stp_group):
            if _prevent(s, c, slot, maker_slot, price, mode):
                return DONE
        elif s.orders[maker_slot].flags & REDUCE_ONLY != 0 and to_reduce(s, maker_slot) == 0:
            drop(s, c, maker_slot, NOTHING_TO_REDUCE)
        else:
            _trade_with(s, c, slot, maker_slot, price)
            if order.leaves_qty == 0:
                end(s, slot)
                return DONE
    return LEFT


@kernel
def _trade_with(s, c, slot, maker_slot, price):
    order, maker = s.orders[slot], s.orders[maker_slot]
    qty = min(order.leaves_qty, shown(s, maker_slot))
    if order.flags & REDUCE_ONLY != 0:
        qty = min(qty, to_reduce(s, slot))
    if maker.flags & REDUCE_ONLY != 0:
        qty = min(qty, to_reduce(s, maker_slot))
    fall(s, maker_slot, qty)
    maker.cum_qty += qty
    order.leaves_qty -= qty
    order.cum_qty += qty
    book = s.books[order.side_index >> 1]
    e = s.events[trade_event(s, c, slot, maker_slot, price, qty)]
    trade(s, e, book, order, maker, price, qty, order.side_index & 1 == BUY)
    book.last_price = price
    account, is_grouped = maker.account, maker.flags & GROUPED != 0
    group = s.terms[maker_slot].group
    settle_maker(s, c, maker_slot)
    if is_grouped:
        count_fill(s, c, account, group, order.side_index >> 1, qty)


@kernel
def fall(s, slot, qty):
    """Take lots from a resting order; it leaves its level when nothing is left."""
    order = s.orders[slot]
    if qty == order.leaves_qty:
        # Leave the queue while leaves_qty is what the level still counts.
        take_out(s, slot)
        order.leaves_qty = 0
        return
    s.levels[order.level].qty -= qty
    order.leaves_qty -= qty
    if order.flags & ICEBERG != 0:
        s.terms[slot].shown_qty -= qty


@kernel
def settle_maker(s, c, slot):
    """After lots were taken from a resting order: it is done, or shows anew, or neither."""
    if s.orders[slot].leaves_qty == 0:
        end(s, slot)
    elif shown(s, slot) == 0:
        refresh(s, c, slot)


@kernel
def trade_event(s, c, slot, maker_slot, price, qty):
    """The number, in the batch, of a new TRADE event, but for its money."""
    number = next_event(s, c, EV_TRADE)
    e, order, maker = s.events[number], s.orders[slot], s.orders[maker_slot]
    e.side = order.side_index & 1
    e.instrument = order.side_index >> 1
    e.account = order.account
    e.contra_account = maker.account
    e.order_id = order.order_id
    e.contra_order_id = maker.order_id
    e.price = price
    e.qty = qty
    e.leaves_qty = order.leaves_qty
    e.cum_qty = order.cum_qty
    e.contra_leaves_qty = maker.leaves_qty
    e.contra_cum_qty = maker.cum_qty
    return number


@kernel
def _prevent(s, c, slot, maker_slot, price, mode):
    """Do what the taker's mode says instead of a trade with oneself. Returns whether that ends the taker."""
    order, maker = s.orders[slot], s.orders[maker_slot]
    qty = min(order.leaves_qty, shown(s, maker_slot))
    held = 0
    if mode == STP_DECREMENT:
        held = _decrement(s, slot, maker_slot, qty)
    e = s.events[next_event(s, c, EV_PREVENTED)]
    e.side = order.side_index & 1
    e.reason = EXPIRE_TAKER + (mode >> 4) - 1
    e.instrument = order.side_index >> 1
    e.account = order.account
    e.contra_account = maker.account
    e.order_id = order.order_id
    e.contra_order_id = maker.order_id
    e.price = price
    e.qty = qty
    e.leaves_qty = order.leaves_qty
    e.cum_qty = order.cum_qty
    e.contra_leaves_qty = maker.leaves_qty
    e.contra_cum_qty = maker.cum_qty
    e.held_micros = held
    if mode == STP_DECREMENT:
        if maker.leaves_qty == 0:
            cancel_taker(s, c, maker_slot, SELF_TRADE_PREVENTED, 0)
        else:
            settle_maker(s, c, maker_slot)
        ends = order.leaves_qty == 0
    else:
        if mode != STP_EXPIRE_TAKER:
            drop(s, c, maker_slot, SELF_TRADE_PREVENTED)
        ends = mode != STP_EXPIRE_MAKER
    if ends:
        cancel_taker(s, c, slot, SELF_TRADE_PREVENTED, 0)
    return ends


@kernel
def _decrement(s, slot, maker_slot, qty):
    # Both lose the lots; what is open falls, and what the buy order reserves. Returns that change.
    order = s.orders[slot]
    fall(s, maker_slot, qty)
    order.leaves_qty -= qty
    buys = order.side_index & 1 == BUY
    buyer = s.orders[slot if buys else maker_slot]
    seller = s.orders[maker_slot if buys else slot]
    s.positions[buyer.position].open_buy_lots -= qty
    s.positions[seller.position].open_sell_lots -= qty
    book = s.books[order.side_index >> 1]
    return reserve(s, buyer, s.accounts[buyer.account], hold_micros(book, buyer.price, buyer.leaves_qty))


@kernel
def auction_fill(s, c, buyer_slot, seller_slot, price):
    """One step of an auction between the oldest orders of two levels: a trade, or one of them has nothing to reduce."""
    buyer, seller = s.orders[buyer_slot], s.orders[seller_slot]
    qty = min(shown(s, buyer_slot), shown(s, seller_slot))
    if buyer.flags & REDUCE_ONLY != 0:
        qty = min(qty, to_reduce(s, buyer_slot))
    if qty == 0:
        drop(s, c, buyer_slot, NOTHING_TO_REDUCE)
        return
    if seller.flags & REDUCE_ONLY != 0:
        qty = min(qty, to_reduce(s, seller_slot))
    if qty == 0:
        drop(s, c, seller_slot, NOTHING_TO_REDUCE)
        return
    fall(s, buyer_slot, qty)
    fall(s, seller_slot, qty)
    buyer.cum_qty += qty
    seller.cum_qty += qty
    book = s.books[buyer.side_index >> 1]
    e = s.events[trade_event(s, c, buyer_slot, seller_slot, price, qty)]
    e.reason = AUCTION_TRADE
    auction_trade(s, e, book, buyer, seller, price, qty)
    book.last_price = price
    settle_maker(s, c, buyer_slot)
    settle_maker(s, c, seller_slot)
