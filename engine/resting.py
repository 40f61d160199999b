"""How a special order stands in its book, or waits outside it; and how it ends.

A book counts its special orders in `special`, so that the way of plain orders is left as long as there is one. Icebergs:
`leaves_qty` is all that is open, and so is the quantity of the level; `terms.shown_qty` is what the order shows and trades
with at a time. Stops wait in the tries of `triggers`, in the order in which they fall due.
"""

from engine.book import append, join, key_of, leave, remove
from engine.kernel import inlined, kernel
from engine.matching import cancel_rest, finish, next_event
from engine.state import FIRST_SPECIAL, ICEBERG, NIL, ONE_ORDER, QUOTED, WAITING
from engine.types import EventKind

EV_REFRESHED = int(EventKind.REFRESHED)


@inlined
def refreshes_left(s, slot):
    """How often an iceberg will yet show anew."""
    terms = s.terms[slot]
    return (s.orders[slot].leaves_qty - terms.shown_qty + terms.show_qty - 1) // terms.show_qty


@inlined
def shown(s, slot):
    """What the taker may have of a resting order at a time."""
    order = s.orders[slot]
    return s.terms[slot].shown_qty if order.flags & ICEBERG != 0 else order.leaves_qty


@kernel
def rest(s, slot):
    """Put an order, plain or special, at the end of its level."""
    order = s.orders[slot]
    if order.flags & ICEBERG != 0:
        terms = s.terms[slot]
        terms.shown_qty = min(terms.show_qty, order.leaves_qty)
        s.triggers[order.side_index].refreshes += refreshes_left(s, slot)
    if order.flags >= FIRST_SPECIAL:
        s.books[order.side_index >> 1].special += ONE_ORDER
        s.header[0].special_orders += 1
    join(s, slot)


@kernel
def wait(s, slot):
    """Put a stop at the end of the queue of its stop price."""
    order = s.orders[slot]
    trigger = s.triggers[order.side_index]
    if order.flags & ICEBERG != 0:
        trigger.refreshes += refreshes_left(s, slot)
    trigger.lots += order.leaves_qty
    trigger.orders += 1
    s.books[order.side_index >> 1].special += ONE_ORDER
    s.header[0].special_orders += 1
    append(s, slot, order, trigger, stop_key(order.side_index, s.terms[slot].stop_price))


@inlined
def stop_key(side_index, stop_price):
    """The key of a stop price: the sooner it falls due the lower. Buys do when the price rises."""
    return key_of((side_index & 1) ^ 1, stop_price)


@kernel
def take_out(s, slot):
    """Take a working order from where it is. Its leaves_qty must still be what is counted. Returns what it showed."""
    order = s.orders[slot]
    if order.flags < FIRST_SPECIAL:
        leave(s, slot)
        return 0
    s.books[order.side_index >> 1].special -= ONE_ORDER
    s.header[0].special_orders -= 1
    trigger = s.triggers[order.side_index]
    showed = 0
    if order.flags & ICEBERG != 0:
        trigger.refreshes -= refreshes_left(s, slot)
        showed = s.terms[slot].shown_qty
        s.terms[slot].shown_qty = 0
    if order.flags & WAITING != 0:
        trigger.lots -= order.leaves_qty
        trigger.orders -= 1
        remove(s, order, trigger, stop_key(order.side_index, s.terms[slot].stop_price))
    else:
        leave(s, slot)
    return showed


@kernel
def refresh(s, c, slot):
    """Show an iceberg anew, at the end of its level."""
    order, terms = s.orders[slot], s.terms[slot]
    leave(s, slot)
    terms.shown_qty = min(terms.show_qty, order.leaves_qty)
    s.triggers[order.side_index].refreshes -= 1
    join(s, slot)
    e = s.events[next_event(s, c, EV_REFRESHED)]
    e.side = order.side_index & 1
    e.instrument = order.side_index >> 1
    e.account = order.account
    e.order_id = order.order_id
    e.price = order.price
    e.qty = terms.shown_qty
    e.leaves_qty = order.leaves_qty
    e.cum_qty = order.cum_qty


@kernel
def link_quote(s, slot):
    """Enter an order among the quotes of its position."""
    position, terms = s.positions[s.orders[slot].position], s.terms[slot]
    terms.next_quote = position.first_quote
    terms.prev_quote = NIL
    if position.first_quote != NIL:
        s.terms[position.first_quote].prev_quote = slot
    position.first_quote = slot
    position.quotes += 1


@kernel
def _unlink_quote(s, slot):
    position, terms = s.positions[s.orders[slot].position], s.terms[slot]
    if terms.prev_quote == NIL:
        position.first_quote = terms.next_quote
    else:
        s.terms[terms.prev_quote].next_quote = terms.next_quote
    if terms.next_quote != NIL:
        s.terms[terms.next_quote].prev_quote = terms.prev_quote
    position.quotes -= 1


@kernel
def end(s, slot):
    """Forget an order that has nothing left and is in no queue."""
    if s.orders[slot].flags & QUOTED != 0:
        _unlink_quote(s, slot)
    finish(s, slot, s.accounts[s.orders[slot].account])


@kernel
def cancel_taker(s, c, slot, reason, showed):
    """Cancel what is left of an order that is in no queue. `showed`: what it showed in the book that it has just left."""
    if s.orders[slot].flags & QUOTED != 0:
        _unlink_quote(s, slot)
    cancel_rest(s, c, slot, reason)
    if showed != 0:
        s.events[s.header[0].event_seq - s.batch[0].first_event_seq - 1].contra_leaves_qty = showed


@kernel
def drop(s, c, slot, reason):
    """Cancel a working order, plain or special, wherever it is."""
    showed = take_out(s, slot)
    cancel_taker(s, c, slot, reason, showed)
