"""Market-maker protection: what a group's quotes may trade in a window of time, counted between the fills.

A group is found by account and number in a hash table. Its counted trades are a ring: row `first_fill` is the oldest.
"""

from engine.kernel import kernel, mix
from engine.matching import BAD_FIELD, NONE, OVERLOADED, UNKNOWN_ACCOUNT, known_account, next_event
from engine.room import SHORT_OF_GROUPS, may_grow
from engine.state import NIL
from engine.sweeps import cancel_all
from engine.types import MAX_MMP_FILLS, MAX_MMP_WINDOW_NS, MAX_POSITION_LOTS, EventKind, Reason

MMP = int(Reason.MMP)
EV_MMP_TRIGGERED, EV_MMP_SET, EV_MMP_RESET = (
    int(EventKind.MMP_TRIGGERED),
    int(EventKind.MMP_SET),
    int(EventKind.MMP_RESET),
)


@kernel
def find_group(s, account, group):
    """The slot of the account's protection for a group, or NIL."""
    mask = len(s.group_index) - 1
    place = mix(account, group) & mask
    slot = s.group_index[place]
    while slot != NIL:
        if s.groups[slot].account == account and s.groups[slot].group == group:
            return slot
        place = (place + 1) & mask
        slot = s.group_index[place]
    return NIL


@kernel
def is_frozen(s, account, group):
    if group == 0:
        return False
    slot = find_group(s, account, group)
    if slot == NIL or s.groups[slot].frozen == 0:
        return False
    until_ns = s.groups[slot].until_ns
    return until_ns == 0 or s.request[0].now_ns < until_ns


@kernel
def say_until(s, account, group):
    """Add to the last event, a refusal because the group is frozen, until when it is."""
    last = s.header[0].event_seq - s.batch[0].first_event_seq - 1
    s.events[last].contra_order_id = s.groups[find_group(s, account, group)].until_ns


@kernel
def count_fill(s, c, account, group, instrument, qty):
    """A working order of the group was a maker: count the trade, and act when the limit is reached."""
    slot = find_group(s, account, group)
    if slot == NIL or s.groups[slot].max_fills == 0:
        return
    row, now_ns = s.groups[slot], s.request[0].now_ns
    base = slot * MAX_MMP_FILLS
    while row.fills > 0 and now_ns - s.fills[base + row.first_fill].ts_ns >= row.window_ns:
        row.lots -= s.fills[base + row.first_fill].qty
        row.first_fill = (row.first_fill + 1) % MAX_MMP_FILLS
        row.fills -= 1
    fill = s.fills[base + (row.first_fill + row.fills) % MAX_MMP_FILLS]
    fill.ts_ns = now_ns
    fill.qty = qty
    row.fills += 1
    row.lots += qty
    if row.lots >= row.max_lots or row.fills >= row.max_fills:
        e = s.events[next_event(s, c, EV_MMP_TRIGGERED)]
        e.instrument = instrument
        e.account = account
        e.contra_account = group
        e.qty = row.lots
        e.cum_qty = row.fills
        _forget(row)
        row.frozen = 1
        row.until_ns = now_ns + row.freeze_ns if row.freeze_ns else 0
        e.contra_order_id = row.until_ns
        cancel_all(s, c, account, 0, group, MMP)


@kernel
def _forget(row):
    row.fills = 0
    row.lots = 0
    row.first_fill = 0


@kernel
def set_mmp(s, c):
    """SET_MMP. Returns the reason of a refusal, what is short, or NONE."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    is_none = c.qty == 0 and c.show_qty == 0
    in_range = (
        1 <= c.qty <= MAX_POSITION_LOTS and 1 <= c.show_qty <= MAX_MMP_FILLS and 1 <= c.expire_ns <= MAX_MMP_WINDOW_NS
    )
    if c.group < 1 or not (is_none or in_range) or not 0 <= c.deadline_ns <= MAX_MMP_WINDOW_NS:
        return BAD_FIELD
    slot = find_group(s, c.account, c.group)
    if slot == NIL and not is_none:
        h = s.header[0]
        if h.groups_free == NIL and h.groups_used >= len(s.groups):
            return -SHORT_OF_GROUPS if may_grow(s, SHORT_OF_GROUPS) else OVERLOADED
        slot = _take_group(s, c.account, c.group)
    if slot != NIL:
        row = s.groups[slot]
        _forget(row)
        row.window_ns = c.expire_ns
        row.max_lots = c.qty
        row.max_fills = c.show_qty
        row.freeze_ns = c.deadline_ns
        if is_none:
            _free_group(s, slot)
    e = s.events[next_event(s, c, EV_MMP_SET)]
    e.account = c.account
    e.contra_account = c.group
    e.contra_order_id = 0 if is_none else c.expire_ns
    e.order_id = 0 if is_none else c.deadline_ns
    e.qty = c.qty
    e.cum_qty = c.show_qty
    return NONE


@kernel
def _take_group(s, account, group):
    h = s.header[0]
    slot = h.groups_free
    if slot == NIL:
        slot = h.groups_used
        h.groups_used += 1
    else:
        h.groups_free = s.groups[slot].group
    row = s.groups[slot]
    row.account = account
    row.group = group
    row.frozen = 0
    row.until_ns = 0
    index_group(s, slot)
    return slot


@kernel
def index_group(s, slot):
    """Enter a group that is not in the index."""
    mask = len(s.group_index) - 1
    place = mix(s.groups[slot].account, s.groups[slot].group) & mask
    while s.group_index[place] != NIL:
        place = (place + 1) & mask
    s.group_index[place] = slot


@kernel
def _free_group(s, slot):
    mask = len(s.group_index) - 1
    row, h = s.groups[slot], s.header[0]
    hole = mix(row.account, row.group) & mask
    while s.group_index[hole] != slot:
        hole = (hole + 1) & mask
    # Close the gap: move back each later entry of the run whose home is not behind the hole.
    place = (hole + 1) & mask
    while s.group_index[place] != NIL:
        other = s.groups[s.group_index[place]]
        home = mix(other.account, other.group) & mask
        if (place - home) & mask >= (place - hole) & mask:
            s.group_index[hole] = s.group_index[place]
            hole = place
        place = (place + 1) & mask
    s.group_index[hole] = NIL
    row.account = 0
    row.window_ns = 0
    row.frozen = 0
    row.freeze_ns = 0
    row.until_ns = 0
    row.group = h.groups_free
    h.groups_free = slot


@kernel
def reset_mmp(s, c):
    """RESET_MMP. Returns the reason of a refusal, or NONE."""
    if not known_account(s, c.account):
        return UNKNOWN_ACCOUNT
    slot = find_group(s, c.account, c.group)
    if slot == NIL:
        return BAD_FIELD
    _forget(s.groups[slot])
    s.groups[slot].frozen = 0
    s.groups[slot].until_ns = 0
    e = s.events[next_event(s, c, EV_MMP_RESET)]
    e.account = c.account
    e.contra_account = c.group
    return NONE
