"""Requests taken in: checked as gateway/order_entry.py checks them, and made into commands.

Nothing is changed before everything is known to be right. What would be refused, or answered at once, is declined: the
general path says what is wrong.
"""

from enum import IntEnum

import numpy as np

from engine.kernel import inlined, kernel
from engine.pointers import clear, prefetch
from engine.types import MAX_QTY, UNCHANGED, EventKind, Flag, Kind, TimeInForce
from gateway.fast.answer import send
from gateway.fast.moves import word_at
from gateway.fast.read import AMEND, BATCH, CANCEL, PLACE, read_message
from gateway.fast.store import BUCKETS, find_cid, find_order, find_pending, find_symbol, hash_pending, is_key, key_hash
from gateway.fast.tables import BATCH_HASH_ROWS, BATCH_ROWS, LAST_OWNER, STP_GROUP_BITS
from gateway.fast.write import JSON

US = 1_000_000


class Take(IntEnum):
    """What became of a message."""

    TAKEN = 0
    DECLINED = 1
    FULL = 2  # what is unsent has to be sent first


TAKEN, DECLINED, FULL = int(Take.TAKEN), int(Take.DECLINED), int(Take.FULL)
TRADE = int(EventKind.TRADE)
NEW_ORDER, CANCEL_ORDER, AMEND_ORDER = int(Kind.NEW_ORDER), int(Kind.CANCEL), int(Kind.AMEND)
GTG, IOC, POST_ONLY = int(TimeInForce.GTG), int(TimeInForce.IOC), int(Flag.POST_ONLY)
STP, EXTENDED, NS = int(Flag.STP_EXPIRE_TAKER), int(Flag.EXTENDED), 1_000
OF_THIS_BATCH, BATCH_BUCKETS = -1, BATCH_HASH_ROWS - 1
NO_ROW = np.int64(0)  # of numpy's: see follow.py


# --- Checks -----------------------------------------------------------------------------------------------------------


@inlined
def key_is_cid(s, r):
    s.key[0] = r.c0
    s.key[1] = r.c1
    s.key[2] = r.c2
    s.key[3] = r.c3
    s.key[4] = r.c4


@inlined
def is_price(s, px, instrument_number):
    instrument = s.instruments[instrument_number]
    tick = instrument.tick_micros
    return tick > 0 and px % tick == 0 and px // tick <= instrument.max_price


@inlined
def find_of_batch(s, r):
    """The item of the batch at hand, among those that are checked, that places the order with r's cid; 0 for none."""
    at = s.cids_of_batch[r.hash & BATCH_BUCKETS]
    while at and s.requests[at].hash != r.hash:
        at = s.requests[at].next_cid
    return at


@inlined
def enter_of_batch(s, r, row):
    """Make an item one that `find_of_batch` finds. False when another is so like it that only text could tell."""
    if find_of_batch(s, r):
        return False
    bucket = r.hash & BATCH_BUCKETS
    r.next_cid = s.cids_of_batch[bucket]
    s.cids_of_batch[bucket] = row
    return True


@kernel
def check_place(s, r, account, row):
    if r.has_oid or not r.has_sym or not r.has_side or not r.has_qty or not 1 <= r.qty <= MAX_QTY:
        return False
    s.key[0] = r.s0
    s.key[1] = r.s1
    s.key[2] = r.s2
    s.key[3] = r.s3
    s.key[4] = r.s4
    r.instrument = find_symbol(s)
    if r.instrument == 0:
        return False
    if not r.has_tif:
        r.time_in_force = IOC if r.ord_type else GTG
    immediate = r.time_in_force >= IOC
    if (r.ord_type and not immediate) or (r.has_post and immediate) or bool(r.ord_type) == bool(r.has_px):
        return False
    if r.has_px and not is_price(s, r.px, r.instrument):
        return False
    if r.has_stp_group and s.accounts[account].owner > LAST_OWNER:
        return False
    if not r.has_cid:
        return True
    key_is_cid(s, r)
    if row == NO_ROW:
        r.hash = key_hash(s, account)
    if find_cid(s, account, r.hash) or find_pending(s, account, r.hash):
        return False
    return row == NO_ROW or enter_of_batch(s, r, row)


@kernel
def find_named(s, r, account, row):
    """Where the order of an amend or a cancel is: r.order, or on its way: r.pending. False when it is to be declined."""
    if r.has_oid == r.has_cid:
        return False
    if r.has_oid:
        r.order = find_order(s, r.oid)
    else:
        key_is_cid(s, r)
        if row == NO_ROW:
            r.hash = key_hash(s, account)
        r.pending = find_pending(s, account, r.hash)
        if r.pending:
            r.instrument = s.pendings[r.pending - 1].instrument
            # What waits for Python waits in the order in which it came.
            return s.pendings[r.pending - 1].extra == 0
        r.order = find_cid(s, account, r.hash)
        at = find_of_batch(s, r) if row != NO_ROW and r.order == 0 else 0
        if at:
            other = s.requests[at]
            r.pending = OF_THIS_BATCH
            r.instrument = other.instrument
            return is_key(s, other)
    if r.order == 0:
        return False
    order = s.orders[r.order]
    r.instrument = order.instrument
    return order.account == account and order.done == 0 and order.special == 0


@inlined
def has_labels(r):
    return r.has_tag or r.has_group or r.has_stp or r.has_stp_group


@kernel
def check_change(s, r, account, row):
    """An amend or a cancel."""
    if r.has_sym or r.has_side or r.has_type or r.has_tif or r.has_post or r.has_cod:
        return False
    if has_labels(r) or not find_named(s, r, account, row):
        return False
    if r.op == CANCEL:
        return not r.has_px and not r.has_qty and not r.has_deadline
    if not (r.has_px or r.has_qty) or (r.has_qty and not 1 <= r.qty <= MAX_QTY):
        return False
    if r.has_deadline and r.pending:  # what waits has no place for one
        return False
    return not r.has_px or (r.instrument != 0 and is_price(s, r.px, r.instrument))


@inlined
def check(s, r, account, row):
    if r.op == PLACE:
        return check_place(s, r, account, row)
    return (r.op == AMEND or r.op == CANCEL) and check_change(s, r, account, row)


@inlined
def fetch_items(s, account, items):
    """Ask for what the checks look for, of all items at once: each by itself would wait for the memory."""
    for k in range(1, items + 1):
        item = s.requests[k]
        if item.has_cid:
            key_is_cid(s, item)
            item.hash = key_hash(s, account)
            prefetch(s.cid_hash, item.hash & BUCKETS)
    for k in range(1, items + 1):
        if s.requests[k].has_cid:
            prefetch(s.orders, s.cid_hash[s.requests[k].hash & BUCKETS])


@kernel
def check_items(s, r, account, items):
    if items < 1 or r.has_oid or r.has_px or r.has_qty or r.has_cid or r.has_sym or r.has_side:
        return False
    if r.has_type or r.has_tif or r.has_post or r.has_cod or r.has_deadline or has_labels(r):
        return False
    for k in range(BATCH_BUCKETS + 1):
        s.cids_of_batch[k] = 0
    fetch_items(s, account, items)
    for k in range(1, items + 1):
        item = s.requests[k]
        if item.has_id or not item.has_op or not check(s, item, account, k):
            return False
    return True


@kernel
def charge(s, account_number, tokens):
    """Take tokens of the account's bucket; False, and none taken, when there are too few."""
    h = s.head[0]
    tokens = min(tokens, h.burst)
    live = s.live[account_number]
    if live.has_bucket == 0:
        live.has_bucket = 1
        live.bucket_level = h.burst * US
        live.bucket_at_us = h.t_in
    full = h.burst * US
    # What would overflow fills the bucket anyway.
    earned = max(0, min(h.t_in - live.bucket_at_us, full // h.rate + 1)) * h.rate
    live.bucket_level = min(full, live.bucket_level + earned)
    live.bucket_at_us = max(live.bucket_at_us, h.t_in)
    if live.bucket_level < tokens * US:
        return False
    live.bucket_level -= tokens * US
    return True


@kernel
def give_back(s, tokens):
    """Both sides of each trade of the batch at hand have so many tokens back."""
    h = s.head[0]
    for k in range(h.events):
        e = s.events[k]
        if e.kind == TRADE:
            refill(s.live[e.account], h.burst, tokens)
            refill(s.live[e.contra_account], h.burst, tokens)


@inlined
def refill(live, burst, tokens):
    if live.has_bucket:
        live.bucket_level = min(burst * US, live.bucket_level + tokens * US)


@kernel
def has_room(s, h, session, items):
    """Whether tables and limits let so many commands in."""
    if h.pending + items > h.max_pending or 2 * (h.pending + items) > len(s.pendings):
        return False
    if h.waits_used + items >= len(s.waits):
        return False
    return session.pending + items + 1 <= h.max_pending_per_session


# --- Commands ---------------------------------------------------------------------------------------------------------


@kernel
def send_place(s, h, r, asker, account, serial):
    at = send(s, h, asker, NEW_ORDER, account)
    pending = s.pendings[at - 1]
    command = s.unsent[h.unsent - 1]
    pending.instrument = r.instrument
    command.instrument = r.instrument
    command.side = r.side
    command.ord_type = r.ord_type
    command.time_in_force = r.time_in_force
    command.flags = (POST_ONLY if r.has_post else 0) | r.stp * STP
    command.group = r.group
    if r.has_tag or r.has_stp_group or r.has_deadline:
        command.flags |= EXTENDED
        command.tag = r.tag
        command.deadline_ns = r.deadline * NS
        command.stp_group = s.accounts[account].owner << STP_GROUP_BITS | r.stp_group if r.has_stp_group else 0
    command.price = r.px // s.instruments[r.instrument].tick_micros if r.has_px else 0
    command.qty = r.qty
    pending.side = command.side
    pending.ord_type = command.ord_type
    pending.time_in_force = command.time_in_force
    pending.flags = command.flags
    pending.price = command.price
    pending.qty = command.qty
    pending.group = command.group
    pending.tag = command.tag
    pending.stp_group = command.stp_group
    if not r.has_cod or r.cod:
        command.session = serial
    if r.has_cid:
        key_is_cid(s, r)
        hash_pending(s, at, r.hash)
        row = h.unsent - 1
        s.unsent_words[row, 15] = r.c0
        s.unsent_words[row, 16] = r.c1
        s.unsent_words[row, 17] = r.c2
        s.unsent_words[row, 18] = r.c3
        s.unsent_words[row, 19] = r.c4


@inlined
def price_and_qty(s, r):
    price = r.px // s.instruments[r.instrument].tick_micros if r.has_px else UNCHANGED
    return price, r.qty if r.has_qty else UNCHANGED


@kernel
def send_change(s, h, r, asker, account):
    order = s.orders[r.order]
    send(s, h, asker, AMEND_ORDER if r.op == AMEND else CANCEL_ORDER, account)
    command = s.unsent[h.unsent - 1]
    command.instrument = order.instrument
    command.order_id = order.id
    if r.op == AMEND:
        command.price, command.qty = price_and_qty(s, r)
        if r.has_deadline:
            command.flags = EXTENDED
            command.stop_price = UNCHANGED
            command.deadline_ns = r.deadline * NS


@kernel
def wait_for(s, h, r, asker, account):
    """A request about an order that is on its way: it waits for it."""
    at = r.pending
    if at == OF_THIS_BATCH:
        key_is_cid(s, r)
        at = find_pending(s, account, r.hash)
    number = h.waits_free
    if number:
        h.waits_free = s.waits[number - 1].next
    else:
        h.waits_used += 1
        number = h.waits_used
    clear(s.waits, number - 1)
    wait = s.waits[number - 1]
    wait.uid = asker.uid
    wait.request = asker.request
    wait.t_in = asker.t_in
    wait.session = asker.session
    wait.batch = asker.batch
    wait.item = asker.item
    wait.account = account
    wait.kind = AMEND_ORDER if r.op == AMEND else CANCEL_ORDER
    if r.op == AMEND:
        wait.price, wait.qty = price_and_qty(s, r)
    pending = s.pendings[at - 1]
    if pending.last_wait:
        s.waits[pending.last_wait - 1].next = number
    else:
        pending.first_wait = number
    pending.last_wait = number


@inlined
def take_in(s, h, r, asker, account, serial):
    if r.op == PLACE:
        send_place(s, h, r, asker, account, serial)
    elif r.pending:
        wait_for(s, h, r, asker, account)
    else:
        send_change(s, h, r, asker, account)


@inlined
def begin_asker(s, h, session, session_at, request):
    clear(s.asker, 0)
    asker = s.asker[0]
    asker.session = session_at
    asker.uid = session.uid
    asker.request = request
    asker.t_in = h.t_in
    return asker


@kernel
def take_batch(s, h, session_at, items):
    session = s.sessions[session_at]
    r = s.requests[0]
    at = h.batches_free
    if at:
        h.batches_free = s.batches[at - 1].next
    else:
        h.batches_used += 1
        at = h.batches_used
    batch = s.batches[at - 1]
    batch.request = r.id
    batch.t_in = h.t_in
    batch.session = session_at
    batch.items = items
    batch.missing = items
    session.pending += 1 + items
    session.holds += 1
    asker = begin_asker(s, h, session, session_at, 0)
    asker.batch = at
    for k in range(items):
        asker.item = k
        take_in(s, h, s.requests[k + 1], asker, session.account, session.serial)


@kernel
def take_message(s, session_at, size):
    """Take in the message in payload[:size], of a session; a Take."""
    h = s.head[0]
    session = s.sessions[session_at]
    if h.stopping or session.can_trade == 0 or session.closed:
        return DECLINED
    items = read_message(s, size, session.wire)
    if items < 0:
        return DECLINED
    r = s.requests[0]
    account = session.account
    count = max(items, 1)
    if not has_room(s, h, session, count):
        return DECLINED
    if r.op == BATCH:
        if items > h.max_batch_items or (h.batches_free == 0 and h.batches_used >= BATCH_ROWS):
            return DECLINED
        if not check_items(s, r, account, items):
            return DECLINED
    elif not check(s, r, account, NO_ROW):
        return DECLINED
    if h.unsent + count > len(s.unsent):
        return FULL
    cost = 0
    for k in range(1, items + 1):
        cost += s.requests[k].op != CANCEL
    if r.op != BATCH:
        cost = 1 if r.op != CANCEL else 0
    if cost and not charge(s, account, cost):
        return DECLINED
    if r.op == BATCH:
        take_batch(s, h, session_at, items)
    else:
        session.pending += 1
        take_in(s, h, r, begin_asker(s, h, session, session_at, r.id), account, session.serial)
    h.taken += 1
    return TAKEN


# --- Frames -----------------------------------------------------------------------------------------------------------


@kernel
def unmask(s, at, size):
    """The payload of a frame, whose mask stands in front of inbox[at]."""
    mask = 0
    for k in range(8):
        mask |= np.int64(s.inbox[at - 4 + (k & 3)]) << (8 * k)
    for k in range(0, size - 7, 8):
        word = word_at(s.inbox, at + k) ^ mask
        for n in range(8):
            s.payload[k + n] = (word >> (8 * n)) & 0xFF
    for k in range(size & ~7, size):
        s.payload[k] = s.inbox[at + k] ^ s.inbox[at - 4 + (k & 3)]


@kernel
def take_frames(s, session_at, at, end):
    """Take in what can be taken of inbox[at:end]; where the first frame is that was not."""
    wire = s.sessions[session_at].wire
    first = 0x81 if wire == JSON else 0x82
    while end - at >= 6:
        length = s.inbox[at + 1] & 0x7F
        if s.inbox[at] != first or s.inbox[at + 1] < 0x80 or length == 127:
            break
        body = at + 6
        if length == 126:
            length = np.int64(s.inbox[at + 2]) << 8 | s.inbox[at + 3]
            body = at + 8
        if body + length > end or length > s.head[0].max_message_bytes:
            break
        unmask(s, body, length)
        if take_message(s, session_at, length) != TAKEN:
            break
        at = body + length
    return at
