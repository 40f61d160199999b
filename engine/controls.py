"""What an operator sets: the status and the bands of a book, locks and limits of an account, and the halt of everything."""

from engine.auction import uncross
from engine.kernel import inlined, kernel
from engine.matching import (
    BAD_FIELD,
    BY_REQUEST,
    MARKET_NOT_OPEN,
    NONE,
    UNKNOWN_ACCOUNT,
    UNKNOWN_SYMBOL,
    is_listed,
    known_account,
    next_event,
)
from engine.room import events_of_auctions, events_of_order, short_of_events
from engine.state import DYNAMIC, GATHERS, HALTED, LIMITED, LOCKED
from engine.stops import trigger_stops
from engine.sweeps import cancel_all
from engine.taking import CONTINUOUS, set_collar, status_event
from engine.types import MAX_BAND_PPM, MAX_POSITION_LOTS, MAX_QTY, EventKind, Reason, Status

CLOSED, CANCEL_ONLY = int(Status.CLOSED), int(Status.CANCEL_ONLY)
BAD_LISTING, LOCKED_OUT = int(Reason.BAD_LISTING), int(Reason.LOCKED_OUT)
EV_ACCOUNT_LOCKED, EV_ACCOUNT_UNLOCKED = int(EventKind.ACCOUNT_LOCKED), int(EventKind.ACCOUNT_UNLOCKED)
EV_LIMITS_SET, EV_BAND_SET = int(EventKind.LIMITS_SET), int(EventKind.BAND_SET)
EV_EXCHANGE_HALTED, EV_EXCHANGE_RESUMED = int(EventKind.EXCHANGE_HALTED), int(EventKind.EXCHANGE_RESUMED)


@kernel
def lock(s, c):
    """LOCK. Returns the reason of a refusal, or NONE. So do the functions below."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    s.accounts[c.account].special |= LOCKED
    _account_event(s, c, EV_ACCOUNT_LOCKED)
    cancel_all(s, c, c.account, 0, 0, LOCKED_OUT)
    return NONE


@kernel
def unlock(s, c):
    """UNLOCK."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    s.accounts[c.account].special &= ~LOCKED
    _account_event(s, c, EV_ACCOUNT_UNLOCKED)
    return NONE


@inlined
def _account_event(s, c, kind):
    number = next_event(s, c, kind)
    s.events[number].account = c.account
    return number


@kernel
def set_limits(s, c):
    """SET_LIMITS."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    most_orders = s.header[0].max_open_orders
    if not (0 <= c.qty <= MAX_QTY and 0 <= c.price <= MAX_POSITION_LOTS and 0 <= c.tag <= most_orders):
        return BAD_FIELD
    account, control = s.accounts[c.account], s.controls[c.account]
    control.max_qty = c.qty
    control.max_lots = c.price
    control.max_orders = c.tag
    account.special &= ~LIMITED
    if c.qty != 0 or c.price != 0 or c.tag != 0:
        account.special |= LIMITED
    e = s.events[_account_event(s, c, EV_LIMITS_SET)]
    e.qty = c.qty
    e.price = c.price
    e.leaves_qty = c.tag
    return NONE


@kernel
def set_status(s, c):
    """SET_STATUS; what is short, too."""
    if not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    book = s.books[c.instrument]
    if book.status == CLOSED:
        return MARKET_NOT_OPEN
    before, status = book.status, c.qty
    if not CONTINUOUS <= status <= CANCEL_ONLY or status == CLOSED or status == before:
        return BAD_FIELD
    if status == CONTINUOUS:
        if book.special & HALTED != 0:
            return MARKET_NOT_OPEN
        at_most = events_of_auctions(s, c.instrument) + events_of_order(s, c, c.instrument, 0, 0)
        short = short_of_events(s, at_most)
        if short != NONE:
            return short
        uncross(s, c, c.instrument)
        book.special &= ~GATHERS
    else:
        book.special |= GATHERS
    book.status = status
    status_event(s, c, c.instrument, before, BY_REQUEST)
    set_collar(s, c.instrument)
    trigger_stops(s, c, c.instrument)
    return NONE


@inlined
def good_bands(t):
    """Whether the four numbers of a LISTING that make a book's bands are in range."""
    return 0 <= t.band_ppm <= MAX_BAND_PPM and 0 <= t.collar_ppm <= MAX_BAND_PPM and 0 <= t.dynamic_ppm <= MAX_BAND_PPM


@kernel
def take_bands(s, t, instrument):
    """Make the bands of a book those of a LISTING."""
    book = s.books[instrument]
    width = t.reference_price * t.band_ppm // 1_000_000
    book.low_price = max(0, t.reference_price - width) if t.band_ppm != 0 else 0
    book.high_price = min(book.max_price, t.reference_price + width) if t.band_ppm != 0 else book.max_price
    book.collar_ppm = t.collar_ppm
    book.special &= ~DYNAMIC
    if t.dynamic_ppm != 0:
        book.special |= DYNAMIC


@kernel
def set_band(s, c, t):
    """SET_BAND. `t` is the command as a LISTING."""
    if not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    book, contract = s.books[c.instrument], s.contracts[c.instrument]
    if book.status == CLOSED:
        return MARKET_NOT_OPEN
    if not (0 <= t.reference_price <= book.max_price and good_bands(t)):
        return BAD_LISTING
    contract.reference_price = t.reference_price
    contract.band_ppm = t.band_ppm
    contract.collar_ppm = t.collar_ppm
    contract.dynamic_ppm = t.dynamic_ppm
    take_bands(s, t, c.instrument)
    e = s.events[next_event(s, c, EV_BAND_SET)]
    e.instrument = c.instrument
    e.price = t.reference_price
    e.qty = book.low_price
    e.leaves_qty = book.high_price
    e.cum_qty = t.collar_ppm
    e.contra_leaves_qty = t.dynamic_ppm
    return NONE


@kernel
def halt_all(s, c):
    """HALT_ALL: nothing but cancels in any book, those listed later included."""
    s.header[0].halted = 1
    for instrument in range(1, s.header[0].instruments_used):
        s.books[instrument].special |= HALTED
    next_event(s, c, EV_EXCHANGE_HALTED)
    return NONE


@kernel
def resume_all(s, c):
    """RESUME_ALL."""
    s.header[0].halted = 0
    for instrument in range(1, s.header[0].instruments_used):
        s.books[instrument].special &= ~HALTED
    next_event(s, c, EV_EXCHANGE_RESUMED)
    return NONE
