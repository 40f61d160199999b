"""Who owes what, in the same step as the match: cash, holds, positions, escrow and fees.

Every trade is against the house. The rules, with their worked figures, are in docs/engine.md, "Clearing"; the order of
the two legs matters when one account is on both sides.

No product here can wrap: the bounds of engine/types.py were chosen for that, and are checked at the door.
"""

from engine.kernel import inlined, kernel, mix, quotient
from engine.state import NIL
from engine.types import Side

MILLION = 1_000_000
BUY = int(Side.BUY)


@inlined
def ceil_ppm(amount, ppm):
    """amount * ppm / 10^6, rounded up. Needs amount * ppm < 2^63 - 10^6."""
    return quotient(amount * ppm + (MILLION - 1), MILLION)


@inlined
def share_of(total, part, whole):
    """floor(total * part / whole) for 0 <= part <= whole, exact where total * part would not fit."""
    if part == whole:
        return total
    each = quotient(total, whole)
    return each * part + quotient((total - each * whole) * part, whole)


@inlined
def hold_micros(book, price, qty):
    """What a buy order reserves: the notional at its price, the taker's fee on it, and a micro a lot for rounding."""
    if qty == 0:
        return 0
    notional = price * book.lot_tick_micros * qty
    return notional + ceil_ppm(notional, book.taker_fee_ppm) + qty


@inlined
def reserve(s, order, account, held):
    """Make an order reserve `held`, from or back to the account's cash. Returns the change."""
    change = held - order.held_micros
    order.held_micros = held
    account.held_micros += change
    account.cash_micros -= change
    return change


@inlined
def trade(s, event, book, order, maker, price, qty, taker_buys):
    """Move the money and the lots of one trade, and write the amounts into its event.

    `order` is the taker. Both orders' leaves are already those after the trade.
    """
    notional = price * book.lot_tick_micros * qty
    fee = ceil_ppm(notional, book.taker_fee_ppm)
    event.fee_micros = fee
    if taker_buys:
        _buyer_leg(s, event, book, order, notional, fee, qty)
        _seller_leg(s, event, book, maker, price, notional, 0, 0, qty)
    else:
        _buyer_leg(s, event, book, maker, notional, 0, qty)
        _seller_leg(s, event, book, order, price, notional, fee, book.taker_fee_ppm, qty)
    s.accounts[maker.account].rebate_micros += quotient(notional * book.maker_rebate_ppm, MILLION)


@kernel
def auction_trade(s, event, book, buyer, seller, price, qty):
    """The same for a trade in an auction, in which nobody takes: no fee, no rebate."""
    notional = price * book.lot_tick_micros * qty
    _buyer_leg(s, event, book, buyer, notional, 0, qty)
    _seller_leg(s, event, book, seller, price, notional, 0, 0, qty)


@inlined
def _buyer_leg(s, event, book, order, notional, fee, qty):
    account = s.accounts[order.account]
    position = s.positions[order.position]
    held = hold_micros(book, order.price, order.leaves_qty)
    freed = order.held_micros - held
    order.held_micros = held
    event.held_micros = freed
    account.held_micros -= freed
    account.cash_micros += freed - notional - fee
    s.header[0].house_fees_micros += fee
    if position.net_lots < 0:
        _cover(s, event, account, position, qty)
    position.net_lots += qty
    position.open_buy_lots -= qty


@inlined
def _cover(s, event, account, position, qty):
    # A buyer that narrows a short gets that share of its escrow back, and pays that share of the fees due out of it.
    short = -position.net_lots
    covered = min(qty, short)
    released = share_of(position.escrow_micros, covered, short)
    due = share_of(position.fees_due_micros, covered, short)
    position.escrow_micros -= released
    position.fees_due_micros -= due
    account.cash_micros += released - due
    s.header[0].house_fees_micros += due
    event.released_micros = released
    event.due_paid_micros = due


@inlined
def _seller_leg(s, event, book, order, price, notional, fee, fee_ppm, qty):
    account = s.accounts[order.account]
    position = s.positions[order.position]
    closed = min(qty, max(position.net_lots, 0))
    # The part that opens a short goes to escrow whole, for the receiver; its fee waits until payout.
    proceeds = price * book.lot_tick_micros * closed
    paid = ceil_ppm(proceeds, fee_ppm)
    account.cash_micros += proceeds - paid
    s.header[0].house_fees_micros += paid
    position.escrow_micros += notional - proceeds
    position.fees_due_micros += fee - paid
    event.escrow_micros = notional - proceeds
    event.fee_due_micros = fee - paid
    position.net_lots -= qty
    position.open_sell_lots -= qty


@inlined
def home_of(s, account, instrument):
    """Where the index begins to look for a position; within the index for any two numbers."""
    return mix(account, instrument) & (len(s.index) - 1)


@inlined
def find_position(s, account, instrument):
    """The account's position in the instrument, or NIL."""
    last = s.accounts[account].last_position
    if last != NIL and s.positions[last].instrument == instrument:
        return last
    return _look_up(s, account, instrument)


@kernel
def _look_up(s, account, instrument):
    # Linear probing; the index is at most half full.
    place = home_of(s, account, instrument)
    slot = s.index[place]
    while slot != NIL:
        position = s.positions[slot]
        if position.account == account and position.instrument == instrument:
            s.accounts[account].last_position = slot
            return slot
        place = (place + 1) & (len(s.index) - 1)
        slot = s.index[place]
    return NIL


@kernel
def index_position(s, slot):
    """Enter a position that is not in the index."""
    position = s.positions[slot]
    place = home_of(s, position.account, position.instrument)
    while s.index[place] != NIL:
        place = (place + 1) & (len(s.index) - 1)
    s.index[place] = slot


@kernel
def make_position(s, account, instrument):
    """A new, flat position. The door has seen to it that there is room."""
    h = s.header[0]
    slot = h.positions_free
    if slot == NIL:
        slot = h.positions_used
        h.positions_used += 1
    else:
        h.positions_free = s.positions[slot].next_of_account
    position = s.positions[slot]
    position.account = account
    position.instrument = instrument
    position.next_of_account = s.accounts[account].first_position
    position.next_of_instrument = s.books[instrument].first_position
    s.accounts[account].first_position = slot
    s.books[instrument].first_position = slot
    h.positions_live += 1
    index_position(s, slot)
    return slot


@kernel
def drop_position(s, slot):
    """Forget a flat position. It must still be in its account's list; the caller walks the instrument's."""
    position = s.positions[slot]
    _unindex(s, slot)
    account = s.accounts[position.account]
    if account.last_position == slot:
        account.last_position = NIL
    if account.first_position == slot:
        account.first_position = position.next_of_account
    else:
        before = account.first_position
        while s.positions[before].next_of_account != slot:
            before = s.positions[before].next_of_account
        s.positions[before].next_of_account = position.next_of_account
    h = s.header[0]
    position.account = 0
    position.instrument = 0
    position.capacity_lots = 0
    position.next_of_instrument = NIL
    position.next_of_account = h.positions_free
    h.positions_free = slot
    h.positions_live -= 1


@kernel
def _unindex(s, slot):
    mask = len(s.index) - 1
    position = s.positions[slot]
    hole = home_of(s, position.account, position.instrument)
    while s.index[hole] != slot:
        hole = (hole + 1) & mask
    # Close the gap: move back each later entry of the run whose home is not behind the hole.
    place = (hole + 1) & mask
    while s.index[place] != NIL:
        other = s.positions[s.index[place]]
        home = home_of(s, other.account, other.instrument)
        if (place - home) & mask >= (place - hole) & mask:
            s.index[hole] = s.index[place]
            hole = place
        place = (place + 1) & mask
    s.index[hole] = NIL
