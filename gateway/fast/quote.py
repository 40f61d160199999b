"""Mass quotes taken in: read from the bytes of a message, held against what may be there, a command for each level.

This is gateway/quoting.py once more, for what is refused in none of its levels: the rest is declined, and said there. It is
read into `ladders`, `ladder_sides` and `wishes`; nothing else is changed before everything is known to be right.
"""

import numpy as np

from engine.kernel import inlined, kernel
from engine.pointers import clear
from engine.types import MAX_QTY, Flag
from gateway.fast import accept
from gateway.fast.accept import DECLINED, FULL, TAKEN, begin_asker, charge, is_price, unmask
from gateway.fast.answer import send_level
from gateway.fast.extents import (
    extent_of,
    find_extent,
    free_if_empty,
    has_level,
    load_extents,
    next_level,
    set_level,
)
from gateway.fast.read import (
    CLOSE_LIST,
    COMMA,
    ITEMS_TOKEN,
    NOT_TAKEN,
    NUMBER,
    OP,
    OPEN_LIST,
    STRING,
    SYM,
    big,
    expect,
    next_field,
    open_object,
    packed,
    read_field,
    read_key,
    read_price,
    read_symbol,
    read_value,
    skip_space,
)
from gateway.fast.store import find_symbol
from gateway.fast.tables import (
    BATCH_ROWS,
    ITEMS,
    LADDER_LEVELS,
    LAST_OWNER,
    MASS_LADDERS,
    MASS_LEVELS,
    MASS_ROWS,
    STP_GROUP_BITS,
)
from gateway.fast.write import JSON

QUOTES, BIDS, ASKS = (int.from_bytes(name, "little") for name in (b"quotes", b"b", b"a"))
QUOTE_MA, SS = (int.from_bytes(name, "little") for name in (b"quote.ma", b"ss"))
POST_ONLY, STP, NS = int(Flag.POST_ONLY), int(Flag.STP_EXPIRE_TAKER), 1_000
NONE = np.int64(0)  # of numpy's: see follow.py
NOT_ASKED = -1  # the number of a level that is not there and shall not be
SCRATCH = 1  # the row of `requests` for what is read of a ladder


# --- Reading ----------------------------------------------------------------------------------------------------------


@kernel
def open_list(s, p, end, wire):
    """Behind the beginning of a list; token[6] is how many items are to come, or in JSON whether there is another."""
    if wire == JSON:
        p = skip_space(s, p + 1, end)
        if p >= end:
            return NOT_TAKEN
        s.token[6] = 1
        if s.payload[p] == CLOSE_LIST:
            s.token[6] = 0
            p += 1
        return p
    first = s.payload[p]
    if first != 0xDC:
        s.token[6] = first & 0x0F
        return p + 1
    if p + 3 > end:
        return NOT_TAKEN
    s.token[6] = big(s, p + 1, 2)
    return p + 3


@inlined
def next_item(s, p, end, wire, left):
    """Behind an item, the next one or the end of the list, which makes token[6] zero."""
    if wire != JSON:
        s.token[6] = left - 1
        return p
    p = skip_space(s, p, end)
    if p >= end:
        return NOT_TAKEN
    s.token[6] = 1
    if s.payload[p] == CLOSE_LIST:
        s.token[6] = 0
        return p + 1
    return skip_space(s, p + 1, end) if s.payload[p] == COMMA else NOT_TAKEN


@kernel
def read_level(s, p, end, wire):
    """A price, still in micros, and lots: into the next wish."""
    plan = s.plan[0]
    r = s.requests[SCRATCH]
    if plan.levels >= MASS_LEVELS:
        return NOT_TAKEN
    if wire == JSON:
        p = expect(s, p, end, OPEN_LIST)
        if p == NOT_TAKEN:
            return p
    elif p >= end or s.payload[p] != 0x92:
        return NOT_TAKEN
    else:
        p += 1
    p = read_value(s, p, end, wire)
    r.has_px = 0
    if p == NOT_TAKEN or not read_price(s, r, wire):
        return NOT_TAKEN
    if wire == JSON:
        p = expect(s, p, end, COMMA)
        if p == NOT_TAKEN:
            return p
    p = read_value(s, p, end, wire)
    if p == NOT_TAKEN or s.token[0] != NUMBER:
        return NOT_TAKEN
    wish = s.wishes[plan.levels]
    wish.price = r.px
    wish.qty = s.token[3]
    plan.levels += 1
    return expect(s, p, end, CLOSE_LIST) if wire == JSON else p


@kernel
def read_side(s, p, end, wire, at):
    """A list of levels, into a row of `ladder_sides`."""
    side = s.ladder_sides[at]
    if side.given:
        return NOT_TAKEN
    side.given = 1
    side.first = s.plan[0].levels
    p = open_list(s, p, end, wire)
    while p != NOT_TAKEN and s.token[6]:
        left = s.token[6]
        p = read_level(s, p, end, wire)
        if p == NOT_TAKEN:
            return p
        side.count += 1
        p = next_item(s, p, end, wire, left)
    return p if side.count <= LADDER_LEVELS else NOT_TAKEN


@kernel
def read_ladder(s, p, end, wire):
    """A symbol and its sides, into the next ladder."""
    plan = s.plan[0]
    if plan.ladders >= MASS_LADDERS:
        return NOT_TAKEN
    sides = 2 * plan.ladders
    clear(s.ladder_sides, sides)
    clear(s.ladder_sides, sides + 1)
    r = s.requests[SCRATCH]
    r.has_sym = 0
    p = open_object(s, p, end, wire)
    while p != NOT_TAKEN and s.token[5]:
        fields = s.token[5]
        p = read_key(s, p, end, wire)
        if p == NOT_TAKEN:
            return p
        key = s.token[4]
        p = read_value(s, p, end, wire)
        if p == NOT_TAKEN:
            return p
        if key == SYM:
            if not read_symbol(s, r):
                return NOT_TAKEN
        elif s.token[0] != ITEMS_TOKEN or (key != BIDS and key != ASKS):
            return NOT_TAKEN
        else:
            p = read_side(s, p, end, wire, sides + (1 if key == ASKS else 0))
            if p == NOT_TAKEN:
                return p
        s.token[5] = fields
        p = next_field(s, p, end, wire)
    if p == NOT_TAKEN or not r.has_sym:
        return NOT_TAKEN
    s.key[0] = r.s0
    s.key[1] = r.s1
    s.key[2] = r.s2
    s.key[3] = r.s3
    s.key[4] = r.s4
    s.ladders[plan.ladders].instrument = find_symbol(s)
    plan.ladders += 1
    return p


@kernel
def read_ladders(s, p, end, wire):
    p = open_list(s, p, end, wire)
    while p != NOT_TAKEN and s.token[6]:
        left = s.token[6]
        p = read_ladder(s, p, end, wire)
        if p != NOT_TAKEN:
            p = next_item(s, p, end, wire, left)
    return p


@inlined
def is_mass_quote(s):
    """Whether the token is the name of the request."""
    at = s.token[1]
    return s.token[0] == STRING and s.token[2] == 10 and packed(s, at, 8) == QUOTE_MA and packed(s, at + 8, 2) == SS


@kernel
def read_quotes(s, end, wire):
    """The mass quote in payload[:end]: its terms in row 0 of `requests`. False when it is declined."""
    r = s.requests[0]
    clear(s.requests, 0)
    clear(s.plan, 0)
    p = open_object(s, 0, end, wire)
    while p != NOT_TAKEN and s.token[5]:
        fields = s.token[5]
        p = read_key(s, p, end, wire)
        if p == NOT_TAKEN:
            return False
        key = s.token[4]
        p = read_value(s, p, end, wire)
        if p == NOT_TAKEN:
            return False
        if key == OP:
            if r.has_op or not is_mass_quote(s):
                return False
            r.has_op = 1
        elif key == QUOTES and s.token[0] == ITEMS_TOKEN and s.plan[0].ladders == 0:
            p = read_ladders(s, p, end, wire)
        elif s.token[0] == ITEMS_TOKEN or not read_field(s, key, r, wire):
            return False
        if p != NOT_TAKEN:
            s.token[5] = fields
            p = next_field(s, p, end, wire)
    if p == NOT_TAKEN or (skip_space(s, p, end) if wire == JSON else p) != end:
        return False
    if r.has_oid or r.has_px or r.has_qty or r.has_cid or r.has_sym or r.has_side or r.has_type or r.has_tif:
        return False
    if r.has_cod or r.has_tag or not r.has_op or not r.has_id or not r.has_group:
        return False
    return s.plan[0].ladders > 0


# --- What is to be done -----------------------------------------------------------------------------------------------


@kernel
def plan_side(s, plan, number, at):
    """Check the levels of a side; prices become ticks. False when something would be refused."""
    ladder = s.ladders[number]
    side_number = at & 1
    side = s.ladder_sides[at]
    side.at = plan.rows
    if not side.given:
        return True
    for k in range(side.count):
        wish = s.wishes[side.first + k]
        wish.level = k
        if wish.qty > MAX_QTY:
            return False
        if wish.qty == 0:
            wish.price = 0
            if not has_level(s, ladder.extent, side_number, k):
                wish.level = NOT_ASKED
        elif not is_price(s, wish.price, ladder.instrument):
            return False
        else:
            wish.price = wish.price // s.instruments[ladder.instrument].tick_micros
            plan.paid += 1
        plan.commands += wish.level != NOT_ASKED
    side.rows = side.count
    level = next_level(s, ladder.extent, side_number, side.count)
    while level < LADDER_LEVELS:
        side.rows += 1
        plan.commands += 1
        level = next_level(s, ladder.extent, side_number, level + 1)
    plan.rows += side.rows
    return True


@kernel
def make_plan(s, account, group):
    """What is to be sent and answered. False when something would be refused."""
    plan = s.plan[0]
    for k in range(plan.ladders):
        ladder = s.ladders[k]
        if ladder.instrument == 0:
            return False
        for other in range(k):
            if s.ladders[other].instrument == ladder.instrument:
                return False
        ladder.extent = find_extent(s, account, ladder.instrument, group)
        if not plan_side(s, plan, k, 2 * k) or not plan_side(s, plan, k, 2 * k + 1):
            return False
    return plan.levels <= s.head[0].max_quote_levels and 0 < plan.rows <= MASS_LEVELS


@kernel
def has_room(s, h, session, account):
    """Whether tables and limits let the plan's commands and its answer in."""
    plan = s.plan[0]
    pending = h.pending + plan.commands
    if pending > h.max_pending or 2 * pending > len(s.pendings):
        return False
    if session.pending + 1 + plan.commands > h.max_pending_per_session or plan.commands == 0:
        return False
    if h.masses_free == 0 and h.masses_used >= MASS_ROWS:
        return False
    parts = -(-plan.rows // ITEMS) - (BATCH_ROWS - h.batches_used)
    batch = h.batches_free
    while parts > 0 and batch:
        batch = s.batches[batch - 1].next
        parts -= 1
    return parts <= 0


@kernel
def load_ladders(s, h, account):
    """Have the account's ladders be known. False when there is no room for these, too, or too many are known."""
    live = s.live[account]
    loaded = 0 if live.has_extents else s.accounts[account].orders
    if h.extents_used + loaded + s.plan[0].ladders + 1 >= len(s.extents) or live.extents >= h.most_extents:
        return False
    load_extents(s, account)
    return True


# --- Sending ----------------------------------------------------------------------------------------------------------


@kernel
def new_mass(s, h, session_at, request):
    """A row for the mass quote, and batches for its results, whose numbers are in `parts`."""
    plan = s.plan[0]
    at = h.masses_free
    if at:
        h.masses_free = s.masses[at - 1].next
    else:
        h.masses_used += 1
        at = h.masses_used
    clear(s.masses, at - 1)
    mass = s.masses[at - 1]
    mass.request = request
    mass.t_in = h.t_in
    mass.session = session_at
    mass.missing = plan.commands
    mass.ladders = plan.ladders
    for k in range(-(-plan.rows // ITEMS)):
        batch_at = h.batches_free
        if batch_at:
            h.batches_free = s.batches[batch_at - 1].next
        else:
            h.batches_used += 1
            batch_at = h.batches_used
        clear(s.batches, batch_at - 1)
        s.batches[batch_at - 1].mass = at
        if k:
            s.batches[s.parts[k - 1] - 1].next = batch_at
        else:
            mass.first_batch = batch_at
        s.parts[k] = batch_at
    for k in range(plan.ladders):
        answered = s.mass_ladders[(at - 1) * MASS_LADDERS + k]
        answered.symbol = s.instruments[s.ladders[k].instrument].symbol
        answered.bids = s.ladder_sides[2 * k].rows
        answered.asks = s.ladder_sides[2 * k + 1].rows


@kernel
def send_one(s, h, asker, account, group, number, at, row, level, price, qty):
    """Ask the engine for a level, whose result has a row."""
    ladder = s.ladders[number]
    asker.batch = s.parts[row // ITEMS]
    asker.item = row % ITEMS
    send_level(s, h, asker, account, ladder.instrument, group, at & 1, level, price, qty)
    set_level(s, ladder.extent, at & 1, level, qty)


@kernel
def send_side(s, h, asker, account, group, number, at):
    """Ask the engine for the levels of a side; those that need no asking have their results at once."""
    ladder = s.ladders[number]
    side = s.ladder_sides[at]
    if not side.given:
        return
    row = side.at
    best = 0
    for k in range(side.count):
        wish = s.wishes[side.first + k]
        if wish.level == NOT_ASKED:
            clear(s.results, (s.parts[row // ITEMS] - 1) * ITEMS + row % ITEMS)
        else:
            send_one(s, h, asker, account, group, number, at, row, wish.level, wish.price, wish.qty)
            if wish.qty:
                best = max(best, wish.price)
        row += 1
    level = next_level(s, ladder.extent, at & 1, side.count)
    while level < LADDER_LEVELS:
        send_one(s, h, asker, account, group, number, at, row, level, NONE, NONE)
        row += 1
        level = next_level(s, ladder.extent, at & 1, level + 1)
    if at & 1 == 0:
        s.extents[ladder.extent].best_bid = best


@inlined
def best_bid(s, number):
    side = s.ladder_sides[2 * number]
    best = 0
    for k in range(side.count):
        if s.wishes[side.first + k].qty:
            best = max(best, s.wishes[side.first + k].price)
    return best


@kernel
def send_ladder(s, h, asker, account, group, number):
    """The side that moves away from the other goes first, so that a ladder that moves does not meet itself."""
    ladder = s.ladders[number]
    ladder.extent = extent_of(s, account, ladder.instrument, group)
    first = 1 if best_bid(s, number) > s.extents[ladder.extent].best_bid else 0
    send_side(s, h, asker, account, group, number, 2 * number + first)
    send_side(s, h, asker, account, group, number, 2 * number + 1 - first)
    free_if_empty(s, ladder.extent)


@kernel
def send_ladders(s, h, session_at):
    """Everything is right: send it."""
    session = s.sessions[session_at]
    r = s.requests[0]
    plan = s.plan[0]
    account = session.account
    new_mass(s, h, session_at, r.id)
    session.pending += 1 + plan.commands
    session.holds += 1
    asker = begin_asker(s, h, session, session_at, r.id)
    s.key[0] = (POST_ONLY if r.has_post else 0) | r.stp * STP
    s.key[1] = session.serial
    s.key[2] = r.deadline * NS
    s.key[3] = s.accounts[account].owner << STP_GROUP_BITS | r.stp_group if r.has_stp_group else 0
    for k in range(plan.ladders):
        send_ladder(s, h, asker, account, r.group, k)


@kernel
def take_quotes(s, session_at, size):
    """Take in the mass quote in payload[:size]; an accept.Take."""
    h = s.head[0]
    session = s.sessions[session_at]
    if h.stopping or session.can_quote == 0 or session.closed or not read_quotes(s, size, session.wire):
        return DECLINED
    account = session.account
    r = s.requests[0]
    if r.has_stp_group and s.accounts[account].owner > LAST_OWNER:
        return DECLINED
    if not load_ladders(s, h, account) or not make_plan(s, account, r.group) or not has_room(s, h, session, account):
        return DECLINED
    plan = s.plan[0]
    if h.unsent + plan.commands > len(s.unsent):
        return FULL
    if not charge(s, account, -(-plan.paid // h.quotes_per_token)):
        return DECLINED
    send_ladders(s, h, session_at)
    h.taken += 1
    return TAKEN


# --- Messages and frames ----------------------------------------------------------------------------------------------


@kernel
def take_message(s, session_at, size):
    """Take in the message in payload[:size], whatever it is; an accept.Take."""
    code = accept.take_message(s, session_at, size)
    if code == DECLINED and s.sessions[session_at].can_quote:
        return take_quotes(s, session_at, size)
    return code


@kernel
def take_frame(s, session_at, at, end):
    """Take in the mass quote whose frame begins at inbox[at]; where it ends, or `at` when it is not taken."""
    if end - at < 8:
        return at
    length = s.inbox[at + 1] & 0x7F
    body = at + 6
    if (
        s.inbox[at] != (0x81 if s.sessions[session_at].wire == JSON else 0x82)
        or s.inbox[at + 1] < 0x80
        or length == 127
    ):
        return at
    if length == 126:
        length = np.int64(s.inbox[at + 2]) << 8 | s.inbox[at + 3]
        body = at + 8
    if body + length > end or length > s.head[0].max_message_bytes:
        return at
    unmask(s, body, length)
    return body + length if take_quotes(s, session_at, length) == TAKEN else at


@kernel
def take_frames(s, session_at, at, end):
    """Take in what can be taken of inbox[at:end]; where the first frame is that was not."""
    while True:
        at = accept.take_frames(s, session_at, at, end)
        if s.sessions[session_at].can_quote == 0:
            return at
        behind = take_frame(s, session_at, at, end)
        if behind == at:
            return at
        at = behind
