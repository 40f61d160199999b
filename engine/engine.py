"""Engine.apply(commands) -> events: the one door into the exchange.

One compiled call applies a whole batch. It receives a single number, the address of a table of addresses, because numba
unpacks every array argument of every call: a call with the state's arrays would cost more than the work of a small batch.

Nothing grows inside the door. Before each command it sees whether the pools and the room for events suffice whatever
the command does; if not, it stops in front of it and says what is short, and Python makes room and calls again.
"""

from enum import IntEnum
from typing import Any, Self

import numpy as np
from numba import carray
from numpy.typing import NDArray

from engine import matching, shares, special
from engine.book import has_leaf, has_nodes, likely_level
from engine.clearing import home_of, index_position
from engine.client_ids import index_id
from engine.dump import dump
from engine.kernel import JIT, door, inlined, kernel, pointer, unlikely
from engine.matching import SPECIAL
from engine.pointers import prefetch, state_at
from engine.protection import index_group, say_until
from engine.state import (
    FAN,
    INDEXES,
    NIL,
    Limits,
    Memory,
    State,
    aligned,
)
from engine.types import COMMAND, HEAD, LISTING, MONEY, SLOT_BITS, TRANSFER, UNCHANGED, Kind, Reason


class Stop(IntEnum):
    """Why the door returned: the batch is done, or the next command may not have room. From ACCOUNTS on, names of pools."""

    END = 0
    EVENTS = 1
    ACCOUNTS = 2
    INSTRUMENTS = 3
    POSITIONS = 4
    ORDERS = 5
    LEAVES = 6
    NODES = 7
    SHARES = 8
    GROUPS = 9
    TIMERS = 10
    CLIENT_IDS = 11


ARRAYS = len(State._fields)
STOPPED, NOT_NEXT = -1, -2
"""What the door returns instead of a number of events."""
FIRST_EVENTS = 32_768
"""Rows for events at first. Only those that a batch fills are ever touched."""
STREAM = 16
"""How many commands ahead their own memory is asked for: a batch is larger than the caches near the core."""
FAR, NEAR = 12, 6
"""How many commands ahead the two stages of `_look_ahead` work."""
LARGE_ORDERS = 8_192
"""Slots of orders from which on they look: what is in the second-level cache anyway is slower with it, by a sixth."""
SLOT_MASK = (1 << SLOT_BITS) - 1
END, SHORT_OF_EVENTS, SHORT_OF_ACCOUNTS = int(Stop.END), int(Stop.EVENTS), int(Stop.ACCOUNTS)
SHORT_OF_INSTRUMENTS, SHORT_OF_POSITIONS = int(Stop.INSTRUMENTS), int(Stop.POSITIONS)
SHORT_OF_ORDERS, SHORT_OF_LEAVES, SHORT_OF_NODES = int(Stop.ORDERS), int(Stop.LEAVES), int(Stop.NODES)
SHORT_OF_SHARES = int(Stop.SHARES)
NEW_ORDER, CANCEL, AMEND, MASS_CANCEL = int(Kind.NEW_ORDER), int(Kind.CANCEL), int(Kind.AMEND), int(Kind.MASS_CANCEL)
QUOTE, OPEN_ACCOUNT, NOMINATE, PAYOUT = int(Kind.QUOTE), int(Kind.OPEN_ACCOUNT), int(Kind.NOMINATE), int(Kind.PAYOUT)
LIST, DELIVER, SET_BAND = int(Kind.LIST), int(Kind.DELIVER), int(Kind.SET_BAND)
TRANSFER_CASH, ISSUE_SHARES, MOVE_SHARES = int(Kind.TRANSFER), int(Kind.ISSUE_SHARES), int(Kind.MOVE_SHARES)
NONE, MMP_FROZEN = int(Reason.NONE), int(Reason.MMP_FROZEN)


@inlined
def _events_at_most(s, h, c):
    """A bound on the events of a command: an order's own three and a trade a lot; else one for everything there is."""
    if c.kind == NEW_ORDER:
        return 3 + min(max(c.qty, 0), h.open_orders)
    if c.kind == AMEND:
        lots = c.qty
        if lots == UNCHANGED:
            lots = s.orders[min(c.order_id & SLOT_MASK, len(s.orders) - 1)].leaves_qty
        return 3 + min(max(lots, 0), h.open_orders)
    return 3 + h.open_orders + h.accounts_used + 2 * h.positions_live


@inlined
def _short_of(s, h, c, grown):
    """What has to grow before the command may run; END when nothing has to.

    Bit n of `grown` says that the pool of Stop n is as large as it may be: full, it is the command's refusal, not a stop.
    """
    free_events = len(s.events) - (h.event_seq - s.batch[0].first_event_seq)
    if c.kind == CANCEL:
        return END if free_events > 0 else SHORT_OF_EVENTS
    if free_events < _events_at_most(s, h, c):
        return SHORT_OF_EVENTS
    if h.orders_free == NIL or h.positions_used >= len(s.positions) or h.leaves_used >= len(s.leaves):
        return _short_of_pool(s, h, c, grown)
    if h.nodes_used + 2 > len(s.nodes) or c.kind == OPEN_ACCOUNT or c.kind == LIST:
        return _short_of_pool(s, h, c, grown)
    if c.kind >= ISSUE_SHARES:
        return _short_of_pool(s, h, c, grown)
    return END


@kernel
def _short_of_pool(s, h, c, grown):
    if h.orders_free == NIL and h.orders_used >= len(s.orders) and grown >> SHORT_OF_ORDERS & 1 == 0:
        return SHORT_OF_ORDERS
    if h.positions_free == NIL and h.positions_used >= len(s.positions) and grown >> SHORT_OF_POSITIONS & 1 == 0:
        return SHORT_OF_POSITIONS
    if grown >> SHORT_OF_LEAVES & 1 == 0 and not has_leaf(s):
        return SHORT_OF_LEAVES
    if grown >> SHORT_OF_NODES & 1 == 0 and not has_nodes(s):
        return SHORT_OF_NODES
    if c.kind == OPEN_ACCOUNT and h.accounts_used >= len(s.accounts) and grown >> SHORT_OF_ACCOUNTS & 1 == 0:
        return SHORT_OF_ACCOUNTS
    if c.kind == LIST and h.instruments_used >= len(s.books) and grown >> SHORT_OF_INSTRUMENTS & 1 == 0:
        return SHORT_OF_INSTRUMENTS
    if c.kind >= ISSUE_SHARES and not shares.has_share(s) and grown >> SHORT_OF_SHARES & 1 == 0:
        return SHORT_OF_SHARES
    return END


@kernel
def _reject(s, c, reason):
    # The commands with another body have other things where an order's are.
    is_other = OPEN_ACCOUNT <= c.kind <= NOMINATE or c.kind == PAYOUT or c.kind == LIST or c.kind == DELIVER
    is_other = is_other or c.kind == SET_BAND or TRANSFER_CASH <= c.kind <= MOVE_SHARES
    has_id = not is_other and c.kind != NEW_ORDER and c.kind != MASS_CANCEL and c.kind != QUOTE
    matching.reject(s, c, 0 if is_other else c.side, c.order_id if has_id else 0, reason)
    if reason == MMP_FROZEN:
        say_until(s, c.account, c.group)


@inlined
def _look_ahead(s, far, near):
    """Start the memory accesses of coming commands early: in large books they are what a command waits for.

    In two stages, because what a cancel touches besides its order (the neighbours in the queue, the level, the position)
    is found in the order. Nothing is checked: a number out of bounds makes a useless prefetch, and is refused in its turn.
    """
    prefetch(s.accounts, far.account)
    if far.kind == NEW_ORDER:
        prefetch(s.books, far.instrument)
        prefetch(s.sides, 2 * far.instrument)
        prefetch(s.index, home_of(s, far.account, far.instrument))
    else:
        prefetch(s.orders, far.order_id & SLOT_MASK)
    if near.kind == NEW_ORDER:
        prefetch(s.positions, s.index[home_of(s, near.account, near.instrument)])
        number = 2 * near.instrument + near.side
        if 0 <= number < len(s.sides):
            level = likely_level(s.sides[number], near.side, near.price)
            prefetch(s.levels, level)
            prefetch(s.leaves, level // FAN)
        return
    slot = near.order_id & SLOT_MASK
    if slot < len(s.orders):
        order = s.orders[slot]
        prefetch(s.orders, order.next)
        prefetch(s.orders, order.prev)
        prefetch(s.levels, order.level)
        prefetch(s.leaves, order.level // FAN)
        prefetch(s.positions, order.position)
        prefetch(s.sides, order.side_index)
        prefetch(s.books, order.side_index // 2)


@inlined
def _surely(s, h):
    """How many single orders, cancels and amends have room whatever they do; zero says only that one has to look.

    Each takes a slot, a position, a leaf and two nodes at the most. Its events are its own two and its trades; and of the
    trades of n such commands n leave their maker in the book, each other one takes away an order that rested or one of the n.
    """
    free_events = len(s.events) - (h.event_seq - s.batch[0].first_event_seq)
    room = min(len(s.orders) - h.orders_used, len(s.positions) - h.positions_used)
    room = min(room, len(s.leaves) - h.leaves_used, (len(s.nodes) - h.nodes_used) // 2)
    return min(room, (free_events - h.open_orders) // 4)


@kernel
def apply_batch(s, start, count, grown):
    """Apply commands[start:count]. Returns the number of events, or STOPPED; then `batch` says where and why."""
    b = s.batch[0]
    h = s.header[0]
    b.first_event_seq = h.event_seq
    b.grown = grown
    b.stop = END
    done = count
    now_ns = h.now_ns
    last_to_look = count - FAR if h.orders_used > LARGE_ORDERS else 0
    sure = 0
    commands, heads = s.commands, s.heads
    for i in range(start, count):
        c = commands[i]
        prefetch(commands, i + STREAM)
        if i < last_to_look:
            _look_ahead(s, commands[i + FAR], commands[i + NEAR])
        kind = c.kind
        if sure <= 0:
            sure = unlikely(_surely(s, h))
        if sure <= 0 or kind > AMEND:
            short = _short_of(s, h, c, grown)
            sure = 0
            if short != END:
                b.stop = unlikely(short)
                done = i
                break
        sure -= 1
        now_ns = max(now_ns, c.ts_ns)
        if kind == NEW_ORDER:
            reason = matching.new_order(s, c, heads[i].terms)
        elif kind == CANCEL:
            reason = matching.cancel(s, c)
        elif kind == AMEND:
            reason = matching.amend(s, c)
        else:
            reason = unlikely(special.apply_other(s, c, i, now_ns))
        if reason != NONE:
            if unlikely(reason) == SPECIAL:
                sure = 0
                reason = special.apply_order(s, c, now_ns)
            if reason < NONE:
                b.stop = -reason
                done = i
                break
            if reason != NONE:
                _reject(s, c, reason)
    b.done = done
    h.now_ns = now_ns
    if done > start:
        h.applied_seq = s.commands[done - 1].seq
    return h.event_seq - b.first_event_seq if done == count else STOPPED


@kernel
def _follow(s, count):
    """Whether the commands' numbers go on from the last one applied."""
    first = s.commands[0].seq
    return first == s.header[0].applied_seq + 1 and s.commands[count - 1].seq - first == count - 1


@door
def apply_on(address, commands, start, grown):
    """`apply_batch` on the state at `address`, an array of COMMAND; NOT_NEXT where the numbers do not follow."""
    table = carray(pointer(address), (ARRAYS, 2), np.int64)
    count = len(commands)
    for row in (1, 2, 3, 4):
        table[row, 0] = commands.ctypes.data
        table[row, 1] = count
    s = state_at(address)
    if start == 0 and count > 0 and not _follow(s, count):
        return NOT_NEXT
    return apply_batch(s, start, count, grown)


@kernel
def _index_all(s):
    h = s.header[0]
    for slot in range(h.positions_used):
        if s.positions[slot].account != 0:
            index_position(s, slot)
    for slot in range(h.groups_used):
        if s.groups[slot].account != 0:
            index_group(s, slot)
    for slot in range(h.client_ids_used):
        if s.client_ids[slot].account != 0:
            index_id(s, slot)


@door
def index_at(address):
    """Fill the empty indexes."""
    _index_all(state_at(address))


def as_commands(records: NDArray[np.void]) -> NDArray[np.void]:
    """The records as a contiguous, writable array of COMMAND; a copy where they are not. ValueError for another size."""
    if records.dtype.itemsize != COMMAND.itemsize:
        raise ValueError(f"a command has {COMMAND.itemsize} bytes, these have {records.dtype.itemsize}")
    return np.require(records, requirements=("C", "W", "A")).view(COMMAND)


class Engine:
    """The exchange: commands in, events out, one at a time and in order. Not safe to call from two threads."""

    def __init__(self, limits: Limits | None = None, memory: Memory | None = None) -> None:
        self.memory = memory or Memory(limits or Limits())
        self._events = aligned(FIRST_EVENTS, "events")
        self._table = np.zeros((len(State._fields), 2), np.int64)
        self._grown = 0
        self._bind()
        if JIT and not apply_on.overloads:
            # Loads the machine code, or compiles it. From then on the door takes arrays of COMMAND alone: for each other
            # kind of array numba would compile all of the engine anew.
            apply_on(self._address, np.zeros(0, COMMAND), 0, 0)
            apply_on.disable_compile()
        self._reindex()

    @classmethod
    def from_bytes(cls, data: bytes, limits: Limits | None = None) -> Self:
        """The engine that `to_bytes` was called on. Raises ValueError where the bytes are no state, or exceed the limits."""
        return cls(memory=Memory.from_bytes(data, limits or Limits()))

    def set_limits(self, limits: Limits) -> None:
        """Go on under other limits, as after a restart. Raises ValueError where the state exceeds them."""
        self.memory = Memory.from_bytes(self.to_bytes(), limits)
        self._grown = 0
        self._bind()
        self._reindex()

    def to_bytes(self) -> bytes:
        """Everything the engine remembers."""
        return self.memory.to_bytes()

    def state_hash(self) -> str:
        """SHA-256 of everything remembered: the same commands give the same hash, in any batches, on any machine."""
        return self.memory.hash()

    def dump(self) -> dict[str, Any]:
        """The state as plain Python values; see engine/dump.py."""
        return dump(self.memory)

    @property
    def applied_seq(self) -> int:
        """The log's number of the last command applied."""
        return int(self.memory.header["applied_seq"])

    @property
    def event_seq(self) -> int:
        """The number of the last event emitted."""
        return int(self.memory.header["event_seq"])

    @property
    def now_ns(self) -> int:
        """The latest time any command carried."""
        return int(self.memory.header["now_ns"])

    def apply(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Apply commands in order and return their events, an EVENT array that is valid until the next call.

        The first command's `seq` must be `applied_seq + 1` and the rest count on from it (ValueError); commands that are
        refused for what they ask are REJECTED events, never exceptions.
        """
        events = self._call(commands, 0)
        if events >= 0:
            return self._events[:events]
        if events == NOT_NEXT:
            numbers = f"{commands['seq'][0]} to {commands['seq'][-1]}, {len(commands)} of them"
            raise ValueError(f"commands {numbers}, do not follow command {self.applied_seq}")
        return self._apply_in_parts(commands)

    def _apply_in_parts(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        # The first part has run already, up to the command that may not have room.
        parts = []
        events = -1
        done_before = 0
        while events < 0:
            batch = self.memory.arrays["batch"][0]
            emitted = self.event_seq - int(batch["first_event_seq"])
            parts.append(self._events[:emitted].copy())
            done = int(batch["done"])
            self._make_room(Stop(int(batch["stop"])), stuck=emitted == 0 and done == done_before)
            done_before = done
            events = self._call(commands, done)
        parts.append(self._events[:events].copy())
        return np.concatenate(parts)

    def _make_room(self, stop: Stop, stuck: bool) -> None:
        if stop == Stop.EVENTS:
            if stuck:
                self._events = aligned(2 * len(self._events), "events")
        elif not self.memory.grow(stop.name.lower()):
            self._grown |= 1 << stop
        self._bind()
        if stop.name.lower() in INDEXES:
            self._reindex()

    def _bind(self) -> None:
        arrays = self.memory.arrays
        arrays["events"], arrays["money"] = self._events, self._events.view(MONEY)
        for row, name in enumerate(State._fields):
            self._table[row] = arrays[name].ctypes.data, len(arrays[name])
        self._address = self._table.ctypes.data

    def _call(self, commands: NDArray[np.void], start: int) -> int:
        if not JIT:
            return self._interpret(commands, start)
        try:
            return apply_on(self._address, commands, start, self._grown)  # type: ignore[no-any-return]
        except TypeError:
            # Not what the door was compiled for: records under another name, read-only, or not one after the other.
            return int(apply_on(self._address, as_commands(commands), start, self._grown))

    def _interpret(self, commands: NDArray[np.void], start: int) -> int:
        commands = as_commands(commands)
        arrays = self.memory.arrays
        arrays["commands"], arrays["transfers"] = commands.view(COMMAND), commands.view(TRANSFER)
        arrays["listings"], arrays["heads"] = commands.view(LISTING), commands.view(HEAD)
        s = self.memory.state()
        if start == 0 and len(commands) > 0 and not _follow(s, len(commands)):
            return NOT_NEXT
        return int(apply_batch(s, start, len(commands), self._grown))

    def _reindex(self) -> None:
        for index in INDEXES.values():
            self.memory.arrays[index][:] = NIL
        if JIT:
            index_at(self._address)
        else:
            _index_all(self.memory.state())


def warm_up() -> bool:
    """Load the compiled door, compiling it when it is not in the cache. True when it was compiled."""
    if not JIT:
        return False
    Engine()
    return bool(apply_on.stats.cache_misses)
