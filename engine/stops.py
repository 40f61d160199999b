"""Stops: orders that wait until the last trade reaches their stop price. Rules: docs/engine.md, "Stops"."""

from engine.kernel import inlined, kernel
from engine.matching import UNFILLED, limit_key, next_event
from engine.resting import cancel_taker, stop_key, take_out
from engine.state import ICEBERG, NIL, WAITING
from engine.taking import CONTINUOUS, offered, stp_group_of, take
from engine.types import STP_MASK, EventKind, OrdType, TimeInForce

STOP = int(OrdType.STOP)
IOC, FOK = int(TimeInForce.IOC), int(TimeInForce.FOK)
EV_TRIGGERED = int(EventKind.TRIGGERED)


@inlined
def is_immediate(ord_type, time_in_force):
    """Whether what is left of an order is cancelled once it has been matched. MARKET and STOP are."""
    return ord_type == 1 or ord_type == STOP or time_in_force == IOC or time_in_force == FOK


@inlined
def stop_limit(book, side, stop_price):
    """The price of a plain stop: what it will need at the most."""
    width = stop_price * book.collar_ppm // 1_000_000
    if side == 0:
        return min(book.high_price, stop_price + width) if book.collar_ppm != 0 else book.high_price
    return max(book.low_price, stop_price - width) if book.collar_ppm != 0 else book.low_price


@kernel
def trigger_stops(s, c, instrument):
    """Trigger the stops that are due one after the other, as long as the book is continuous."""
    book = s.books[instrument]
    while book.status == CONTINUOUS:
        slot = _first_due(s, instrument, book.last_price)
        if slot == NIL:
            return
        _trigger(s, c, slot)


@kernel
def _first_due(s, instrument, last_price):
    if last_price == NIL:
        return NIL
    for side_index in range(2 * instrument, 2 * instrument + 2):
        trigger = s.triggers[side_index]
        if trigger.best_key <= stop_key(side_index, last_price):
            return s.levels[trigger.best_level].head
    return NIL


@kernel
def _trigger(s, c, slot):
    order, terms = s.orders[slot], s.terms[slot]
    take_out(s, slot)
    order.flags &= ~WAITING
    e = s.events[next_event(s, c, EV_TRIGGERED)]
    e.side = order.side_index & 1
    e.instrument = order.side_index >> 1
    e.account = order.account
    e.order_id = order.order_id
    e.price = order.price
    e.qty = order.cum_qty + order.leaves_qty
    e.leaves_qty = order.leaves_qty
    e.cum_qty = order.cum_qty
    if order.flags & ICEBERG != 0:
        e.contra_leaves_qty = terms.show_qty
    if terms.time_in_force == FOK:
        side_index, leaves = order.side_index, order.leaves_qty
        limit = limit_key(side_index, order.price)
        can = offered(s, side_index ^ 1, limit, leaves, order.flags & STP_MASK, order.account, stp_group_of(s, slot))
        if can < leaves:
            cancel_taker(s, c, slot, UNFILLED, 0)
            return
    take(s, c, slot, is_immediate(terms.ord_type, terms.time_in_force))
