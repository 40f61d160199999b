"""Whether everything a special command may need is there, seen before it changes anything.

A shortage that growing can cure is returned as the negative number of its engine.Stop: the door stops in front of the
command, Python makes room, and the command is applied again. One that cannot is the command's refusal, in its turn.
"""

from engine.book import level_of, next_key
from engine.kernel import kernel
from engine.state import NIL, NO_KEY
from engine.types import Flag, Reason

NONE = int(Reason.NONE)
STP_EXPIRE_MAKER = int(Flag.STP_EXPIRE_MAKER)
"""The bit that EXPIRE_MAKER and EXPIRE_BOTH have."""
SHORT_OF_EVENTS, SHORT_OF_POSITIONS, SHORT_OF_ORDERS, SHORT_OF_LEAVES, SHORT_OF_NODES = 1, 4, 5, 6, 7
SHORT_OF_GROUPS, SHORT_OF_TIMERS, SHORT_OF_CLIENT_IDS = 9, 10, 11
LEAVES, NODES = 2, 4
"""Of a stop, which needs a path to its stop price, and must find one to its price when it is triggered."""


@kernel
def free_leaves(s, enough):
    """How many leaves are free; it stops counting at `enough`."""
    h = s.header[0]
    count = len(s.leaves) - h.leaves_used
    leaf = h.leaves_free
    while count < enough and leaf != NIL:
        count += 1
        leaf = s.leaf_nodes[leaf]
    return count


@kernel
def free_nodes(s, enough):
    """How many nodes are free; it stops counting at `enough`."""
    h = s.header[0]
    count = len(s.nodes) - h.nodes_used
    node = h.nodes_free
    while count < enough and node != NIL:
        count += 1
        node = s.children[node, 0]
    return count


@kernel
def pool_short(s):
    """The Stop of a pool without room for one more special order, or 0."""
    h = s.header[0]
    if h.orders_used >= len(s.orders) and h.orders_free == NIL:
        return SHORT_OF_ORDERS
    if h.positions_used >= len(s.positions) and h.positions_free == NIL:
        return SHORT_OF_POSITIONS
    if free_leaves(s, LEAVES) < LEAVES:
        return SHORT_OF_LEAVES
    if free_nodes(s, NODES) < NODES:
        return SHORT_OF_NODES
    return 0


@kernel
def may_grow(s, stop):
    return s.batch[0].grown >> stop & 1 == 0


@kernel
def short_of_pools(s, remembers):
    """What has to grow before a special order, as a negative number, or NONE. `remembers`: it has a client's id."""
    h = s.header[0]
    stop = pool_short(s)
    if stop != 0 and may_grow(s, stop):
        return -stop
    if remembers and h.client_ids_used >= len(s.client_ids):
        if h.client_ids_used < h.max_client_ids and may_grow(s, SHORT_OF_CLIENT_IDS):
            return -SHORT_OF_CLIENT_IDS
    return NONE


@kernel
def short_of_events(s, at_most):
    """Whether so many events fit, as a negative number, or NONE."""
    used = s.header[0].event_seq - s.batch[0].first_event_seq
    return -SHORT_OF_EVENTS if len(s.events) - used < at_most else NONE


@kernel
def events_of_order(s, c, instrument, qty, flags):
    """A bound on the events of a special order or amend of so many lots in a book, with all that follows from it.

    Each trade and each prevented one takes a lot from a taker, which is the order or a stop, and empties it, or what the
    maker shows, or what one of them may reduce; a refresh and protection may follow. Beside these, each special order may
    be triggered, be the taker and be cancelled; and EXPIRE_MAKER cancels orders of the same person.
    """
    h = s.header[0]
    buys, sells = s.triggers[2 * instrument], s.triggers[2 * instrument + 1]
    waits = buys.lots + sells.lots
    trades = min(qty + waits, 2 * h.open_orders + 2 + buys.refreshes + sells.refreshes + qty)
    events = 16 + 4 * trades + 4 * h.special_orders
    if flags & STP_EXPIRE_MAKER != 0 or waits > 0:
        alone = waits == 0 and s.request[0].stp_group == 0
        events += 2 * (s.accounts[c.account].open_orders if alone else h.open_orders)
    return events


@kernel
def events_of_auctions(s, instrument):
    """A bound on the events of uncrossing a book: a trade takes an order out, or shows it anew, or ends what may reduce."""
    orders = 0
    for side_index in range(2 * instrument, 2 * instrument + 2):
        side = s.sides[side_index]
        key = side.best_key
        while key != NO_KEY:
            slot = s.levels[level_of(s, side, key)].head
            while slot != NIL:
                orders += 1
                slot = s.orders[slot].next
            key = next_key(s, side, key)
    refreshes = s.triggers[2 * instrument].refreshes + s.triggers[2 * instrument + 1].refreshes
    return 16 + 4 * orders + 2 * refreshes
