"""Cancelling many orders at once: of an account by filters, of a book at its gate. Rules: docs/engine.md, "MASS_CANCEL"."""

from engine.book import level_of, next_key
from engine.kernel import kernel
from engine.matching import BAD_FIELD, MASS_CANCELED, NONE, UNKNOWN_ACCOUNT, UNKNOWN_SYMBOL, is_listed, known_account
from engine.resting import drop
from engine.state import HAS_TERMS, NIL, NO_KEY
from engine.types import ANY_SIDE


@kernel
def mass_cancel(s, c):
    """MASS_CANCEL. Returns the reason of a refusal, or NONE."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    if c.instrument != 0 and not is_listed(s, c.instrument):
        return UNKNOWN_SYMBOL
    if c.side > 1 and c.side != ANY_SIDE:
        return BAD_FIELD
    cancel_of_account(s, c, c.account, c.instrument, c.side, c.session, c.tag, c.group, MASS_CANCELED)
    return NONE


@kernel
def cancel_of_account(s, c, account, instrument, side, session, tag, group, reason):
    """Cancel the account's working orders that fit: 0 is any instrument, session, tag and group, ANY_SIDE both sides."""
    place = s.accounts[account].first_position
    while place != NIL:
        position = s.positions[place]
        if instrument == 0 or instrument == position.instrument:
            if position.open_buy_lots > 0 and side != 1:
                cancel_side(s, c, 2 * position.instrument, account, session, tag, group, reason)
            if position.open_sell_lots > 0 and side != 0:
                cancel_side(s, c, 2 * position.instrument + 1, account, session, tag, group, reason)
        place = position.next_of_account


@kernel
def cancel_side(s, c, side_index, account, session, tag, group, reason):
    """Cancel one side of a book, best first, then the stops of that side, first due first: of an account (0: any)."""
    _cancel_queues(s, c, s.sides[side_index], account, session, tag, group, reason)
    if s.triggers[side_index].orders > 0:
        _cancel_queues(s, c, s.triggers[side_index], account, session, tag, group, reason)


@kernel
def _cancel_queues(s, c, side, account, session, tag, group, reason):
    key = side.best_key
    while key != NO_KEY:
        # Looked up before the cancels: a level that empties leaves the trie.
        following = next_key(s, side, key)
        slot = s.levels[level_of(s, side, key)].head
        while slot != NIL:
            younger = s.orders[slot].next
            if account == 0 or _fits(s, slot, account, session, tag, group):
                drop(s, c, slot, reason)
            slot = younger
        key = following


@kernel
def _fits(s, slot, account, session, tag, group):
    order = s.orders[slot]
    if order.account != account or (session != 0 and order.session != session):
        return False
    if tag == 0 and group == 0:
        return True
    if order.flags & HAS_TERMS == 0:
        return False
    terms = s.terms[slot]
    return (tag == 0 or terms.tag == tag) and (group == 0 or terms.group == group)


ANY = int(ANY_SIDE)


@kernel
def cancel_all(s, c, account, tag, group, reason):
    """Cancel all of an account's working orders with a tag and group (0: any)."""
    cancel_of_account(s, c, account, 0, ANY, 0, tag, group, reason)
