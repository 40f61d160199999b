"""The life of an instrument (listed, closed at its gate, delivered, delisted) and of a cycle. Rules: docs/engine.md."""

from engine.accounts import BAD_AMOUNT, money_event
from engine.book import free_pages
from engine.clearing import drop_position, find_position, share_of
from engine.controls import good_bands, take_bands
from engine.kernel import inlined, kernel
from engine.matching import (
    CONTINUOUS,
    MARKET_NOT_OPEN,
    NONE,
    UNKNOWN_ACCOUNT,
    UNKNOWN_SYMBOL,
    is_listed,
    known_account,
    next_event,
)
from engine.shares import split
from engine.state import HALTED, NIL
from engine.sweeps import cancel_side
from engine.types import (
    MAX_FEE_PPM,
    MAX_LOT_VALUE_MICROS,
    MAX_MONEY_MICROS,
    MAX_PRICE_TICKS,
    EventKind,
    Reason,
    Status,
)

CLOSED, FREE = int(Status.CLOSED), int(Status.NONE)
GATE_CLOSED, INSTRUMENT_EXISTS = int(Reason.GATE_CLOSED), int(Reason.INSTRUMENT_EXISTS)
BAD_LISTING, NOT_CLOSED, NOT_FLAT = int(Reason.BAD_LISTING), int(Reason.NOT_CLOSED), int(Reason.NOT_FLAT)
BAD_DELIVERY = int(Reason.BAD_DELIVERY)
EV_LISTED, EV_CLOSED, EV_DELISTED = int(EventKind.LISTED), int(EventKind.CLOSED), int(EventKind.DELISTED)
EV_DELIVERY_DUE, EV_BOND_RELEASED = int(EventKind.DELIVERY_DUE), int(EventKind.BOND_RELEASED)
EV_DELIVERED, EV_REBATE_PAID = int(EventKind.DELIVERED), int(EventKind.REBATE_PAID)
EV_CYCLE_CLOSED = int(EventKind.CYCLE_CLOSED)


@kernel
def list_instrument(s, c, t):
    """LIST. `t` is the command as a LISTING. Returns the reason of a refusal, or NONE. So do the functions below."""
    h = s.header[0]
    number = c.instrument
    if is_listed(s, number):
        return INSTRUMENT_EXISTS
    if not 1 <= number <= h.instruments_used or number >= len(s.books) or not _good_terms(t):
        return BAD_LISTING
    if number == h.instruments_used:
        h.instruments_used += 1
    s.contracts[number] = t
    book = s.books[number]
    book.lot_tick_micros = t.lot_tick_micros
    book.open_ns = t.open_ns
    book.gate_ns = t.gate_ns
    book.taker_fee_ppm = t.taker_fee_ppm
    book.maker_rebate_ppm = t.maker_rebate_ppm
    book.max_price = t.max_price
    book.last_price = NIL
    book.status = CONTINUOUS
    book.special = HALTED * h.halted
    take_bands(s, t, number)
    _instrument_event(s, c, EV_LISTED)
    return NONE


@inlined
def _good_terms(t):
    return (
        t.lot_tick_micros >= 1
        and 1 <= t.max_price <= MAX_PRICE_TICKS
        and t.lot_tick_micros <= MAX_LOT_VALUE_MICROS // t.max_price
        and 0 <= t.maker_rebate_ppm <= t.taker_fee_ppm <= MAX_FEE_PPM
        and 0 <= t.bond_ppm <= 1_000_000
        and 0 <= t.reference_price <= t.max_price
        and good_bands(t)
        and t.open_ns < t.gate_ns
        and t.ts_ns < t.gate_ns
    )


@inlined
def _instrument_event(s, c, kind):
    e = s.events[next_event(s, c, kind)]
    e.instrument = c.instrument


@kernel
def close_instrument(s, c):
    """CLOSE: the gate. Cancels what works in the hour and says who must deliver and who will receive."""
    if not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    book = s.books[c.instrument]
    if book.status == CLOSED:
        return MARKET_NOT_OPEN
    for side_index in range(2 * c.instrument, 2 * c.instrument + 2):
        cancel_side(s, c, side_index, 0, 0, 0, 0, GATE_CLOSED)
        free_pages(s, s.sides[side_index])
        free_pages(s, s.triggers[side_index])
    book.status = CLOSED
    _instrument_event(s, c, EV_CLOSED)
    place = book.first_position
    while place != NIL:
        _report_position(s, c, s.positions[place])
        place = s.positions[place].next_of_instrument
    return NONE


@inlined
def _report_position(s, c, position):
    if position.net_lots >= 0 and position.bond_micros > 0:
        bond = position.bond_micros
        position.bond_micros = 0
        s.accounts[position.account].cash_micros += bond
        e = s.money[money_event(s, c, EV_BOND_RELEASED, position.account, position.instrument)]
        e.amount_micros = bond
        e.bond_micros = -bond
    if position.net_lots != 0:
        e = s.money[money_event(s, c, EV_DELIVERY_DUE, position.account, position.instrument)]
        e.lots = position.net_lots
        e.escrow_micros = position.escrow_micros
        e.fees_due_micros = position.fees_due_micros


@kernel
def deliver(s, c, t):
    """DELIVER: `t.lots` from provider to receiver, paid out of the escrow."""
    if not known_account(s, c.account) or not known_account(s, t.contra_account):
        return UNKNOWN_ACCOUNT
    if not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    if s.books[c.instrument].status != CLOSED:
        return NOT_CLOSED
    provider_place = find_position(s, c.account, c.instrument)
    receiver_place = find_position(s, t.contra_account, c.instrument)
    if provider_place == NIL or receiver_place == NIL:
        return BAD_DELIVERY
    provider, receiver = s.positions[provider_place], s.positions[receiver_place]
    if not (1 <= t.lots <= -provider.net_lots and t.lots <= receiver.net_lots):
        return BAD_DELIVERY
    share = share_of(provider.escrow_micros, t.lots, -provider.net_lots)
    if not (0 <= t.refund_micros <= share and 0 <= t.damages_micros <= MAX_MONEY_MICROS):
        return BAD_AMOUNT
    _pay_out(s, c, t, provider, receiver, share)
    return NONE


@inlined
def _pay_out(s, c, t, provider, receiver, share):
    due = share_of(provider.fees_due_micros, t.lots, -provider.net_lots)
    pay = share - t.refund_micros
    # Fees first, then damages; each from the pay, then from the bond.
    fees = min(due, pay)
    fees_of_bond = min(due - fees, provider.bond_micros)
    damages = min(t.damages_micros, pay - fees)
    damages_of_bond = min(t.damages_micros - damages, provider.bond_micros - fees_of_bond)
    bond_used = fees_of_bond + damages_of_bond
    provider.escrow_micros -= share
    provider.fees_due_micros -= due
    provider.net_lots += t.lots
    receiver.net_lots -= t.lots
    bond_freed = provider.bond_micros - bond_used if provider.net_lots == 0 else 0
    provider.bond_micros -= bond_used + bond_freed
    amount = pay - fees - damages + bond_freed
    contra_amount = t.refund_micros + damages + damages_of_bond
    s.accounts[provider.account].cash_micros += amount
    s.accounts[receiver.account].cash_micros += contra_amount
    s.header[0].house_fees_micros += fees + fees_of_bond
    e = s.money[money_event(s, c, EV_DELIVERED, provider.account, provider.instrument)]
    e.contra_account = receiver.account
    e.lots = t.lots
    e.amount_micros = amount
    e.contra_amount_micros = contra_amount
    e.escrow_micros = -share
    e.bond_micros = -(bond_used + bond_freed)
    e.fees_micros = fees + fees_of_bond
    e.fees_due_micros = -due
    e.refund_micros = t.refund_micros
    e.damages_micros = damages + damages_of_bond
    e.shortfall_micros = due - fees - fees_of_bond + t.damages_micros - damages - damages_of_bond
    account = s.accounts[provider.account]
    if account.first_share != NIL and account.is_frozen == 0 and pay > fees + damages:
        split(s, c, provider.account, pay - fees - damages)


@kernel
def delist(s, c):
    """DELIST: forget a closed instrument in which nobody has a position; its number is free again."""
    if not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    book = s.books[c.instrument]
    if book.status != CLOSED:
        return NOT_CLOSED
    place = book.first_position
    while place != NIL:
        if s.positions[place].net_lots != 0:
            return NOT_FLAT
        place = s.positions[place].next_of_instrument
    place = book.first_position
    while place != NIL:
        following = s.positions[place].next_of_instrument
        drop_position(s, place)
        place = following
    book.first_position = NIL
    book.status = FREE
    _instrument_event(s, c, EV_DELISTED)
    return NONE


@kernel
def close_cycle(s, c):
    """CLOSE_CYCLE: pay the makers' rebates out of the fees collected, as far as they reach."""
    h = s.header[0]
    for account in range(1, h.accounts_used):
        row = s.accounts[account]
        paid = min(row.rebate_micros, h.house_fees_micros)
        if paid > 0:
            row.rebate_micros -= paid
            row.cash_micros += paid
            h.house_fees_micros -= paid
            e = s.money[money_event(s, c, EV_REBATE_PAID, account, 0)]
            e.amount_micros = paid
            e.fees_micros = -paid
    h.cycle += 1
    e = s.money[money_event(s, c, EV_CYCLE_CLOSED, 0, 0)]
    e.lots = h.cycle
    return NONE
