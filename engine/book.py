"""Price levels and queues of one side of a book. Layout: engine/state.py.

Every function here keeps these in step, in this order when an order joins and in the reverse when it leaves: the queue's
links, the level's quantity, the bits of leaf and nodes, the side's best. Costs: joining and leaving are O(1); a new best
after the last one emptied takes at most three find-lowest-bit steps.
"""

from engine.kernel import bit, bits_above, inlined, kernel, lowest_bit, unlikely
from engine.state import FAN, KEY_MASK, NIL, NO_KEY
from engine.types import MAX_GENERATION, SLOT_BITS


@inlined
def key_of(side, price):
    """The price as a key of its side: the better the lower. Its own inverse: key_of(side, key) is the price."""
    return price ^ (KEY_MASK * (1 - side))


@inlined
def likely_level(row, side, price):
    """Where the level of a price of a side (its row) is if it is near the best one. Changes nothing, and may be wrong."""
    return (row.best_level & -FAN) | (key_of(side, price) & (FAN - 1))


@inlined
def level_at(s, side, key):
    """The level of a key, made when it is not there. The door has seen to it that a leaf and two nodes are free."""
    if side.best_key >> 6 == key >> 6:
        return (side.best_level & -FAN) | (key & (FAN - 1))
    return _make_level(s, side, unlikely(key))


@kernel
def _make_level(s, side, key):
    if side.root == NIL:
        side.root = _take_node(s)
    mid = s.children[side.root, key >> 12]
    if mid == NIL:
        mid = _take_node(s)
        s.children[side.root, key >> 12] = mid
    leaf = s.children[mid, (key >> 6) & (FAN - 1)]
    if leaf == NIL:
        leaf = _take_leaf(s)
        s.leaf_nodes[leaf] = mid
        s.children[mid, (key >> 6) & (FAN - 1)] = leaf
    return leaf * FAN + (key & (FAN - 1))


@inlined
def has_leaf(s):
    """Whether there is the leaf that a new price may need."""
    h = s.header[0]
    return h.leaves_used < len(s.leaves) or h.leaves_free != NIL


@inlined
def has_nodes(s):
    """Whether there are the two nodes that a new price may need."""
    h = s.header[0]
    spare = len(s.nodes) - h.nodes_used
    if spare < 2 and h.nodes_free != NIL:
        spare += 1 if s.children[h.nodes_free, 0] == NIL else 2
    return spare >= 2


@kernel
def _take_node(s):
    h = s.header[0]
    node = h.nodes_free
    if node == NIL:
        node = h.nodes_used
        h.nodes_used += 1
    else:
        h.nodes_free = s.children[node, 0]
        s.children[node, 0] = NIL
    return node


@kernel
def _take_leaf(s):
    h = s.header[0]
    leaf = h.leaves_free
    if leaf == NIL:
        leaf = h.leaves_used
        h.leaves_used += 1
    else:
        h.leaves_free = s.leaf_nodes[leaf]
    return leaf


@inlined
def _mark(s, side, level, key):
    leaf = level // FAN
    word = s.leaves[leaf]
    s.leaves[leaf] = word | bit(key & (FAN - 1))
    if word == 0:
        mid = s.leaf_nodes[leaf]
        word = s.nodes[mid]
        s.nodes[mid] = word | bit((key >> 6) & (FAN - 1))
        if word == 0:
            s.nodes[side.root] |= bit(key >> 12)
    if key < side.best_key:
        side.best_key = key
        side.best_level = level


@inlined
def _clear(s, side, level, key):
    leaf = level // FAN
    word = s.leaves[leaf] ^ bit(key & (FAN - 1))
    s.leaves[leaf] = word
    if word == 0:
        _clear_above(s, side, leaf, unlikely(key))
    elif key == side.best_key:
        # The best key is the lowest: what is left of its leaf comes before any other leaf.
        low = lowest_bit(word)
        side.best_key = (key & -FAN) | low
        side.best_level = leaf * FAN + low


@kernel
def _clear_above(s, side, leaf, key):
    mid = s.leaf_nodes[leaf]
    word = s.nodes[mid] ^ bit((key >> 6) & (FAN - 1))
    s.nodes[mid] = word
    if word == 0:
        s.nodes[side.root] ^= bit(key >> 12)
    if key == side.best_key:
        best = first_key(s, side)
        side.best_key = best
        side.best_level = level_of(s, side, best)


@kernel
def first_key(s, side):
    """The lowest key in the trie, NO_KEY when there is none."""
    if side.root == NIL or s.nodes[side.root] == 0:
        return NO_KEY
    high = lowest_bit(s.nodes[side.root])
    mid = s.children[side.root, high]
    middle = lowest_bit(s.nodes[mid])
    return (high << 12) | (middle << 6) | lowest_bit(s.leaves[s.children[mid, middle]])


@kernel
def level_of(s, side, key):
    """The level of a key that has orders; NIL for NO_KEY."""
    if key == NO_KEY:
        return NIL
    mid = s.children[side.root, key >> 12]
    return s.children[mid, (key >> 6) & (FAN - 1)] * FAN + (key & (FAN - 1))


@kernel
def next_key(s, side, key):
    """The lowest key with orders above a key that has orders; NO_KEY when there is none."""
    high, middle, low = key >> 12, (key >> 6) & (FAN - 1), key & (FAN - 1)
    mid = s.children[side.root, high]
    word = bits_above(s.leaves[s.children[mid, middle]], low)
    if word != 0:
        return (key & -FAN) | lowest_bit(word)
    word = bits_above(s.nodes[mid], middle)
    if word == 0:
        word = bits_above(s.nodes[side.root], high)
        if word == 0:
            return NO_KEY
        high = lowest_bit(word)
        mid = s.children[side.root, high]
        word = s.nodes[mid]
    middle = lowest_bit(word)
    return (high << 12) | (middle << 6) | lowest_bit(s.leaves[s.children[mid, middle]])


@inlined
def join(s, slot):
    """Put an order at the end of the queue of its price."""
    order = s.orders[slot]
    append(s, slot, order, s.sides[order.side_index], key_of(order.side_index & 1, order.price))


@inlined
def append(s, slot, order, side, key):
    """Put an order at the end of the queue of a key of a side."""
    place = level_at(s, side, key)
    level = s.levels[place]
    order.level = place
    order.next = NIL
    order.prev = level.tail
    level.qty += order.leaves_qty
    if level.tail == NIL:
        level.head = slot
        level.tail = slot
        _mark(s, side, place, key)
    else:
        s.orders[level.tail].next = slot
        level.tail = slot


@inlined
def leave(s, slot):
    """Take an order out of its queue. Its leaves_qty must still be what the level counts."""
    order = s.orders[slot]
    remove(s, order, s.sides[order.side_index], key_of(order.side_index & 1, order.price))


@inlined
def remove(s, order, side, key):
    """Take an order out of the queue of a key of a side."""
    level = s.levels[order.level]
    level.qty -= order.leaves_qty
    if order.next == NIL:
        level.tail = order.prev
    else:
        s.orders[order.next].prev = order.prev
    if order.prev == NIL:
        level.head = order.next
    else:
        s.orders[order.prev].next = order.next
    if level.head == NIL:
        _clear(s, side, order.level, key)


@inlined
def take_slot(s):
    """A free slot for an order, its id one generation on. The door has seen to it that there is one."""
    h = s.header[0]
    slot = h.orders_free
    if slot == NIL:
        slot = h.orders_used
        h.orders_used += 1
    else:
        h.orders_free = s.orders[slot].next
    s.orders[slot].order_id += 1 << SLOT_BITS
    return slot


@inlined
def free_slot(s, slot):
    """Give a slot back. The order has left its queue: the free list is linked through `next`."""
    order = s.orders[slot]
    order.leaves_qty = 0
    # A slot whose last generation this was is retired, so that no order id ever comes twice.
    if order.order_id >> SLOT_BITS < MAX_GENERATION:
        h = s.header[0]
        order.next = h.orders_free
        h.orders_free = slot


@kernel
def free_pages(s, side):
    """Give back the nodes and leaves of a side without orders."""
    if side.root == NIL:
        return
    h = s.header[0]
    for high in range(FAN):
        mid = s.children[side.root, high]
        if mid != NIL:
            for middle in range(FAN):
                leaf = s.children[mid, middle]
                if leaf != NIL:
                    s.leaf_nodes[leaf] = h.leaves_free
                    h.leaves_free = leaf
            _free_node(s, mid)
    _free_node(s, side.root)
    side.root = NIL


@kernel
def _free_node(s, node):
    h = s.header[0]
    for child in range(FAN):
        s.children[node, child] = NIL
    s.children[node, 0] = h.nodes_free
    h.nodes_free = node
