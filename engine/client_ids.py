"""Client order ids: an order that is sent again is answered, not executed again. Rules: docs/engine.md.

The ids of accepted orders stand in a ring by age, as many as the limit, and are found by account and five words in a hash
table. One that is used anew, its first order being forgotten, keeps its old place in the ring, empty.
"""

from engine.kernel import kernel, low_bits, mix
from engine.matching import next_event
from engine.state import NIL
from engine.types import CLIENT_ID_LIFE_NS, ID_WORDS, SLOT_BITS, EventKind

EV_DUPLICATE = int(EventKind.DUPLICATE)


@kernel
def has_id(c):
    """Whether a command carries a client order id."""
    for word in range(ID_WORDS):
        if c.cl_ord_id[word] != 0:
            return True
    return False


@kernel
def _mixed(c):
    mixed = 0
    for word in range(ID_WORDS):
        mixed = mix(mixed, low_bits(c.cl_ord_id[word])) + (mixed << 1)
    return mix(c.account, mixed)


@kernel
def find_id(s, c):
    """The slot of the id that a command carries, however old, or NIL."""
    mask = len(s.client_id_index) - 1
    mixed = _mixed(c)
    place = mixed & mask
    slot = s.client_id_index[place]
    while slot != NIL:
        row = s.client_ids[slot]
        if row.mixed == mixed and row.account == c.account and _same_words(s, c, slot):
            return slot
        place = (place + 1) & mask
        slot = s.client_id_index[place]
    return NIL


@kernel
def _same_words(s, c, slot):
    for word in range(ID_WORDS):
        if s.client_words[slot, word] != c.cl_ord_id[word]:
            return False
    return True


@kernel
def working_slot(s, row):
    """The slot of the order that an id names, if it still works, or NIL."""
    slot = row.order_id & ((1 << SLOT_BITS) - 1)
    order = s.orders[slot]
    return slot if order.order_id == row.order_id and order.leaves_qty > 0 else NIL


@kernel
def is_remembered(s, slot):
    row = s.client_ids[slot]
    return s.request[0].now_ns - row.ts_ns < CLIENT_ID_LIFE_NS or working_slot(s, row) != NIL


@kernel
def is_same_order(s, c, slot):
    """Whether a command asks for what the order of an id asked for."""
    row = s.client_ids[slot]
    return (
        row.instrument == c.instrument
        and row.side == c.side
        and row.ord_type == c.ord_type
        and row.time_in_force == c.time_in_force
        and row.flags == c.flags
        and row.group == c.group
        and row.price == c.price
        and row.qty == c.qty
        and row.stop_price == c.stop_price
        and row.show_qty == c.show_qty
        and row.min_qty == c.min_qty
        and row.expire_ns == c.expire_ns
        and row.tag == c.tag
        and row.stp_group == c.stp_group
    )


@kernel
def answer_duplicate(s, c, slot):
    """Say again what came of an order."""
    row = s.client_ids[slot]
    e = s.events[next_event(s, c, EV_DUPLICATE)]
    e.side = c.side
    e.instrument = c.instrument
    e.account = c.account
    e.order_id = row.order_id
    e.price = c.price
    e.qty = c.qty
    working = working_slot(s, row)
    if working != NIL:
        e.leaves_qty = s.orders[working].leaves_qty
        e.cum_qty = s.orders[working].cum_qty


@kernel
def remember(s, c, order_id):
    """Remember an accepted order under its id. The door has seen to it that there is a slot, or one to forget."""
    h = s.header[0]
    known = find_id(s, c)
    if known != NIL:
        _forget(s, known)
    slot = h.client_ids_used
    if slot < h.max_client_ids:
        h.client_ids_used += 1
    else:
        slot = h.next_client_id
        h.next_client_id = (slot + 1) % h.max_client_ids
        if s.client_ids[slot].account != 0:
            _forget(s, slot)
    _fill_in(s, c, slot, order_id)
    index_id(s, slot)


@kernel
def _fill_in(s, c, slot, order_id):
    row = s.client_ids[slot]
    for word in range(ID_WORDS):
        s.client_words[slot, word] = c.cl_ord_id[word]
    row.mixed = _mixed(c)
    row.order_id = order_id
    row.ts_ns = s.request[0].now_ns
    row.account = c.account
    row.instrument = c.instrument
    row.side = c.side
    row.ord_type = c.ord_type
    row.time_in_force = c.time_in_force
    row.flags = c.flags
    row.group = c.group
    row.price = c.price
    row.qty = c.qty
    row.stop_price = c.stop_price
    row.show_qty = c.show_qty
    row.min_qty = c.min_qty
    row.expire_ns = c.expire_ns
    row.tag = c.tag
    row.stp_group = c.stp_group


@kernel
def index_id(s, slot):
    """Enter an id that is not in the index."""
    mask = len(s.client_id_index) - 1
    place = s.client_ids[slot].mixed & mask
    while s.client_id_index[place] != NIL:
        place = (place + 1) & mask
    s.client_id_index[place] = slot


@kernel
def _forget(s, slot):
    s.client_ids[slot].account = 0
    mask = len(s.client_id_index) - 1
    hole = s.client_ids[slot].mixed & mask
    while s.client_id_index[hole] != slot:
        hole = (hole + 1) & mask
    # Close the gap: move back each later entry of the run whose home is not behind the hole.
    place = (hole + 1) & mask
    while s.client_id_index[place] != NIL:
        home = s.client_ids[s.client_id_index[place]].mixed & mask
        if (place - home) & mask >= (place - hole) & mask:
            s.client_id_index[hole] = s.client_id_index[place]
            hole = place
        place = (place + 1) & mask
    s.client_id_index[hole] = NIL
