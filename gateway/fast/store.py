"""Rows found, made and dropped: what both the compiled and the general path do to the tables."""

from engine.kernel import inlined, kernel
from engine.pointers import clear
from engine.types import SLOT_BITS
from gateway.fast.tables import CHUNK, HASH_ROWS, PENDING_HASH_ROWS, POSITION_HASH_ROWS

MASK = (1 << 62) - 1
BUCKETS, POSITION_BUCKETS, PENDING_BUCKETS = HASH_ROWS - 1, POSITION_HASH_ROWS - 1, PENDING_HASH_ROWS - 1
SYMBOL_BUCKETS = 4_096 - 1
SLOT_MASK = (1 << SLOT_BITS) - 1
SLOTS_APART = 40_503  # buckets between those of one slot and of the next: an odd number far from a power of two
SMALLEST_ROOM = 16
SLACK = 1_024
"""Private events of an account that are kept beyond the ring: those of a step are read again when it is told."""


# --- Hashes -----------------------------------------------------------------------------------------------------------


@inlined
def mixed(h, word):
    # The mask keeps it the same where integers do not wrap.
    h = ((h ^ word) * 0x2545F4914F6CDD1D) & MASK
    return h ^ (h >> 29)


@inlined
def text_hash(start, c0, c1, c2, c3, c4):
    return mixed(mixed(mixed(mixed(mixed(mixed(start, c0), c1), c2), c3), c4), 1)


@kernel
def key_hash(s, account):
    """Of the text in s.key, for an account."""
    return text_hash(account, s.key[0], s.key[1], s.key[2], s.key[3], s.key[4])


@inlined
def is_key(s, row):
    k = s.key
    return row.c0 == k[0] and row.c1 == k[1] and row.c2 == k[2] and row.c3 == k[3] and row.c4 == k[4]


@inlined
def key_from(s, row):
    s.key[0] = row.c0
    s.key[1] = row.c1
    s.key[2] = row.c2
    s.key[3] = row.c3
    s.key[4] = row.c4


@kernel
def find_symbol(s):
    """The listed instrument whose symbol is in s.key, 0 for none."""
    at = s.symbol_hash[key_hash(s, 0) & SYMBOL_BUCKETS]
    while at:
        t = s.instruments[at].symbol
        same = s.symbols[t, 0] == s.key[0] and s.symbols[t, 1] == s.key[1] and s.symbols[t, 2] == s.key[2]
        if same and s.symbols[t, 3] == s.key[3] and s.symbols[t, 4] == s.key[4]:
            return at
        at = s.instruments[at].next_symbol
    return 0


@kernel
def symbol_bucket(s, instrument):
    t = s.instruments[instrument].symbol
    for k in range(5):
        s.key[k] = s.symbols[t, k]
    return key_hash(s, 0) & SYMBOL_BUCKETS


@kernel
def enter_symbol(s, instrument):
    """Make an instrument one that `find_symbol` finds, in place of an older one with the same symbol."""
    bucket = symbol_bucket(s, instrument)
    s.instruments[instrument].next_symbol = s.symbol_hash[bucket]
    s.symbol_hash[bucket] = instrument


@kernel
def drop_symbol(s, instrument):
    bucket = symbol_bucket(s, instrument)
    at = s.symbol_hash[bucket]
    if at == instrument:
        s.symbol_hash[bucket] = s.instruments[instrument].next_symbol
        return
    while at:
        following = s.instruments[at].next_symbol
        if following == instrument:
            s.instruments[at].next_symbol = s.instruments[instrument].next_symbol
            return
        at = following


# --- Orders -----------------------------------------------------------------------------------------------------------


@inlined
def status_of(order):
    """The number of its status among templates.STATUSES."""
    if order.done:
        return 2 if order.cum == order.qty and order.done == 1 else 3
    if order.waiting:
        return 4
    return 1 if order.cum else 0


@inlined
def id_bucket(order_id):
    # The engine gives a slot that was freed to the next order, with the next generation: orders of one time are neighbours.
    return ((order_id >> SLOT_BITS) + (order_id & SLOT_MASK) * SLOTS_APART) & BUCKETS


@kernel
def find_order(s, order_id):
    at = s.id_hash[id_bucket(order_id)]
    while at and s.orders[at].id != order_id:
        at = s.orders[at].next_id
    return at


@kernel
def find_cid(s, account, hashed):
    """The account's order with the cid in s.key, of which `hashed` is the hash; the youngest, where one was used again."""
    at = s.cid_hash[hashed & BUCKETS]
    while at:
        order = s.orders[at]
        if order.account == account and is_key(s, order):
            return at
        at = order.next_cid
    return 0


@kernel
def hash_order(s, at):
    """Make an order one that is found by its id, and by its cid if it has one."""
    order = s.orders[at]
    bucket = id_bucket(order.id)
    order.next_id = s.id_hash[bucket]
    s.id_hash[bucket] = at
    if order.c0:
        key_from(s, order)
        bucket = key_hash(s, order.account) & BUCKETS
        order.next_cid = s.cid_hash[bucket]
        s.cid_hash[bucket] = at


@kernel
def new_order_row(s):
    h = s.head[0]
    at = h.orders_free
    if at:
        h.orders_free = s.orders[at].next_finished
    else:
        h.orders_used += 1
        at = h.orders_used
    clear(s.orders, at)
    return at


@kernel
def enter_order(s, at):
    """Enter a filled-in row as the account's youngest working order."""
    hash_order(s, at)
    order = s.orders[at]
    account = s.accounts[order.account]
    order.prev_of_account = account.last_order
    if account.last_order:
        s.orders[account.last_order].next_of_account = at
    else:
        account.first_order = at
    account.last_order = at
    account.orders += 1


@kernel
def finish_order(s, at, ts_ns):
    """An order works no more; it is remembered behind those that finished before it."""
    h = s.head[0]
    order = s.orders[at]
    account = s.accounts[order.account]
    order.done = 1
    order.finished_ns = ts_ns
    if order.prev_of_account:
        s.orders[order.prev_of_account].next_of_account = order.next_of_account
    else:
        account.first_order = order.next_of_account
    if order.next_of_account:
        s.orders[order.next_of_account].prev_of_account = order.prev_of_account
    else:
        account.last_order = order.prev_of_account
    account.orders -= 1
    order.next_finished = 0
    if h.last_finished:
        s.orders[h.last_finished].next_finished = at
    else:
        h.first_finished = at
    h.last_finished = at
    h.finished += 1


@kernel
def unhash_order(s, at):
    order = s.orders[at]
    bucket = id_bucket(order.id)
    other = s.id_hash[bucket]
    if other == at:
        s.id_hash[bucket] = order.next_id
    else:
        while s.orders[other].next_id != at:
            other = s.orders[other].next_id
        s.orders[other].next_id = order.next_id
    if order.c0:
        key_from(s, order)
        bucket = key_hash(s, order.account) & BUCKETS
        other = s.cid_hash[bucket]
        if other == at:
            s.cid_hash[bucket] = order.next_cid
        else:
            while s.orders[other].next_cid != at:
                other = s.orders[other].next_cid
            s.orders[other].next_cid = order.next_cid


@kernel
def forget(s, now_ns):
    """Drop finished orders that nobody has to remember any more."""
    h = s.head[0]
    oldest = now_ns - h.remember_ns
    while h.first_finished:
        at = h.first_finished
        finished_ns = s.orders[at].finished_ns
        if finished_ns >= oldest and h.finished <= h.max_remembered:
            return
        if finished_ns >= oldest:
            h.forgotten_early += 1
        h.first_finished = s.orders[at].next_finished
        if h.first_finished == 0:
            h.last_finished = 0
        h.finished -= 1
        unhash_order(s, at)
        clear(s.orders, at)
        s.orders[at].next_finished = h.orders_free
        h.orders_free = at


# --- Positions --------------------------------------------------------------------------------------------------------


@inlined
def position_bucket(account, instrument):
    return mixed(account, instrument) & POSITION_BUCKETS


@kernel
def find_position(s, account, instrument):
    at = s.position_hash[position_bucket(account, instrument)]
    while at and (s.positions[at].account != account or s.positions[at].instrument != instrument):
        at = s.positions[at].next_hash
    return at


@kernel
def hash_position(s, at):
    bucket = position_bucket(s.positions[at].account, s.positions[at].instrument)
    s.positions[at].next_hash = s.position_hash[bucket]
    s.position_hash[bucket] = at


@kernel
def position_of(s, account, instrument):
    """The position's row, made when there is none."""
    at = find_position(s, account, instrument)
    if at:
        return at
    h = s.head[0]
    at = h.positions_free
    if at:
        h.positions_free = s.positions[at].next_of_account
    else:
        h.positions_used += 1
        at = h.positions_used
    clear(s.positions, at)
    position = s.positions[at]
    position.account = account
    position.instrument = instrument
    hash_position(s, at)
    owner = s.accounts[account]
    position.prev_of_account = owner.last_position
    if owner.last_position:
        s.positions[owner.last_position].next_of_account = at
    else:
        owner.first_position = at
    owner.last_position = at
    return at


@kernel
def drop_position(s, at):
    position = s.positions[at]
    bucket = position_bucket(position.account, position.instrument)
    other = s.position_hash[bucket]
    if other == at:
        s.position_hash[bucket] = position.next_hash
    else:
        while s.positions[other].next_hash != at:
            other = s.positions[other].next_hash
        s.positions[other].next_hash = position.next_hash
    owner = s.accounts[position.account]
    if position.prev_of_account:
        s.positions[position.prev_of_account].next_of_account = position.next_of_account
    else:
        owner.first_position = position.next_of_account
    if position.next_of_account:
        s.positions[position.next_of_account].prev_of_account = position.prev_of_account
    else:
        owner.last_position = position.prev_of_account
    clear(s.positions, at)
    s.positions[at].next_of_account = s.head[0].positions_free
    s.head[0].positions_free = at


@kernel
def drop_positions(s, instrument):
    """An instrument is delisted: nobody has a position in it any more."""
    for at in range(1, s.head[0].positions_used + 1):
        if s.positions[at].instrument == instrument and s.positions[at].account:
            drop_position(s, at)


# --- Depth ------------------------------------------------------------------------------------------------------------


@inlined
def room_class(room):
    number = 0
    while SMALLEST_ROOM << number < room:
        number += 1
    return number


@kernel
def level_room(s, room):
    """Where so many levels can lie."""
    free = room_class(room)
    at = s.level_free[free]
    if at:
        s.level_free[free] = s.levels[at].price
        return at
    at = s.head[0].levels_used + 1
    s.head[0].levels_used += room
    return at


@kernel
def free_levels(s, side_index):
    """Give back the room of a side."""
    side = s.sides[side_index]
    if side.room:
        free = room_class(side.room)
        s.levels[side.at].price = s.level_free[free]
        s.level_free[free] = side.at
    clear(s.sides, side_index)


@kernel
def grow_side(s, side_index):
    side = s.sides[side_index]
    room = max(SMALLEST_ROOM, 2 * side.room)
    at = level_room(s, room)
    count = side.count
    for k in range(count):
        s.levels[at + k] = s.levels[side.at + k]
    free_levels(s, side_index)
    side.at = at
    side.room = room
    side.count = count


@kernel
def place_of(s, side_index, price):
    """Where a price is among a side's levels, or would be. They lie with the best last."""
    side = s.sides[side_index]
    sign = 1 if side_index & 1 == 0 else -1
    low = side.at
    high = side.at + side.count
    # Most of what happens is near the best: a few steps from there, then halving.
    for _ in range(4):
        if high > low and sign * s.levels[high - 1].price >= sign * price:
            high -= 1
        else:
            return high
    while low < high:
        middle = (low + high) >> 1
        if sign * s.levels[middle].price < sign * price:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def depth_add(s, instrument, side_number, price, lots, seq, ts_ns):
    """Change the open lots at a price. False when fewer than none would be left."""
    h = s.head[0]
    book = s.instruments[instrument]
    book.book_seq = seq
    book.book_ts_ns = ts_ns
    if book.dirty == 0:
        book.dirty = 1
        s.dirty[h.dirty] = instrument
        h.dirty += 1
    change = s.changed[h.changed]
    change.instrument = instrument
    change.side = side_number
    change.price = price
    h.changed += 1
    side_index = 2 * instrument + side_number
    side = s.sides[side_index]
    at = place_of(s, side_index, price)
    end = side.at + side.count
    if at < end and s.levels[at].price == price:
        after = s.levels[at].lots + lots
        if after < 0:
            return False
        s.levels[at].lots = after
        if after == 0:
            for k in range(at, end - 1):
                s.levels[k] = s.levels[k + 1]
            side.count -= 1
        return True
    if lots <= 0:
        return lots == 0
    if side.count == side.room:
        offset = at - side.at
        grow_side(s, side_index)
        at = side.at + offset
        end = side.at + side.count
    for k in range(end, at, -1):
        s.levels[k] = s.levels[k - 1]
    s.levels[at].price = price
    s.levels[at].lots = lots
    side.count += 1
    return True


# --- Private events ---------------------------------------------------------------------------------------------------


@kernel
def next_record(s, account_number):
    """The row for an account's next private event, which has the number `accounts[].aseq` from now on."""
    h = s.head[0]
    account = s.accounts[account_number]
    place = account.aseq % CHUNK
    if place == 0:
        if account.first_chunk and account.aseq - account.first_chunk_at >= h.ring_events + SLACK:
            chunk = account.first_chunk
            account.first_chunk = s.next_chunk[chunk]
            account.first_chunk_at += CHUNK
        else:
            h.chunks_used += 1
            chunk = h.chunks_used
        s.next_chunk[chunk] = 0
        if account.first_chunk:
            s.next_chunk[account.last_chunk] = chunk
        else:
            account.first_chunk = chunk
            account.first_chunk_at = account.aseq
        account.last_chunk = chunk
    account.aseq += 1
    if account.step != h.step:
        account.step = h.step
        account.first_aseq = account.aseq
    return account.last_chunk * CHUNK + place


@kernel
def record_at(s, account_number, aseq):
    """The row of an account's private event, 0 when it is gone or never was."""
    account = s.accounts[account_number]
    if aseq > account.aseq or aseq <= account.first_chunk_at or aseq < 1:
        return 0
    chunk = account.first_chunk
    for _ in range((aseq - 1 - account.first_chunk_at) // CHUNK):
        chunk = s.next_chunk[chunk]
    return chunk * CHUNK + (aseq - 1) % CHUNK


# --- Commands on their way --------------------------------------------------------------------------------------------


@kernel
def find_pending(s, account, hashed):
    """The row of the account's order with the cid in s.key that is on its way, 0 for none; `hashed` as above."""
    at = s.pending_hash[hashed & PENDING_BUCKETS]
    while at:
        pending = s.pendings[at - 1]
        if pending.account == account and is_key(s, pending):
            return at
        at = pending.next_cid
    return 0


@kernel
def new_pending(s):
    """A row under the next ref whose row is free, 0 when none is. Row numbers are one above the ref's low bits."""
    h = s.head[0]
    for _ in range(len(s.pendings)):
        h.ref += 1
        at = h.ref & (len(s.pendings) - 1)
        if s.pendings[at].ref == 0:
            clear(s.pendings, at)
            s.pendings[at].ref = h.ref
            h.pending += 1
            return at + 1
    return 0


@kernel
def hash_pending(s, at, hashed):
    """Let others name the order by the cid in s.key while it is on its way."""
    pending = s.pendings[at - 1]
    bucket = hashed & PENDING_BUCKETS
    pending.hash = hashed
    pending.c0 = s.key[0]
    pending.c1 = s.key[1]
    pending.c2 = s.key[2]
    pending.c3 = s.key[3]
    pending.c4 = s.key[4]
    pending.has_cid = 1
    pending.next_cid = s.pending_hash[bucket]
    s.pending_hash[bucket] = at


@kernel
def unhash_pending(s, at):
    """Its cid is on its way no more."""
    pending = s.pendings[at - 1]
    if pending.has_cid == 0:
        return
    pending.has_cid = 0
    bucket = pending.hash & PENDING_BUCKETS
    other = s.pending_hash[bucket]
    if other == at:
        s.pending_hash[bucket] = pending.next_cid
        return
    while s.pendings[other - 1].next_cid != at:
        other = s.pendings[other - 1].next_cid
    s.pendings[other - 1].next_cid = pending.next_cid


@kernel
def drop_pending(s, at):
    unhash_pending(s, at)
    s.pendings[at - 1].ref = 0
    s.head[0].pending -= 1
