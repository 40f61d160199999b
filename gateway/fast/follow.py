"""Following a batch: events change the tables, requests are answered, private events told, all without Python.

A step is a command with its events. Compiled code follows the plain ones: orders, amends and cancels that have nothing of
the special (docs/engine.md), and only the events that those bring. At any other step it stops, the general path follows
that one, and the door is called again. It stops too where Python has something to answer, and when a buffer is full.

This is gateway/projection.py and gateway/private.py once more; the tests hold the two against each other.
"""

from enum import IntEnum

import numpy as np

from engine.kernel import inlined, kernel
from engine.types import STP_MASK, UNCHANGED, EventKind, Flag, Kind, OrdType, Reason, TimeInForce
from gateway.fast.answer import BY_PYTHON, ERROR_WANTED, answer_step, attempt_waiting, store_for_hold
from gateway.fast.compose import RECORD_FRAME, message
from gateway.fast.moves import bytes_of, plain_letters
from gateway.fast.store import (
    depth_add,
    enter_order,
    find_order,
    finish_order,
    forget,
    new_order_row,
    next_record,
    position_of,
    status_of,
)
from gateway.fast.tables import MOST_OF_ANSWER, STP_GROUP_BITS
from gateway.fast.templates import NUMBER, Term


class Stage(IntEnum):
    """How far the step at hand is."""

    BEGIN = 0
    ANSWER = 1
    TELL = 2
    ATTEMPT = 3


class Stop(IntEnum):
    """Why the door returned."""

    END = 0
    GENERAL = 1  # the step at hand is for the general path
    ANSWER = 2  # Python has to answer the step at hand
    ERROR = 3  # Python has to say what is wrong
    TELL = 4  # Python has to tell the events of a general step
    ATTEMPT = 5  # Python has to do what waited for it
    FULL = 6  # a buffer is full
    RELEASE = 7  # Python has to queue what it holds for a session
    BROKEN = 8  # the events do not fit the tables
    QUOTES = 9  # Python has to take the results of a mass quote's levels


BEGIN, ANSWER, TELL, ATTEMPT = int(Stage.BEGIN), int(Stage.ANSWER), int(Stage.TELL), int(Stage.ATTEMPT)
END, GENERAL, BROKEN = int(Stop.END), int(Stop.GENERAL), int(Stop.BROKEN)
ANSWER_BY_PYTHON, ERROR_BY_PYTHON = int(Stop.ANSWER), int(Stop.ERROR)
TELL_BY_PYTHON, ATTEMPT_BY_PYTHON = int(Stop.TELL), int(Stop.ATTEMPT)
FULL, RELEASE, QUOTES = int(Stop.FULL), int(Stop.RELEASE), int(Stop.QUOTES)
NEW_ORDER, CANCEL, AMEND, QUOTE = int(Kind.NEW_ORDER), int(Kind.CANCEL), int(Kind.AMEND), int(Kind.QUOTE)
REJECTED, NEW, TRADE = int(EventKind.REJECTED), int(EventKind.NEW), int(EventKind.TRADE)
CANCELED, REPLACED, QUOTE_KEPT = int(EventKind.CANCELED), int(EventKind.REPLACED), int(EventKind.QUOTE_KEPT)
NONE, BY_REQUEST, UNFILLED = int(Reason.NONE), int(Reason.BY_REQUEST), int(Reason.UNFILLED)
KEPT, LOST = int(Reason.KEPT), int(Reason.LOST)
PLAIN_FLAGS = int(Flag.POST_ONLY | Flag.REQUEUE | STP_MASK | Flag.EXTENDED)
EXTENDED, UNTOUCHED = int(Flag.EXTENDED), int(UNCHANGED)
FIRST_STP = int(Flag.STP_EXPIRE_TAKER)
STP_BITS, STP_GROUP_BIT, GROUP_BIT, TAG_BIT = int(STP_MASK), int(Term.STP_GROUP), int(Term.GROUP), int(Term.TAG)
OWN_GROUP = (1 << STP_GROUP_BITS) - 1
LAST_TYPE, LAST_TIF = int(OrdType.MARKET), int(TimeInForce.FOK)
PPM = 1_000_000
MOST_EVENTS = 200
"""Of a plain step; a private event must still be in its ring when the step is told."""
MOST_OF_EVENT = 1_024
CID_WORD = 15  # the first word of cl_ord_id in a command
# Numbers of numpy's: numba compiles a function anew for each plain constant that it is called with.
ORDER_NEW, ORDER_CANCELED = np.int64(NUMBER["order_new"]), np.int64(NUMBER["order_canceled"])
ORDER_REPLACED, FILL = np.int64(NUMBER["order_replaced"]), np.int64(NUMBER["fill"])
QUOTE_EVENTS = np.int64(NUMBER["quote_new"] - NUMBER["order_new"])
# A set of terms has three templates, in the order of those of plain orders; the first set is 1.
LABELLED_ORDERS = np.int64(NUMBER["order_new_1"] - NUMBER["order_new"] - 3)
LABELLED_QUOTES = np.int64(NUMBER["quote_new_1"] - NUMBER["order_new"] - 3)
POSITION, BALANCE = np.int64(NUMBER["position"]), np.int64(NUMBER["balance"])


# --- Whether a step is plain ------------------------------------------------------------------------------------------


@kernel
def is_client_id(s, i):
    """Whether the command's cl_ord_id is text that needs no escape."""
    ended = False
    for word in range(CID_WORD, CID_WORD + 5):
        value = s.words[i, word]
        if plain_letters(value) != bytes_of(value) or (ended and value):
            return False
        ended = value >> 56 == 0
    return True


@inlined
def is_plain_command(s, c, i):
    if c.kind == CANCEL:
        return True
    if c.kind == QUOTE:
        return c.flags & ~PLAIN_FLAGS == 0
    if (c.kind != NEW_ORDER and c.kind != AMEND) or c.flags & ~PLAIN_FLAGS:
        return False
    if c.kind == AMEND:
        return c.flags & EXTENDED == 0 or c.stop_price == 0 or c.stop_price == UNTOUCHED
    if c.flags & EXTENDED and (c.stop_price or c.show_qty or c.min_qty or c.expire_ns):
        return False
    return c.ord_type <= LAST_TYPE and c.time_in_force <= LAST_TIF and is_client_id(s, i)


@inlined
def is_plain_event(s, e):
    if e.kind == TRADE:
        if e.reason != NONE:
            return False
        taker = find_order(s, e.order_id)
        maker = find_order(s, e.contra_order_id)
        # The taker of a NEW is not there yet.
        return maker != 0 and s.orders[maker].special == 0 and (taker == 0 or s.orders[taker].special == 0)
    if e.kind == NEW:
        return e.reason == NONE and e.contra_leaves_qty == 0
    if e.kind == REJECTED:
        return True
    if e.kind == CANCELED:
        if e.reason != BY_REQUEST and e.reason != UNFILLED:
            return False
    elif e.kind != QUOTE_KEPT and (e.kind != REPLACED or (e.reason != KEPT and e.reason != LOST)):
        return False
    order = find_order(s, e.order_id)
    return order == 0 or s.orders[order].special == 0


@kernel
def is_plain(s, h, c):
    """Whether compiled code may follow the step at hand."""
    if h.event_end - h.event_at > MOST_EVENTS or h.event_end == h.event_at or not is_plain_command(s, c, h.command_at):
        return False
    for k in range(h.event_at, h.event_end):
        if not is_plain_event(s, s.events[k]):
            return False
    return True


# --- What events move -------------------------------------------------------------------------------------------------


@inlined
def money_moved(s, h, account_number):
    account = s.accounts[account_number]
    if account.moved != h.step:
        account.moved = h.step
        s.moved_accounts[h.moved_accounts] = account_number
        h.moved_accounts += 1


@inlined
def position_moved(s, h, at):
    position = s.positions[at]
    if position.moved != h.step:
        position.moved = h.step
        s.moved_positions[h.moved_positions] = at
        h.moved_positions += 1


@inlined
def hold(s, h, account_number, micros):
    if micros:
        account = s.accounts[account_number]
        account.held += micros
        account.cash -= micros
        money_moved(s, h, account_number)


@inlined
def open_lots(s, order, lots):
    position = s.positions[position_of(s, order.account, order.instrument)]
    if order.side == 0:
        position.open_buy += lots
    else:
        position.open_sell += lots


@inlined
def owe(account, position, escrow, fees_due):
    position.escrow += escrow
    account.escrow += escrow
    position.fees_due += fees_due
    account.fees_due += fees_due


@inlined
def follow_new(s, h, c, e):
    at = new_order_row(s)
    order = s.orders[at]
    instrument = s.instruments[e.instrument]
    order.id = e.order_id
    order.ts_ns = e.ts_ns
    order.queued_seq = e.seq
    order.tick_micros = instrument.tick_micros
    order.symbol = instrument.symbol
    order.account = e.account
    order.instrument = e.instrument
    order.session = c.session
    order.side = e.side
    order.ord_type = c.ord_type
    order.time_in_force = c.time_in_force
    order.flags = c.flags
    order.price = e.price
    order.qty = e.qty
    order.leaves = e.leaves_qty
    order.body_price = c.price
    order.body_qty = c.qty
    if c.kind == QUOTE:
        order.group = c.group
        order.stp_group = c.stp_group
        order.level = c.tag + 1
    else:
        order.group = c.group
        if c.flags & EXTENDED:
            order.tag = c.tag
            order.stp_group = c.stp_group
        i = h.command_at
        order.c0 = s.words[i, CID_WORD]
        order.c1 = s.words[i, CID_WORD + 1]
        order.c2 = s.words[i, CID_WORD + 2]
        order.c3 = s.words[i, CID_WORD + 3]
        order.c4 = s.words[i, CID_WORD + 4]
    enter_order(s, at)
    hold(s, h, order.account, e.held_micros)
    open_lots(s, order, order.leaves)
    if not depth_add(s, order.instrument, order.side, order.price, order.leaves, e.seq, e.ts_ns):
        return False
    tell_order(s, h, e, at, ORDER_NEW)
    return True


@inlined
def take_over(c, order):
    """A quote belongs to whoever sent it last."""
    order.session = c.session
    order.flags = c.flags
    order.stp_group = c.stp_group


@inlined
def follow_kept(s, c, e):
    if e.order_id == 0:
        return True
    at = find_order(s, e.order_id)
    if at == 0:
        return False
    take_over(c, s.orders[at])
    return True


@inlined
def bought(s, h, e, order, notional, fee):
    account = s.accounts[order.account]
    position = s.positions[position_of(s, order.account, order.instrument)]
    account.held -= e.held_micros
    account.cash += e.held_micros - notional - fee + e.released_micros - e.due_paid_micros
    owe(account, position, -e.released_micros, -e.due_paid_micros)
    position.net += e.qty
    position.open_buy -= e.qty
    money_moved(s, h, order.account)


@inlined
def sold(s, h, e, order, notional, fee):
    account = s.accounts[order.account]
    position = s.positions[position_of(s, order.account, order.instrument)]
    account.cash += notional - e.escrow_micros - (fee - e.fee_due_micros)
    owe(account, position, e.escrow_micros, e.fee_due_micros)
    position.net -= e.qty
    position.open_sell -= e.qty
    money_moved(s, h, order.account)


@inlined
def filled(s, h, e, at, leaves, cum):
    order = s.orders[at]
    order.leaves = leaves
    order.cum = cum
    position_moved(s, h, position_of(s, order.account, order.instrument))
    fits = depth_add(s, order.instrument, order.side, order.price, -e.qty, e.seq, e.ts_ns)
    if leaves == 0:
        finish_order(s, at, e.ts_ns)
    return fits


@kernel
def record_trade(s, instrument_number, tid, price, qty, side, ts_ns):
    """Keep a trade among the last of its instrument."""
    h = s.head[0]
    instrument = s.instruments[instrument_number]
    trade = s.recent[instrument_number * h.recent_trades + instrument.recent % h.recent_trades]
    trade.tid = tid
    trade.px = price * instrument.tick_micros
    trade.qty = qty
    trade.side = side
    trade.ts = ts_ns // 1000
    instrument.recent += 1
    instrument.traded += 1
    if instrument.traded == 1:
        s.trades[h.trades] = instrument_number
        h.trades += 1


@inlined
def follow_trade(s, h, e):
    taker_at = find_order(s, e.order_id)
    maker_at = find_order(s, e.contra_order_id)
    if taker_at == 0 or maker_at == 0:
        return False
    taker = s.orders[taker_at]
    maker = s.orders[maker_at]
    instrument = s.instruments[e.instrument]
    notional = e.price * instrument.lot_tick_micros * e.qty
    if e.side == 0:
        bought(s, h, e, taker, notional, e.fee_micros)
        sold(s, h, e, maker, notional, 0)
    else:
        bought(s, h, e, maker, notional, 0)
        sold(s, h, e, taker, notional, e.fee_micros)
    rebate = notional * instrument.maker_rebate_ppm // PPM
    s.accounts[maker.account].rebate += rebate
    money_moved(s, h, maker.account)
    fits = filled(s, h, e, taker_at, e.leaves_qty, e.cum_qty)
    fits = filled(s, h, e, maker_at, e.contra_leaves_qty, e.contra_cum_qty) and fits
    instrument.last_price = e.price
    instrument.volume_lots += e.qty
    instrument.trade_seq = e.seq
    tell_fill(s, h, e, taker, e.leaves_qty, e.cum_qty, 0, e.fee_micros, e.fee_due_micros)
    tell_fill(s, h, e, maker, e.contra_leaves_qty, e.contra_cum_qty, 1, -rebate, 0)
    price, qty, side = np.int64(e.price), np.int64(e.qty), np.int64(e.side)
    record_trade(s, taker.instrument, e.seq, price, qty, side, e.ts_ns)
    return fits


@inlined
def follow_canceled(s, h, e):
    at = find_order(s, e.order_id)
    if at == 0:
        return False
    order = s.orders[at]
    hold(s, h, order.account, e.held_micros)
    open_lots(s, order, -e.leaves_qty)
    fits = depth_add(s, order.instrument, order.side, order.price, -e.leaves_qty, e.seq, e.ts_ns)
    order.qty = e.qty
    order.leaves = 0
    order.cum = e.cum_qty
    finish_order(s, at, e.ts_ns)
    tell_order(s, h, e, at, ORDER_CANCELED)
    return fits


@inlined
def follow_replaced(s, h, c, e):
    at = find_order(s, e.order_id)
    if at == 0:
        return False
    order = s.orders[at]
    hold(s, h, order.account, e.held_micros)
    open_lots(s, order, e.leaves_qty - order.leaves)
    fits = depth_add(s, order.instrument, order.side, order.price, -order.leaves, e.seq, e.ts_ns)
    order.price = e.price
    order.qty = e.qty
    order.leaves = e.leaves_qty
    fits = depth_add(s, order.instrument, order.side, order.price, order.leaves, e.seq, e.ts_ns) and fits
    if e.reason != KEPT:
        order.queued_seq = e.seq
    if c.kind == QUOTE:
        take_over(c, order)
    tell_order(s, h, e, at, ORDER_REPLACED)
    return fits


@kernel
def follow_event(s, h, c, e):
    """False when the event does not fit the tables."""
    if e.kind == NEW:
        return follow_new(s, h, c, e)
    if e.kind == TRADE:
        return follow_trade(s, h, e)
    if e.kind == CANCELED:
        return follow_canceled(s, h, e)
    if e.kind == REPLACED:
        return follow_replaced(s, h, c, e)
    if e.kind == QUOTE_KEPT:
        return follow_kept(s, c, e)
    return True


# --- Private events ---------------------------------------------------------------------------------------------------


@inlined
def begin_record(s, h, account, template, seq, ts_us):
    row = next_record(s, account)
    s.records[row].template = template
    s.values[row, 0] = s.accounts[account].aseq
    s.values[row, 1] = seq
    s.values[row, 2] = ts_us
    s.fresh[h.fresh, 0] = account
    s.fresh[h.fresh, 1] = row
    h.fresh += 1
    return row


@inlined
def name_order(s, row, order):
    record = s.records[row]
    record.symbol = order.symbol
    record.c0 = order.c0
    record.c1 = order.c1
    record.c2 = order.c2
    record.c3 = order.c3
    record.c4 = order.c4


@inlined
def labelled(order, template):
    """The template for the terms that an order has beyond a plain one."""
    terms = 1 if order.flags & STP_BITS else 0
    if order.stp_group & OWN_GROUP:
        terms |= STP_GROUP_BIT
    if order.level:
        return template + QUOTE_EVENTS if terms == 0 else template + LABELLED_QUOTES + 3 * terms
    if order.group:
        terms |= GROUP_BIT
    if order.tag:
        terms |= TAG_BIT
    return template if terms == 0 else template + LABELLED_ORDERS + 3 * terms


@kernel
def tell_order(s, h, e, at, template):
    order = s.orders[at]
    row = begin_record(s, h, order.account, labelled(order, template), e.seq, e.ts_ns // 1000)
    name_order(s, row, order)
    s.values[row, 3] = order.id
    s.values[row, 4] = order.price * order.tick_micros
    s.values[row, 5] = order.qty
    s.values[row, 6] = order.leaves
    s.values[row, 7] = order.cum
    s.values[row, 8] = h.phrase_side + order.side
    s.values[row, 9] = h.phrase_type + order.ord_type
    s.values[row, 10] = h.phrase_tif + order.time_in_force
    s.values[row, 11] = order.flags & 1
    s.values[row, 12] = h.phrase_status + status_of(order)
    if template == ORDER_CANCELED:
        s.values[row, 13] = h.phrase_why + (1 if e.reason == UNFILLED else 0)
    elif template == ORDER_REPLACED:
        s.values[row, 13] = 1 if e.reason == KEPT else 0
    s.values[row, 14] = order.group
    s.values[row, 15] = order.level - 1 if order.level else order.tag
    s.values[row, 16] = h.phrase_stp + (order.flags & STP_BITS) // FIRST_STP - 1
    s.values[row, 17] = order.stp_group & OWN_GROUP


@kernel
def tell_fill(s, h, e, order, leaves, cum, is_maker, fee, fee_due):
    row = begin_record(s, h, order.account, FILL, e.seq, e.ts_ns // 1000)
    name_order(s, row, order)
    s.values[row, 3] = e.seq
    s.values[row, 4] = order.id
    s.values[row, 5] = e.price * order.tick_micros
    s.values[row, 6] = e.qty
    s.values[row, 7] = leaves
    s.values[row, 8] = cum
    s.values[row, 9] = h.phrase_side + order.side
    s.values[row, 10] = h.phrase_status + (1 if leaves else 2)
    s.values[row, 11] = h.phrase_liquidity + is_maker
    s.values[row, 12] = fee
    s.values[row, 13] = fee_due


@kernel
def tell_moved(s, h, seq, ts_us):
    """Where the step left positions and money."""
    for k in range(h.moved_positions):
        position = s.positions[s.moved_positions[k]]
        row = begin_record(s, h, position.account, POSITION, seq, ts_us)
        s.records[row].symbol = s.instruments[position.instrument].symbol
        s.values[row, 3] = position.net
        s.values[row, 4] = position.capacity
        s.values[row, 5] = position.open_buy
        s.values[row, 6] = position.open_sell
        s.values[row, 7] = position.escrow
        s.values[row, 8] = position.fees_due
        s.values[row, 9] = position.bond
    for k in range(h.moved_accounts):
        number = s.moved_accounts[k]
        account = s.accounts[number]
        row = begin_record(s, h, number, BALANCE, seq, ts_us)
        s.values[row, 3] = account.cash
        s.values[row, 4] = account.held
        s.values[row, 5] = account.escrow
        s.values[row, 6] = account.fees_due
        s.values[row, 7] = account.bond
        s.values[row, 8] = account.rebate
        s.values[row, 9] = account.frozen


@kernel
def tell(s, h):
    """Queue the step's private events for the sessions that hold their streams. False when the buffer is full."""
    while h.fresh_at < h.fresh:
        account, row = s.fresh[h.fresh_at, 0], s.fresh[h.fresh_at, 1]
        # Those of one account share what they are told; a full buffer is looked for before the first of them.
        holders = 0
        session_at = s.live[account].first_holder
        while session_at:
            holders += 1
            session_at = s.sessions[session_at].next_holder
        if h.out_used + holders * MOST_OF_EVENT > len(s.out) or h.pieces + holders > len(s.pieces):
            return False
        session_at = s.live[account].first_holder
        while session_at:
            session = s.sessions[session_at]
            start = h.out_used
            end = message(s, RECORD_FRAME, start, row, session.wire)
            h.out_used = end
            store_for_hold(s, h, session_at, start, end)
            session_at = session.next_holder
        h.fresh_at += 1
    return True


# --- The batch --------------------------------------------------------------------------------------------------------


@kernel
def begin(s, h):
    """Follow the events of the step at hand: END, GENERAL or BROKEN."""
    c = s.commands[h.command_at]
    h.event_end = h.event_at
    while h.event_end < h.events and s.events[h.event_end].command_seq == c.seq:
        h.event_end += 1
    h.step = c.seq
    h.fresh = 0
    h.fresh_at = 0
    h.moved_accounts = 0
    h.moved_positions = 0
    if not is_plain(s, h, c):
        return GENERAL
    if h.first_finished:
        forget(s, c.ts_ns)
    for k in range(h.event_at, h.event_end):
        if not follow_event(s, h, c, s.events[k]):
            return BROKEN
    tell_moved(s, h, s.events[h.event_end - 1].seq, c.ts_ns // 1000)
    first = s.events[h.event_at]
    if first.kind == NEW:
        order = s.orders[find_order(s, first.order_id)]
        account = s.accounts[order.account]
        order.has_ack = 1
        order.ack_status = status_of(order)
        order.ack_left = order.leaves
        order.ack_cum = order.cum
        order.ack_aseq = account.first_aseq if account.step == h.step else 0
    return END


@kernel
def follow(s):
    """Go on with the batch at hand; why it stopped."""
    h = s.head[0]
    while h.command_at < h.commands:
        if h.release:
            return RELEASE
        if h.out_used + MOST_OF_ANSWER > len(s.out) or h.pieces + 8 > len(s.pieces):
            return FULL
        if h.stage == BEGIN:
            code = begin(s, h)
            if code != END:
                return code
            h.stage = ANSWER
        elif h.stage == ANSWER:
            code = answer_step(s, h)
            if code == ERROR_WANTED:
                return ERROR_BY_PYTHON
            h.stage = TELL
            if code == BY_PYTHON:
                return ANSWER_BY_PYTHON
            if h.quotes:
                return QUOTES
        elif h.stage == TELL:
            if h.general:
                return TELL_BY_PYTHON
            if not tell(s, h):
                return FULL
            h.stage = ATTEMPT
        else:
            if not attempt_waiting(s, h):
                return RELEASE if h.release else FULL
            h.stage = BEGIN
            h.command_at += 1
            h.event_at = h.event_end
            h.general = 0
            if h.python:
                h.python = 0
                return ATTEMPT_BY_PYTHON
    return RELEASE if h.release else END
