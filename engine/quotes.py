"""QUOTE: one side of one level of a market maker's ladder, set to what it shall be. Rules: docs/engine.md.

What is already so is left as it is, with its priority. The quotes of a position are a list, at most `max_quotes` long.
"""

from engine.clearing import find_position
from engine.kernel import kernel
from engine.matching import (
    BAD_FIELD,
    BAD_QTY,
    BAD_TIF,
    BY_REQUEST,
    MARKET_NOT_OPEN,
    NONE,
    UNKNOWN_ACCOUNT,
    UNKNOWN_SYMBOL,
    is_listed,
    known_account,
    next_event,
)
from engine.orders import (
    DEADLINE_PASSED,
    EXTENDED,
    GTC,
    LIMIT,
    LOCKED_REASON,
    MMP_FROZEN,
    MOST_STP,
    OF_COMMAND,
    POST_ONLY,
    SLIDE,
    change,
    enter,
    is_late,
    takes_orders,
)
from engine.protection import is_frozen
from engine.resting import drop
from engine.state import LOCKED, NIL
from engine.types import MAX_QTY, MAX_QUOTE_LEVEL, STP_MASK, EventKind

EV_QUOTE_KEPT = int(EventKind.QUOTE_KEPT)


@kernel
def quote(s, c):
    """QUOTE. Returns the reason of a refusal, what is short, or NONE."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    if not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    if not _good_fields(c):
        return BAD_FIELD
    if c.time_in_force > GTC:
        return BAD_TIF
    if c.qty < 0:
        return BAD_QTY
    _read_quote(s, c)
    slot = _find_quote(s, c)
    if c.qty == 0:
        if slot == NIL:
            _say_kept(s, c, NIL)
        else:
            drop(s, c, slot, BY_REQUEST)
        return NONE
    if is_late(s, c):
        return DEADLINE_PASSED
    if s.accounts[c.account].special & LOCKED != 0:
        return LOCKED_REASON
    if not takes_orders(s, s.books[c.instrument], c.ts_ns):
        return MARKET_NOT_OPEN
    if is_frozen(s, c.account, c.group):
        return MMP_FROZEN
    return enter(s, c, False) if slot == NIL else _requote(s, c, slot)


@kernel
def _good_fields(c):
    both = POST_ONLY | SLIDE
    return (
        c.side <= 1
        and c.group >= 1
        and 0 <= c.tag <= MAX_QUOTE_LEVEL
        and c.ord_type == LIMIT
        and c.flags & ~(both | STP_MASK | EXTENDED) == 0
        and c.flags & both != both
        and c.flags & STP_MASK <= MOST_STP
    )


@kernel
def _read_quote(s, c):
    r = s.request[0]
    r.stop_price = 0
    r.show_qty = 0
    r.min_qty = 0
    r.expire_ns = 0
    r.tag = 0
    r.deadline_ns = c.deadline_ns
    r.stp_group = c.stp_group
    r.quote_level = c.tag


@kernel
def _find_quote(s, c):
    place = find_position(s, c.account, c.instrument)
    if place == NIL:
        return NIL
    slot = s.positions[place].first_quote
    while slot != NIL:
        terms = s.terms[slot]
        if terms.quote_level == c.tag and terms.group == c.group and s.orders[slot].side_index & 1 == c.side:
            return slot
        slot = terms.next_quote
    return NIL


@kernel
def _say_kept(s, c, slot):
    e = s.events[next_event(s, c, EV_QUOTE_KEPT)]
    e.side = c.side
    e.instrument = c.instrument
    e.account = c.account
    if slot != NIL:
        order = s.orders[slot]
        e.order_id = order.order_id
        e.price = order.price
        e.qty = order.cum_qty + order.leaves_qty
        e.leaves_qty = order.leaves_qty
        e.cum_qty = order.cum_qty


@kernel
def _requote(s, c, slot):
    order, terms = s.orders[slot], s.terms[slot]
    if c.price == order.price and c.qty == order.leaves_qty:
        _take_over(s, c, slot)
        _say_kept(s, c, slot)
        return NONE
    # It is taken over before the checks that read it; a refusal puts back what was.
    flags, session, stp_group = order.flags, order.session, terms.stp_group
    _take_over(s, c, slot)
    qty = order.cum_qty + min(c.qty, MAX_QTY + 1)
    reason = change(s, c, slot, c.price, qty, 0, False)
    if reason != NONE:
        order.flags = flags
        order.session = session
        terms.stp_group = stp_group
    return reason


@kernel
def _take_over(s, c, slot):
    order = s.orders[slot]
    order.flags = (order.flags & ~OF_COMMAND) | (c.flags & OF_COMMAND)
    order.session = c.session
    s.terms[slot].stp_group = c.stp_group
