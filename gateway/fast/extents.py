"""What may be there of each ladder: the levels that were asked for last, on their way or in the book.

The engine finds a quote by the number of its level. What it cannot know is where a ladder has become shorter; and to take
back what cannot be there shall be no command.
"""

import numpy as np

from engine.kernel import inlined, kernel
from engine.pointers import clear
from gateway.fast.store import mixed
from gateway.fast.tables import EXTENT_HASH_ROWS, LADDER_LEVELS, LEVELS_A_WORD

BUCKETS = EXTENT_HASH_ROWS - 1
SIDE_WORDS = LADDER_LEVELS // LEVELS_A_WORD
IS_THERE = np.int64(1)  # of numpy's: see follow.py


@inlined
def bucket_of(account, instrument, group):
    return mixed(mixed(mixed(0, account), instrument), group) & BUCKETS


@kernel
def find_extent(s, account, instrument, group):
    """The row of a ladder, 0 when nothing of it can be there."""
    at = s.extent_hash[bucket_of(account, instrument, group)]
    while at:
        extent = s.extents[at]
        if extent.account == account and extent.instrument == instrument and extent.group == group:
            return at
        at = extent.next
    return 0


@kernel
def extent_of(s, account, instrument, group):
    """The row of a ladder, made when there is none. There must be room."""
    at = find_extent(s, account, instrument, group)
    if at:
        return at
    h = s.head[0]
    at = h.extents_free
    if at:
        h.extents_free = s.extents[at].next
    else:
        h.extents_used += 1
        at = h.extents_used
    clear(s.extents, at)
    for word in range(2 * SIDE_WORDS):
        s.extent_levels[at, word] = 0
    extent = s.extents[at]
    extent.account = account
    extent.instrument = instrument
    extent.group = group
    bucket = bucket_of(account, instrument, group)
    extent.next = s.extent_hash[bucket]
    s.extent_hash[bucket] = at
    s.live[account].extents += 1
    return at


@kernel
def free_extent(s, at):
    """Forget a ladder."""
    extent = s.extents[at]
    bucket = bucket_of(extent.account, extent.instrument, extent.group)
    other = s.extent_hash[bucket]
    if other == at:
        s.extent_hash[bucket] = extent.next
    else:
        while s.extents[other].next != at:
            other = s.extents[other].next
        s.extents[other].next = extent.next
    s.live[extent.account].extents -= 1
    clear(s.extents, at)
    extent.next = s.head[0].extents_free
    s.head[0].extents_free = at


@kernel
def free_if_empty(s, at):
    """Forget a ladder of which nothing can be there."""
    for word in range(2 * SIDE_WORDS):
        if s.extent_levels[at, word]:
            return
    free_extent(s, at)


@kernel
def forget_extents(s, account):
    """Forget all ladders of an account: the next time it quotes they are those in the books."""
    for at in range(1, s.head[0].extents_used + 1):
        if s.extents[at].account == account:
            free_extent(s, at)
    s.live[account].has_extents = 0


@kernel
def drop_extents(s, instrument):
    """An instrument is delisted: nothing of any ladder is there any more."""
    for at in range(1, s.head[0].extents_used + 1):
        if s.extents[at].account and s.extents[at].instrument == instrument:
            free_extent(s, at)


# --- Levels -----------------------------------------------------------------------------------------------------------


@inlined
def has_level(s, at, side, level):
    return (s.extent_levels[at, side * SIDE_WORDS + level // LEVELS_A_WORD] >> (level % LEVELS_A_WORD)) & 1


@inlined
def set_level(s, at, side, level, is_there):
    word = side * SIDE_WORDS + level // LEVELS_A_WORD
    mask = 1 << (level % LEVELS_A_WORD)
    if is_there:
        s.extent_levels[at, word] |= mask
    else:
        s.extent_levels[at, word] &= ~mask


@kernel
def next_level(s, at, side, level):
    """The first level from this one on that may be there, LADDER_LEVELS when none may."""
    while level < LADDER_LEVELS:
        word = s.extent_levels[at, side * SIDE_WORDS + level // LEVELS_A_WORD] >> (level % LEVELS_A_WORD)
        if word == 0:
            level = (level // LEVELS_A_WORD + 1) * LEVELS_A_WORD
        elif word & 1:
            return level
        else:
            level += 1
    return level


@kernel
def load_extents(s, account):
    """Have the ladders of an account that are in the books be known, as after a restart. There must be room."""
    live = s.live[account]
    if live.has_extents:
        return
    live.has_extents = 1
    order_at = s.accounts[account].first_order
    while order_at:
        order = s.orders[order_at]
        if 0 < order.level <= LADDER_LEVELS:
            at = extent_of(s, account, order.instrument, order.group)
            set_level(s, at, order.side, order.level - 1, IS_THERE)
            if order.side == 0 and order.price > s.extents[at].best_bid:
                s.extents[at].best_bid = order.price
        order_at = order.next_of_account
