"""Accounts, deposits, withdrawals and nominations. Rules: docs/engine.md."""

from engine.clearing import find_position, make_position
from engine.kernel import inlined, kernel
from engine.matching import (
    BAD_FIELD,
    INSUFFICIENT_FUNDS,
    MARKET_NOT_OPEN,
    NONE,
    OVERLOADED,
    POSITION_LIMIT,
    UNKNOWN_ACCOUNT,
    UNKNOWN_SYMBOL,
    is_listed,
    known_account,
    next_event,
)
from engine.orders import LOCKED_REASON, takes_orders
from engine.state import LOCKED, NIL
from engine.types import ID_WORDS, LAST_ROUTE, MAX_MONEY_MICROS, MAX_POSITION_LOTS, MAX_QTY, EventKind, Reason

MILLION = 1_000_000
ACCOUNT_EXISTS, BAD_AMOUNT, BAD_QTY = int(Reason.ACCOUNT_EXISTS), int(Reason.BAD_AMOUNT), int(Reason.BAD_QTY)
ACCOUNT_FROZEN = int(Reason.ACCOUNT_FROZEN)
EV_ACCOUNT_OPENED, EV_DEPOSITED = int(EventKind.ACCOUNT_OPENED), int(EventKind.DEPOSITED)
EV_WITHDRAWN, EV_NOMINATED = int(EventKind.WITHDRAWN), int(EventKind.NOMINATED)
EV_PAID_OUT = int(EventKind.PAID_OUT)


@inlined
def money_event(s, c, kind, account, instrument):
    """The number, in the batch, of a new event with a MONEY body."""
    number = next_event(s, c, kind)
    e = s.money[number]
    e.account = account
    e.instrument = instrument
    return number


@kernel
def open_account(s, c, t):
    """OPEN_ACCOUNT. Returns the reason of a refusal, or NONE. So do the functions below."""
    h = s.header[0]
    if 0 < c.account < h.accounts_used:
        return ACCOUNT_EXISTS
    if c.account != h.accounts_used:
        return UNKNOWN_ACCOUNT
    if h.accounts_used >= len(s.accounts):
        return OVERLOADED
    h.accounts_used += 1
    for word in range(ID_WORDS):
        s.names[c.account, word] = t.external_id[word]
    money_event(s, c, EV_ACCOUNT_OPENED, c.account, 0)
    return NONE


@kernel
def check_coins(s, c, t):
    """What holds of all money that comes in or goes out: who it is about, and which stablecoin, if one."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    if t.asset < 0:
        return BAD_FIELD
    if t.asset > 0 and t.lots < 0:
        return BAD_QTY
    return NONE


@kernel
def deposit(s, c, t):
    """DEPOSIT, also of what was set aside for a chain and comes back."""
    h = s.header[0]
    reason = check_coins(s, c, t)
    if reason != NONE:
        return reason
    if not 1 <= t.amount_micros <= MAX_MONEY_MICROS - h.deposits_micros:
        return BAD_AMOUNT
    account = s.accounts[c.account]
    if t.refund_micros != 0:
        if t.asset == 0 or t.refund_micros != t.amount_micros:
            return BAD_AMOUNT
        if t.amount_micros > account.withdrawing_micros:
            return INSUFFICIENT_FUNDS
        account.withdrawing_micros -= t.amount_micros
    account.cash_micros += t.amount_micros
    h.deposits_micros += t.amount_micros
    e = s.money[money_event(s, c, EV_DEPOSITED, c.account, 0)]
    e.amount_micros = t.amount_micros
    return NONE


@kernel
def withdraw(s, c, t):
    """WITHDRAW. What goes to a chain is set aside until it is paid out or comes back."""
    reason = check_coins(s, c, t)
    if reason != NONE:
        return reason
    if t.asset > 0 and c.flags > LAST_ROUTE:
        return BAD_FIELD
    if t.amount_micros < 1:
        return BAD_AMOUNT
    account = s.accounts[c.account]
    if account.is_frozen != 0:
        return ACCOUNT_FROZEN
    if t.amount_micros > account.cash_micros:
        return INSUFFICIENT_FUNDS
    account.cash_micros -= t.amount_micros
    if t.asset > 0:
        account.withdrawing_micros += t.amount_micros
    s.header[0].withdrawals_micros += t.amount_micros
    e = s.money[money_event(s, c, EV_WITHDRAWN, c.account, 0)]
    e.amount_micros = -t.amount_micros
    return NONE


@kernel
def payout(s, c, t):
    """PAYOUT: what a WITHDRAW set aside has left for good."""
    reason = check_coins(s, c, t)
    if reason != NONE:
        return reason
    if t.asset == 0:
        return BAD_FIELD
    if t.amount_micros < 1:
        return BAD_AMOUNT
    account = s.accounts[c.account]
    if t.amount_micros > account.withdrawing_micros:
        return INSUFFICIENT_FUNDS
    account.withdrawing_micros -= t.amount_micros
    money_event(s, c, EV_PAID_OUT, c.account, 0)
    return NONE


@kernel
def nominate(s, c, t):
    """NOMINATE: add certified capacity, against a bond."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    if not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    book = s.books[c.instrument]
    if s.accounts[c.account].special & LOCKED != 0:
        return LOCKED_REASON
    if not takes_orders(s, book, c.ts_ns):
        return MARKET_NOT_OPEN
    if not 1 <= t.lots <= MAX_QTY:
        return BAD_QTY
    place = find_position(s, c.account, c.instrument)
    if place != NIL and s.positions[place].capacity_lots + t.lots > MAX_POSITION_LOTS:
        return POSITION_LIMIT
    if place == NIL and s.header[0].positions_used == len(s.positions) and s.header[0].positions_free == NIL:
        return OVERLOADED
    contract = s.contracts[c.instrument]
    value = contract.reference_price * contract.lot_tick_micros * t.lots
    # In two parts, because value * ppm may not fit: the whole millions, and the rest rounded up.
    bond = value // MILLION * contract.bond_ppm + (value % MILLION * contract.bond_ppm + MILLION - 1) // MILLION
    account = s.accounts[c.account]
    if bond > account.cash_micros:
        return INSUFFICIENT_FUNDS
    if place == NIL:
        place = make_position(s, c.account, c.instrument)
    account.cash_micros -= bond
    s.positions[place].bond_micros += bond
    s.positions[place].capacity_lots += t.lots
    e = s.money[money_event(s, c, EV_NOMINATED, c.account, c.instrument)]
    e.lots = t.lots
    e.amount_micros = -bond
    e.bond_micros = bond
    return NONE
