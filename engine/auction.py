"""Auctions: all that is crossed trades at one price. Rules: docs/engine.md, "Auctions"."""

from engine.book import key_of, level_of, next_key
from engine.kernel import inlined, kernel
from engine.matching import MARKET_NOT_OPEN, NONE, UNKNOWN_SYMBOL, is_listed, next_event
from engine.state import NIL, NO_KEY
from engine.taking import auction_fill
from engine.types import EventKind, Reason, Status

PRE_OPEN, AUCTION = int(Status.PRE_OPEN), int(Status.AUCTION)
AUCTION_TRADE, INDICATIVE = int(Reason.AUCTION), int(Reason.INDICATIVE)
WIDEST = (1 << 31) - 1
"""What an event's quantity holds; beyond, it says as much."""
EV_AUCTION_PRICE = int(EventKind.AUCTION_PRICE)


@inlined
def is_crossed(s, instrument):
    """Whether the best bid is at or above the best offer."""
    bid, offer = s.sides[2 * instrument].best_key, s.sides[2 * instrument + 1].best_key
    return bid != NO_KEY and offer != NO_KEY and key_of(0, bid) >= offer


@inlined
def _level_qty(s, side, key):
    return s.levels[level_of(s, side, key)].qty


@kernel
def auction_price(s, instrument):
    """The price of an auction in a crossed book, the quantity it trades, and by how much bids exceed offers there.

    Consuming the best bids against the best offers finds the most that can trade, and the last bid and offer it needs:
    at each price between those two as much trades, and at each either no bid or no offer within the price is left over.
    """
    bids, offers = s.sides[2 * instrument], s.sides[2 * instrument + 1]
    bid, offer = bids.best_key, offers.best_key
    bid_left, offer_left = _level_qty(s, bids, bid), _level_qty(s, offers, offer)
    last_bid, last_offer, volume = bid, offer, 0
    next_bid, next_offer = next_key(s, bids, bid), next_key(s, offers, offer)
    while True:
        traded = min(bid_left, offer_left)
        volume += traded
        bid_left -= traded
        offer_left -= traded
        bid = next_bid if bid_left == 0 else last_bid
        offer = next_offer if offer_left == 0 else last_offer
        if bid == NO_KEY or offer == NO_KEY or key_of(0, bid) < offer:
            break
        if bid_left == 0:
            last_bid, bid_left, next_bid = bid, _level_qty(s, bids, bid), next_key(s, bids, bid)
        if offer_left == 0:
            last_offer, offer_left, next_offer = offer, _level_qty(s, offers, offer), next_key(s, offers, offer)
    price, surplus = _least_surplus(s, instrument, last_bid, bid_left, next_bid, last_offer, offer_left, next_offer)
    return price, volume, surplus


@kernel
def _least_surplus(s, instrument, last_bid, bid_left, next_bid, last_offer, offer_left, next_offer):
    """Of the prices at which the most trades, the one with the least surplus, and nearest to the last; and that surplus."""
    bids, offers = s.sides[2 * instrument], s.sides[2 * instrument + 1]
    high, low = key_of(0, last_bid), last_offer
    bid_below = key_of(0, next_bid) if next_bid != NO_KEY else NIL
    offer_above = next_offer if next_offer != NO_KEY else NO_KEY
    # From `clear_down` up no bid is left over, to `clear_up` no offer.
    clear_down = max(low, bid_below + 1) if bid_left == 0 else high + 1
    clear_up = min(high, offer_above - 1) if offer_left == 0 else low - 1
    if clear_down <= clear_up:
        return _nearest(s, instrument, clear_down, clear_up), 0
    # They are neighbours: at clear_up and somewhat below bids are left over, at clear_down and somewhat above offers.
    first, last, over, under = clear_down, clear_up, 0, 0
    if clear_up >= low:
        over, first = bid_left, max(low, bid_below + 1)
        if bid_left == 0:
            over = _level_qty(s, bids, next_bid)
            below = next_key(s, bids, next_bid)
            first = max(low, key_of(0, below) + 1) if below != NO_KEY else low
    if clear_down <= high:
        under, last = offer_left, min(high, offer_above - 1)
        if offer_left == 0:
            under = _level_qty(s, offers, next_offer)
            last = min(high, next_key(s, offers, next_offer) - 1)
    if clear_up < low or (clear_down <= high and under < over):
        first = clear_down
    elif clear_down > high or over < under:
        last = clear_up
    price = _nearest(s, instrument, first, last)
    return price, over if price <= clear_up else -under


@kernel
def _nearest(s, instrument, low, high):
    wanted = s.books[instrument].last_price
    if wanted == NIL:
        wanted = s.contracts[instrument].reference_price
    return min(max(wanted, low), high)


@kernel
def _say_price(s, c, instrument, price, volume, surplus, reason):
    e = s.events[next_event(s, c, EV_AUCTION_PRICE)]
    e.instrument = instrument
    e.price = price
    e.qty = min(volume, WIDEST)
    e.leaves_qty = min(max(surplus, -WIDEST - 1), WIDEST)
    e.reason = reason


@kernel
def uncross(s, c, instrument):
    """Trade until the book is not crossed. More than one auction is needed where orders may only reduce."""
    bids, offers = s.sides[2 * instrument], s.sides[2 * instrument + 1]
    while is_crossed(s, instrument):
        price, volume, surplus = auction_price(s, instrument)
        _say_price(s, c, instrument, price, volume, surplus, AUCTION_TRADE)
        while bids.best_key <= key_of(0, price) and offers.best_key <= price:
            auction_fill(s, c, s.levels[bids.best_level].head, s.levels[offers.best_level].head, price)


@kernel
def indicate(s, c):
    """INDICATE. Returns the reason of a refusal, or NONE."""
    if not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    status = s.books[c.instrument].status
    if status != PRE_OPEN and status != AUCTION:
        return MARKET_NOT_OPEN
    price, volume, surplus = 0, 0, 0
    if is_crossed(s, c.instrument):
        price, volume, surplus = auction_price(s, c.instrument)
    _say_price(s, c, c.instrument, price, volume, surplus, INDICATIVE)
    return NONE
