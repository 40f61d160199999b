"""The transfers of orders and trades, which nearly all events of a market are. The other rules: `settlement/posting.py`."""

import numpy as np

from engine.kernel import door, inlined
from engine.types import EventKind, Side
from settlement.accounts import FEES, ROLE_BITS, STABLECOIN, Role
from settlement.ledger import Code

NEW, REPLACED, CANCELED, TRADE = (
    int(kind) for kind in (EventKind.NEW, EventKind.REPLACED, EventKind.CANCELED, EventKind.TRADE)
)
BUY, HOUSE_FEES, MONEY = int(Side.BUY), int(FEES), int(STABLECOIN)
AVAILABLE, HELD, ESCROW = int(Role.AVAILABLE), int(Role.HELD), int(Role.ESCROW)
HOLD, RELEASE, PRICE, LOTS, TAKER_FEE, DUE_FEE, ESCROW_RELEASE = (
    int(code)
    for code in (
        Code.HOLD, Code.RELEASE, Code.TRADE, Code.TRADE_LOTS, Code.TAKER_FEE, Code.DUE_FEE, Code.ESCROW_RELEASE,
    )
)  # fmt: skip
MOST_LINES = 8
"""Of an event."""


@inlined
def put(rows, line, about, code, debit, credit, asset, amount):
    """A line, after which `line` goes on. None of zero, or within a pocket; of one below zero nothing goes on.

    `about`: the command, the event's place and the listing.
    """
    if line < 0 or amount == 0 or debit == credit:
        return line
    row = rows[line]
    row[0], row[1], row[7] = about
    row[2], row[3], row[4], row[5], row[6] = debit, credit, asset, amount, code
    return line + 1 if amount > 0 else ~line


@inlined
def put_order(rows, line, about, e):
    """What the account's orders reserve."""
    available = np.int64(e.account) << ROLE_BITS | AVAILABLE
    held = np.int64(e.account) << ROLE_BITS | HELD
    if e.held_micros > 0:
        return put(rows, line, about, HOLD, available, held, MONEY, e.held_micros)
    return put(rows, line, about, RELEASE, held, available, MONEY, -e.held_micros)


@inlined
def put_trade(rows, line, about, e, tick_micros):
    """The buyer pays from what its order held; the seller's part that opens a short goes to its escrow."""
    buys, lots = e.side == BUY, np.int64(e.qty)
    buyer = np.int64(e.account if buys else e.contra_account) << ROLE_BITS
    seller = np.int64(e.contra_account if buys else e.account) << ROLE_BITS
    notional, fee_now = np.int64(e.price) * tick_micros * lots, e.fee_micros - e.fee_due_micros
    buyer_fee = e.fee_micros if buys else np.int64(0)
    held, available, escrow = buyer | HELD, buyer | AVAILABLE, buyer | ESCROW
    line = put(rows, line, about, PRICE, held, seller | AVAILABLE, MONEY, notional - e.escrow_micros)
    line = put(rows, line, about, PRICE, held, seller | ESCROW, MONEY, e.escrow_micros)
    line = put(rows, line, about, TAKER_FEE, held, HOUSE_FEES, MONEY, buyer_fee)
    line = put(rows, line, about, RELEASE, held, available, MONEY, e.held_micros - notional - buyer_fee)
    line = put(rows, line, about, DUE_FEE, escrow, HOUSE_FEES, MONEY, e.due_paid_micros)
    line = put(rows, line, about, ESCROW_RELEASE, escrow, available, MONEY, e.released_micros - e.due_paid_micros)
    line = put(rows, line, about, TAKER_FEE, seller | AVAILABLE, HOUSE_FEES, MONEY, fee_now - buyer_fee)
    return put(rows, line, about, LOTS, seller | AVAILABLE, available, about[2], lots)


@door
def post_plain(events, assets, ticks_micros, rows):
    """Put the transfers of orders and trades into `rows` (as MOVE, but for the leg: the place of the event), in order.

    Returns how many there are; -1 - n where the amount of row n is below zero. There is room for MOST_LINES of each event.
    """
    line = 0
    for place in range(len(events)):
        e = events[place]
        about = e.command_seq, np.int64(place), assets[place]
        if e.kind == TRADE:
            line = put_trade(rows, line, about, e, ticks_micros[place])
        elif e.kind in (NEW, CANCELED, REPLACED):
            line = put_order(rows, line, about, e)
        if line < 0:
            break
    return line


@door
def number_legs(rows):
    """Replace the places by legs, counted from 0 in each command."""
    leg = 0
    for number in range(len(rows)):
        leg = leg + 1 if number and rows[number, 0] == rows[number - 1, 0] else 0
        rows[number, 1] = leg
