"""The one compiled function that Python calls, and the numbers of what it can be asked to do.

One, because whatever several doors have in common would be compiled for each of them.
"""

import numpy as np

from engine.kernel import door, kernel
from gateway.fast import accept, answer, extents, follow, quote, store
from gateway.fast.compose import RECORD_MESSAGE, message
from gateway.fast.pointers import tables_at

(
    FOLLOW, GATHER, TAKE_FRAMES, TAKE_MESSAGE, PUT_RECORD, RECORD_TRADE, ABANDON, DEPTH_ADD,
    FIND_ORDER, FIND_CID, FIND_POSITION, FIND_PENDING, RECORD_AT,
    NEW_ORDER_ROW, POSITION_OF, NEXT_RECORD, NEW_PENDING, CHARGE, ENTER_ORDER, HASH_ORDER, FINISH_ORDER, FORGET,
    HASH_POSITION, DROP_POSITIONS, FREE_LEVELS, HASH_PENDING, DROP_PENDING, ENTER_SYMBOL, DROP_SYMBOL,
    SEND_QUOTES, EXTENT_OF, FREE_EXTENT, LOAD_EXTENTS, FORGET_EXTENTS, GIVE_BACK,
) = range(35)  # fmt: skip


@kernel
def look_up(s, op, a, b):
    if op == FIND_ORDER:
        return store.find_order(s, a)
    if op == FIND_CID:
        return store.find_cid(s, a, store.key_hash(s, a))
    if op == FIND_POSITION:
        return store.find_position(s, a, b)
    if op == RECORD_AT:
        return store.record_at(s, a, b)
    return store.find_pending(s, a, store.key_hash(s, a))


@kernel
def change(s, op, a, b):
    if op == NEW_ORDER_ROW:
        return store.new_order_row(s)
    if op == POSITION_OF:
        return store.position_of(s, a, b)
    if op == NEXT_RECORD:
        return store.next_record(s, a)
    if op == NEW_PENDING:
        return store.new_pending(s)
    if op == CHARGE:
        return np.int64(accept.charge(s, a, b))
    if op == ENTER_ORDER:
        store.enter_order(s, a)
    elif op == HASH_ORDER:
        store.hash_order(s, a)
    elif op == FINISH_ORDER:
        store.finish_order(s, a, b)
    elif op == FORGET:
        store.forget(s, a)
    elif op == HASH_POSITION:
        store.hash_position(s, a)
    elif op == DROP_POSITIONS:
        store.drop_positions(s, a)
        extents.drop_extents(s, a)
    elif op == FREE_LEVELS:
        store.free_levels(s, a)
    elif op == HASH_PENDING:
        store.key_from(s, s.pendings[a - 1])
        store.hash_pending(s, a, store.key_hash(s, s.pendings[a - 1].account))
    elif op == DROP_PENDING:
        store.drop_pending(s, a)
    elif op == ENTER_SYMBOL:
        store.enter_symbol(s, a)
    elif op == DROP_SYMBOL:
        store.drop_symbol(s, a)
    elif op == FREE_EXTENT:
        extents.free_extent(s, a)
    elif op == LOAD_EXTENTS:
        extents.load_extents(s, a)
    elif op == FORGET_EXTENTS:
        extents.forget_extents(s, a)
    return 0


@door
def run(address, op, a, b, c, d, e, f):
    """Do what `op` says to the tables at an address, with as many of the arguments as it needs."""
    s = tables_at(address)
    if op == FOLLOW:
        return follow.follow(s)
    if op == GATHER:
        return answer.gather(s)
    if op == GIVE_BACK:
        accept.give_back(s, a)
        return 0
    if op == TAKE_FRAMES:
        return quote.take_frames(s, a, b, c)
    if op == TAKE_MESSAGE:
        return quote.take_message(s, a, b)
    if op == PUT_RECORD:
        return message(s, RECORD_MESSAGE, a, b, c)
    if op == RECORD_TRADE:
        follow.record_trade(s, a, b, c, d, e, f)
        return 0
    if op == ABANDON:
        return answer.abandon(s, a)
    if op == SEND_QUOTES:
        return answer.send_quotes(s, a, b, c, d, e)
    if op == DEPTH_ADD:
        return np.int64(store.depth_add(s, a, b, c, d, e, f))
    if op == EXTENT_OF:
        return extents.extent_of(s, a, b, c)
    if FIND_ORDER <= op <= RECORD_AT:
        return look_up(s, op, a, b)
    return change(s, op, a, b)
